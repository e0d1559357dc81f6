"""The state of a training run comes back bit for bit, and a damaged file is one clear error.

Run: pytest tests/test_state.py
"""

import json
import os
from pathlib import Path

import pytest
import torch
from helpers import PRIOR, a_task
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from minibert.device import Compute
from minibert.errors import InputError
from minibert.evaluation.metrics import Scores
from minibert.training.optimizer import parameter_groups
from minibert.training.options import TrainingOptions
from minibert.training.state import (
    COUNTERS,
    EpochRecord,
    TrainState,
    drop_states,
    load_state,
    save_state,
    saved_settings,
    state_files,
)

CPU = torch.device("cpu")
RECORD = EpochRecord(1, 0.5, 0.01, {"accuracy": 0.75, "loss": 0.4}, 1.5, 40.0)
COUNTS = {
    "epoch": 2,
    "step": 17,
    "texts": 3,
    "epoch_seconds": 0.5,
    "seconds": 3.5,
    "lr": 0.02,
    "best_epoch": 1,
    "best_figure": 0.75,
}


def new_state(seed: int = 1, *, steps: int = 1, fp16: bool = False, **values: object) -> TrainState:
    """The state of a small module that took some steps."""
    torch.manual_seed(seed)
    # The second layer never has a gradient, as BERT's pooler under the pooling `cls`.
    module = nn.ModuleList([nn.Linear(3, 2), nn.Linear(2, 2), nn.LayerNorm(2)])
    groups = parameter_groups(None, module, encoder_lr=0.1, head_lr=0.1, weight_decay=0.01)
    optimizer = torch.optim.AdamW(groups)
    scaler = Compute(CPU, "fp16" if fp16 else "fp32").scaler()
    for _ in range(steps):
        module[2](module[0](torch.randn(5, 3))).pow(3).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    state = TrainState(module, optimizer, scaler, CPU, a_task(), TrainingOptions(), 24, 8, PRIOR)
    for name, value in values.items():
        setattr(state, name, value)
    return state


@pytest.mark.parametrize("fp16", [False, True])
def test_a_state_comes_back_bit_for_bit(tmp_path, fp16):
    saved = new_state(1, steps=3, fp16=fp16, history=[RECORD, RECORD], **COUNTS)
    saved.loss_sum += 0.1
    loaded = new_state(2, steps=0, fp16=fp16)
    if fp16:
        saved.scaler.load_state_dict({**saved.scaler.state_dict(), "scale": 512.0})
    save_state(tmp_path, saved)

    (file,) = state_files(tmp_path)
    assert file.name == "resume-00000017.safetensors"
    load_state(file, loaded)
    assert {name: getattr(loaded, name) for name in COUNTERS} == COUNTS
    assert loaded.history == saved.history and torch.equal(loaded.loss_sum, saved.loss_sum)
    assert loaded.scaler.state_dict() == saved.scaler.state_dict()
    for name, value in saved.module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[name], value), name
    old, new = saved.optimizer.state_dict()["state"], loaded.optimizer.state_dict()["state"]
    assert old.keys() == new.keys() and len(old) == 4
    for number, values in old.items():
        assert values.keys() == new[number].keys()
        assert all(torch.equal(new[number][key], value) for key, value in values.items())


def test_the_first_epochs_state_has_no_best_figure_yet(tmp_path):
    save_state(tmp_path, new_state(step=3))
    loaded = new_state(2)
    load_state(state_files(tmp_path)[0], loaded)
    assert loaded.best_epoch == 0 and loaded.best_figure == float("-inf")


def test_the_options_and_counts_per_epoch_are_those_of_fit_and_not_of_the_file(tmp_path):
    save_state(tmp_path, new_state(step=3))
    loaded = new_state(options=TrainingOptions(epochs=9), texts_per_epoch=5, steps_per_epoch=4)
    load_state(state_files(tmp_path)[0], loaded)
    assert (loaded.options.epochs, loaded.texts_per_epoch, loaded.steps_per_epoch) == (9, 5, 4)


def test_a_state_keeps_the_settings_that_it_was_saved_with(tmp_path):
    save_state(tmp_path, new_state(step=1))
    save_state(tmp_path, new_state(step=2), {"batch_size": 8, "split": (70, 15, 15)})
    assert [saved_settings(file) for file in state_files(tmp_path)] == [
        {},
        {"batch_size": 8, "split": [70, 15, 15]},
    ]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), r"safetensors: cannot be read \(Permission d"),
        (torch.OutOfMemoryError("CUDA out of memory"), r"CUDA out of memory"),
        (RuntimeError("MPS backend out of memory (MPS"), r"MPS backend out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), r"can't allocate memory"),
    ],
)
def test_a_state_that_cannot_be_read_now_is_not_called_damaged(
    tmp_path, monkeypatch, error, message
):
    save_state(tmp_path, new_state())

    def fail(*_: object):
        raise error

    monkeypatch.setattr("minibert.training.state.safe_open", fail)
    with pytest.raises((InputError, RuntimeError), match=message) as raised:
        load_state(state_files(tmp_path)[0], new_state())
    assert "delete" not in str(raised.value) and "start a new" not in str(raised.value)


DAMAGED = r"--resume .*: the state .* is damaged \(.+\); start a"


def rewrite(file: Path, **changes: str) -> None:
    """Change a state file's metadata."""
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    save_file(load_file(file), file, {**metadata, **changes})


@pytest.mark.parametrize(
    "damage",
    [
        *("cut", "empty", "text", "other shapes", "other layers"),
        *("no counters", "counters of text", "other counters", "history"),
    ],
)
def test_a_damaged_state_is_one_clear_error(tmp_path, damage):
    save_state(tmp_path, new_state())
    (file,) = state_files(tmp_path)
    data, state = file.read_bytes(), new_state()
    if damage == "other shapes":
        state.module[0] = nn.Linear(4, 2)
    elif damage == "other layers":
        state.module.append(nn.Linear(2, 2))
    elif damage == "no counters":
        rewrite(file, counters="{}")
    elif damage == "counters of text":
        rewrite(file, counters=json.dumps(dict.fromkeys(COUNTERS, "many")))
    elif damage == "other counters":
        rewrite(file, counters="[1, 2]")
    elif damage == "history":
        rewrite(file, history='[{"epoch": 1}]')
    else:
        content = {"cut": data[: len(data) // 2], "empty": b"", "text": b"no tensors at all"}
        file.write_bytes(content[damage])
    with pytest.raises(InputError, match=DAMAGED):
        load_state(file, state)
    if damage in ("cut", "empty", "text"):
        with pytest.raises(InputError, match=DAMAGED):
            saved_settings(file)


def test_damaged_settings_of_a_state_are_one_clear_error(tmp_path):
    save_state(tmp_path, new_state())
    (file,) = state_files(tmp_path)
    for settings in ("{", "5", "[" * 100_000):
        rewrite(file, settings=settings)
        with pytest.raises(InputError, match=DAMAGED):
            saved_settings(file)


@pytest.mark.parametrize(("counters", "steps"), [({"step": 7}, 2), ({"epoch": -1}, 9), ({}, 99)])
def test_a_state_that_does_not_fit_the_batches_is_refused(tmp_path, counters, steps):
    """As after an edit of --batch-size in settings.json; a negative slice would train on."""
    save_state(tmp_path, new_state(steps=8, step=17, epoch=2))
    (file,) = state_files(tmp_path)
    rewrite(file, counters=json.dumps({**COUNTS, **counters}))
    with pytest.raises(InputError, match="its steps do not fit the batches"):
        load_state(file, new_state(steps_per_epoch=steps))


def test_a_file_cannot_set_anything_but_the_counters(tmp_path):
    save_state(tmp_path, new_state())
    (file,) = state_files(tmp_path)
    rewrite(file, counters=json.dumps({**COUNTS, "module": 5, "steps_per_epoch": 0}))
    state = new_state()
    load_state(file, state)
    assert isinstance(state.module, nn.ModuleList) and state.steps_per_epoch == 8


def test_a_state_of_an_older_version_says_so(tmp_path):
    file = tmp_path / "resume-00000001.safetensors"
    save_file({"a": torch.zeros(1)}, file, {"progress": "{}"})
    for read in (saved_settings, lambda file: load_state(file, new_state())):
        with pytest.raises(InputError, match="is of another version of minibert; start a new run"):
            read(file)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    state = new_state(step=4)
    with torch.no_grad():
        state.module[0].weight[1, 1] = torch.nan
    with pytest.raises(InputError, match="after step 4: the weights are not finite; lower --enc"):
        save_state(tmp_path, state)
    assert not list(tmp_path.iterdir())


# --- several states


def names(folder: Path) -> list[str]:
    return [file.name for file in state_files(folder)]


def test_the_newest_states_are_kept_and_unfinished_files_removed(tmp_path):
    (tmp_path / ".resume-00000003.safetensors.new").write_text("half")
    (tmp_path / ".tmp9Pqmc4").write_text("half")  # of safetensors, which renames it
    (tmp_path / "resume-mine.safetensors").touch()  # not a state: it stays
    for step in (8, 9, 10, 100):
        save_state(tmp_path, new_state(step=step))
    drop_states(tmp_path, keep=2)
    assert names(tmp_path) == ["resume-00000010.safetensors", "resume-00000100.safetensors"]
    assert len(os.listdir(tmp_path)) == 3
    drop_states(tmp_path, keep=0)
    assert os.listdir(tmp_path) == ["resume-mine.safetensors"]


def test_a_state_that_cannot_be_written_leaves_the_older_ones(tmp_path, monkeypatch):
    save_state(tmp_path, new_state(step=1))
    before = state_files(tmp_path)[0].read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"cannot be .*No space .* is unchanged"):
        save_state(tmp_path, new_state(step=2))
    assert names(tmp_path) == ["resume-00000001.safetensors"]
    assert state_files(tmp_path)[0].read_bytes() == before


def test_a_damaged_state_names_the_one_before_it(tmp_path):
    for step in (1, 2):
        save_state(tmp_path, new_state(step=step))
    older, newest = state_files(tmp_path)
    newest.write_bytes(b"half")
    with pytest.raises(InputError, match=f"delete it to continue from {older.name}$"):
        load_state(newest, new_state())


# --- an epoch's end


def test_an_epoch_s_record_has_its_loss_and_speed():
    state = new_state(step=0)
    state.count_step(torch.tensor(0.5), 0.6, texts=4, lr=0.02)
    state.count_step(torch.tensor(1.5), torch.tensor(5.0), texts=2, lr=0.01)
    state.epoch_seconds = 2.0
    scores = Scores(7, 0.8, 0.7, 0.4, {}, {})
    assert state.end_epoch(scores)
    (record,) = state.history
    assert record.train_loss == pytest.approx((0.5 * 4 + 1.5 * 2) / 6)  # a mean over the texts
    assert (record.seconds, record.texts_per_second, record.learning_rate) == (2.0, 3.0, 0.01)
    assert (state.epoch, state.step, state.texts, state.epoch_seconds) == (1, 2, 0, 0.0)
    assert record.validation == {"accuracy": 0.8, "macro-f1": 0.7, "loss": 0.4}
    assert list(record.to_row())[3:6] == [
        *("validation_accuracy", "validation_macro_f1", "validation_loss"),
    ]
    state.count_step(torch.tensor(0.5), 0.6, texts=4, lr=0.02)
    assert not state.end_epoch(scores)  # as good is not better
    assert state.best_epoch == 1
