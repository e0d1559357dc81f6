"""The options of training, each with its unit and range."""

from dataclasses import dataclass

from minibert.options import check_options, option

SCHEDULES = ("linear", "cosine", "constant")
FIGURES = (
    *("accuracy", "macro-f1", "micro-f1", "map", "rmse", "mae", "pearson", "spearman", "r2"),
    "loss",
)


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. Raises one InputError for all values out of range.

    Example:
        >>> TrainingOptions(epochs=0, warmup=2.0)
        Traceback (most recent call last):
        minibert.errors.InputError: --epochs is 0; it must be 1 or more; --warmup is 2.0; ...
    """

    epochs: int = option(3, "passes over the training texts", parse=int, bounds=(1, None))
    batch_size: int = option(32, "texts per forward pass", parse=int, bounds=(1, None))
    accumulate: int = option(1, "batches per optimizer step", parse=int, bounds=(1, None))
    encoder_lr: float = option(
        2e-5, "peak learning rate of the encoder", parse=float, bounds=(0, None)
    )
    head_lr: float = option(1e-4, "peak learning rate of the head", parse=float, bounds=(0, None))
    weight_decay: float = option(
        0.01, "AdamW's weight decay of matrices", parse=float, bounds=(0, 1)
    )
    schedule: str = option("linear", "learning rates after the warm-up", choices=SCHEDULES)
    warmup: float = option(
        0.1, "fraction of the steps in which the rates rise", parse=float, bounds=(0, 1)
    )
    clip: float = option(
        1.0, "largest norm of the gradient; 0: no clipping", parse=float, bounds=(0, None)
    )
    label_smoothing: float = option(
        0.0, "probability spread over all classes", parse=float, bounds=(0, 0.99)
    )
    class_weights: str = option(
        "none",
        "balanced: a text weighs rows / (classes x rows of its class), as in scikit-learn; sqrt: "
        "the square roots of these weights",
        choices=("none", "sqrt", "balanced"),
    )
    freeze: bool = option(False, "train the head alone, on features computed once")
    freeze_layers: int = option(
        0,
        "lowest layers to freeze, with the embeddings; their output is computed once",
        parse=int,
        bounds=(0, None),
    )
    freeze_embeddings: bool = option(False, "do not train the embeddings")
    regression_loss: str = option(
        "mse", "error that a regression minimizes", choices=("mse", "huber")
    )
    select: str | None = option(
        None,
        "validation figure that selects the best epoch",
        choices=FIGURES,
        shown="accuracy; map for several labels, rmse for numbers",
    )
    patience: int | None = option(
        None,
        "epochs without a better figure before stopping",
        parse=int,
        bounds=(1, None),
        shown="no early stopping",
    )
    seed: int = option(
        0, "seed of the new head, the batches and dropout", parse=int, bounds=(0, 2**32 - 1)
    )

    def __post_init__(self) -> None:
        problems = []
        if self.freeze and (self.freeze_layers or self.freeze_embeddings):
            problems = ["--freeze freezes all; drop --freeze-layers and --freeze-embeddings"]
        check_options(self, *problems)
