"""The head that a run trains, and the options that fit it."""

from collections.abc import Sequence

from minibert.checkpoint.families import FAMILIES
from minibert.commands.options import RunOptions, Settings
from minibert.data.classes import output_names
from minibert.data.datasets import TokenizedSplits
from minibert.data.examples import Examples
from minibert.errors import InputError
from minibert.model.config import EncoderConfig, HeadConfig
from minibert.tasks.choice import task_of
from minibert.tasks.multi_label import MultiLabel
from minibert.tasks.single_label import SingleLabel
from minibert.training.logistic import check_logistic


def choose_head(
    stored: HeadConfig | None,
    config: EncoderConfig,
    train: Examples,
    options: RunOptions,
    tokenized: TokenizedSplits,
) -> HeadConfig:
    """Return the head to train. If the checkpoint's has the same classes, their order is kept."""
    names = output_names(train)
    if stored and same_outputs(stored, names, train.task):
        names = stored.labels
    defaults = {"native": FAMILIES[config.family].native_pooling, "logistic": "mean"}
    pooling = options.pooling or defaults.get(options.head, "cls")
    kind = "linear" if options.head == "logistic" else options.head
    length, long_texts = tokenized.max_length, tokenized.long_texts
    return HeadConfig(kind, pooling, names, length, train.task, long_texts=long_texts)


def same_outputs(stored: HeadConfig, names: Sequence[str], task: str) -> bool:
    """Return whether a head has the outputs of the data; the name of a single number may differ."""
    if stored.task != task:
        return False
    if task == "regression" and len(stored.labels) == len(names) == 1:
        return True
    return sorted(map(str.lower, stored.labels)) == sorted(map(str.lower, names))


def check_options(head: HeadConfig, settings: Settings) -> None:
    """Raise InputError for options of another task or head, before there is a run."""
    task = task_of(head)
    if settings.run.head == "logistic":
        check_logistic(head, settings.training)
    task.check_options(settings.training)
    task.selects(settings.training.select)
    if settings.run.thresholds != RunOptions().thresholds and not isinstance(task, MultiLabel):
        raise InputError("--thresholds is for several labels; drop it")
    two_classes = isinstance(task, SingleLabel) and len(task.names) == 2
    if settings.run.rare_class and not two_classes:
        raise InputError("--rare-class is for two classes, one per text; drop it")
    if settings.run.target_accuracy is not None and not isinstance(task, SingleLabel):
        raise InputError("--target-accuracy is for one class per text; drop it")
