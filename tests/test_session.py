"""A run's folder while it trains: signals, saved states, and what a resumed run compares.

Run: pytest tests/test_session.py
"""

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import random_texts, start_script, write_checkpoint
from hub_server import Hub, files_of

import minibert.training.step_log as step_log
from minibert.checkpoint.config_file import read_head_config
from minibert.commands import train as train_command
from minibert.commands.arguments import parse_train
from minibert.commands.interrupts import SignalHandler
from minibert.commands.options import RunOptions, Settings
from minibert.commands.run_callback import RunCallback
from minibert.commands.session import Session, check_unchanged, use_of_model
from minibert.data.batches import Batch, TextDataset
from minibert.data.columns import Columns
from minibert.data.options import DataOptions
from minibert.device import Compute
from minibert.errors import InputError, Interrupted, command_line
from minibert.inference.text_classifier import TextClassifier
from minibert.model.config import HeadConfig
from minibert.runs import Metadata, RunFolder
from minibert.training.loop import TrainResult, fit
from minibert.training.options import TrainingOptions
from minibert.training.state import EpochRecord, state_files

CPU = Compute(torch.device("cpu"))
# 14 texts: 3 epochs of 4 steps.
OPTIONS = TrainingOptions(
    batch_size=4, epochs=3, encoder_lr=1e-2, head_lr=3e-2, schedule="cosine", weight_decay=0.3
)


class SignalInBatch(TextDataset):
    """Texts whose n-th batch meets a signal."""

    def __init__(self, count: int, *, seed: int, batch: int, number: int) -> None:
        texts = random_texts(count, seed=seed)
        super().__init__(texts.rows, texts.labels.numpy(), pad_token_id=0, token_types=False)
        self.left, self.number = batch, number

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return super().batch(rows)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Python's own handler of Ctrl-C, also if pytest is a background job."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def classifier_folder(family: str, tmp_path: Path) -> Path:
    head = HeadConfig("mlp", "cls", ("a", "b", "c"), 40)
    return write_checkpoint(tmp_path / "model", family, head=head)


def new_run(path: Path) -> RunFolder:
    metadata = Metadata(Columns("text"), {}, {})
    return RunFolder.create(path, Settings.from_dict({}).to_dict(), metadata)


def run_fit(
    folder: Path,
    model: Path,
    *,
    train: TextDataset | None = None,
    validation: TextDataset | None = None,
    options: RunOptions | None = None,
) -> TrainResult:
    """Train in a run folder, new or resumed, as train.py does."""
    run = RunFolder(folder) if folder.exists() else new_run(folder)
    classifier = TextClassifier.from_folder(model)
    with SignalHandler() as signals:
        settings = Settings(options or RunOptions(), DataOptions(), OPTIONS)
        callback = RunCallback(run, classifier, settings, signals)
        return fit(
            classifier.model,
            train or random_texts(14),
            validation or random_texts(7, seed=1),
            OPTIONS,
            compute=CPU,
            callback=callback,
        )


def without_times(history: tuple[EpochRecord, ...]) -> list[EpochRecord]:
    return [dataclasses.replace(record, seconds=0, texts_per_second=0) for record in history]


def assert_resumes_to_the_same_bytes(folder: Path, model: Path) -> None:
    """A resumed run ends as one that never stops."""
    resumed = run_fit(folder, model)
    whole = run_fit(folder.with_name("whole"), model)
    assert without_times(resumed.history) == without_times(whole.history)
    for name in ("model.safetensors", "resume-00000012.safetensors"):
        if name.startswith("model"):
            assert (folder / name).read_bytes() == (folder.with_name("whole") / name).read_bytes()
        assert (folder / name).exists()


@pytest.mark.parametrize("step", [1, 3, 4, 6, 12])
def test_a_signal_ends_the_step_and_the_run_resumes_to_the_same_bytes(
    classifier_folder, tmp_path, step
):
    """In the first step, inside an epoch, in an epoch's last step, in the very last step."""
    train = SignalInBatch(14, seed=0, batch=step, number=signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        run_fit(tmp_path / "run", classifier_folder, train=train)
    (state,) = state_files(tmp_path / "run")
    assert state.name == f"resume-{step:08d}.safetensors"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert_resumes_to_the_same_bytes(tmp_path / "run", classifier_folder)


def test_the_log_of_a_resumed_run_is_that_of_one_that_never_stops(
    classifier_folder, tmp_path, monkeypatch
):
    """The state is of step 4; a killed process has logged more, and half a line."""
    monkeypatch.setattr(step_log, "EVERY", 2)
    logged = RunOptions(log_json=True)
    train = SignalInBatch(14, seed=0, batch=4, number=signal.SIGTERM)
    with pytest.raises(Interrupted):
        run_fit(tmp_path / "run", classifier_folder, train=train, options=logged)
    with open(tmp_path / "run" / "log.jsonl", "a") as file:
        file.write('{"step": 6, "train/loss": 0.1}\n{"step": 8, "tra')
    run_fit(tmp_path / "run", classifier_folder, options=logged)
    run_fit(tmp_path / "whole", classifier_folder, options=logged)
    found, expected = (
        [
            {name: x for name, x in json.loads(line).items() if "texts_per" not in name}
            for line in (tmp_path / name / "log.jsonl").read_text().splitlines()
        ]
        for name in ("run", "whole")
    )
    assert found == expected and len(found) == 9


def test_a_signal_stops_the_validation_and_the_epoch_s_training_is_saved(
    classifier_folder, tmp_path
):
    """Each validation is two batches: the signal comes in the second one."""
    validation = SignalInBatch(7, seed=1, batch=3, number=signal.SIGINT)
    with pytest.raises(Interrupted, match="stopped by SIGINT"):
        run_fit(tmp_path / "run", classifier_folder, validation=validation)
    (state,) = state_files(tmp_path / "run")
    assert state.name == "resume-00000008.safetensors"
    assert (tmp_path / "run" / "history.csv").read_text().count("\n") == 2  # header, one epoch
    assert_resumes_to_the_same_bytes(tmp_path / "run", classifier_folder)


@pytest.mark.parametrize("step", [1, 3, 7, 8])
def test_a_run_killed_between_saved_steps_resumes_to_the_same_bytes(
    classifier_folder, tmp_path, step
):
    options = RunOptions(save_every=3, keep_states=9)
    run_fit(tmp_path / "run", classifier_folder, options=options)
    files = state_files(tmp_path / "run")
    assert [int(file.stem[-8:]) for file in files] == [3, 4, 6, 8, 9, 12]
    for file in files:
        if int(file.stem[-8:]) > step + 2:
            file.unlink()
    assert_resumes_to_the_same_bytes(tmp_path / "run", classifier_folder)


def test_a_resumed_run_prints_where_it_continues(classifier_folder, tmp_path, capsys):
    train = SignalInBatch(14, seed=0, batch=6, number=signal.SIGTERM)
    with pytest.raises(Interrupted):
        run_fit(tmp_path / "run", classifier_folder, train=train)
    assert "resuming" not in capsys.readouterr().out
    run_fit(tmp_path / "run", classifier_folder)
    output = capsys.readouterr().out
    assert output.startswith("resuming after step 6, with 1 of 3 epochs finished\nepoch 2/3: ")


# --- what a resumed run reads, through train.py

EPOCHS = 9
FLAGS = (
    f"--epochs {EPOCHS} --batch-size 4 --save-every 1 --max-length 40 --device cpu --precision fp32"
)


def train(place: Path, *argv: str | Path, stop: bool = False, **env: str) -> tuple[int, str, str]:
    """Run train.py; stop it by Ctrl-C after its first saved state if asked."""
    process = start_script("train.py", *argv, cwd=place, env=env)
    if stop:
        run = place / "run"
        while process.poll() is None and not state_files(run):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a model folder that was stopped."""
    place = tmp_path_factory.mktemp("stopped")
    write_checkpoint(place / "checkpoint")
    lines = [f"the film {i} was good,yes\nthe film {i} was bad,no\n" for i in range(30)]
    (place / "reviews.csv").write_text("text,label\n" + "".join(lines))
    argv = ["--model", "checkpoint", "--data", "reviews.csv", "--out", "run", *FLAGS.split()]
    status, _, errors = train(place, *argv, stop=True)
    assert status == 130, errors
    assert errors.splitlines()[-1].endswith("resume with: python train.py --resume run")
    return place / "run"


@pytest.fixture
def stopped(stopped_run: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(stopped_run, tmp_path / "run"))


def edit_settings(run: Path, **changes: object) -> None:
    file = run / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def resume(run: Path) -> None:
    """Resume in this process, which is faster than starting one."""
    train_command.main(parse_train(["--resume", str(run)]))


def test_a_run_whose_model_or_data_moved_says_how_to_continue(stopped, stopped_run, capsys):
    moved = {"model": stopped_run.parent / "checkpoint", "data": stopped_run.parent / "reviews.csv"}
    for name, source in moved.items():
        edit_settings(stopped, **{name: "/gone/there"})  # as if it had been there
        with pytest.raises(InputError) as error:
            resume(stopped)
        assert str(error.value) == (
            f"--resume {stopped}: the {name} /gone/there is not there; put it back, or "
            f'set "{name}" in {stopped / "settings.json"} to where it is now'
        )
        edit_settings(stopped, **{name: str(source)})
    resume(stopped)
    output = capsys.readouterr().out
    assert "resuming after step " in output
    assert "new (its weights are random)" not in output and "as requested" not in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"environment": 5}, "settings.json: columns, digests or environment is not as"),
        ({"precision": "fp7"}, "--precision is 'fp7', not one"),
        ({"device": "none"}, "--device none: not on this"),
        ({"epochs": "many"}, "settings.json: is not the settings of a run"),
        ({"split": None}, "settings.json: is not the settings of a run"),
        ({"colour": "red"}, "settings.json: is not the settings of a run"),
        ({"digests": {}}, "has changed since; start a new run"),
    ],
)
def test_edited_settings_are_one_clear_error(stopped, change, message):
    edit_settings(stopped, **change)
    with pytest.raises(InputError, match=re.escape(message)):
        resume(stopped)


def test_the_file_that_has_changed_is_named(tmp_path):
    settings = Settings.from_dict({"data": "a.csv", "validation": "b.csv"})
    saved, current = ({"train": "1", "validation": number} for number in "23")
    with pytest.raises(InputError, match=r"the validation split of b\.csv has changed since"):
        check_unchanged(RunFolder(tmp_path), saved, current, settings)


CHANGES: dict[str, tuple[object, object]] = {
    "batch_size": (4, 8),
    "accumulate": (1, 2),
    "epochs": (EPOCHS, EPOCHS - 1),
    "head": ("mlp", "relu"),
    "pooling": (None, "mean"),
    "freeze": (False, True),
    "freeze_layers": (0, 2),
    "freeze_embeddings": (False, True),
    "split": ([70, 15, 15], [60, 20, 20]),
    "split_seed": (2021, 1),
    "leaks": ("keep", "drop"),
    "max_length": (40, 5),
    "precision": ("fp32", "bf16"),
    "seed": (0, 1),
    "head_lr": (1e-4, 1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_edited_option_is_named_with_its_old_and_new_value(stopped, name):
    edit_settings(stopped, **{name: CHANGES[name][1]})
    before = {file.name: file.read_bytes() for file in stopped.iterdir()}
    with pytest.raises(InputError) as error:
        resume(stopped)
    old, new = map(json.dumps, CHANGES[name])
    assert str(error.value) == (
        f"--resume {stopped}: settings.json is not as when the state was saved: "
        f'"{name}" was {old} and is {new}; set it back, or start a new run'
    )
    assert {file.name: file.read_bytes() for file in stopped.iterdir()} == before


def test_all_edited_options_are_named(stopped):
    edit_settings(stopped, batch_size=8, freeze=True, epochs=EPOCHS + 1, save_every=7)
    with pytest.raises(InputError, match=r'"batch_size" was 4 and is 8, "freeze" was false and is'):
        resume(stopped)


def test_more_epochs_and_other_savings_resume(stopped, stopped_run, capsys, monkeypatch):
    """The data and the model may be elsewhere, too."""
    place = stopped_run.parent
    shutil.copytree(place / "checkpoint", stopped.parent / "moved")
    shutil.copy(place / "reviews.csv", stopped.parent / "moved.csv")
    monkeypatch.chdir(stopped.parent)
    edit_settings(stopped, epochs=EPOCHS + 1, save_every=5, keep_states=3, device="cpu:0")
    edit_settings(stopped, model="moved", data="moved.csv")
    found = []
    monkeypatch.setattr(
        "minibert.runs.drop_states", lambda folder, keep: found.append((state_files(folder), keep))
    )
    resume(stopped)
    output = capsys.readouterr().out
    assert "resuming after step " in output and f"\nepoch {EPOCHS + 1}/{EPOCHS + 1}: " in output
    assert (stopped / "history.csv").read_text().count("\n") == EPOCHS + 2  # a header line
    assert "device: cpu" in output
    steps = {int(file.stem[-8:]) for files, _ in found for file in files}
    assert len([step for step in steps if step % 5 == 0]) > EPOCHS
    assert {keep for _, keep in found} == {3, 0}  # none of them when it is finished


def test_a_run_without_a_state_starts_again_with_edited_settings(stopped, capsys):
    """It was stopped before its first state, so that nothing is mixed."""
    for file in [*state_files(stopped), *stopped.glob("history.csv")]:
        file.unlink()
    edit_settings(stopped, batch_size=8, epochs=1, head="linear", pooling="mean")
    resume(stopped)
    output = capsys.readouterr().out
    assert "resuming" not in output and "epoch 1/1" in output
    head = read_head_config(stopped)
    assert head is not None and (head.kind, head.pooling) == ("linear", "mean")
    loss = re.search(r"validation loss (\d\.\d+)", output)
    final = json.loads((stopped / "metrics.json").read_text())["validation"]["loss"]
    assert loss and float(loss[1]) == pytest.approx(final, abs=1e-3)  # of the same head


def test_the_commands_for_a_run_name_it(tmp_path):
    model = f"--model {shlex.quote(str(tmp_path / 'my run'))}"
    score, predict = f"{command_line('eval')} {model}", f"{command_line('predict')} {model}"
    (tmp_path / "my run").mkdir()
    assert use_of_model(tmp_path / "my run") == f"{score}; {predict} TEXT"
    columns = {"text": "a", "pair": "b", "label": "label"}
    (tmp_path / "my run" / "settings.json").write_text(json.dumps({"columns": columns}))
    assert use_of_model(tmp_path / "my run") == f"{score}; {predict} --input FILE"


def test_a_resumed_run_uses_the_hub_commit_that_it_started_with(reviews, checkpoint, tmp_path):
    """Also after the hub has a newer one, and without the hub."""
    hub = Hub()
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf_home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    commit = hub.add("model", "owner/tiny", files_of(checkpoint))
    try:
        argv = ["--model", "owner/tiny", "--data", "reviews.csv", "--out", "run", *FLAGS.split()]
        status, _, errors = train(tmp_path, *argv, stop=True, **environment)
        assert status == 130, errors
        assert json.loads((tmp_path / "run" / "settings.json").read_text())["revision"] == commit
        shutil.copytree(tmp_path / "run", tmp_path / "again")

        other = write_checkpoint(tmp_path / "other", seed=5)
        assert hub.add("model", "owner/tiny", files_of(other)) != commit
        status, output, errors = train(tmp_path, "--resume", "run", **environment)
        assert status == 0, errors
        assert "resuming after step" in output
    finally:
        hub.stop()
    status, _, errors = train(tmp_path, "--resume", "again", **environment)
    assert status == 0, errors


def test_a_local_folder_in_a_hub_cache_has_no_revision(reviews, tmp_path):
    """--model may be the path of a snapshot; --resume refuses a revision of a local folder."""
    snapshot = write_checkpoint(tmp_path / "snapshots" / "0123abc")
    argv = ["--model", snapshot, "--data", reviews, "--out", tmp_path / "run", *FLAGS.split()]
    train_command.main(parse_train([*map(str, argv), "--epochs", "1"]))
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["revision"] is None


def test_a_run_resumed_on_a_processor_without_bf16_says_that_it_is_slow(stopped, monkeypatch):
    monkeypatch.setattr("minibert.device.cpu_has_bf16", lambda: False)
    edit_settings(stopped, precision="bf16")
    for file in state_files(stopped):
        file.unlink()  # which were saved in fp32
    with pytest.warns(UserWarning, match="bf16 is emulated on this processor"):
        compute = Session(parse_train(["--resume", str(stopped)])).compute
    assert (compute.precision, compute.reason) == ("bf16", "as when the run started")
