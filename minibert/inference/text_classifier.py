"""A classifier with its tokenizer: from a checkpoint, to datasets, into a folder."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from minibert.checkpoint.config_file import read_encoder_config, write_config
from minibert.checkpoint.families import FAMILIES
from minibert.checkpoint.load import Checkpoint, load_classifier
from minibert.checkpoint.load import load_encoder as load_encoder_folder
from minibert.checkpoint.save import save_weights, write_pooling
from minibert.data.batches import Dataset
from minibert.data.examples import Examples
from minibert.data.long_texts import TokenizedTexts, shorten
from minibert.data.tokenizer import Tokenizer
from minibert.data.windows import text_dataset
from minibert.device import Compute, choose_compute
from minibert.errors import InputError
from minibert.files import replace_model
from minibert.hub import find_model
from minibert.inference.as_lists import as_labels, as_names, as_texts, check_lengths, shown
from minibert.inference.batched import prepare_for_inference
from minibert.inference.prepack import check_not_prepared
from minibert.model.classifier import Classifier
from minibert.model.config import (
    HEADS,
    LONG_TEXTS,
    POOLINGS,
    TASKS,
    WINDOW_POOLINGS,
    HeadConfig,
    LongTexts,
)
from minibert.model.encoder import Encoder
from minibert.tasks.calibrated import calibrated
from minibert.tasks.choice import task_of
from minibert.tasks.multi_label import with_thresholds
from minibert.tasks.single_label import with_rare_class
from minibert.tasks.task import Task


def load_encoder(name: str, *, revision: str | None = None) -> tuple[Encoder, Tokenizer]:
    """Load a pretrained encoder without a head, and its tokenizer.

    The encoder is in float32 and evaluation mode. `name` is a folder or hub id, `revision` a
    branch, tag or commit of a hub id. Raises InputError for a checkpoint that cannot be used.

    Example:
        >>> import torch
        >>> encoder, tokenizer = load_encoder("all-MiniLM-L6-v2")
        >>> ids = torch.from_numpy(tokenizer.encode(["good film"])[0].ids)
        >>> encoder(ids[None]).shape  # one text, [CLS] good film [SEP], width 384
        torch.Size([1, 4, 384])
    """
    folder = find_model(name, revision=revision)
    encoder, config = load_encoder_folder(folder)
    return encoder, Tokenizer.from_folder(folder, config)


@dataclass(frozen=True)
class TextClassifier:
    """A classifier and its tokenizer: what `fit` trains and what a folder stores.

    Example:
        >>> classifier = TextClassifier.pretrained("all-MiniLM-L6-v2", ["bad", "good"])
        >>> classifier.classes
        ('bad', 'good')
        >>> len(classifier.dataset(["good film", "bad soup"], ["good", "bad"]))
        2
    """

    checkpoint: Checkpoint
    tokenizer: Tokenizer

    @classmethod
    def pretrained(
        cls,
        name: str,
        classes: Sequence[str],
        *,
        task: str = "single-label",
        head: str = "mlp",
        pooling: str | None = None,
        max_length: int = 128,
        long_texts: LongTexts = LongTexts(),  # noqa: B008 (frozen)
        revision: str | None = None,
    ) -> "TextClassifier":
        """Load a pretrained encoder, by folder or hub id, under a new head for these classes.

        `task` is single-label, multi-label, or regression, whose numbers `classes` names. `head` is
        mlp, relu, linear or native; `pooling` is cls, pooler or mean (default: cls, or the pooling
        of the native head). Texts over `max_length` tokens are shortened as `long_texts` says
        (default: they are cut). The head's weights are drawn from torch's random state. Raises
        InputError for a checkpoint that cannot be used, and for arguments out of range.
        """
        names = as_names(classes, "classes")
        least = 2 if task == "single-label" else 1
        if len(set(names)) < max(least, len(names)):
            raise InputError(f"classes is {shown(classes)}; give {least} or more different names")
        choice = (("task", task, TASKS), ("head", head, HEADS), ("pooling", pooling, POOLINGS))
        for option, value, choices in choice:
            if value is not None and value not in choices:
                raise InputError(f"{option} is {value!r}, not one of {', '.join(choices)}")
        folder = find_model(name, revision=revision)
        config = read_encoder_config(folder)
        native = FAMILIES[config.family].native_pooling if head == "native" else "cls"
        if type(max_length) is not int or not 3 <= max_length <= config.max_tokens:
            raise InputError(
                f"max_length is {max_length!r}; this model takes 3 to {config.max_tokens}"
            )
        if not (isinstance(long_texts, LongTexts) and long_texts.is_valid):
            raise InputError(
                f"long_texts is {shown(long_texts)}; give LongTexts({' or '.join(LONG_TEXTS)}, "
                f"stride=tokens, window_pooling={' or '.join(WINDOW_POOLINGS)})"
            )
        requested = HeadConfig(
            head, pooling or native, tuple(names), max_length, task, long_texts=long_texts
        )
        return cls(load_classifier(folder, requested), Tokenizer.from_folder(folder, config))

    @classmethod
    def from_folder(cls, folder: Path | str) -> "TextClassifier":
        """Load a classifier and its head as they are stored in a folder."""
        checkpoint = load_classifier(Path(folder))
        return cls(checkpoint, Tokenizer.from_folder(Path(folder), checkpoint.encoder))

    @property
    def model(self) -> Classifier:
        """The network."""
        return self.checkpoint.model

    @property
    def task(self) -> Task:
        """What the logits mean."""
        return task_of(self.checkpoint.head)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the logits' columns: the classes, or the numbers of a regression."""
        return self.checkpoint.head.labels

    def dataset(
        self,
        texts: str | Iterable[str],
        labels: str | Iterable[Any] | None = None,
        pairs: str | Iterable[str] | None = None,
        *,
        max_windows: int | None = None,
    ) -> Dataset:
        """Return N tokenized texts, or pairs of texts, with the targets of their labels.

        Texts and labels are lists, tuples, or pandas or numpy columns; a single string is one. A
        label is a class name, or a class number if no class name has a digit; with several labels,
        a list of them; in a regression, a number or a list of numbers. Longer texts are shortened
        as the head's `long_texts` says; of a text in more than `max_windows` windows, that many are
        kept (default: all; in training, all windows of a text are in memory at once). Raises
        InputError for a text that is not a string, and for a label that the model does not have.
        """
        texts = as_texts(texts, "texts")
        targets = None
        if labels is not None:
            values = as_labels(labels, self.checkpoint.head)
            check_lengths(texts, values, "labels")
            places = [f"labels[{number}]" for number in range(len(texts))]
            examples = Examples("labels", texts, labels=list(values), places=places)
            targets = self.task.targets(examples, numbers=True)
        return self.dataset_of(self.tokenize(texts, pairs, max_windows=max_windows), targets)

    def tokenize(
        self,
        texts: str | Iterable[str],
        pairs: str | Iterable[str] | None = None,
        *,
        max_length: int | None = None,
        max_windows: int | None = None,
    ) -> TokenizedTexts:
        """Return the token ids of each text."""
        texts = as_texts(texts, "texts")
        if pairs is not None:
            pairs = as_texts(pairs, "pairs")
            check_lengths(texts, pairs, "pairs")
        head = self.checkpoint.head
        return shorten(
            self.tokenizer,
            self.tokenizer.encode(texts, pairs),
            texts,
            pairs,
            max_length=max_length or head.max_length,
            long_texts=head.long_texts,
            max_windows=max_windows,
        )

    def dataset_of(self, texts: TokenizedTexts, labels: np.ndarray | None = None) -> Dataset:
        """Return a dataset of tokenized texts and targets."""
        return text_dataset(texts, self.checkpoint.encoder, labels)

    def tune_thresholds(
        self, validation: Dataset, *, how: str = "tuned", compute: Compute | None = None
    ) -> None:
        """Set the thresholds of several labels to those with the best F1 on these texts.

        `how` is "tuned", one threshold for each class, "shared", one for all, or a number, the
        threshold itself. With two classes, one per text, it is the threshold of the rarer one:
        "f1" (or "tuned"), "precision=0.9" or "recall=0.9". Raises InputError for a model of another
        task, and if no threshold reaches the precision or recall.
        """
        head = self.checkpoint.head
        if head.task == "regression" or (head.task == "single-label" and len(head.labels) != 2):
            raise InputError(f"a {head.task} model has no thresholds; one of two classes has one")
        logits, targets = self._logits(validation, compute), validation.labels
        if head.task == "multi-label":
            self.model.head.config = with_thresholds(head, logits, targets, how=how)
            return
        how = "f1" if how == "tuned" else how
        fitted = with_rare_class(head, logits, targets, how=how)
        if fitted is None:
            raise InputError(f"{how}: no threshold reaches it on these texts; lower it")
        self.model.head.config = fitted

    def calibrate(self, validation: Dataset, *, compute: Compute | None = None) -> None:
        """Set the temperature with the lowest log loss on these texts (Guo et al. 2017).

        Probabilities are then those of logits / temperature; the predicted labels stay the same.
        Give texts that the model was not trained on. Raises InputError for a regression.
        """
        logits = self._logits(validation, compute)
        self.model.head.config = calibrated(self.checkpoint.head, logits, validation.labels)

    def _logits(self, validation: Dataset, compute: Compute | None) -> Tensor:
        if not (len(validation) and validation.has_labels):
            raise InputError("validation needs texts with labels; give both to dataset()")
        model = prepare_for_inference(self.model, compute or choose_compute(), keep=True)
        return model.logits(validation, batch_size=32)

    def save(self, folder: Path | str) -> None:
        """Write a Hugging Face folder: config.json, model.safetensors, the tokenizer's files.

        transformers opens a native head. It knows no temperature, so the head's output weights are
        divided by it; probabilities stay the same. sentence-transformers opens the encoder and the
        pooling. Raises InputError if a file cannot be written, and for a model that a predictor has
        prepared for inference; the folder's old model is then kept.
        """
        check_not_prepared(self.model)
        encoder, head = self.checkpoint.encoder, self.checkpoint.head
        temperature = 1.0
        if head.kind == "native":
            temperature, head = head.temperature, replace(head, temperature=1.0)
        with replace_model(Path(folder)) as new:
            self.save_settings(new, head)
            save_weights(new, self.model, encoder, head, temperature=temperature)
            write_pooling(new, encoder, head)

    def save_settings(self, folder: Path, head: HeadConfig) -> None:
        """Write the tokenizer's files, and config.json with this head."""
        encoder = self.checkpoint.encoder
        wordpiece_class = FAMILIES[encoder.family].wordpiece_class
        self.tokenizer.save(folder, wordpiece_class=wordpiece_class, max_length=head.max_length)
        write_config(folder, encoder, head)
