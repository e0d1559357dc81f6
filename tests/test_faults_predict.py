"""predict.py loses no prediction when it is killed, starved, cut off or not read.

Run: pytest -m faults tests/test_faults_predict.py
"""

import csv
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT, WORDS, start_script, strict_json, write_checkpoint

from minibert.model.config import HeadConfig

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc"),
]

ROWS = 100_000
MODEL = ("--model", "classifier", "--device", "cpu", "--precision", "fp32")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """A folder with a classifier and with inputs of many and of fewer rows."""
    folder = tmp_path_factory.mktemp("faults")
    head = HeadConfig("mlp", "mean", ("bad", "good", "so, so"), 40)
    write_checkpoint(folder / "classifier", "bert", head)
    for rows in (10_000, 20_000, ROWS):
        with open(folder / f"{rows}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["id", "text"])
            for i in range(rows):
                words = " ".join(WORDS[(i * j) % 30] for j in range(1, 2 + i % 9))
                table.writerow([i, f'{words} "{i}",\nfilm' if i % 7 == 0 else f"{words} {i}"])
    yield folder


def start(place: Path, *argv: str, **options) -> subprocess.Popen:
    """Start predict.py with the classifier."""
    return start_script("predict.py", *MODEL, *argv, cwd=place, **options)


def ends(process: subprocess.Popen, timeout: float = 200) -> tuple[int, str, str]:
    """Wait for a process; return its status, output and errors."""
    output, errors = process.communicate(timeout=timeout)
    return process.returncode, output, errors


def python(script: str) -> str:
    """Return the start of a shell command that runs a script of the repository."""
    return f"OMP_NUM_THREADS=1 {shlex.quote(sys.executable)} {shlex.quote(str(ROOT / script))}"


def memory(process: subprocess.Popen, field: str) -> float:
    """A process's VmHWM (its peak) or VmRSS (now), in MB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def peak(process: subprocess.Popen) -> float:
    """A process's peak memory in MB, known when it has ended."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss / 1024


def grown(file: Path, size: int, process: subprocess.Popen) -> None:
    """Wait until a file that a process writes has a size."""
    for _ in range(6000):
        if file.exists() and file.stat().st_size >= size:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("it does not grow")


# Many rows


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_memory_does_not_grow_with_the_rows(place, suffix):
    peaks = []
    for rows in (10_000, ROWS):
        output = place / f"many.{suffix}"
        argv = ("--input", f"{rows}.csv", "--output", output.name)
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = start(place, *argv, fresh=True, **streams)
        peaks.append(peak(process))
        assert process.returncode == 0
        with open(output, newline="") as file:
            records = csv.DictReader(file) if suffix == "csv" else map(strict_json, file)
            assert [int(record["id"]) for record in records] == list(range(rows))
        output.unlink()
    print(f"peak memory of {suffix}, MB: {peaks}")
    assert peaks[1] < peaks[0] + 50


# Interruption


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_killed_again_and_again_it_still_writes_the_same_bytes(place, suffix):
    output, growing = place / f"killed.{suffix}", place / f".killed.{suffix}.new"
    argv = ("--input", "20000.csv", "--output", output.name)
    assert ends(start(place, *argv))[::2] == (0, "")
    whole = output.read_bytes()
    output.unlink()
    for share, number in ((0.2, signal.SIGKILL), (0.4, signal.SIGTERM), (0.6, signal.SIGINT)):
        process = start(place, *argv, "--resume-output")
        grown(growing, int(share * len(whole)), process)
        process.send_signal(number)
        status, _, errors = ends(process)
        assert status != 0 and not output.exists() and "Traceback" not in errors
        if number == signal.SIGINT:
            assert "continue with --resume-output" in errors
        with open(growing, "ab") as file:
            file.write(b'"half a row, 0.')  # as a killed write leaves

    status, _, errors = ends(start(place, *argv))
    assert status == 2 and "--resume-output, or remove it" in errors
    assert ends(start(place, *argv, "--resume-output"))[::2] == (0, "")
    assert output.read_bytes() == whole
    assert not growing.exists()


def test_two_runs_do_not_write_one_output(place):
    argv = ("--input", "20000.csv", "--output", "two.csv")
    first = start(place, *argv)
    grown(place / ".two.csv.new", 1, first)
    first.send_signal(signal.SIGSTOP)
    status, _, errors = ends(start(place, *argv, "--resume-output"))
    first.send_signal(signal.SIGCONT)
    assert status == 2 and "another run is writing it" in errors
    assert ends(first)[::2] == (0, "")
    with open(place / "two.csv", newline="") as file:
        assert [int(row["id"]) for row in csv.DictReader(file)] == list(range(20_000))


def test_a_full_disk_keeps_the_predictions(place):
    argv = ("--input", "20000.csv", "--output", "full.jsonl")
    assert ends(start(place, *argv))[0] == 0
    whole = (place / "full.jsonl").read_bytes()
    (place / "full.jsonl").write_text("older")

    size = len(whole) // 2

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    status, _, errors = ends(start(place, *argv, preexec_fn=limit_files))
    assert status == 2 and errors.startswith("error: --output full.jsonl: cannot be written")
    assert "continue with --resume-output" in errors and errors.count("\n") == 1
    assert (place / "full.jsonl").read_text() == "older"
    assert ends(start(place, *argv, "--resume-output"))[::2] == (0, "")
    assert (place / "full.jsonl").read_bytes() == whole


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line(place):
    with open("/dev/full", "w") as full:
        status, _, errors = ends(start(place, "good", stdout=full))
    assert status == 2 and errors.startswith("error: ") and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "argv"),
    [
        ("train.py", ("--data", "gone.csv")),
        ("eval.py", ("--model", "gone", "--data", "gone.csv")),
        ("predict.py", ("--model", "gone", "good")),
    ],
)
def test_ctrl_c_while_it_imports_is_one_line(place, script, argv):
    """PyTorch's library is mapped early in the second that its import takes."""
    process = start_script(script, *argv, cwd=place, fresh=True)
    maps = Path(f"/proc/{process.pid}/maps")
    while "libtorch_cpu" not in maps.read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    status, output, errors = ends(process)
    assert (status, output, errors) == (130, "", "stopped by SIGINT\n")


# Readers


def test_a_reader_that_leaves_ends_it_quietly(place):
    command = " ".join([python("predict.py"), *MODEL])
    line = f"{command} --input 20000.csv | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", line], cwd=place, capture_output=True, text=True, timeout=100
    )
    first, status = result.stdout.splitlines()
    assert strict_json(first)["id"] == "0"
    assert (status, result.stderr) == ("141", "")


def test_a_slow_reader_does_not_grow_memory(place):
    """The rows are long, so that waiting predictions would show in the memory."""
    file = place / "long.jsonl"
    with open(file, "w") as lines:
        for i in range(30_000):
            lines.write(json.dumps({"text": f"good film {i}", "page": str(i % 10) * 4000}) + "\n")
    process = start(place, "--input", file.name)
    found = []
    for _ in range(8):
        for _ in range(1024):
            assert strict_json(process.stdout.readline())["label"]
        time.sleep(0.5)  # in which it could predict thousands of rows
        found.append(memory(process, "VmRSS"))
    process.stdout.close()
    process.wait(timeout=60)
    process.stderr.close()
    file.unlink()
    print(f"memory while it waits, MB: {found}")
    assert max(found) < found[0] + 30


# Closed streams, and what is written

CLOSED = {
    ("predict.py", ">&-", "good"): (2, "error: standard output is closed; give --output FILE\n"),
    ("predict.py", "<&-", "--input -"): (2, "error: standard input is closed; give --input FILE\n"),
    ("predict.py", "<&-", "good"): (0, ""),
    ("predict.py", "2>&-", "good"): (0, ""),
    ("predict.py", "2>&-", "--output gone/x.csv good"): (2, ""),
    ("predict.py", ">&- 2>&- <&-", "--output predictions.csv good"): (0, ""),
    ("predict.py", ">&-", "--help"): (0, None),
    ("eval.py", ">&-", "--data labelled.csv"): (0, ""),
    ("eval.py", "<&-", "--data labelled.csv"): (0, ""),
    ("eval.py", "2>&-", "--data gone.csv"): (2, ""),
    ("eval.py", ">&- 2>&- <&-", "--data labelled.csv --json figures.json"): (0, ""),
    ("train.py", ">&-", "--data gone.csv"): (2, None),
    ("train.py", "2>&-", "--data gone.csv"): (2, ""),
    ("train.py", ">&- 2>&- <&-", "--data labelled.csv --max-length 40 --epochs 1 --out run"): (
        0,
        "",
    ),
}


@pytest.mark.parametrize(("script", "closed", "argv"), CLOSED)
def test_a_closed_stream_is_no_traceback(place, script, closed, argv):
    rows = "".join(f"good film {i},good\nbad food {i},bad\n" for i in range(20))
    (place / "labelled.csv").write_text("text,label\n" + rows)
    command = " ".join([python(script), *MODEL, argv, closed])
    result = subprocess.run(
        ["bash", "-c", command], cwd=place, capture_output=True, text=True, timeout=100
    )
    status, errors = CLOSED[script, closed, argv]
    assert result.returncode == status, result
    assert "Traceback" not in result.stderr
    if errors is not None:
        assert result.stderr == errors
    if "2>&-" in closed and ">&- 2" not in closed:
        assert "error" not in result.stdout  # what would go to stderr does not go there
    if "predictions.csv" in argv:
        assert "good" in (place / "predictions.csv").read_text()


def test_no_file_gets_the_number_of_a_closed_stream(place):
    """Otherwise a library's messages would be written into that file."""
    program = (
        "import os; from minibert.commands.process import prepare_process; "
        "prepare_process(); exit(os.open('/', 0))"
    )
    command = f'{sys.executable} -c "{program}" <&- >&- 2>&-'
    assert subprocess.run(["bash", "-c", command], cwd=ROOT, timeout=60).returncode > 2


def test_nothing_is_written_but_the_output(place, tmp_path):
    """Not into the folders of the home, of temporary files, of the input or of the model."""
    homes = {name: str(tmp_path / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    homes |= {"HF_HOME": str(tmp_path / "HOME" / "hub"), "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "out"):
        (tmp_path / name).mkdir()

    def times() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for top in (place, tmp_path) for p in top.rglob("*")}

    before = times()
    output = tmp_path / "out" / "predictions.csv"
    process = start(place, "--input", "10000.csv", "--output", str(output), env=homes)
    assert ends(process)[0] == 0
    after = times()
    changed = {path for path in after if after[path] != before.get(path)}
    assert changed == {output, output.parent}
    assert before.keys() <= after.keys()
