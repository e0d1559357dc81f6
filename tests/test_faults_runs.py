"""Runs that are killed, stopped, short of disk or locked out lose nothing.

Run: pytest tests/test_faults_runs.py -m faults
"""

import csv
import json
import os
import random
import re
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import PRIOR, ROOT, WORDS, a_task, start_script, write_checkpoint
from safetensors.torch import load, load_file

from minibert.commands.options import Settings
from minibert.data.columns import Columns
from minibert.device import Compute
from minibert.errors import InputError
from minibert.files import write_json
from minibert.locks import locked
from minibert.runs import Metadata, RunFolder
from minibert.training.options import TrainingOptions
from minibert.training.state import TrainState, state_files

pytestmark = pytest.mark.faults

STEPS = 14 * 6  # of 56 texts in batches of 4, of 6 epochs
COMMON = (
    *("--data", "reviews.csv", "--device", "cpu", "--max-length", "auto", "--batch-size", 4),
    *("--encoder-lr", 0.01, "--head-lr", 0.01, "--epochs", 6, "--save-every", 3),
)
RUNS: dict[str, tuple[str | float, ...]] = {
    "fp32": (*COMMON, "--model", "distilbert", "--precision", "fp32", "--keep-states", 2),
    "bf16": (*COMMON, "--model", "bert", "--precision", "bf16", "--head", "native"),
    "frozen": (*COMMON, "--model", "bert", "--precision", "fp32", "--freeze", "--patience", 6),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The folder the runs start in: two bare checkpoints and a CSV that a tiny model can learn."""
    folder = tmp_path_factory.mktemp("faults")
    for family in ("bert", "distilbert"):
        write_checkpoint(folder / family, family)
    lines = ["text,label"]
    for i in range(40):
        a, b = WORDS[5 + i % 20], WORDS[5 + (7 * i + 3) % 20]
        lines += [f"the {a} was good {b} {i},positive", f"the {b} was bad awful {a} {i},negative"]
    (folder / "reviews.csv").write_text("\n".join(lines) + "\n")
    return folder


# A train.py that dies when a file of the first word's name is written, but not yet in its place.
DYING = f"""
import os, runpy, signal, sys
name, whole = sys.argv.pop(1), os.replace
def replace(beside, path):
    if os.path.basename(path) == name:
        os.kill(os.getpid(), signal.SIGKILL)
    whole(beside, path)
os.replace = replace
sys.path.insert(0, {str(ROOT)!r})
runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
"""


def start(
    place: Path,
    *words: Any,
    script: str | list[str] = "train.py",
    **options: Any,
) -> subprocess.Popen:
    """Start train.py, or another script, as a process."""
    return start_script(script, *map(str, words), cwd=place, stdout=subprocess.DEVNULL, **options)


def ended(process: subprocess.Popen) -> tuple[int, list[str]]:
    """Wait for a process; return its status and its standard error without progress lines.

    A processor without bf16 instructions has a warning, too.
    """
    _, errors = process.communicate(timeout=120)
    expected = re.compile(r"epoch \d+/\d+, step|warning: bf16 is emulated")
    lines = [line for line in errors.splitlines() if not expected.match(line)]
    return process.returncode, lines


def train(place: Path, *words: Any) -> None:
    assert ended(start(place, *words)) == (0, [])


@pytest.fixture(scope="module")
def whole(place) -> Callable[[str], Path]:
    """Make, once, a run of RUNS that is never stopped."""

    def make(name: str) -> Path:
        if not (place / name).exists():
            train(place, *RUNS[name], "--out", name)
        return place / name

    return make


def wait_for(process: subprocess.Popen, happened: Callable[[], Any]) -> bool:
    """Wait until something happened, or say that the process ended before."""
    while not happened():
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    return True


def steps_saved(run: Path) -> int:
    files = state_files(run)
    return int(files[-1].stem.removeprefix("resume-")) if files else 0


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def kill_within_a_save(process: subprocess.Popen, run: Path, name: str) -> bool:
    """Kill while a file of this name is half-written beside its place; false if it ended before."""
    while wait_for(process, lambda: list(run.glob(f".{name}.new"))):
        process.send_signal(signal.SIGSTOP)
        if list(run.glob(f".{name}.new")):  # still there, and now it can no longer be finished
            kill(process)
            return True
        process.send_signal(signal.SIGCONT)
    return False


def assert_readable(run: Path) -> None:
    """What a reader finds under its own name is whole."""
    for file in run.glob("[!.]*.safetensors"):
        assert load_file(file)
    for file in run.glob("[!.]*.json"):
        assert json.loads(file.read_text())


def without_times(figures: Any) -> Any:
    if not isinstance(figures, dict):
        return figures
    return {name: without_times(x) for name, x in figures.items() if "second" not in name}


def assert_same_run(one: Path, other: Path) -> None:
    """Same files, and the same in them but for what a clock says."""
    # A run that is killed after metrics.json is finished and has no report.
    files = [{file.name for file in run.iterdir()} - {"report.html"} for run in (one, other)]
    assert files[0] == files[1]
    for name in ("model.safetensors", "config.json", "tokenizer.json", "test_predictions.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    histories = []
    for run in (one, other):
        with open(run / "history.csv", newline="") as file:
            histories.append([without_times(row) for row in csv.DictReader(file)])
    assert histories[0] == histories[1]
    first, second = (json.loads((run / "metrics.json").read_text()) for run in (one, other))
    assert without_times(first) == without_times(second)


# --- killed


@pytest.mark.parametrize(("name", "kills"), [("fp32", 6), ("bf16", 4), ("frozen", 3)])
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(place, whole, name, kills):
    """At random steps and moments after them; each process resumes the one before."""
    chance = random.Random(name)
    run, words = place / f"{name}-killed", (*RUNS[name], "--out", f"{name}-killed")
    killed = 0
    for step in sorted(chance.sample(range(STEPS - 1), kills)):
        process = start(place, *words)
        if wait_for(
            process, lambda after=step: (run / "run.lock").exists() and steps_saved(run) >= after
        ):
            time.sleep(chance.uniform(0, 0.04))
        killed += process.poll() is None
        kill(process)
        assert_readable(run)
        words = ("--resume", run.name)
    assert killed >= kills - 1
    if not (run / "metrics.json").exists():
        train(place, *words)
    assert_same_run(run, whole(name))


@pytest.mark.parametrize(("name", "seed"), [("fp32", 0), ("bf16", 1)])
def test_a_run_killed_while_it_saves_ends_with_the_same_bytes(place, whole, name, seed):
    chance = random.Random(seed)
    run, words = place / f"{name}-cut", (*RUNS[name], "--out", f"{name}-cut")
    for name_of_file in ("model.safetensors", "history.csv", "resume", "metrics.json"):
        if name_of_file == "resume":
            process = start(place, *words)
            after = steps_saved(run) + chance.randrange(1, 20)
            assert wait_for(process, lambda least=after: steps_saved(run) >= least)
            assert kill_within_a_save(process, run, "resume-*.safetensors")
        else:
            process = start(place, *words, script=["-c", DYING, name_of_file])
            assert ended(process)[0] == -signal.SIGKILL
            assert (run / f".{name_of_file}.new").exists()
        assert_readable(run)
        words = ("--resume", run.name)
    train(place, *words)
    assert_same_run(run, whole(name))


def test_one_seed_gives_the_same_bytes_in_bf16_too(place, whole):
    train(place, *RUNS["bf16"], "--out", "bf16-again")
    assert_same_run(place / "bf16-again", whole("bf16"))


def test_a_reader_never_finds_half_a_file_while_a_run_saves(place):
    run, reads = place / "read", 0
    process = start(place, *RUNS["fp32"], "--save-every", 1, "--out", run)
    while process.poll() is None:
        for file in [*state_files(run), run / "model.safetensors"]:
            try:
                assert load(file.read_bytes())
                reads += 1
            except FileNotFoundError:  # a newer one took its place
                continue
    assert ended(process) == (0, []) and reads > 50


# --- stopped


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_step_saves_and_says_how_to_resume(place, whole, number, status):
    run = place / f"stopped-{status}"
    words = [word for word in RUNS["fp32"] if word not in ("--save-every", 3)]
    process = start(place, *words, "--out", run.name)
    assert wait_for(process, (run / "history.csv").exists)
    time.sleep(0.03)
    process.send_signal(number)
    hint = f"resume with: python train.py --resume {run.name}"
    assert ended(process) == (status, [f"stopped by {number.name}; {hint}"])
    assert steps_saved(run) > 0 and not (run / "run.lock").exists()
    train(place, "--resume", run.name)
    assert_same_run(run, whole("fp32"))


@pytest.mark.parametrize("script", ["train.py", "eval.py", "predict.py"])
def test_a_signal_before_any_run_is_there_leaves_no_traceback(place, whole, script):
    """They are stopped while a pipe that nobody fills keeps them reading."""
    pipe = place / "pipe.csv"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    model = whole("fp32") if script != "train.py" else "distilbert"
    words = ["--model", model, "--input" if script == "predict.py" else "--data", pipe]
    process = start(place, *words, script=script)
    with open(pipe, "w"):  # waits for the script to open it, and keeps it open
        time.sleep(0.2)
        process.terminate()
        assert ended(process) == (143, ["stopped by SIGTERM"])


# --- two runs, one folder


def test_a_second_run_in_a_folder_is_refused_and_a_dead_process_s_lock_ignored(place, whole):
    run = place / "shared"
    process = start(place, *RUNS["fp32"], "--out", run.name)
    assert wait_for(process, lambda: steps_saved(run))
    process.send_signal(signal.SIGSTOP)
    before = {file.name: file.stat().st_mtime_ns for file in run.iterdir()}
    for words, flag in (
        (("--resume", run.name), "--resume"),
        ((*RUNS["bf16"], "--out", run.name), "--out"),
    ):
        said = f"process {process.pid} is training in it; wait for it or stop it"
        assert ended(start(place, *words)) == (2, [f"error: {flag} {run.name}: {said}"])
    assert {file.name: file.stat().st_mtime_ns for file in run.iterdir()} == before
    kill(process)
    assert (run / "run.lock").read_text() == f"{process.pid}\n"
    train(place, "--resume", run.name)
    assert_same_run(run, whole("fp32"))


def test_one_of_many_threads_at_a_time_holds_the_lock(tmp_path):
    """Each removes the file as it leaves, so that others hold a file that is no longer there."""
    inside, most, refused, errors = 0, 0, 0, []

    def enter() -> None:
        nonlocal inside, most, refused
        for _ in range(300):
            try:
                with locked(tmp_path, "--out"):
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0)
                    inside -= 1
            except InputError:
                refused += 1
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and most == 1 and refused
    assert os.listdir(tmp_path) == []


# --- nowhere to write


def sized(limit: int) -> Callable[[], None]:
    """Let no file grow over `limit` bytes, which a writer meets as it meets a full disk."""

    def before() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return before


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_full_disk_is_one_error_and_keeps_the_old_states(place, whole):
    run = place / "full"
    process = start(place, *RUNS["fp32"], "--out", run.name)
    assert wait_for(process, lambda: steps_saved(run) >= 9)
    kill(process)
    before = contents(run)
    size = state_files(run)[-1].stat().st_size
    status, lines = ended(start(place, "--resume", run.name, preexec_fn=sized(size - 1000)))
    assert status == 2 and len(lines) == 1
    assert re.fullmatch(
        r"error: .*/resume-\d+.safetensors: cannot be written \(.*File too large.*\); "
        "the old file is unchanged",
        lines[0],
    )
    after = contents(run)
    for name in before:
        if name.startswith("resume"):
            assert after[name] == before[name]
    train(place, "--resume", run.name)
    assert_same_run(run, whole("fp32"))


@pytest.fixture
def no_rights() -> Iterator[Path]:
    """A folder in which this process may not write, not even where it is root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run").mkdir()
        folder.chmod(0o755)
        yield folder / "run"
        (folder / "run").chmod(0o755)


def as_nobody(folder: Path, work: Callable[[], object]) -> str:
    """Let `work` find the folder read-only; return the error it must end with."""
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(InputError) as error:
            work()
    finally:
        if root:
            os.seteuid(0)
    return str(error.value)


def test_a_read_only_folder_is_one_error_and_stays_as_it_was(no_rights):
    module, compute = torch.nn.Linear(2, 2), Compute(torch.device("cpu"))
    optimizer = torch.optim.AdamW(module.parameters())
    state = TrainState(
        module,
        optimizer,
        compute.scaler(),
        compute.device,
        a_task(),
        TrainingOptions(),
        8,
        2,
        PRIOR,
    )
    metadata = Metadata(Columns("text"), {}, {})
    run = RunFolder.create(no_rights, Settings.from_dict({}).to_dict(), metadata)
    write_json(run.path / "other.json", {"a": 1})
    before = contents(run.path)

    def lock() -> None:
        with locked(run.path, "--resume"):
            pass

    for work in (
        lambda: run.save_state(state),
        lambda: write_json(run.path / "other.json", {"a": 2}),
        lock,
    ):
        assert "cannot be written (Permission denied)" in as_nobody(run.path, work)
    assert contents(run.path) == before


# --- damaged


def test_a_damaged_state_names_the_older_one_which_resumes_to_the_same_bytes(place, whole):
    run = place / "damaged"
    process = start(place, *RUNS["fp32"], "--out", run.name)
    assert wait_for(process, lambda: steps_saved(run) >= 20)
    kill(process)
    *_, older, newest = state_files(run)
    newest.write_bytes(newest.read_bytes()[:-7])
    status, (line,) = ended(start(place, "--resume", run.name))
    assert status == 2
    assert f"the state {newest.name} is damaged" in line
    assert f"; delete it to continue from {older.name}" in line
    newest.unlink()
    train(place, "--resume", run.name)
    assert_same_run(run, whole("fp32"))
