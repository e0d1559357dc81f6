"""Predictor: texts in; logits, probabilities and classes out."""

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minibert.data.limits import checked_texts
from minibert.device import choose_compute
from minibert.errors import InputError
from minibert.hub import find_model
from minibert.inference.batched import prepare_for_inference
from minibert.inference.text_classifier import TextClassifier


def load(
    name: str,
    *,
    revision: str | None = None,
    batch_size: int = 32,
    device: str = "auto",
    precision: str = "auto",
    max_length: int | None = None,
) -> "Predictor":
    """Load a finished run, a model folder or a hub model for prediction.

    Args:
        name: folder or hub id.
        revision: branch, tag or commit of a hub id.
        batch_size: texts per forward pass.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: auto, fp32, bf16, fp16 or int8.
        max_length: tokens per text, longer texts are cut (default: the model's own).

    Raises InputError for a model that cannot be used, and for options out of range.
    """
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "device": device,
        "precision": precision,
        "max_length": max_length,
    }
    classifier = TextClassifier.from_folder(find_model(name, revision=revision))
    predictor = Predictor(classifier, **options, keep=False)
    predictor.source = partial(load, name, revision=revision, **options)
    return predictor


class Predictor:
    """A text classifier prepared for inference. Threads may share it.

    A predictor from `load` can be pickled: the copy loads the same model with the same options.

    Args:
        classifier: the model and its tokenizer. With `keep` it can still be trained; without, it
            is used up and no copy is made.
        batch_size, device, precision, max_length: as in `load`.
    """

    def __init__(
        self,
        classifier: TextClassifier,
        *,
        batch_size: int = 32,
        device: str = "auto",
        precision: str = "auto",
        max_length: int | None = None,
        keep: bool = True,
    ) -> None:
        positions = classifier.checkpoint.encoder.positions
        self.max_length = max_length or classifier.checkpoint.head.max_length
        if not 3 <= self.max_length <= positions:
            raise InputError(f"--max-length is {max_length}; this model takes 3 to {positions}")
        if batch_size < 1:
            raise InputError(f"--batch-size is {batch_size}; it must be 1 or more")
        self.classifier = classifier
        self.batch_size = batch_size
        self.compute = choose_compute(device, precision)
        self.model = prepare_for_inference(classifier.model, self.compute, keep=keep)
        self.truncated = 0  # texts cut so far
        self.source: Any = None  # what loads an equal predictor
        self._lock = threading.Lock()

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the logits' columns."""
        return self.classifier.classes

    def logits(
        self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None
    ) -> Tensor:
        """Return logits (N, C) of N texts or pairs of texts, float32 on the CPU.

        A single string is one text; a list, a tuple, and a pandas or numpy column are N. Longer
        texts are cut at `max_length` tokens and counted in `truncated`. Raises InputError for
        values that are not strings.
        """
        if not len(checked_texts(texts)):
            return torch.empty(0, len(self.classes))
        rows, truncated = self.classifier.tokenize(texts, pairs, max_length=self.max_length)
        dataset = self.classifier.dataset_of(rows)
        with self._lock:
            self.truncated += truncated
        return self.model.logits(dataset, batch_size=self.batch_size)

    def predict_proba(
        self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None
    ) -> np.ndarray:
        """Return probabilities (N, C), float32; the columns are `classes`."""
        return torch.softmax(self.logits(texts, pairs), dim=1).numpy()

    def predict(
        self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None
    ) -> list[str]:
        """Return the most probable class of each text."""
        return [self.classes[number] for number in self.logits(texts, pairs).argmax(dim=1)]

    def __reduce__(self) -> tuple:
        if self.source is None:
            raise TypeError("only a predictor from load() can be pickled; save the classifier")
        return self.source, ()
