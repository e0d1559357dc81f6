"""Advice after an epoch: the signs of a run that does not learn, the likely cause, what to try."""

from collections.abc import Callable, Sequence

from minibert.evaluation.figures import LOWER_IS_BETTER, show_figure
from minibert.training.history import EpochRecord
from minibert.training.state import TrainState

# Learning rates outside these ranges are the likely cause if nothing is learned.
USUAL_ENCODER_LR = (1e-5, 2e-4)  # BERT's paper, appendix A.3: 2e-5 to 5e-5; small models take more
USUAL_HEAD_LR = (5e-5, 1e-2)
NEARLY_ALWAYS = 0.95  # of the steps
FEW_STEPS = 100
FAR_ABOVE = 20  # times --clip; with the default of 1 runs that learn have medians of 0.5 to 8

Check = Callable[[TrainState, Sequence[EpochRecord]], str | None]


def advice(state: TrainState) -> list[str]:
    """Return the lines that are true after the newest epoch and were not after an earlier one.

    They depend on the history and the options alone, so a resumed run prints none twice.
    """
    lines = []
    for check in CHECKS:
        *earlier, now = (check(state, state.history[: i + 1]) for i in range(len(state.history)))
        if now and not any(earlier):
            lines.append(f"advice: {now}")
    return lines


def slow_head(state: TrainState, history: Sequence[EpochRecord]) -> str | None:
    """Check that the head's learning rate is not below the encoder's."""
    encoder_lr, head_lr = state.options.encoder_lr, state.options.head_lr
    if state.options.freeze or head_lr >= encoder_lr:
        return None
    return (
        f"--head-lr {head_lr:g} is below --encoder-lr {encoder_lr:g}, but a head has more to "
        f"learn than a pretrained encoder; try --head-lr {5 * encoder_lr:g}"
    )


def one_prediction(state: TrainState, history: Sequence[EpochRecord]) -> str | None:
    """Check that not all validation texts get the same prediction."""
    record, name, labels = history[-1], state.task.figures[0], state.prior.distinct_targets
    if _is_early(state, record) or labels == 1 or record.predicted_classes != 1:
        return None
    cause = _cause(state)
    if record.train_loss < state.prior.train_loss:
        cause = "it needs more epochs, or, if a class is rare, --class-weights balanced"
    return (
        f"all validation texts get the same prediction, but they have {labels:,} different labels "
        f"({show_figure(name, record.validation[name])}); likely {cause}"
    )


def no_progress(state: TrainState, history: Sequence[EpochRecord]) -> str | None:
    """Check that the training loss is below that of a model that ignores the texts."""
    record, prior = history[-1], state.prior.train_loss
    if _is_early(state, record) or record.train_loss < prior or _learns(state, record):
        return None
    if record.train_loss == 0:  # all targets are equal
        return None
    return (
        f"the training loss is {record.train_loss:.4f}, but knowing only {state.task.prior} gives "
        f"{prior:.4f}; likely {_cause(state)}"
    )


def worse_than_prior(state: TrainState, history: Sequence[EpochRecord]) -> str | None:
    """Check that the validation is better than that of a model that ignores the texts."""
    record, name = history[-1], state.task.figures[0]
    value, prior = record.validation[name], state.prior.validation[name]
    if _is_early(state, record) or state.prior.distinct_targets == 1:
        return None
    if value is None or prior is None:
        return None
    rare_classes = state.options.class_weights != "none" or state.options.select == "macro-f1"
    worse = value > prior if name in LOWER_IS_BETTER else value < prior
    same = show_figure(name, value) == show_figure(name, prior)
    if not worse or same or (rare_classes and name == "accuracy"):
        return None
    cause = _cause(state)
    if record.train_loss < state.prior.train_loss:
        cause = (
            "the validation texts or labels are of another kind than the training's, or the labels "
            "do not follow from the texts; compare some texts of both with their labels"
        )
    return (
        f"validation {show_figure(name, value)} is worse than {show_figure(name, prior)}, "
        f"which knowing only {state.task.prior} gives; likely {cause}"
    )


def large_gradients(state: TrainState, history: Sequence[EpochRecord]) -> str | None:
    """Check that clipping does not shrink nearly every gradient to a small part."""
    clip, steps, norm = state.options.clip, history[-1].clipped_steps, history[-1].gradient_norm
    if steps is None or norm is None or steps < NEARLY_ALWAYS or norm < FAR_ABOVE * clip:
        return None
    cause = "--clip is too low; try --clip 1"
    if clip >= 1:
        cause = "a learning rate is too high, or labels are wrong; try half of both rates"
    return (
        f"the gradient was clipped at {100 * steps:.0f}% of the steps, in the median from a norm "
        f"of {norm:.3g} to {clip:g}; likely {cause}"
    )


def overfitting(state: TrainState, history: Sequence[EpochRecord]) -> str | None:
    """Check that the validation loss or error does not rise twice while the training loss falls."""
    if len(history) < 3:
        return None
    training = [record.train_loss for record in history[-3:]]
    error = "loss" if "loss" in state.task.figures else "rmse"
    validation = [record.validation[error] or 0.0 for record in history[-3:]]
    rises = validation[0] < validation[1] < validation[2]
    if not (rises and training[0] > training[1] > training[2]):
        return None
    since, name = history[-3].epoch, state.task.selects(state.options.select)
    remedy = "fewer --epochs, --patience 1 or more texts"
    if state.best_epoch > since:  # the model still gains, but is ever more sure of its mistakes
        remedy = f"--select {error} if it matters more than {name}"
    return (
        f"since epoch {since} the training loss fell from {training[0]:.4f} to {training[2]:.4f} "
        f"and the validation {error} rose from {validation[0]:.4f} to {validation[2]:.4f}; likely "
        f"the model learns the training texts by heart; {name} was best after epoch "
        f"{state.best_epoch}; try {remedy}"
    )


def _learns(state: TrainState, record: EpochRecord) -> bool:
    """Return whether the validation's first figure is half of the way from the prior to best."""
    name = state.task.figures[0]
    value, prior = record.validation[name], state.prior.validation[name]
    if value is None or prior is None:
        return False
    return value < prior / 2 if name in LOWER_IS_BETTER else value > (1 + prior) / 2


def _is_early(state: TrainState, record: EpochRecord) -> bool:
    """Return whether most of the record is of steps before anything can be learned."""
    return record.epoch == 1 < state.options.epochs


def _cause(state: TrainState) -> str:
    """Return why nothing is learned, as far as rates and steps tell, and what to try."""
    options = state.options
    rates = [("--head-lr", options.head_lr, *USUAL_HEAD_LR)]
    if not options.freeze:
        rates.insert(0, ("--encoder-lr", options.encoder_lr, *USUAL_ENCODER_LR))
    causes = [
        f"{flag} {rate:g} is too {'low' if rate < low else 'high'} (try {low:g} to {high:g})"
        for flag, rate, low, high in rates
        if not low <= rate <= high
    ]
    if causes:
        return " and ".join(causes)
    if state.step < FEW_STEPS:
        return f"{state.step} steps are too few; try more --epochs or higher learning rates"
    return "the labels do not follow from the texts; compare some texts with their labels"


CHECKS: tuple[Check, ...] = (
    *(slow_head, one_prediction, no_progress),
    *(worse_than_prior, large_gradients, overfitting),
)
