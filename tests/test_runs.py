"""Proves what a run folder keeps, refuses and finds again.

Run: pytest tests/test_runs.py
"""

import csv
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from minibert import runs
from minibert import states as minibert_states
from minibert.commands.options import RunSettings
from minibert.data.examples import Columns
from minibert.device import Compute
from minibert.errors import InputError
from minibert.runs import LOCK, RunFolder, check_new, locked, newest_run
from minibert.training.optimizer import adamw, parameter_groups
from minibert.training.state import Learner, Progress, state_files

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has begun."""
    columns = {"text": "body", "pair": None, "label": "label", "label_name": None}
    facts = {"columns": columns, "digests": {"train": "ab12"}, "environment": {"torch": "2"}}
    return RunFolder.create(tmp_path / "runs" / "first", RunSettings(epochs=7), facts)


class Machine:
    """A module, its optimizer and scaler, all that a state is of."""

    def __init__(self, seed: int, *, steps: int = 0, fp16: bool = False) -> None:
        torch.manual_seed(seed)
        # The second layer never has a gradient, as BERT's pooler under `cls`.
        self.module = nn.ModuleList([nn.Linear(3, 2), nn.Linear(2, 2), nn.LayerNorm(2)])
        rates = {"encoder_lr": 0.1, "head_lr": 0.1, "weight_decay": 0.01}
        self.optimizer = adamw(parameter_groups(None, self.module, **rates))
        self.scaler = Compute(CPU, torch.float16 if fp16 else torch.float32).scaler()
        for _ in range(steps):
            self.module[2](self.module[0](torch.randn(5, 3))).pow(3).sum().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    @property
    def learner(self) -> Learner:
        return Learner(self.module, self.optimizer, self.scaler, Compute(CPU))


PROGRESS = Progress(
    *(2, 17, 0.1, 3.0, 1.5, 1, 0.75, 3.5), [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]
)


# --- beginning


def test_a_new_run_has_its_settings_and_facts(run):
    settings, facts = run.read_settings()
    assert settings == RunSettings(epochs=7)
    assert facts["digests"] == {"train": "ab12"} and facts["columns"]["text"] == "body"
    assert run.columns() == Columns("body", None, "label")


def test_an_empty_folder_may_become_a_run(tmp_path):
    (tmp_path / "empty").mkdir()
    RunFolder.create(tmp_path / "empty", RunSettings(), {})
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


def test_only_a_run_is_said_to_be_gone_on_with(run, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"is not empty; give a new folder$"):
        check_new(tmp_path)


def test_files_of_other_names_are_no_states(run):
    (run.path / "resume-mine.safetensors").touch()
    assert run.load_state(Machine(1).learner) == Progress()


def test_a_folder_with_something_in_it_is_left_alone(run):
    before = run.path.joinpath("settings.json").read_bytes()
    with pytest.raises(InputError, match=r"is not empty; give a new folder, or go on .* --resume"):
        RunFolder.create(run.path, RunSettings(), {})
    assert run.path.joinpath("settings.json").read_bytes() == before


def test_a_file_is_no_folder_and_none_can_be_made_in_it(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match=r"file: is a file; give a new folder"):
        check_new(file)
    with pytest.raises(InputError, match=r"deeper: cannot be made"):
        RunFolder.create(file / "deeper", RunSettings(), {})
    assert file.read_text() == "x"


def test_new_runs_are_named_by_model_and_data_and_never_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    settings = RunSettings(model="owner/some-model", data="some/where/reviews.csv")
    paths = [RunFolder.create(None, settings, {}).path for _ in range(3)]
    assert len(set(paths)) == 3
    assert all("-some-model-reviews" in path.name for path in paths)


# --- state


@pytest.mark.parametrize("fp16", [False, True])
def test_a_state_comes_back_bit_for_bit(run, fp16):
    stopped, fresh = Machine(1, steps=3, fp16=fp16), Machine(2, fp16=fp16)
    if fp16:
        stopped.scaler.load_state_dict({**stopped.scaler.state_dict(), "scale": 512.0})
    torch.manual_seed(77)
    run.save_state(PROGRESS, stopped.learner)
    drawn = torch.rand(4)

    assert run.load_state(fresh.learner) == PROGRESS
    assert torch.equal(torch.rand(4), drawn)  # the random numbers go on where they were
    assert fresh.scaler.state_dict() == stopped.scaler.state_dict()
    for name, value in stopped.module.state_dict().items():
        assert torch.equal(fresh.module.state_dict()[name], value), name
    old, new = stopped.optimizer.state_dict()["state"], fresh.optimizer.state_dict()["state"]
    assert old.keys() == new.keys() and len(old) == 4
    for number, state in old.items():
        assert state.keys() == new[number].keys()
        assert all(torch.equal(new[number][key], value) for key, value in state.items())


def test_the_history_is_a_csv_file_with_a_line_an_epoch(run):
    run.save_state(PROGRESS, Machine(1, steps=1).learner)
    rows = list(csv.DictReader((run.path / "history.csv").read_text().splitlines()))
    assert rows == [{"epoch": "1", "loss": "0.5"}, {"epoch": "2", "loss": "0.25"}]


def test_a_run_stopped_in_its_first_epoch_begins_anew(run):
    machine = Machine(1)
    before = torch.get_rng_state()
    assert run.load_state(machine.learner) == Progress()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_state_that_has_gone_is_not_taken_for_a_first_epoch(run):
    run.save_state(PROGRESS, Machine(1, steps=1).learner)
    state_files(run.path)[0].unlink()
    with pytest.raises(InputError, match=r"damaged \(no resume-.* is there\); start a new"):
        run.load_state(Machine(1).learner)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(13, "Permission denied"),
            r"safetensors: cannot be read \(Permission denied",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), r"CUDA out of memory"),
    ],
)
def test_a_state_that_cannot_be_read_now_is_not_called_damaged(run, monkeypatch, error, said):
    run.save_state(PROGRESS, Machine(1, steps=1).learner)

    def safe_open(*_: object):
        raise error

    monkeypatch.setattr(minibert_states, "safe_open", safe_open)
    with pytest.raises((InputError, torch.OutOfMemoryError), match=said) as found:
        run.load_state(Machine(1).learner)
    assert "delete" not in str(found.value) and "start a new" not in str(found.value)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other shapes", "other layers"])
def test_a_damaged_state_is_a_sentence(run, damage):
    run.save_state(PROGRESS, Machine(1, steps=1).learner)
    (file,) = state_files(run.path)
    data, machine = file.read_bytes(), Machine(1)
    if damage == "other shapes":
        machine.module[0] = nn.Linear(4, 2)
    elif damage == "other layers":
        machine.module.append(nn.Linear(2, 2))
    else:
        rest = {"cut": data[: len(data) // 2], "empty": b"", "text": b"no tensors at all"}
        file.write_bytes(rest[damage])
    with pytest.raises(InputError, match=r"--resume .*: the state .* is damaged \(.+\); start a"):
        run.load_state(machine.learner)


def states(run: RunFolder) -> list[str]:
    return [file.name for file in state_files(run.path)]


def test_the_newest_states_are_kept_and_what_was_left_half_written_goes(run):
    machine = Machine(1, steps=1)
    (run.path / ".resume-00000003.safetensors.new").write_text("half")
    for step in (8, 9, 10, 100):
        run.save_state(Progress(step=step), machine.learner, keep=2)
    assert states(run) == ["resume-00000010.safetensors", "resume-00000100.safetensors"]
    assert not list(run.path.glob(".*.new"))
    assert run.load_state(machine.learner).step == 100


def test_a_state_that_cannot_be_written_leaves_all_older_ones(run, monkeypatch):
    machine = Machine(1, steps=1)
    run.save_state(Progress(step=1), machine.learner, keep=1)
    before = state_files(run.path)[0].read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"00002.safetensors: cannot be .*No space .* is intact"):
        run.save_state(Progress(step=2), machine.learner, keep=1)
    assert states(run) == ["resume-00000001.safetensors"]
    assert state_files(run.path)[0].read_bytes() == before


def test_a_damaged_state_names_the_one_before_it(run):
    machine = Machine(1, steps=1)
    for step in (1, 2):
        run.save_state(Progress(step=step), machine.learner, keep=2)
    state_files(run.path)[1].write_bytes(b"half")
    with pytest.raises(InputError, match=r"delete it to go on from resume-00000001.safetensors$"):
        run.load_state(machine.learner)
    state_files(run.path)[1].unlink()
    assert run.load_state(machine.learner).step == 1


# --- the lock


def test_a_locked_folder_is_refused_with_the_holder_s_id_and_free_again_after_an_error(run):
    said = rf"{run.path}: process {os.getpid()} is training in it; wait for it or stop it"
    with pytest.raises(KeyError), locked(run.path, "--out"):
        for work, flag in (
            (run.read_settings, "--resume"),
            (lambda: check_new(run.path), "--out"),
            (lambda: RunFolder.create(run.path, RunSettings(), {}), "--out"),
        ):
            with pytest.raises(InputError, match=f"{flag} {said}"):
                work()
        raise KeyError
    assert not (run.path / LOCK).exists()
    assert run.read_settings()


def test_the_lock_of_a_dead_process_is_no_obstacle(run, tmp_path):
    for folder in (run.path, tmp_path / "empty"):
        folder.mkdir(exist_ok=True)
        (folder / LOCK).write_text("99999999\n")
        with locked(folder, "--out"):
            assert (folder / LOCK).read_text() == f"{os.getpid()}\n"
        (folder / LOCK).write_text("99999999\n")
    RunFolder.create(tmp_path / "empty", RunSettings(), {})


# --- the end


def finish(run: RunFolder) -> None:
    run.finish({"test": {"accuracy": 0.5}}, [{"text": "crème\n", "label": "a"}])


def test_a_finished_run_has_figures_and_predictions_and_no_state(run):
    run.save_state(PROGRESS, Machine(1, steps=1).learner)
    finish(run)
    assert json.loads(run.metrics_file.read_text()) == {"test": {"accuracy": 0.5}}
    lines = run.predictions_file.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"text": "crème\n", "label": "a"}]
    assert not state_files(run.path)


def test_without_a_test_part_there_is_no_file_of_predictions(run):
    run.finish({}, [])
    assert run.metrics_file.exists() and not run.predictions_file.exists()


def test_seconds_and_texts_a_second_count_all_epochs():
    assert PROGRESS.figures(texts=70) == {
        "epochs": 2,
        "best_epoch": 1,
        "seconds": 3.5,
        "texts_per_second": 40.0,
    }


def test_what_cannot_be_gone_on_with_says_why(run, tmp_path):
    with pytest.raises(InputError, match=r"--resume .*nowhere: no such folder"):
        RunFolder(tmp_path / "nowhere").read_settings()
    with pytest.raises(InputError, match=r"is not a run of minibert \(no settings.json\)"):
        RunFolder(tmp_path).read_settings()
    finish(run)
    with pytest.raises(InputError, match=r"the run is finished; python eval.py"):
        run.read_settings()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"learning_rate": 0.1}', '{"split": [70, 15, 15], "x": 1}']
)
def test_settings_of_another_program_are_refused(run, text):
    (run.path / "settings.json").write_text(text)
    with pytest.raises(InputError, match=r"settings.json: "):
        run.read_settings()


def test_columns_are_none_without_a_run_and_an_error_where_damaged(run, tmp_path):
    assert RunFolder(tmp_path).columns() is None
    (run.path / "settings.json").write_text('{"columns": {"colour": "red"}}')
    with pytest.raises(InputError, match=r"settings.json: the entry columns is damaged"):
        run.columns()


def test_the_newest_run_is_the_one_that_finished_last(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path / "runs")
    with pytest.raises(InputError, match=r"no finished run in .*train one"):
        newest_run()
    for name, seconds in (("b", 200), ("a", 300), ("c", 100)):
        folder = RunFolder.create(tmp_path / "runs" / name, RunSettings(), {})
        finish(folder)
        os.utime(folder.metrics_file, (seconds, seconds))
    RunFolder.create(tmp_path / "runs" / "unfinished", RunSettings(), {})
    assert newest_run() == tmp_path / "runs" / "a"
