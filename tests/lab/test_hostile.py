"""Names that are HTML, terminal codes or rich markup: the page and the terminal show them and obey none of them."""

import html
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from balls import make_labelled
from crowns import make_folder as make_boxes
from discs import make_folder

from lossmith.cli import main
from lossmith.lab.commands import terminal
from lossmith.lab.commands.terminal import PlainConsole, printable
from lossmith.lab.page import figures

SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(2)>'
LOSS = f"ramp(start=0, step=1, stop=2, name='{SCRIPT}%{{x}}')*"
TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "script",
        "body",
        "main",
        "header",
        "h1",
        "h2",
        "p",
        "div",
        "table",
        "tr",
    ),
    *(
        "th",
        "td",
        "small",
        "br",
        "span",
        "code",
        "figure",
        "figcaption",
        "img",
        "dl",
        "dt",
        "dd",
        "pre",
        "strong",
        "ul",
    ),
    *("li", "ol", "section", "details", "summary", "svg", "nav", "a", "thead", "tbody", "em", "sub", "sup", "footer"),
}


class Seen(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def hostile_pixels(folder: Path) -> Path:
    make_folder(folder, images=4, size=32)
    (folder / "classes.txt").write_text(f"ground\n{SCRIPT}\n{IMAGE}\n")
    return folder


def hostile_labels(folder: Path) -> Path:
    make_labelled(folder, images=8, size=16)
    (folder / "classes.txt").write_text(f"ground\n{SCRIPT}\n{IMAGE}\n")
    return folder


def hostile_boxes(folder: Path) -> Path:
    return make_boxes(folder)


def rename_images(folder: Path) -> None:
    """Gives every image and mask a stem that is HTML, in the tables too."""
    stems = sorted({path.name.split(".")[0] for path in (folder / "images").iterdir()}, key=len, reverse=True)
    for path in [*(folder / "images").iterdir(), *(folder / "masks").glob("*")]:
        path.rename(path.with_name(f"<img src=x onerror=alert(3) {path.name}".replace("/", "")))
    for table in folder.glob("*.csv"):
        text = table.read_text()
        for stem in stems:
            text = re.sub(rf"^{stem},", f"<img src=x onerror=alert(3) {stem},", text, flags=re.MULTILINE)
        table.write_text(text)


@pytest.mark.parametrize(
    ("make", "losses"),
    [
        (hostile_pixels, [LOSS + "ce", "dice"]),
        (hostile_labels, [LOSS + "ce"]),
        (hostile_boxes, [f"{LOSS}focal + giou"]),
    ],
)
def test_a_page_shows_names_and_obeys_none(
    make: Callable[[Path], Path], losses: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "<b>data")
    (folder / "SOURCE.txt").write_text(f"{SCRIPT} \x1b[2J\n")
    rename_images(folder)
    words = ["compare", folder, "--out", tmp_path / "out", "--seeds", 1, "--steps", 4, "--batch", 2, "--device", "cpu"]
    if make is not hostile_labels:
        words += ["--crop", 32]
    for loss in losses:
        words += ["--loss", loss]
    assert main([str(word) for word in words]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    text = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    seen = Seen(text)
    assert set(seen.tags) <= TAGS
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert all(value.startswith("data:image/") for name, value in seen.attributes if name == "src")
    assert "&lt;script&gt;alert(1)" in text
    assert (html.escape(IMAGE).replace("&quot;", "&#34;") in text) == (folder / "classes.txt").exists()
    assert "onerror=alert(3)" in text or make is not hostile_pixels  # which shows one image in any case
    plots = re.findall(r"Plotly\.newPlot\((.*?)</script>", page, flags=re.DOTALL)
    assert len(plots) >= 3
    assert sum("name='&lt;script&gt;" in plot for plot in plots) >= 3
    for plot in plots:
        assert not re.search(r"(<|\\u003c)(script|img|b\b)|script(>|\\u003e)%\{x", plot)
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert r"\x1b[2J" in printed.out + printed.err


def test_so_does_an_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = hostile_pixels(tmp_path / "<b>data")
    (folder / "classes.txt").write_text(f"ground\n{SCRIPT}\n{IMAGE}\x1b[2J\n")
    rename_images(folder)
    (folder / "images" / "<script>.xyz\x1b[2J").touch()
    assert main(["audit", str(folder), "--out", str(tmp_path / "out")]) == 0
    page = re.sub(r"<script.*?</script>", "", (tmp_path / "out" / "audit.html").read_text(), flags=re.DOTALL)
    seen = Seen(page)
    assert set(seen.tags) <= TAGS
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)" in page
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err


def test_every_command_prints_through_the_plain_console() -> None:
    sources = {path: path.read_text() for path in Path(terminal.__file__).parent.glob("*.py")}
    assert [path.name for path, text in sources.items() if re.search(r"(?<![\w.])(Console|print)\(", text)] == []


def test_what_a_plot_would_read_in_a_name() -> None:
    assert figures.plain("<b>&lt; %{x}") == "&lt;b&gt;&amp;lt; %&#123;x}"


@pytest.mark.parametrize("name", ["[red]x[/red]", ":bomb:", "a\x1b]0;title\x07b", "\x9b2J", "\ud800"])
def test_a_console_prints_a_name_as_it_is(name: str) -> None:
    from rich.table import Table

    file = io.StringIO()
    console = PlainConsole(file=file, width=200)
    table = Table(name)
    table.add_row(name)
    console.print(name)
    console.print(table)
    shown = name.encode("unicode_escape").decode()
    assert file.getvalue().count(shown) == 3
    file.getvalue().encode()


def test_what_stays_as_it_is() -> None:
    assert printable("größer → 12\u202f% 👩‍🔬") == "größer → 12\u202f% 👩‍🔬"


def test_an_error_is_one_line_whatever_a_file_is_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "a\nb\x1b[2Jc"
    data.touch()
    assert main(["compare", str(data), "--loss", "ce", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert r"/a\nb\x1b[2Jc: is a file" in said
