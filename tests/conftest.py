"""The fixtures of all tests. Run all tests: pytest"""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import WORDS, finish_script, write_checkpoint
from largest_errors import LargestErrors


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of largest_errors.py."""
    help = "print the largest difference that each test found between tensors"
    parser.addoption("--largest-errors", action="store_true", help=help)


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin of largest_errors.py if it is requested."""
    if config.getoption("--largest-errors"):
        config.pluginmanager.register(LargestErrors())


# It draws pictures of each run, which takes longer than to train a tiny model.
try:
    import matplotlib
except ImportError:
    matplotlib = None
sys.modules["matplotlib"] = None  # type: ignore[assignment]


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matplotlib, which is hidden from other tests."""
    monkeypatch.setitem(sys.modules, "matplotlib", matplotlib)


# Tiny models gain nothing from threads, and lose much on a busy machine.
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)


@pytest.fixture(params=["bert", "distilbert", "roberta", "electra"])
def family(request: pytest.FixtureRequest) -> str:
    """Each family in turn."""
    return str(request.param)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A bare tiny DistilBERT on disk."""
    return write_checkpoint(tmp_path / "checkpoint")


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A CSV that a tiny model can learn: 60 texts in two classes, none twice."""
    lines = ["text,label"]
    for i in range(30):
        a, b = WORDS[5 + i % 20], WORDS[5 + (7 * i + 3) % 20]
        lines += [
            f"the {a} was good great {b} {i},positive",
            f"the {b} was bad awful {a} {i},negative",
        ]
    file = tmp_path / "reviews.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def run_script(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run a script as a process in an empty folder; returns what it printed."""
    place = tmp_path / "work"
    place.mkdir()

    def run(script: str, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        return finish_script(script, *words, **{"cwd": place, **options})

    run.place = place  # type: ignore[attr-defined]
    yield run


def pytest_collection_finish() -> None:
    """Exclude imported objects from garbage collection; each collection would scan them."""
    gc.freeze()
