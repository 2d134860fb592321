"""The notebooks run, in a kernel of their own as a reader's do, and none holds what a run has left in it."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
LEARNT = {  # true at the end, or its pictures show nothing
    "classification": "(logits['ce, inverse'].argmax(1) == new_labels).float().mean() > 0.5",
    "detection": "iou.mean() > 0.5",
    "segmentation_2d": "score > 0.5",
    "segmentation_3d": "parts['dice'] < 0.3",
}


def notebook(name: str) -> nbformat.NotebookNode:
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def test_there_is_one_for_each_task():
    assert sorted(path.stem for path in EXAMPLES.glob("*.ipynb")) == sorted(LEARNT)


@pytest.mark.parametrize("name", LEARNT)
def test_outputs_are_not_kept(name):
    for cell in notebook(name).cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None), cell.id


@pytest.mark.parametrize("name", LEARNT)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq", "ignore::DeprecationWarning:jupyter_client")
def test_runs(name, monkeypatch):
    """From the first cell to the last, with a picture, the terms of a loss, and nothing on stderr."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # a built-in set that is not in the cache is not fetched
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    read = notebook(name)
    read.cells.append(nbformat.v4.new_code_cell(f"assert {LEARNT[name]}"))
    # The time is for machines that do much else beside; on two free cores each takes a few seconds.
    run = nbclient.NotebookClient(read, timeout=900, startup_timeout=300, resources={"metadata": {"path": EXAMPLES}})
    cells = [cell for cell in run.execute().cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any(".parts(" in cell.source and cell.outputs for cell in cells)
