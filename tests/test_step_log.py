"""--log-json and --tensorboard: the figures of the steps, as other programs read them.

Run: pytest tests/test_step_log.py
"""

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import write_checkpoint

import minibert.training.step_log as step_log
from minibert.commands.options import RunOptions
from minibert.errors import InputError

# 70 training texts, 2 a step: 35 steps an epoch.
OPTIONS = ("--epochs", "2", "--batch-size", "2", "--max-length", "9", "--split", "70:15:15")


@pytest.fixture
def words(tmp_path: Path) -> list[str | Path]:
    write_checkpoint(tmp_path / "bert", "bert")
    rows = [f"{('a dull plot', 'great fun')[i % 2]} {i},{i % 2}" for i in range(100)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]))
    files = ("--model", tmp_path / "bert", "--data", tmp_path / "reviews.csv")
    return ["train.py", *files, *OPTIONS, "--no-baseline", "--log-json", "--out", tmp_path / "run"]


def entries(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a log without the speed, which is another each time."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{x: y for x, y in line.items() if x != "train/texts_per_second"} for line in lines]


def test_every_tenth_step_and_each_epoch_have_a_line(
    run_script: Callable[..., Any], words: list[str | Path], tmp_path: Path
):
    done = run_script(*words)
    assert done.returncode == 0, done.stderr
    log = entries(tmp_path / "run" / "log.jsonl")
    assert [(x["step"], x.get("epoch")) for x in log] == [
        *((10, None), (20, None), (30, None), (35, 1)),
        *((40, None), (50, None), (60, None), (70, None), (70, 2)),
    ]
    assert log[0].keys() == {
        *("step", "train/loss", "train/gradient_norm", "rate/encoder", "rate/head")
    }
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    rows = [dict(zip(history[0].split(","), x.split(","), strict=True)) for x in history[1:]]
    for row, epoch in zip(rows, (log[3], log[-1]), strict=True):
        assert float(row["validation_loss"]) == epoch["validation/loss"]
    assert log[-2]["rate/head"] == pytest.approx(float(rows[-1]["learning_rate"]))


def test_tensorboard_reads_the_same_figures(
    run_script: Callable[..., Any], words: list[str | Path], tmp_path: Path
):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run_script(*words, "--tensorboard").returncode == 0
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    read.Reload()
    log = entries(tmp_path / "run" / "log.jsonl")
    names = set(itertools.chain(*log)) - {"step"}
    assert set(read.Tags()["scalars"]) == {*names, "train/texts_per_second"}
    for name in names:
        expected = [(x["step"], x[name]) for x in log if name in x]
        found = [(x.step, x.value) for x in read.Scalars(name)]
        assert [x for x, _ in found] == [x for x, _ in expected]
        assert [x for _, x in found] == pytest.approx([x for _, x in expected], rel=1e-6)


def test_without_tensorboard_s_package_the_run_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(step_log, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install tensorboard"):
        step_log.check_tensorboard()


def test_a_logistic_regression_has_no_steps_to_log():
    with pytest.raises(InputError, match="has no steps; drop --tensorboard and --log-json"):
        RunOptions(head="logistic", log_json=True)


def state_at(step: int, **changes: Any) -> Any:
    """A state of a run that does not clip gradients."""
    options = SimpleNamespace(clip=0)
    optimizer = SimpleNamespace(param_groups=[{"name": "head", "lr": 0.5}])
    given = {"step": step, "texts": 4, "epoch_seconds": 1.0, "wait_for": float} | changes
    return SimpleNamespace(options=options, optimizer=optimizer, **given)


def test_figures_that_are_not_known_are_left_out(tmp_path: Path):
    file, state = tmp_path / "log.jsonl", state_at(10)
    step_log.StepLog(file, None, state).on_step(state, torch.tensor(torch.nan))
    assert entries(file) == [{"step": 10, "rate/head": 0.5}]


def test_a_run_that_died_before_its_first_state_is_logged_from_its_beginning(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    file, events = tmp_path / "log.jsonl", tmp_path / "events"
    for last in (20, 30):
        log = step_log.StepLog(file, events, state_at(0))
        for step in range(10, last + 1, 10):
            log.on_step(state_at(step), torch.tensor(0.25))
        log.close()
    read = EventAccumulator(str(events))
    read.Reload()
    steps = [10, 20, 30]
    assert [x.step for x in read.Scalars("train/loss")] == steps
    assert [line["step"] for line in entries(file)] == steps


def test_what_is_no_log_is_not_written_to(tmp_path: Path):
    """A pipe without a reader would stop the run for ever."""
    os.mkfifo(tmp_path / "log.jsonl")
    (tmp_path / "tensorboard").write_text("mine")
    for given in ((tmp_path / "log.jsonl", None), (None, tmp_path / "tensorboard")):
        with pytest.raises(InputError, match="is something else than a log; remove it"):
            step_log.StepLog(*given, state_at(0))


def test_a_line_without_an_end_is_dropped(tmp_path: Path):
    file, state = tmp_path / "log.jsonl", state_at(30)
    file.write_text('{"step": 10}\n[]\n{"step": 20}')
    step_log.StepLog(file, None, state).on_step(state, torch.tensor(0.25))
    assert [line["step"] for line in entries(file)] == [10, 30]
