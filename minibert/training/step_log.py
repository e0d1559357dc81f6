"""The figures of a run while it trains, for machines: log.jsonl, and TensorBoard's event files."""

import json
import math
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from minibert.errors import InputError
from minibert.files import json_text, write_text
from minibert.training.state import TrainState

EVERY = 10  # steps between two lines: reading the loss makes a GPU wait


class StepLog:
    """Writes figures every tenth step and after each epoch. A resumed run drops what it repeats.

    `file` gets a JSON object per line; `events`, a folder, gets TensorBoard's events. Both have the
    same names: train/loss, train/gradient_norm, train/texts_per_second, rate/head, validation/...
    """

    def __init__(self, file: Path | None, events: Path | None, state: TrainState) -> None:
        self.file, self.writer = file, None
        for path, is_usable in ((file, Path.is_file), (events, Path.is_dir)):
            if path and path.exists() and not is_usable(path):
                raise InputError(f"{path}: is something else than a log; remove it")
        if file and file.exists():
            write_text(file, "".join(kept_lines(file, state.step)))
        if events:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(events), purge_step=state.step + 1)

    def on_step(self, state: TrainState, loss: Tensor) -> None:
        """Write a step's figures, if it is the tenth since the last."""
        if state.step % EVERY:
            return
        figures = {"train/loss": state.wait_for(loss)}
        if state.options.clip:
            in_epoch = state.step - state.epoch * state.steps_per_epoch
            figures["train/gradient_norm"] = float(state.norms[in_epoch - 1])
        figures["train/texts_per_second"] = round(state.texts / max(state.epoch_seconds, 1e-9), 1)
        figures |= {f"rate/{x['name']}": x["lr"] for x in state.optimizer.param_groups}
        self._write(state.step, figures)

    def on_epoch(self, state: TrainState) -> None:
        """Write the figures of the validation."""
        validation = state.history[-1].validation
        figures = {f"validation/{x}": y for x, y in validation.items() if y is not None}
        self._write(state.step, {"epoch": state.epoch, **figures})

    def close(self) -> None:
        """Close the event file. All is written without it."""
        if self.writer:
            self.writer.close()

    def _write(self, step: int, figures: dict[str, float]) -> None:
        figures = {name: x for name, x in figures.items() if math.isfinite(x)}
        if self.file:
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(json_text({"step": step, **figures}) + "\n")
        if self.writer:
            for name, value in figures.items():
                self.writer.add_scalar(name, value, step)
            self.writer.flush()


def check_tensorboard() -> None:
    """Raise InputError if TensorBoard's package is not installed."""
    if find_spec("tensorboard") is None:
        raise InputError("--tensorboard needs the package tensorboard (pip install tensorboard)")


def kept_lines(file: Path, step: int) -> list[str]:
    """Return the lines of the steps up to `step`. A process that dies leaves half a line."""
    kept = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        with suppress(ValueError, TypeError, KeyError):
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
    return kept
