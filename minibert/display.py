"""What a run shows while it trains: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time

from tqdm import tqdm

PLAIN_LINES = 10  # an epoch


class EpochDisplay:
    """Shows loss, learning rate, texts/s and time left of an epoch, on standard error."""

    def __init__(self, title: str, *, steps: int, texts: int, done: tuple[int, int]) -> None:
        self.title = title
        self.steps, self.texts = steps, texts
        self.step, self.texts_before = done  # what earlier stretches of the epoch did
        self.started = self.shown = time.perf_counter()
        self.bar = None
        if sys.stderr.isatty():
            layout = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
            self.bar = tqdm(total=texts, desc=self.title, bar_format=layout, leave=False)

    def due(self) -> bool:
        """Say whether to show this step; not every one, since reading the loss makes a GPU wait."""
        self.step += 1
        last = self.step == self.steps
        if self.bar is not None:
            return last or time.perf_counter() - self.shown > 0.2
        return last or self.step % max(1, self.steps // PLAIN_LINES) == 0

    def show(self, texts: int, *, loss: float, lr: float) -> None:
        """Show the figures after `texts` texts of this epoch."""
        self.shown = time.perf_counter()
        rate = (texts - self.texts_before) / (self.shown - self.started)
        left = (self.texts - texts) / rate
        line = f"loss {loss:.4f}, lr {lr:.2e}, {rate:,.0f} texts/s, {_clock(left)} left"
        if self.bar is not None:
            self.bar.set_postfix_str(line, refresh=False)
            self.bar.update(texts - self.bar.n)
            self.bar.refresh()
        else:
            print(f"{self.title}, step {self.step}/{self.steps}: {line}", file=sys.stderr)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
