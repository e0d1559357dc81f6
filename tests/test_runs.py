"""What a run folder keeps, refuses and finds again.

Run: pytest tests/test_runs.py
"""

import csv
import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import PRIOR, a_task, strict_json
from torch import nn

from minibert import run_folders
from minibert.commands.options import Settings
from minibert.data.columns import Columns
from minibert.device import Compute
from minibert.errors import InputError
from minibert.locks import LOCK, locked
from minibert.run_folders import check_new, check_output, newest_run
from minibert.runs import Metadata, RunFolder
from minibert.training.options import TrainingOptions
from minibert.training.state import EpochRecord, TrainState, state_files

CPU = Compute(torch.device("cpu"))
SETTINGS = Settings.from_dict({"epochs": 7}).to_dict()
METADATA = Metadata(
    Columns("body", label="label"),
    {"train": "ab12", "model": "cd34"},
    {"torch": "2"},
)


def new_run(path: Path | None, **settings: Any) -> RunFolder:
    return RunFolder.create(path, {**SETTINGS, **settings}, METADATA)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has just started."""
    return new_run(tmp_path / "runs" / "first")


def new_state(step: int = 0) -> TrainState:
    """The state of a linear layer, with two epochs of history after the first step."""
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    state = TrainState(
        module, optimizer, CPU.scaler(), CPU.device, a_task(), TrainingOptions(), 24, 8, PRIOR
    )
    module(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    if step:
        state.step, state.epoch = step, 2
        state.history = [
            EpochRecord(1, 0.5, 0.01, {"accuracy": 0.75, "loss": 0.4}, 1.5, 40.0),
            EpochRecord(2, 0.25, 0.001, {"accuracy": 0.85, "loss": None}, 1.25, 48.0),
        ]
    return state


# --- the start


def test_a_new_run_has_its_settings_and_metadata(run):
    settings, metadata = run.read_settings()
    assert settings == json.loads(json.dumps(SETTINGS)) and settings["epochs"] == 7
    assert metadata == METADATA
    assert run.columns() == METADATA.columns


def test_paths_are_absolute_in_the_settings(tmp_path, monkeypatch):
    """--resume may start in another folder. The name of a hub model stays."""
    monkeypatch.chdir(tmp_path)
    Path("reviews.csv").touch()
    settings, _ = new_run(tmp_path / "run", data="reviews.csv", model="owner/name").read_settings()
    assert settings["data"] == str(tmp_path.resolve() / "reviews.csv")
    assert settings["model"] == "owner/name"


def test_an_empty_folder_may_become_a_run(tmp_path):
    (tmp_path / "empty").mkdir()
    new_run(tmp_path / "empty")
    assert os.listdir(tmp_path / "empty") == ["settings.json"]


def test_a_run_with_links_writes_nowhere_else(run, tmp_path):
    """Neither through a file that it would replace, nor through its lock."""
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (run.path / "history.csv").symlink_to(precious)
    with pytest.raises(InputError, match=r"history\.csv is a link"):
        run.read_settings()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / LOCK).symlink_to(precious)
    with (
        pytest.raises(InputError, match=r"--out .*empty: cannot be written"),
        locked(tmp_path / "empty", "--out"),
    ):
        pass
    assert precious.read_text() == "kept"


def test_an_output_replaces_no_file_of_a_run_but_any_of_another_folder(run, tmp_path):
    (run.path / "model.safetensors").touch()
    for folder, is_run in ((run.path, True), (tmp_path / "project", False)):
        folder.mkdir(exist_ok=True)
        for name in ("settings.json", "predictions.csv"):
            (folder / name).touch()
        for name in ("predictions.csv", "settings.json", "new.json"):
            with pytest.raises(InputError, match="could replace a") if is_run else nullcontext():
                check_output("--output", folder / name)
        check_output("--output", folder / "new.csv")


def test_only_a_run_can_be_resumed_instead(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"is not empty; give a new folder$"):
        check_new(tmp_path)


def test_a_folder_that_is_not_empty_is_left_alone(run):
    before = run.settings_file.read_bytes()
    with pytest.raises(InputError, match=r"not empty; give a new folder, or resume it: --resume"):
        new_run(run.path)
    assert run.settings_file.read_bytes() == before


def test_the_command_that_resumes_a_run_can_be_pasted(run, tmp_path):
    copy = tmp_path / "my run"
    shutil.copytree(run.path, copy)
    with pytest.raises(InputError, match=r"resume it: --resume '.*/my run'$"):
        check_new(copy)


def test_a_file_cannot_be_the_folder_nor_contain_it(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match=r"file: is a file; give a new folder"):
        check_new(file)
    with pytest.raises(InputError, match=r"deeper: cannot be made"):
        new_run(file / "deeper")
    assert file.read_text() == "x"


def test_new_runs_are_named_by_model_and_data_and_never_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folders, "RUNS", tmp_path)
    paths = [new_run(None, model="owner/some-model", data="a/reviews.csv").path for _ in range(3)]
    assert len(set(paths)) == 3
    assert all("-some-model-reviews" in path.name for path in paths)


# --- states


def test_the_history_is_a_csv_file_with_a_line_per_epoch(run):
    run.save_state(new_state(step=17))
    rows = list(csv.DictReader(run.history_file.read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["train_loss"] for row in rows] == ["0.5", "0.25"]
    assert rows[1]["validation_accuracy"] == "0.85"
    assert rows[1]["validation_loss"] == ""  # undefined


def test_a_lost_history_is_written_again(run):
    """A run may die between its state and its history."""
    run.save_state(new_state(step=17))
    before = run.history_file.read_text()
    run.history_file.unlink()
    state = new_state()
    run.load_state(state)
    assert state.step == 17 and run.history_file.read_text() == before


def test_the_settings_of_the_newest_state_are_the_saved_ones(run):
    assert run.saved_settings() == {}
    for step, size in ((17, 8), (18, 4)):
        run.save_state(new_state(step), {"batch_size": size, "split": (70, 15, 15)}, keep=2)
    assert run.saved_settings() == {"batch_size": 4, "split": [70, 15, 15]}


def test_only_the_newest_states_are_kept(run):
    for step in (17, 18, 19):
        run.save_state(new_state(step), keep=2)
    state = new_state()
    run.load_state(state)
    assert state.step == 19
    assert [int(file.stem[-8:]) for file in state_files(run.path)] == [18, 19]


def test_a_run_stopped_before_its_first_state_starts_from_the_beginning(run):
    (run.path / "resume-mine.safetensors").touch()  # not a state
    state = new_state()
    run.load_state(state)
    assert state.step == 0


def test_a_lost_state_is_not_taken_for_a_new_run(run):
    run.save_state(new_state(step=17))
    state_files(run.path)[0].unlink()
    with pytest.raises(InputError, match=r"damaged \(no resume-.* is there\); start a new"):
        run.load_state(new_state())


# --- the lock


def test_a_locked_folder_is_refused_with_the_process_that_holds_it(run):
    """It is free again, also after an error."""
    message = rf"{run.path}: process {os.getpid()} is training in it; wait for it or stop it"
    with pytest.raises(KeyError), locked(run.path, "--out"):
        for work, flag in (
            (run.read_settings, "--resume"),
            (lambda: check_new(run.path), "--out"),
            (lambda: new_run(run.path), "--out"),
        ):
            with pytest.raises(InputError, match=f"{flag} {message}"):
                work()
        raise KeyError
    assert not (run.path / LOCK).exists()
    assert run.read_settings()


def test_a_dead_process_s_lock_is_ignored(run, tmp_path):
    for folder in (run.path, tmp_path / "empty"):
        folder.mkdir(exist_ok=True)
        (folder / LOCK).write_text("99999999\n")
        with locked(folder, "--out"):
            assert (folder / LOCK).read_text() == f"{os.getpid()}\n"
        (folder / LOCK).write_text("99999999\n")
    new_run(tmp_path / "empty")


# --- the end


def finish(run: RunFolder) -> None:
    run.finish({"test": {"accuracy": 0.5}}, [{"text": "crème\n", "label": "a"}])


def test_a_finished_run_has_figures_and_predictions_and_no_state(run):
    run.save_state(new_state(step=17))
    finish(run)
    assert json.loads(run.metrics_file.read_text()) == {"test": {"accuracy": 0.5}}
    lines = run.predictions_file.read_text(encoding="utf-8").splitlines()
    assert [strict_json(line) for line in lines] == [{"text": "crème\n", "label": "a"}]
    assert not state_files(run.path)


def test_without_a_test_split_there_is_no_file_of_predictions(run):
    run.finish({}, [])
    assert run.metrics_file.exists() and not run.predictions_file.exists()


def test_a_run_that_cannot_be_resumed_says_why(run, tmp_path):
    with pytest.raises(InputError, match=r"--resume .*nowhere: no such folder"):
        RunFolder(tmp_path / "nowhere").read_settings()
    with pytest.raises(InputError, match=r"is not a run of minibert \(no settings.json\)"):
        RunFolder(tmp_path).read_settings()
    run.save_state(new_state(step=17))
    with pytest.raises(InputError, match=r"model.safetensors, the best epoch, is missing"):
        run.read_settings()
    finish(run)
    with pytest.raises(InputError, match=r"the run is finished; minibert eval"):
        run.read_settings()


@pytest.mark.parametrize(
    "change",
    [
        {"environment": {"torch": 2}},
        {"environment": ["2"]},
        {"environment": None},
        {"digests": None},
        {"digests": {"train": 5}},
        {"columns": None},
        {"columns": {}},
        {"columns": {"text": 5}},
        {"columns": {"colour": "red"}},
        {"columns": "text"},
    ],
)
def test_edited_metadata_is_one_clear_error(run, change):
    data = json.loads(run.settings_file.read_text())
    run.settings_file.write_text(json.dumps({**data, **change}))
    with pytest.raises(InputError, match=r"settings.json: columns, digests or envir"):
        run.read_settings()


@pytest.mark.parametrize("text", ["{", "[]", '{"learning_rate": 0.1}'])
def test_settings_of_another_program_are_refused(run, text):
    run.settings_file.write_text(text)
    with pytest.raises(InputError, match=r"settings.json: "):
        run.read_settings()


def test_columns_are_none_without_a_run_and_an_error_if_damaged(run, tmp_path):
    assert RunFolder(tmp_path).columns() is None
    for columns in ({"colour": "red"}, {"text": 5}):
        run.settings_file.write_text(json.dumps({"columns": columns}))
        with pytest.raises(InputError, match=r"settings.json: the entry columns is damaged"):
            run.columns()


def test_the_newest_run_is_the_one_that_finished_last(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folders, "RUNS", tmp_path / "runs")
    with pytest.raises(InputError, match=r"no finished run in .*train one"):
        newest_run()
    for name, seconds in (("b", 200), ("a", 300), ("c", 100)):
        folder = new_run(tmp_path / "runs" / name)
        (folder.path / "model.safetensors").touch()
        finish(folder)
        os.utime(folder.metrics_file, (seconds, seconds))
    finish(new_run(tmp_path / "runs" / "cross-validation"))  # which has no model
    new_run(tmp_path / "runs" / "unfinished")
    assert newest_run() == tmp_path / "runs" / "a"
