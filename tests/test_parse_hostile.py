"""Texts that nobody would write: `parse` answers each with a loss, or with a ValueError or TypeError of one line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lossmith as ls
from lossmith import names

WORDS = sorted(
    {row.name for row in ls.catalogue()}
    | {field for row in ls.catalogue() for field in row.fields}
    | {
        *names.ALIASES,
        "ramp",
        "@paper",
        "start",
        "step",
        "stop",
        "name",
        "none",
        "true",
        "ce",
        "dice",
        "__class__",
        "eval",
        "é",
        "µ",
    }
)
NUMBERS = (
    *(
        "0",
        "1",
        "2.5",
        ".5",
        "1e999",
        "1e-999",
        "-1e999",
        "nan",
        "inf",
        "9" * 310,
        "9" * 5000,
        "1e",
        "0x1f",
        "1_0",
        "٣",
    ),
    *("1j", "0" * 40, "255", "-1"),
)
SIGNS = [*"+-*(),=[]'\"/%{}<>;:@\\", " ", "\n", "\x00", "\x1b[2J", "\u202e", "\ud800", "'", "'a'", '"<b>"']
PIECES = st.lists(st.sampled_from([*WORDS, *NUMBERS, *SIGNS]), max_size=30).map("".join)
VALID = (
    "dice + 0.5*focal(gamma=2)",
    "2*(ce(class_weight=[1, 2, 0.5]) - dice(classes=(0, 1)))",
    "(1 - ramp(start=0, step=0.01, stop=1, name='a'))*gdl + ramp(start=0, step=0.01, stop=1, name='a')*boundary",
    "nonadjacency(forbidden=[[0, 1], [1, 0]], window=3)",
    "qfl + 2*giou + 0.25*dfl",
    "focal@paper + 0.5*tversky@paper(smooth=1) - dice @ paper",
    "gfl@paper(box=ciou@paper)",
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A text that reads, with a few pieces of it left out, doubled, exchanged or replaced."""
    parts = re.findall(r"\w+|\W", draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(parts) - 1))
        other = draw(st.sampled_from([*WORDS, *NUMBERS, *SIGNS, *parts, ""]))
        parts[at : at + draw(st.integers(0, 2))] = [other] * draw(st.integers(1, 3))
    return "".join(parts)


def said(text: str) -> str:
    """What is wrong with a text, "" if nothing is; any other exception than the two that `parse` promises goes on."""
    try:
        loss = ls.parse(text)
    except (ValueError, TypeError) as error:
        message = str(error)
        if len(text) < 1000:
            assert len(message.splitlines()) in (1, 3), message
        assert "digits; use sys" not in message
        assert all(c.isprintable() for line in message.split("\n") for c in line.replace("\ud800", "")), repr(message)
        return message
    assert repr(ls.parse(repr(loss))) == repr(loss)
    return ""


@settings(max_examples=250, deadline=None)
@given(st.one_of(st.text(max_size=60), PIECES, mutated(), mutated()))
def test_any_text(text: str) -> None:
    said(text)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    "text",
    [
        "{}*ce",
        "focal(gamma={})",
        "ce(ignore_index={})",
        "ce(class_weight=[{}, 1])",
        "dice(classes=[{}])",
        "lovasz(bins={})",
        "ramp(start=0, step={}, stop=1)*ce",
        "nonadjacency(window={})",
        "dice({}=1)",
        "ce + {}",
    ],
)
def test_any_number(text: str, number: str) -> None:
    said(text.format(number))


def test_numbers_without_end() -> None:
    assert said(f"ce(ignore_index={'9' * 5000})").startswith("an integer of 5,000 digits is too large: at most 300\n")
    assert said(f"focal(gamma={'0' * 299}2)") == ""


def test_how_long_a_text_may_be() -> None:
    """Work is in proportion to the length (test_parse.py), so that these bounds bound the time."""
    assert said("ce" + " " * 99_998) == ""
    assert said("ce" + " " * 99_999) == "a text of 100,001 characters is too long: at most 100,000"
    assert said(" + ".join(["ce"] * 1000)) == ""
    assert said(" + ".join(["ce"] * 1001)).startswith("too many losses: at most 1,000\n")
    matrix = [[0] * 150] * 150
    assert ls.parse(f"nonadjacency(forbidden={matrix})").forbidden.shape == (150, 150)


def test_control_characters_reach_no_terminal() -> None:
    text = "dice + \x1b[2J"
    assert said(text) == "unexpected '\\x1b'\n  dice +  [2J\n         ^"
    assert said("ramp(start=0, step=1, stop=2, name='\x1b[2J')*ce").startswith(
        "a 'string' has printable characters only"
    )
    assert said("ramp(start=0, step=1, stop=2, name='größer <b>')*ce") == ""


def test_a_text_is_read_never_run() -> None:
    for path in [
        Path(names.__file__),
        Path(ls.settings.__file__),
        Path(ls.schedule.__file__),
        Path(ls.bounds.__file__),
    ]:
        called = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not called & {"eval", "exec", "compile", "__import__", "globals", "open"}, path
    for text in (
        "__import__('os').getcwd()",
        "dice(smooth=().__class__)",
        "ce if 1 else dice",
        "ce.forward",
        "lambda: ce",
    ):
        assert said(text)
