"""The file of predictions: complete or not there, kept when a run stops, continued, never shared.

Run: pytest tests/test_writers.py
"""

import fcntl
import os
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from helpers import a_task, read_table, record_of, strict_json

from minibert.data.columns import Columns
from minibert.data.readers import Row
from minibert.errors import InputError, Interrupted
from minibert.inference.formats import WINDOW, prediction_record
from minibert.inference.writers import PredictionWriter, open_writer, whole_windows

TASK = a_task("bad", "good")
PREDICTION = record_of(TASK, [0.25, 0.75])
# Quotes, line ends and tabs: a line of the file is not always a prediction.
ODD = 'a "slow\r\n, cold"\tsoup\n'


def window(number: int, rows: int = WINDOW, *, text: str = "good film") -> list[dict]:
    """The records of a window."""
    start = number * WINDOW
    return [
        prediction_record(
            Row(i, {"text": f"{text} {i} {ODD[: i % 21]}", "id": i}),
            Columns("text"),
            TASK,
            PREDICTION,
        )
        for i in range(start, start + rows)
    ]


WINDOWS = [window(0), window(1), window(2), window(3, rows=99)]


def write(
    output: Path,
    windows: list[list[dict]] = WINDOWS,
    *,
    resume: bool = False,
    safe: bool = False,
) -> list[int]:
    """Write windows to a file; return the numbers of those that the writer needed."""
    needed = []
    with open_writer(str(output), TASK, safe=safe, resume=resume) as writer:
        for number, records in enumerate(windows):
            if writer.needs(number):
                needed.append(number)
                writer.write(number, records)
    return needed


def opened(output: Path) -> AbstractContextManager[PredictionWriter]:
    """A writer of a new file."""
    return open_writer(str(output), TASK, safe=False, resume=False)


def growing(output: Path) -> Path:
    return output.with_name(f".{output.name}.new")


def interrupt(output: Path, size: int) -> bytes:
    """Make of a finished file what a killed run leaves; return the whole."""
    whole = output.read_bytes()
    output.unlink()
    growing(output).write_bytes(whole[:size])
    return whole


@pytest.fixture(params=["csv", "tsv", "jsonl"])
def output(request, tmp_path) -> Path:
    """A file of each format."""
    return tmp_path / f"predictions.{request.param}"


def test_the_file_appears_when_it_is_complete(output):
    with opened(output) as writer:
        writer.write(0, WINDOWS[0])
        assert not output.exists() and growing(output).stat().st_size > 10_000
    assert output.exists() and not growing(output).exists()
    rows = (
        [strict_json(line) for line in output.open(encoding="utf-8")]
        if output.suffix == ".jsonl"
        else read_table(output)
    )
    assert [int(row["id"]) for row in rows] == list(range(WINDOW))


def test_an_older_file_is_replaced_at_the_end(output):
    output.write_text("older")
    with pytest.raises(ZeroDivisionError), opened(output) as writer:
        assert writer.is_empty()
        raise ZeroDivisionError
    assert output.read_text() == "older" and not growing(output).exists()
    write(output)
    assert output.read_text() != "older"


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "real.jsonl").write_text("older")
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    write(tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len((tmp_path / "real.jsonl").read_text().splitlines()) == 3 * WINDOW + 99


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99, 1.0])
def test_a_resumed_file_has_the_bytes_of_one_that_was_not_interrupted(output, share):
    """Cut within each of the windows, and after the last; then comes half a row."""
    write(output)
    size = int(share * output.stat().st_size)
    whole = interrupt(output, size)
    with open(growing(output), "ab") as file:
        file.write(b'half a "row')
    write(output, resume=True)
    assert output.read_bytes() == whole
    assert not growing(output).exists()


def test_of_the_windows_in_the_file_only_the_first_and_the_last_are_needed(output):
    write(output)
    interrupt(output, output.stat().st_size - 1)
    assert write(output, resume=True) == [0, 2, 3]


def test_a_new_run_does_not_destroy_the_predictions_of_another(output):
    write(output, WINDOWS[:2])
    whole = interrupt(output, 10**9)
    with pytest.raises(InputError, match=r"4,096 predictions .* --resume-output, or remove it"):
        write(output)
    assert growing(output).read_bytes() == whole


def test_less_than_a_window_is_written_again(output):
    write(output)
    whole = interrupt(output, 99)
    write(output)
    assert output.read_bytes() == whole


OTHER_WINDOWS = {
    "another first window": [window(0, text="bad"), *WINDOWS[1:]],
    "another last window": [*WINDOWS[:2], window(2, text="bad")],
    "fewer rows": [*WINDOWS[:2], window(2, rows=7)],
    "fewer windows": WINDOWS[:1],
    "nothing": [],
}


@pytest.mark.parametrize("name", OTHER_WINDOWS)
def test_other_predictions_are_not_continued(output, name):
    write(output, WINDOWS[:3])
    whole = interrupt(output, 10**9)
    message = r"--resume-output: .* has (other|more) predictions .* remove it"
    with pytest.raises(InputError, match=message):
        write(output, OTHER_WINDOWS[name], resume=True)
    assert growing(output).read_bytes() == whole
    assert not output.exists()


def test_a_table_is_not_continued_as_a_safe_one(tmp_path):
    output = tmp_path / "predictions.csv"
    write(output)
    interrupt(output, 10**9)
    with pytest.raises(InputError, match="has other predictions for the rows 1 to 2,048"):
        write(output, resume=True, safe=True)


def test_an_error_says_where_the_predictions_are(output):
    message = r"line 5: bad; the predictions so far are in .*\.new"
    with pytest.raises(InputError, match=message), opened(output) as writer:
        writer.write(0, WINDOWS[0])
        raise InputError("line 5: bad")
    with open(growing(output), "rb") as file:
        assert len(whole_windows(file, output.suffix)) == 1


def test_an_interrupt_says_how_to_continue(output):
    with pytest.raises(Interrupted) as caught, opened(output) as writer:
        writer.write(0, WINDOWS[0])
        raise Interrupted(signal.SIGINT)
    assert "continue with --resume-output" in str(caught.value)
    assert growing(output).exists()


def test_an_error_before_the_first_window_leaves_nothing(output):
    with pytest.raises(InputError, match=r"^no text column$"), opened(output):
        raise InputError("no text column")
    assert list(output.parent.iterdir()) == []


# Other runs, links, pipes


def test_a_link_in_the_place_of_the_growing_file_is_not_followed(output):
    precious = output.parent / "precious"
    precious.write_text("do not touch")
    growing(output).symlink_to(precious)
    with pytest.raises(InputError, match=r"predictions\.\w+: cannot be written"):
        write(output)
    assert precious.read_text() == "do not touch"


def test_a_file_that_another_run_writes_is_refused(output):
    with opened(output) as writer:
        writer.write(0, WINDOWS[0])
        with pytest.raises(InputError, match="another run is writing it"):
            write(output, resume=True)
        writer.write(1, WINDOWS[1])
    assert output.exists()


def test_a_run_that_finishes_meanwhile_keeps_its_file(output, monkeypatch):
    """Its file gets its name between the opening and the locking of the same file here."""
    growing(output).write_text("another run's predictions\n")
    flock = fcntl.flock

    def rename_and_lock(*arguments: object) -> None:
        growing(output).replace(output)
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", rename_and_lock)
    with pytest.raises(InputError, match=r"another run is writing it"):
        write(output)
    assert output.read_text() == "another run's predictions\n"


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match="is not a regular file"):
        write(tmp_path / "pipe.csv")


def test_closed_standard_output_is_one_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(InputError, match="standard output is closed; give --output FILE"):
        write(Path("-"))
