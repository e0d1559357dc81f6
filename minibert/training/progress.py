"""What a run shows while it trains: a bar in a terminal or notebook, a few lines elsewhere."""

import math
import os
import sys
import time
from contextlib import AbstractContextManager

from torch import Tensor
from tqdm import tqdm

from minibert.evaluation.figures import show_figure
from minibert.training.advice import advice
from minibert.training.callback import Callback
from minibert.training.frozen import Encoding
from minibert.training.state import TrainState

PLAIN_LINES = 10  # per run
BAR_SECONDS = 0.2  # between two updates of the bar
MIN_BAR = 10  # columns


class ProgressBar(Callback):
    """Shows speed, time left in the epoch, loss and learning rate on standard error.

    After each epoch it prints the epoch's figures on standard output.

    Example:
        >>> bar = ProgressBar()  # for fit(model, train, validation, callback=bar)
    """

    def __init__(self) -> None:
        super().__init__()
        self.bar: tqdm | None = None
        self.shown = 0.0

    def on_encoded(self, encoding: Encoding) -> None:
        """Print what the frozen layers' output took."""
        print(encoding)

    def on_step(self, state: TrainState, loss: Tensor, lr: float) -> None:
        """Show a step, but not every one: reading the loss makes a GPU wait."""
        in_notebook = type(sys.stderr).__module__ == "ipykernel.iostream"
        in_terminal = sys.stderr.isatty() or in_notebook
        if not self._is_due(state, in_terminal):
            return
        value = state.wait_for(loss)
        rate = state.texts / max(state.epoch_seconds, 1e-9)
        left = (state.texts_per_epoch - state.texts) / rate
        parts = [f"{rate:,.0f} texts/s", f"{_clock(left)} left"]
        parts += [f"loss {value:.4f}", f"lr {lr:.2e}"]
        title = f"epoch {state.epoch + 1}/{state.options.epochs}"
        if in_terminal:
            self._draw(state, title, parts)
        else:
            step = state.step - state.epoch * state.steps_per_epoch
            place = f"{title}, step {step}/{state.steps_per_epoch}"
            print(f"{place}: {', '.join(parts)}", file=sys.stderr)

    def validating(self, state: TrainState) -> AbstractContextManager:
        """Remove the bar: the epoch's steps are done."""
        self.close()
        return super().validating(state)

    def on_epoch(self, state: TrainState) -> None:
        """Print an epoch's figures, and advice if they show that the run does not learn."""
        record = state.history[-1]
        best = "; best so far" if state.best_epoch == record.epoch else ""
        names = ["loss", state.task.selects(state.options.select), state.task.figures[0]]
        shown = [x for x in dict.fromkeys(names) if x in record.validation]
        figures = ", ".join(show_figure(name, record.validation[name]) for name in shown)
        print(
            f"epoch {record.epoch}/{state.options.epochs}: loss {record.train_loss:.4f}; "
            f"validation {figures}{best}"
        )
        for line in advice(state):
            print(line)

    def close(self) -> None:
        """Remove the bar. The next step opens another."""
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def _is_due(self, state: TrainState, in_terminal: bool) -> bool:
        if not in_terminal:
            every = math.ceil(state.steps_per_epoch * state.options.epochs / PLAIN_LINES)
            return state.step % every == 0
        now = time.perf_counter()
        if state.texts < state.texts_per_epoch and now - self.shown < BAR_SECONDS:
            return False
        self.shown = now
        return True

    def _draw(self, state: TrainState, title: str, parts: list[str]) -> None:
        """Draw the bar with as many of the parts, the first first, as the terminal has room for."""
        columns = _terminal_columns()
        room = columns - len(f"{title} 100%|| ") - MIN_BAR
        while len(parts) > 1 and len(", ".join(parts)) > room:
            parts = parts[:-1]
        layout = f"{title} {{percentage:3.0f}}%|{{bar}}| {', '.join(parts)}"
        if self.bar is None:
            done, total = state.texts, state.texts_per_epoch
            self.bar = tqdm(
                initial=done, total=total, bar_format=layout, ncols=columns, leave=False
            )
            return
        self.bar.n, self.bar.bar_format, self.bar.ncols = state.texts, layout, columns
        self.bar.refresh()


def _terminal_columns() -> int:
    """Return the columns of standard error's terminal, less the one where a cursor may wrap."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        columns = 0
    return (columns or 80) - 1


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
