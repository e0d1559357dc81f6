"""The figures of each epoch, and what `fit` returns."""

from dataclasses import asdict, dataclass

from torch import Tensor


@dataclass(frozen=True)
class EpochRecord:
    """The figures of one epoch, as history.csv has them."""

    epoch: int
    train_loss: float
    learning_rate: float | None  # the highest of the last step; None: there are no steps
    validation: dict[str, float | None]  # the task's figures by name; None: undefined
    seconds: float  # of the training steps
    texts_per_second: float
    predicted_classes: int | None = None  # of the validation texts with one class each
    gradient_norm: float | None = None  # median before clipping; None: gradients are not clipped
    clipped_steps: float | None = None  # ratio of the steps whose gradient was clipped

    def to_row(self) -> dict[str, float | None]:
        """Return the figures as a flat row."""
        row = asdict(self)
        figures = {f"validation_{name.replace('-', '_')}": x for name, x in self.validation.items()}
        last = ("predicted_classes", "gradient_norm", "clipped_steps")
        moved = {name: row.pop(name) for name in (*last, "seconds", "texts_per_second")}
        del row["validation"]
        return {**row, **figures, **moved}


@dataclass(frozen=True)
class TrainResult:
    """What `fit` returns."""

    history: tuple[EpochRecord, ...]  # the figures of each epoch
    best_epoch: int  # counted from 1
    steps: int  # of the optimizer
    seconds: float  # of all steps
    encoding_seconds: float  # of a frozen encoder


def clipping(norms: Tensor, clip: float) -> tuple[float, float] | tuple[None, None]:
    """Return the median of the steps' gradient norms, and the ratio of those over `clip`."""
    if not clip:
        return None, None
    norms = norms.cpu()  # not every PyTorch has this median on MPS
    return float(norms.nanmedian()), float((norms > clip).float().mean())
