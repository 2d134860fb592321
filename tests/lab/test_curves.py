"""Loss curves: the same picture for every loss of the catalogue."""

import math

import pytest

import lossmith as ls
from lossmith.lab import curves, figures


@pytest.mark.parametrize("name", [row.name for row in ls.catalogue()])
@pytest.mark.parametrize("classes", [1, 2, 4])
def test_every_loss_can_be_drawn(name: str, classes: int) -> None:
    try:
        loss = ls.parse(name, task="multiclass") if classes > 1 else ls.parse(name)
        curve = curves.sample(loss, classes)
    except (TypeError, ValueError) as error:
        pytest.skip(f"{name} takes other input: {error}")
    assert all(math.isfinite(v) for v in curve.value + curve.gradient)
    assert len(curve.q) == len(curve.value) == len(curve.foreground)
    if name in ("entropy", "boundary_f1"):  # what counts for them is certainty, and how it changes between neighbours
        assert curve.value[-1] <= curve.value[0] + 1e-3
    else:
        assert curve.value[-1] < curve.value[0]


def test_cross_entropy_by_hand() -> None:
    curve = curves.sample(ls.parse("ce"))
    assert curve.value == pytest.approx([-math.log(q) for q in curve.q], rel=1e-3, abs=1e-6)
    assert curve.gradient == pytest.approx([1 - q for q in curve.q], rel=1e-2, abs=1e-6)
    assert curve.foreground_pixels == 1 / 16
    assert curve.foreground == pytest.approx([1 / 16] * len(curve.q), rel=1e-3)


def test_multiclass_probabilities() -> None:
    curve = curves.sample(ls.parse("ce"), classes=5)
    assert curve.value[40] == pytest.approx(-math.log(curve.q[40]), rel=1e-4)


def test_drawn() -> None:
    html = figures.curves({"ce": curves.sample(ls.parse("ce"))}, figures.colours(["ce"]))
    assert "Plotly.newPlot(" in html
