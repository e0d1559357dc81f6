"""Callback: what else happens around the steps of `fit`."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from torch import Tensor

from minibert.model.classifier import Classifier
from minibert.training.frozen import Encoding
from minibert.training.state import TrainState


class Callback:
    """What else happens around the steps of `fit`. Override what you need; all methods are empty.

    Between `on_start` and `close` the word embedding holds only the tokens of the training texts.
    Use the model for other texts only in `validating` and `on_best`.

    Example:
        >>> class Losses(Callback):
        ...     def on_step(self, state, loss, lr):
        ...         print(f"step {state.step}: loss {float(loss):.3f}")
    """

    def scratch_folder(self) -> Path | None:
        """Return the folder of large temporary files; None: the system's temporary folder."""
        return None

    def on_encoded(self, encoding: Encoding) -> None:
        """After the output of frozen layers is computed, before `on_start`."""

    def on_start(self, state: TrainState) -> None:
        """Before the first step. May set `state` to a saved one, which has no best weights."""

    def on_step(self, state: TrainState, loss: Tensor, lr: float) -> None:
        """After each optimizer step, with its mean loss and highest learning rate."""

    def validating(self, state: TrainState) -> AbstractContextManager:
        """Return the context of each validation."""
        return nullcontext()

    def on_best(self, model: Classifier) -> None:
        """After each epoch that is the best so far."""

    def on_epoch(self, state: TrainState) -> None:
        """After each epoch, whose figures are state.history[-1]."""

    def on_end(self, state: TrainState) -> None:
        """After the last epoch."""

    def close(self) -> None:
        """After `on_end`, or after an error."""
