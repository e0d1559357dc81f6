"""What a run shows while it trains: a bar on a terminal, a few plain lines elsewhere."""

import shutil
import sys
import time

from torch import Tensor
from tqdm import tqdm

from minibert.training.loop import Callback
from minibert.training.options import TrainingOptions
from minibert.training.state import TrainState

PLAIN_LINES = 10  # per run
MIN_BAR = 10  # columns


class ProgressBar(Callback):
    """Shows loss, learning rate, texts/s and time left on standard error, then epoch lines.

    Args:
        options: those of `fit`.
        texts: the number of training texts.
        steps: optimizer steps per epoch.
    """

    def __init__(self, options: TrainingOptions, *, texts: int, steps: int) -> None:
        super().__init__()
        self.options, self.texts, self.steps = options, texts, steps
        self.bar: tqdm | None = None
        self.started: tuple[float, int] | None = None  # when, and after how many texts of the epoch
        self.shown = 0.0

    def on_step(self, state: TrainState, loss: Tensor, lr: float) -> None:
        """Show a step, but not every one: reading the loss makes a GPU wait."""
        now = time.perf_counter()
        if self.started is None:
            self.started = now, state.texts
            self._open_bar(state)
        if not self._is_due(state, now):
            return
        self.shown = now
        began, texts_before = self.started
        rate = (state.texts - texts_before) / max(now - began, 1e-9)
        parts = [f"loss {float(loss):.4f}", f"lr {lr:.2e}"]
        if rate:
            left = (self.texts - state.texts) / rate
            parts = [f"{rate:,.0f} texts/s", f"{_clock(left)} left", *parts]
        if self.bar is not None:
            self.bar.set_postfix_str(_fitting(parts, len(self.bar.desc)), refresh=False)
            self.bar.update(state.texts - self.bar.n)
            self.bar.refresh()
        else:
            step = state.step - state.epoch * self.steps
            title = f"epoch {state.epoch + 1}/{self.options.epochs}, step {step}/{self.steps}"
            print(f"{title}: {', '.join(parts)}", file=sys.stderr)

    def on_epoch(self, state: TrainState) -> None:
        """Print an epoch's figures."""
        record = state.history[-1]
        best = "; best so far" if state.best_epoch == record.epoch else ""
        print(
            f"epoch {record.epoch}/{self.options.epochs}, {record.seconds:.1f} s: "
            f"loss {record.train_loss:.4f}; validation loss {record.validation_loss:.4f}, "
            f"accuracy {100 * record.validation_accuracy:.1f}%{best}"
        )

    def close(self) -> None:
        """Remove the bar. The next step opens another."""
        if self.bar is not None:
            self.bar.close()
        self.bar, self.started = None, None

    def _open_bar(self, state: TrainState) -> None:
        if sys.stderr.isatty():
            title = f"epoch {state.epoch + 1}/{self.options.epochs}"
            layout = "{desc} {percentage:3.0f}%|{bar}|{postfix}"
            self.bar = tqdm(
                total=self.texts,
                initial=state.texts,
                desc=title,
                bar_format=layout,
                leave=False,
                dynamic_ncols=True,
            )

    def _is_due(self, state: TrainState, now: float) -> bool:
        last = state.step % self.steps == 0
        if self.bar is not None:
            return last or now - self.shown > 0.2
        every = max(1, self.steps * self.options.epochs // PLAIN_LINES)
        return state.step % every == 0


def _fitting(parts: list[str], title: int) -> str:
    """Return as many of the parts, the first first, as leave room for a bar on the terminal."""
    room = shutil.get_terminal_size().columns - title - len(" 100%||, ") - MIN_BAR
    while len(parts) > 1 and len(", ".join(parts)) > room:
        parts = parts[:-1]
    return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
