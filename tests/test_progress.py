"""What a run shows while it trains: a bar in a terminal, about ten plain lines elsewhere.

Run: pytest tests/test_progress.py
"""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import PRIOR, ROOT, a_task, random_texts, start_script, tiny_classifier

from minibert import ProgressBar, TrainingOptions, choose_compute, fit
from minibert.training.state import EpochRecord

BAR = re.compile(r"epoch (\d+)/3 +\d+%\|([^|]*)\| (.+)")
# fit() with a ProgressBar and no other callback; sys.argv: epochs, texts, seconds per batch.
TRAINING = f"""
import sys, time
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import torch
from helpers import random_texts, tiny_classifier
from minibert import ProgressBar, TrainingOptions, choose_compute, fit
from minibert.data.batches import TextDataset
epochs, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])

class Slow(TextDataset):
    def batch(self, rows):
        time.sleep(seconds)
        return super().batch(rows)

texts = random_texts(count)
slow = Slow(texts.rows, texts.labels.numpy(), pad_token_id=0, token_types=False)
fit(tiny_classifier(), slow, texts, TrainingOptions(epochs=epochs, batch_size=2),
    compute=choose_compute("cpu", "fp32"), callback=ProgressBar())
"""


class Terminal:
    """A process on a pseudo-terminal, and what that shows."""

    def __init__(self, place: Path, columns: int, *argv: str | int) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = start_script(
            ["-c", TRAINING, *map(str, argv)],
            cwd=place,
            env={"COLUMNS": ""},
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.content = b""

    @property
    def shown(self) -> str:
        return self.content.decode(errors="replace")

    def read(self, bars: int | None = None) -> None:
        """Read so many bars, or to the end of the process."""
        with contextlib.suppress(OSError):  # how Linux reports that the other side is closed
            while bars is None or self.content.count(b" left") < bars:
                piece = os.read(self.ours, 4096)
                if not piece:
                    break
                self.content += piece

    def end(self) -> list[str]:
        """Wait for the process; return the lines that its terminal shows at the end."""
        self.read()
        os.close(self.ours)
        self.process.wait(timeout=60)
        # A carriage return goes back to the line's start: what follows overwrites it.
        lines = []
        for line in self.shown.replace("\r\n", "\n").replace("\x1b[A", "").split("\n"):
            visible = ""
            for piece in line.split("\r"):
                visible = piece + visible[len(piece) :]
            lines.append(visible.rstrip())
        return [line for line in lines if line]


def without_advice(lines: list[str]) -> list[str]:
    """The lines without the advice for a tiny model that does not learn."""
    return [line for line in lines if line.startswith("epoch")]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_bar_fits_the_terminal_and_keeps_speed_and_time_left(tmp_path, columns):
    terminal = Terminal(tmp_path, columns, 3, 40, 0.02)
    lines = terminal.end()
    assert terminal.process.returncode == 0, terminal.shown
    bars = [bar for bar in re.split(r"[\r\n]", terminal.shown) if "|" in bar]
    assert {int(BAR.search(bar)[1]) for bar in bars} == {1, 2, 3}
    for bar in bars:
        assert len(bar) < columns  # a full line would wrap
        assert re.search(r"\| [\d,]+ texts/s, \d+:\d\d left", bar)
        assert ("loss " in bar and "lr " in bar) == (columns >= 80)
        assert len(BAR.search(bar)[2]) >= 10
    # At the end only the epochs' lines and the advice on them are left.
    lines = without_advice(lines)
    assert len(lines) == 3
    assert all(re.match(r"epoch \d/3: loss \d", line) and len(line) <= 80 for line in lines)
    assert any(line.endswith("; best so far") for line in lines)


def test_no_bar_is_left_after_ctrl_c(tmp_path):
    terminal = Terminal(tmp_path, 80, 3, 4000, 0.05)
    terminal.read(bars=3)
    terminal.process.send_signal(signal.SIGINT)
    lines = terminal.end()
    assert not any("texts/s" in line for line in lines), lines


@pytest.mark.parametrize(("epochs", "count"), [(1, 40), (12, 40), (19, 2), (3, 14)])
def test_without_a_terminal_a_run_prints_about_ten_plain_lines(capsys, epochs, count):
    texts, options = random_texts(count), TrainingOptions(epochs=epochs, batch_size=2)
    compute = choose_compute("cpu", "fp32")
    fit(tiny_classifier(), texts, texts, options, compute=compute, callback=ProgressBar())
    output, errors = (stream.splitlines() for stream in capsys.readouterr())
    output = without_advice(output)
    assert 5 <= len(errors) <= 10
    parts = r"[\d,]+ texts/s, \d+:\d\d left, loss \d+\.\d{4}, lr \d\.\d\de-\d\d"
    for line in errors:
        assert re.fullmatch(rf"epoch \d+/{epochs}, step \d+/{count // 2}: {parts}", line)
    assert len(output) == epochs and all(len(line) <= 80 for line in output)


def test_epoch_lines_of_large_numbers_fit_in_80_columns(capsys):
    validation = {"accuracy": 1.0, "macro-f1": 1.0, "loss": 2.3456}
    state = SimpleNamespace(
        task=a_task(),
        prior=PRIOR,
        options=TrainingOptions(epochs=100),
        history=[EpochRecord(100, 2.3456, 1e-5, validation, 1.0, 12345.6)],
        best_epoch=100,
        step=100,
    )
    ProgressBar().on_epoch(state)  # type: ignore[arg-type]
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        "epoch 100/100: loss 2.3456; validation loss 2.3456, accuracy 100.0%; best so far"
    )
    assert len(line) <= 80
