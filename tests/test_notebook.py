"""examples/notebook.py runs as a notebook, and examples/notebook.ipynb is made from it.

Run: pytest -m slow tests/test_notebook.py
Make the notebook again: python tests/test_notebook.py
"""

import os
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

jupytext = pytest.importorskip("jupytext", reason="the extra `test` brings it")
nbclient = pytest.importorskip("nbclient", reason="the extra `test` brings it")
SOURCE, NOTEBOOK = ROOT / "examples" / "notebook.py", ROOT / "examples" / "notebook.ipynb"


def execute(folder: Path = ROOT / "examples") -> Any:
    """Return the script as a notebook that has run in a folder, on the reviews there."""
    os.environ["PYTHONPATH"] = str(ROOT)  # minibert need not be installed
    notebook = jupytext.read(SOURCE)
    place = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, kernel_name="python3", resources=place, coalesce_streams=True
    )
    client.execute()
    return notebook


@pytest.mark.slow
def test_it_runs_and_shows_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # and is restored
    lines = (ROOT / "examples" / "reviews.csv").read_text(encoding="utf-8").splitlines(True)
    (tmp_path / "reviews.csv").write_text("".join(lines[:301]), encoding="utf-8")
    notebook = execute(tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    printed = "".join(output.get("text", "") for output in outputs)
    assert "the best epoch is" in printed and "model.safetensors" in printed
    assert "texts/s" not in printed  # the bar, of which each state covers the one before


def test_the_notebook_is_made_from_the_script():
    """Its cells are those of the script, and each has run."""
    shown, expected = (jupytext.read(file) for file in (NOTEBOOK, SOURCE))
    assert [(x.cell_type, x.source) for x in shown.cells] == [
        (x.cell_type, x.source) for x in expected.cells
    ]
    assert all(cell.execution_count for cell in shown.cells if cell.cell_type == "code")


if __name__ == "__main__":
    jupytext.write(execute(), NOTEBOOK)
