"""Several processes give the results of one, and end together.

Most of them are forks with torchrun's environment, which start at once; a few are torchrun's own.

Run: pytest tests/test_distributed.py
"""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers import ENVIRONMENT, ROOT, WORDS, finish_script, start_script, write_checkpoint
from pytest import approx
from torch.distributed import TCPStore

from minibert.training.state import state_files

pytestmark = pytest.mark.timeout(120)
SECONDS = 60  # in which the processes of any test end by themselves
TRAIN = (
    *("--model", "checkpoint", "--data", "reviews.csv", "--max-length", "auto", "--epochs", 3),
    *("--batch-size", 5, "--accumulate", 2, "--encoder-lr", 0.01, "--head-lr", 0.01),
    *("--device", "cpu", "--precision", "fp32"),
)  # 42 texts: 9 batches in 5 steps, of which the last has one batch
LARGER = ("--epochs", 10, "--save-every", 3)  # to be stopped


class Ended(NamedTuple):
    """How processes ended: the statuses by rank, what the first printed, all error lines."""

    statuses: list[int]
    output: str
    errors: list[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the processes start in: a bare checkpoint and reviews."""
    folder = tmp_path_factory.mktemp("processes")
    write_checkpoint(folder / "checkpoint")
    lines = ["text,label"]
    for i in range(30):
        a, b = WORDS[5 + i % 20], WORDS[5 + (7 * i + 3) % 20]
        lines += [f"the {a} was good {b} {i},positive", f"the {b} was bad awful {a} {i},negative"]
    (folder / "reviews.csv").write_text("\n".join(lines) + "\n")
    tags = [line.replace("positive", "positive|short") for line in lines]
    (folder / "tags.csv").write_text("\n".join(tags) + "\n")
    return folder


@pytest.fixture(scope="module")
def whole(place: Path) -> Callable[..., Path]:
    """Returns the run of one process with these options, trained once."""

    def run(*words: Any) -> Path:
        name = "one" + "-".join(map(str, words)).replace("/", "")
        if not (place / name).exists():
            finished = finish_script("train.py", *TRAIN, *words, "--out", name, cwd=place)
            assert finished.returncode == 0, finished.stderr
        return place / name

    return run


def start_processes(
    size: int,
    script: str | list[str],
    *words: Any,
    cwd: Path | list[Path],
    fresh: bool = False,
) -> list[subprocess.Popen[str]]:
    """Start processes with the environment and the store that torchrun gives them."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)},
        **{"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"},
        **{"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)},
    }
    folders = cwd if isinstance(cwd, list) else [cwd] * size
    processes = []
    for rank, folder in enumerate(folders):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment = {**shared, **own}
        processes.append(start_script(script, *words, cwd=folder, env=environment, fresh=fresh))
    processes[0].store = store  # type: ignore[attr-defined] # which lives as long
    return processes


def end(processes: list[subprocess.Popen[str]]) -> Ended:
    """Wait until all processes have ended by themselves."""
    last = time.monotonic() + SECONDS
    try:
        found = [process.communicate(timeout=last - time.monotonic()) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    assert not any(output for output, _ in found[1:])
    errors = [
        line
        for _, lines in found
        for line in lines.splitlines()
        if not line.startswith(("epoch ", "warning: bf16 is emulated"))  # progress; this machine
    ]
    return Ended([process.returncode for process in processes], found[0][0], errors)


def run(size: int, script: str, *words: Any, cwd: Path | list[Path]) -> Ended:
    return end(start_processes(size, script, *words, cwd=cwd))


def wait_for_state(processes: list[subprocess.Popen[str]], folder: Path) -> None:
    """Wait until a run has saved a state after those that it has now."""
    before = [file.name for file in state_files(folder)]
    while all(process.poll() is None for process in processes):
        if [file.name for file in state_files(folder)] not in (before, []):
            return
        time.sleep(0.005)


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in row.items() if "second" not in name}


def figures(run: Path) -> list[Any]:
    """The history and the metrics of a run, without seconds."""
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["training"] = without_times(metrics["training"])
    for baseline in metrics["baselines"].values():
        baseline.pop("seconds", None)
    with open(run / "history.csv", newline="") as file:
        return [metrics, *(without_times(row) for row in csv.DictReader(file))]


def assert_same_run(one: Path, other: Path) -> None:
    names = {file.name for file in one.iterdir()}
    assert names == {file.name for file in other.iterdir()}
    for name in names - {"metrics.json", "history.csv", "settings.json", "report.html"}:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert figures(one) == figures(other)


# --- the same results

GRADIENTS = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from minibert.processes import ONE_PROCESS, process_group
from minibert.training.gradients import GradientSum

def gradients(processes):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 7))
    model[0].requires_grad_(False)
    batches = [torch.randn(n, 3) for n in (4, 1, 7, 2, 3)]
    used = [p for p in model.parameters() if p.requires_grad]
    unused = torch.nn.Parameter(torch.ones(2))
    add_up = GradientSum(torch.optim.AdamW([*used, unused]), processes)
    for step in range(2):  # the second has two batches for three processes
        total = torch.zeros(())
        model.zero_grad()
        for batch in processes.deal(batches[3 * step :]):
            loss = model(batch).square().sum()
            loss.backward()
            total += loss.detach()
        total = add_up(total)
    assert unused.grad is None
    return [total, *(p.grad.clone() for p in used)]

with process_group() as processes:
    found, expected = gradients(processes), gradients(ONE_PROCESS)
    if processes.is_first:
        pairs = zip(found, expected, strict=True)
        print(max(float(((x - y).abs() / y.abs().max()).max()) for x, y in pairs))
"""


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--precision", "bf16"),
        ("--precision", "fp16"),
        ("--freeze", "--class-weights", "balanced"),
        ("--freeze-layers", 1, "--patience", 1),
        ("--batch-size", 50, "--precision", "fp16"),  # one batch: the second process is idle
        ("--data", "tags.csv", "--label-separator", "|"),  # several labels
    ],
)
def test_a_run_of_two_processes_has_the_bytes_of_one_process(place, whole, words):
    """Dropout is on, and the last step of an epoch has fewer batches than processes."""
    name = "two" + "-".join(map(str, words))
    ended = run(2, "train.py", *TRAIN, *words, "--out", name, cwd=place)
    assert (ended.statuses, ended.errors) == ([0, 0], [])
    assert "; 2 processes" in ended.output
    assert_same_run(place / name, whole(*words))


@pytest.mark.parametrize(
    "words", [("--accumulate", 4), ("--long-texts", "windows", "--max-length", 5)]
)
def test_three_processes_share_four_or_more_batches_to_the_same_losses(place, whole, words):
    """Their gradients are added up in another order, so the last bits differ."""
    words = (*words, "--schedule", "constant", "--encoder-lr", 1e-4, "--head-lr", 1e-4)
    folder = place / f"three{words[0]}"
    ended = run(3, "train.py", *TRAIN, *words, "--out", folder.name, cwd=place)
    assert (ended.statuses, ended.errors) == ([0, 0, 0], [])
    one, three = (figures(run)[1:] for run in (whole(*words), folder))
    for name in ("train_loss", "validation_loss", "gradient_norm"):
        assert [float(x[name]) for x in three] == approx([float(x[name]) for x in one], rel=1e-5)


def test_gradients_and_loss_are_those_of_one_process_to_1e_6(place):
    """Five batches of uneven sizes in three processes; the first layer is not trained."""
    ended = end(start_processes(3, ["-c", GRADIENTS], cwd=place))
    assert (ended.statuses, ended.errors) == ([0, 0, 0], [])
    assert float(ended.output) < 1e-6


def test_predictions_and_scores_of_several_processes_are_those_of_one(place, whole, tmp_path):
    model = ("--model", whole())
    inputs = tmp_path / "texts.csv"
    lines = [f"{WORDS[i % 35]} {WORDS[i % 34]}" if i % 999 else "" for i in range(3 * 2048 + 7)]
    inputs.write_text("text\n" + "\n".join(f'"{line}"' for line in lines) + "\n")
    words = (*model, "--input", inputs, "--max-length", 3)
    one = finish_script("predict.py", *words, "--output", tmp_path / "one.csv", cwd=place)
    two = run(2, "predict.py", *words, "--output", tmp_path / "two.csv", cwd=place)
    assert (one.returncode, two.statuses) == (0, [0, 0])
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert two.errors == one.stderr.splitlines()  # counts of bad rows and of truncated texts

    begun = b"".join((tmp_path / "one.csv").read_bytes().splitlines(keepends=True)[: 2 * 2048])
    (tmp_path / ".three.csv.new").write_bytes(begun)
    resumed = ("--output", tmp_path / "three.csv", "--resume-output")
    assert run(3, "predict.py", *words, *resumed, cwd=place).statuses == [0, 0, 0]
    assert (tmp_path / "three.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()

    words = (*model, "--data", "reviews.csv", "--batch-size", 7)
    for precision in ("fp32", "int8"):
        one = finish_script("eval.py", *words, "--precision", precision, cwd=place)
        two = run(2, "eval.py", *words, "--precision", precision, cwd=place)
        assert (one.returncode, two.statuses, two.errors) == (0, [0, 0], [])
        found = two.output.replace("; 2 processes", "").replace("look 3", "look 2")
        assert found.replace("look 5", "look 4") == one.stdout


# --- mistakes


@pytest.mark.parametrize(
    ("script", "words", "what"),
    [
        (
            "train.py",
            (*TRAIN, "--seeds", 2),
            "a series of runs (--seeds, --folds, --learning-curve)",
        ),
        ("train.py", (*TRAIN[:6], "--head", "logistic"), "--head logistic"),
        ("eval.py", ("--compare", "a", "b"), "--compare"),
        ("predict.py", ("--input", "-"), "standard input"),
    ],
)
def test_what_processes_cannot_share_is_refused(script, words, what, tmp_path, place):
    if script == "train.py":
        words = (*words, "--out", tmp_path / "run")
    ended = run(2, script, *words, cwd=place)
    said = f"error: {what}: is for one process; start it with python, without torchrun"
    assert (ended.statuses, ended.errors) == ([2, 2], [said])
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_that_all_processes_find_is_one_line(place):
    ended = run(3, "train.py", *TRAIN, "--data", "missing.csv", cwd=place)
    assert ended.statuses == [2, 2, 2] and len(ended.errors) == 1


def test_a_process_with_other_data_or_another_folder_ends_all(place, tmp_path):
    os.symlink(place / "checkpoint", tmp_path / "checkpoint")
    text = (place / "reviews.csv").read_text()
    for data, words, said in (
        (text.replace("1,", "2,"), ("--out", place / "other"), "has another test, train, valid"),
        (text, ("--out", "other-folder"), "other-folder: is another folder for process 1 than"),
    ):
        (tmp_path / "reviews.csv").write_text(data)
        ended = run(2, "train.py", *TRAIN, *words, cwd=[place, tmp_path])
        assert ended.statuses == [2, 2]
        (line,) = ended.errors
        assert said in line


FULL = f"""
import os, resource, runpy, signal, sys
if os.environ["RANK"] == "0":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.path.insert(0, {str(ROOT)!r})
runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
"""


def test_a_full_disk_of_the_first_process_ends_all(place):
    processes = start_processes(2, ["-c", FULL], *TRAIN, "--out", "full", cwd=place)
    ended = end(processes)
    assert ended.statuses == [2, 2]
    (line,) = ended.errors
    assert "cannot be written" in line


# --- signals and kills


def test_a_run_stopped_in_two_processes_goes_on_in_one_and_in_three(place, whole):
    words = (*TRAIN, *LARGER, "--out", "stopped")
    hint = "resume with: python train.py --resume stopped"
    for size, number in ((2, signal.SIGINT), (1, signal.SIGTERM)):
        processes = start_processes(size, "train.py", *words, cwd=place)
        wait_for_state(processes, place / "stopped")
        for process in processes:
            process.send_signal(number)
        ended = end(processes)
        assert ended.statuses == [128 + number] * size
        assert ended.errors == [f"stopped by {number.name}; {hint}"]
        assert not (place / "stopped" / "run.lock").exists()
        words = ("--resume", "stopped")
    assert run(3, "train.py", *words, cwd=place).statuses == [0, 0, 0]
    assert_same_run(place / "stopped", whole(*LARGER))


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_killed_process_ends_the_others_and_the_run_resumes(place, whole, rank):
    folder = place / f"killed-{rank}"
    processes = start_processes(3, "train.py", *TRAIN, *LARGER, "--out", folder.name, cwd=place)
    wait_for_state(processes, folder)
    processes[rank].kill()
    ended = end(processes)
    assert ended.statuses == [-9 if i == rank else 2 for i in range(3)]
    (line,) = ended.errors
    hint = f"resume with: python train.py --resume {folder.name}"
    assert line == f"error: another process of this command has ended; {hint}"
    assert run(2, "train.py", "--resume", folder.name, cwd=place).statuses == [0, 0]
    assert_same_run(folder, whole(*LARGER))


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_run_whose_processes_are_killed_again_and_again_ends_with_the_same_bytes(place, whole):
    """At 12 random instants; another number of processes resumes.

    One process is lost and one may be stopped first: of each, one line at most is printed.
    """
    chance, folder = random.Random(0), place / "killed-often"

    def start(size: int) -> list[subprocess.Popen[str]]:
        begun = (folder / "settings.json").exists()
        words = ("--resume", folder.name) if begun else (*TRAIN, *LARGER, "--out", folder.name)
        return start_processes(size, "train.py", *words, cwd=place)

    for _ in range(12):
        processes = start(chance.randint(2, 3))
        time.sleep(chance.uniform(0, 2))
        chance.choice(processes).kill()
        time.sleep(0.1)
        for process in processes:
            process.terminate()  # as torchrun does
        ended = end(processes)
        causes = [line.partition(";")[0] for line in ended.errors]
        assert len(set(causes)) == len(causes), ended.errors
        if (folder / "metrics.json").exists():
            shutil.rmtree(folder)
    assert end(start(2)).statuses == [0, 0]
    assert_same_run(folder, whole(*LARGER))


# --- torchrun itself


@pytest.mark.slow
def test_torchrun_trains_and_ctrl_c_stops_it_with_one_line(place, whole):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*launch, str(ROOT / "train.py"), *map(str, (*TRAIN, *LARGER, "--out", "torchrun"))]
    process = subprocess.Popen(
        [sys.executable, *words], cwd=place, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    wait_for_state([process], place / "torchrun")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=SECONDS)
    hint = "resume with: python train.py --resume torchrun"
    assert errors.count(f"stopped by SIGINT; {hint}\n") == 1
    assert errors.count("stopped by") == 1 and "another process" not in errors

    words = [*launch, str(ROOT / "train.py"), "--resume", "torchrun"]
    finished = subprocess.run([sys.executable, *words], cwd=place, env=ENVIRONMENT, timeout=SECONDS)
    assert finished.returncode == 0
    assert_same_run(place / "torchrun", whole(*LARGER))


THREADS = """
import os, sys, time
os.environ["CUDA_VISIBLE_DEVICES"] = ""
from pathlib import Path
from minibert.errors import InputError
from minibert.processes import process_group

def group_has_threads():
    for task in Path("/proc/self/task").glob("*/comm"):
        try:
            if "gloo" in task.read_text():
                return True
        except OSError:  # it has just ended
            pass
    return False

try:
    with process_group():
        import torch._dynamo  # as the first optimizer does
        assert group_has_threads()
        if sys.argv[1] == "with an error":
            raise InputError("a mistake")
except InputError as error:
    print(error)
end = time.monotonic() + 5  # Linux lists a thread for a moment after its end
while group_has_threads():
    assert time.monotonic() < end
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="lists threads as Linux does")
@pytest.mark.parametrize(
    ("end_of_work", "output"), [("as usual", ""), ("with an error", "a mistake\n")]
)
def test_the_threads_of_a_group_end_with_it(end_of_work, output, tmp_path):
    """A thread that outlives it and frees a tensor while Python ends would abort the process."""
    script = ["-c", THREADS]  # fresh: the import of torch._dynamo counts
    ended = end(start_processes(1, script, end_of_work, cwd=tmp_path, fresh=True))
    assert ended == Ended([0], output, [])
