"""The command `minibert` runs the same stories as train.py, eval.py and predict.py.

Run: pytest tests/test_console.py
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, write_checkpoint

import minibert
from minibert.__main__ import COMMANDS
from minibert.errors import command_line

Run = Callable[..., subprocess.CompletedProcess[str]]
TEXTS = ("A dull plot", "Great fun")


@pytest.fixture
def console(run_script: Run) -> Run:
    return lambda *words, **options: run_script(["-m", "minibert", *words], **options)


def test_without_a_command_it_lists_the_commands(console: Run):
    listed = console()
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line.split()[0] for line in listed.stdout.splitlines()[2:]] == list(COMMANDS)
    assert console("--help").stdout == listed.stdout
    assert console("--version").stdout == f"minibert {minibert.__version__}\n"


def test_an_unknown_command_is_one_line(console: Run):
    done = console("tr\nain")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: 'tr\\nain' is not a command; choose from train, eval")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_how_it_was_started(console: Run, name: str):
    assert console(name, "--help").stdout.startswith(f"usage: minibert {name} ")


def test_train_and_predict_do_what_the_scripts_do(console: Run, run_script: Run, tmp_path: Path):
    write_checkpoint(tmp_path / "bert", "bert")
    data = tmp_path / "reviews.csv"
    rows = [f"{TEXTS[i % 2]} number {i},{i % 2}" for i in range(40)]
    data.write_text("\n".join(["text,label", *rows]))
    run = tmp_path / "run"
    words = ("--model", tmp_path / "bert", "--data", data, "--epochs", "1", "--max-length", "9")
    words += ("--no-baseline", "--precision", "fp32", "--device", "cpu")
    trained = console("train", *words, "--out", run)
    assert trained.returncode == 0, trained.stderr
    use = f"minibert eval --model {run}; minibert predict --model {run} TEXT"
    assert f"finished: {run} ({use})" in trained.stdout
    again = console("train", "--resume", run)
    scores = f"the run is finished; minibert eval --model {run} scores it"
    assert again.stderr == f"error: --resume {run}: {scores}\n"

    assert run_script("train.py", *words, "--out", tmp_path / "by-script").returncode == 0
    weights = [(x / "model.safetensors").read_bytes() for x in (run, tmp_path / "by-script")]
    assert weights[0] == weights[1]
    predicted = console("predict", "--model", run, *TEXTS)
    assert predicted.stdout == run_script("predict.py", "--model", run, *TEXTS).stdout


@pytest.mark.parametrize(
    ("started", "name", "typed"),
    [
        ("/checkout/train.py", "eval", "python eval.py"),
        ("/checkout/train.py", "explain", "minibert explain"),
        ("/bin/minibert", "eval", "minibert eval"),
        ("notebook.py", "train", "minibert train"),
    ],
)
def test_hints_name_what_the_user_can_type(
    started: str, name: str, typed: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", [started])
    assert command_line(name) == typed


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("minibert ", {"train", "eval", "predict", "explain"}),
        ("minibert tr", {"train "}),
        ("minibert  train --pooli", {"--pooling "}),
        ("minibert train --pooli", {"--pooling "}),
        ("minibert train --pooling ", {"cls", "mean", "pooler"}),
    ],
)
def test_a_shell_completes_commands_options_and_values(
    line: str, expected: set[str], tmp_path: Path
):
    pytest.importorskip("argcomplete")
    asked: dict[str, Any] = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": len(line)}
    asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": tmp_path / "out", "_ARGCOMPLETE_IFS": "\n"}
    environment = {name: str(x) for name, x in asked.items()}
    command = [sys.executable, "-m", "minibert"]
    environment = os.environ | environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert expected <= set((tmp_path / "out").read_text().split("\n"))
