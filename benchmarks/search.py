"""Does the short way end where the long one does: `python benchmarks/search.py --out build/search`.

The short way is `audit`, its first suggestion, and the `compare --budget` that it names. The long way is every
candidate at three learning rates with ten seeds. Both train alike; `--how` shortens a trial for both. Five folders are
made out of real images: rare and mostly empty tiles; unclear borders as 255; a boundary as a class; slices of blocks
that must stay together; a volume. What is written: the pick, how far below the best configuration of the long way it is
at its own rate, over the seeds that the short way did not see, and what each way cost.

A folder of --out keeps its trials: stopped, the same command goes on. Five sets with short trials take two hours of two
cores.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image
from scipy import stats  # type: ignore[import-untyped]

from lossmith.lab.data.builtin import find_folder
from lossmith.lab.run.race import RATES_SEED, score_of
from lossmith.lab.say.decision import MARGIN, on_logit_scale
from lossmith.lab.settings import RATES as MULTIPLES
from lossmith.lab.settings import USUAL_RATE

Array = np.ndarray[Any, Any]
RATES = tuple(USUAL_RATE * rate for rate in MULTIPLES)  # those that `--lr auto` chooses from
CANDIDATES = ("ce", "dice", "dice + ce", "tversky", "focal", "lovasz")
SIDE = 320  # of a window


# ------------------------------------------------------------------------------------------------------- the folders


def _read(folder: Path, stem: str) -> tuple[Array, Array]:
    return tuple(np.asarray(Image.open(folder / part / f"{stem}.png")) for part in ("images", "masks"))  # type: ignore[return-value]


def _save(folder: Path, stem: str, image: Array, mask: Array) -> None:
    for part, pixels in (("images", image), ("masks", mask)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / part / f"{stem}.png")


def _split(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    lines = ["stem,split,group", *(",".join(row) for row in rows)]
    (folder / "split.csv").write_text("\n".join(lines) + "\n")


def _side(frame: int) -> str:
    return "train" if frame < 12 else "unused" if frame < 14 else "validation"


def tiles(folder: Path) -> list[str]:
    """Bacteria in tiles of 128; so many empty ones that they are 58 %. The tiles of a frame stay together."""
    source, chance = find_folder("bacteria", print), np.random.default_rng(0)
    held: list[tuple[str, str, Array, Array]] = []
    empty: list[tuple[str, str, Array, Array]] = []
    for frame in range(20):
        image, mask = _read(source, f"frame_{frame:02d}")
        for y in range(0, image.shape[0] - 127, 128):
            for x in range(0, image.shape[1] - 127, 128):
                tile = np.s_[y : y + 128, x : x + 128]
                stem = f"frame{frame:02d}_{y // 128}{x // 128}"
                (held if mask[tile].any() else empty).append((stem, _side(frame), image[tile], mask[tile]))
    chosen = chance.permutation(len(empty))[: round(len(held) * 0.58 / 0.42)]
    rows = []
    for stem, side, image, mask in [*held, *(empty[i] for i in sorted(chosen))]:
        _save(folder, stem, image, mask)
        rows.append((stem, side, stem[:7]))
    _split(folder, rows)
    return []


def _frames(folder: Path, label: Callable[[Array], Array]) -> None:
    """A window of each frame, with all of the colony in it."""
    source = find_folder("bacteria3", print)
    rows = []
    for frame in range(20):
        image, mask = _read(source, f"frame_{frame:02d}")
        y, x = (
            int(np.clip(at.mean() - SIDE / 2, 0, size - SIDE))
            for at, size in zip(mask.nonzero(), mask.shape, strict=True)
        )
        window = np.s_[y : y + SIDE, x : x + SIDE]
        _save(folder, f"frame{frame:02d}", image[window], label(mask[window]).astype(np.uint8))
        rows.append((f"frame{frame:02d}", _side(frame), f"frame{frame:02d}"))
    _split(folder, rows)


def unclear(folder: Path) -> list[str]:
    """Bacteria whose outermost pixels are 255, which counts nowhere."""
    _frames(folder, lambda mask: np.where(mask == 2, 255, mask))
    return ["--ignore-index", "255"]


def boundary(folder: Path) -> list[str]:
    """Bacteria with their boundary as a class of its own."""
    _frames(folder, lambda mask: mask)
    return []


# The eight groups of regions as three: cortex, cerebellum, and what lies deep, 1 % of a head.
_GROUPS = np.array([0, 1, 2, 3, 3, 3, 3, 3, 3], dtype=np.uint8)


def _halves() -> dict[str, tuple[nibabel.Nifti1Image, Array]]:
    source = find_folder("brain", print)
    read = {
        half: [nibabel.load(source / part / f"{half}.nii.gz") for part in ("images", "masks")]
        for half in ("left", "right")
    }  # type: ignore[attr-defined]
    return {half: (image, _GROUPS[np.asarray(mask.dataobj).astype(int)]) for half, (image, mask) in read.items()}


def slices(folder: Path) -> list[str]:
    """A head as slices; nine of a block, as of one patient, which a pattern keeps together."""
    for half, (volume, mask) in _halves().items():
        image = np.asarray(volume.dataobj).astype(np.uint8)
        for z in range(8, image.shape[2] - 8):
            _save(folder, f"{half}{z // 9}_{z:03d}", image[:, :, z], mask[:, :, z])
    return ["--group-by", "^[^_]+"]


def volume(folder: Path) -> list[str]:
    """A head in 3-D: one half trains, the other is held back."""
    for half, (image, mask) in _halves().items():
        for part, voxels in (("images", image), ("masks", nibabel.Nifti1Image(mask, image.affine))):  # type: ignore[no-untyped-call]
            (folder / part).mkdir(exist_ok=True)
            nibabel.save(voxels, folder / part / f"{half}.nii.gz")
    (folder / "split.csv").write_text("stem,split\nleft,train\nright,validation\n")
    return []


SETS: dict[str, Callable[[Path], list[str]]] = {f.__name__: f for f in (tiles, unclear, boundary, slices, volume)}


# ---------------------------------------------------------------------------------------------------------- both ways


def lossmith(*words: str) -> Any:
    """What a command answers as JSON."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lossmith"), *words, "--json"], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"lossmith {shlex.join(words)}: status {done.returncode}")
    return json.loads(done.stdout)


def short_way(data: Path, out: Path, options: list[str], how: list[str]) -> dict[str, Any]:
    """From `audit` to the pick, by the command that `audit` prints; `how` is what shortens its trials."""
    answer = out / "short.json"
    if answer.exists():
        return dict(json.loads(answer.read_text()))
    begun = time.monotonic()
    facts = lossmith("audit", str(data), *options)
    words = shlex.split(facts["suggestions"][0]["command"])[1:]
    words[words.index("--out") + 1] = str(out / "short")
    results = lossmith(*words, *how)
    found = {
        "rules": [s["rule"] for s in facts["suggestions"]],
        "command": shlex.join(words),
        "wall": time.monotonic() - begun,
        "losses": results["asked"]["losses"],
        "decision": results["decision"],
        "rates": {loss: tried["used"] for loss, tried in results["rates"].items()},
        "trivial": results["trivial"],
        "ranked_by": results["ranked_by"],
        "machine": results["trials"][0]["machine"],
        "trials": len(results["trials"]),
        "seconds": sum(t["seconds"] for t in results["trials"]),
        "seeds": sorted({t["seed"] for t in results["trials"]} - {RATES_SEED}),
    }
    answer.write_text(json.dumps(found, indent=1))
    return found


def long_way(
    data: Path, out: Path, options: list[str], how: list[str], losses: list[str], seeds: int
) -> dict[tuple[str, float], tuple[list[float], float]]:
    """The scores of each loss at each rate, seed by seed, and the seconds that they took."""
    found: dict[tuple[str, float], tuple[list[float], float]] = {}
    for rate in RATES:
        asked = [word for loss in losses for word in ("--loss", loss)]
        words = ["compare", str(data), *asked, "--lr", f"{rate:g}", "--seeds", str(seeds), *options, *how]
        results = lossmith(*words, "--out", str(out / f"long-{rate:g}"))
        for loss in losses:
            trials = sorted((t for t in results["trials"] if t["loss"] == loss), key=lambda t: t["seed"])
            scores = [score_of(t, results["ranked_by"]) for t in trials]
            found[loss, rate] = scores, sum(t["seconds"] for t in trials)
    return found


def judge(short: dict[str, Any], long: dict[tuple[str, float], tuple[list[float], float]]) -> dict[str, Any]:
    """How far the pick is below the best of the long way, which is chosen by all of its seeds."""
    pick = short["decision"]["use"]
    best = max(long, key=lambda x: float(np.mean(on_logit_scale(long[x][0]))))
    seen = len(short["seeds"]) if pick else 0
    facts: dict[str, Any] = {
        "best": {"loss": best[0], "rate": best[1], "score": float(np.mean(long[best][0]))},
        "cost": {"short": short["seconds"], "long": sum(seconds for _, seconds in long.values())},
        "scores": {f"{loss} @ {rate:g}": scores for (loss, rate), (scores, _) in long.items()},
    }
    if not pick:
        return facts | {"pick": None, "within_noise": False}
    rate = min(RATES, key=lambda r: abs(math.log(r / short["rates"][pick])))
    mine = long[pick, rate][0]
    unseen = [i for i in range(len(mine)) if i >= seen] or list(range(len(mine)))
    gap = np.asarray(long[best][0])[unseen] - np.asarray(mine)[unseen]
    odds = (on_logit_scale(long[best][0]) - on_logit_scale(mine))[unseen]
    low, high = _interval(gap)
    worse = bool(_interval(odds)[0] > 0) and float(np.mean(gap)) > MARGIN
    return facts | {
        "pick": {"loss": pick, "rate": rate, "score": float(np.mean(mine))},
        "below_best": float(np.mean(gap)),
        "interval": [low, high],
        "unseen_seeds": len(unseen),
        "within_noise": not worse,
        "beats_trivial": float(np.mean(mine)) > max(short["trivial"].values()),
    }


def _interval(values: Array) -> tuple[float, float]:
    """95 %, by Student's t."""
    if len(values) < 2 or np.ptp(values) == 0:
        return float(np.mean(values)), float(np.mean(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--how", default="", help="options of compare for both ways: '--steps 60 --crop 64'")
    parser.add_argument("--how-volume", default="", help="the same for the volume")
    parser.add_argument("--budget", default="12m", help="of the short way: a trial that is shorter wants less")
    parser.add_argument("--only-short", action="store_true")
    asked = parser.parse_args()
    answers = asked.out / "search.json"
    for name in asked.sets.split(","):
        data, out = asked.out / "data" / name, asked.out / name
        options_file = asked.out / "data" / f"{name}.json"
        if not options_file.exists():
            shutil.rmtree(data, ignore_errors=True)
            data.mkdir(parents=True)
            options_file.write_text(json.dumps(SETS[name](data)))
        options = json.loads(options_file.read_text())
        out.mkdir(parents=True, exist_ok=True)
        how = shlex.split(asked.how_volume if name == "volume" else asked.how)
        short = short_way(data, out, options, [*how, "--budget", asked.budget])
        print(
            name, "short:", short["decision"]["use"], f"{short['wall']:.0f} s,", short["trials"], "trials", flush=True
        )
        if asked.only_short:
            continue
        losses = list(dict.fromkeys([*CANDIDATES, *short["losses"]]))
        judged = judge(short, long_way(data, out, options, how, losses, asked.seeds))
        every = json.loads(answers.read_text()) if answers.exists() else {"machine": short["machine"], "sets": {}}
        every["sets"][name] = {"short": short, "how": how, "budget": asked.budget, **judged}
        answers.write_text(json.dumps(every, indent=1))
        print(json.dumps({k: v for k, v in judged.items() if k != "scores"}, indent=1), flush=True)


if __name__ == "__main__":
    main()
