"""Predictor: texts in; logits, probabilities and classes out."""

import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minibert.data.batches import Dataset
from minibert.data.long_texts import TokenizedTexts, how_shortened
from minibert.device import choose_compute
from minibert.errors import InputError
from minibert.hub import find_model
from minibert.inference.batched import prepare_for_inference
from minibert.inference.text_classifier import TextClassifier
from minibert.tasks.calibrated import with_temperature
from minibert.tasks.choice import task_of

Texts = str | Iterable[str]  # a single string is one text; lists, pandas and numpy columns are N


def load(
    name: str,
    *,
    revision: str | None = None,
    batch_size: int = 32,
    device: str = "auto",
    precision: str = "auto",
    max_length: int | None = None,
    raw: bool = False,
) -> "Predictor":
    """Load a finished run, a model folder or a hub model for prediction.

    Args:
        name: folder or hub id.
        revision: branch, tag or commit of a hub id.
        batch_size: maximum number of texts per forward pass.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: auto, fp32, bf16, fp16 or int8.
        max_length: tokens per text, or per window of it (default: the model's).
        raw: leave out the temperature that calibrates the probabilities.

    Raises InputError for a model that cannot be used, and for options out of range.

    Example:
        >>> import tempfile
        >>> classifier = TextClassifier.pretrained("all-MiniLM-L6-v2", ["bad", "good"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     classifier.save(folder)
        ...     predictor = load(folder)  # or a finished run, or a hub id
        >>> predictor.predict(["a lovely film", "a dull one"])
        ['...', '...']
    """
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "device": device,
        "precision": precision,
        "max_length": max_length,
        "raw": raw,
    }
    classifier = TextClassifier.from_folder(find_model(name, revision=revision))
    predictor = Predictor(classifier, **options, keep=False)
    if Path(name).exists():  # a copy may be loaded in another working directory
        name = str(Path(name).resolve())
    predictor.load_copy = partial(load, name, revision=revision, **options)
    return predictor


class Predictor:
    """A text classifier prepared for inference. Threads may share it.

    A predictor from `load` can be pickled: the copy loads the same model with the same options.

    After a fork, any PyTorch model may wait for ever for threads that only the parent has. Start
    processes with spawn, as `multiprocessing.get_context("spawn").Pool(2)` does, and pass them the
    predictor; or load it in each process after the fork, as long as the parent has not used
    PyTorch before (gunicorn: without `--preload`).

    Args:
        classifier: the model and its tokenizer.
        batch_size, device, precision, max_length, raw: as in `load`.
        keep: copy the model, so that the classifier can still be trained and saved.

    Raises InputError for options out of range.

    Example:
        >>> classifier = TextClassifier.pretrained("all-MiniLM-L6-v2", ["bad", "good"])
        >>> predictor = Predictor(classifier, precision="fp32")  # its head is not trained yet
        >>> predictor.predict_proba(["good film", "bad soup", "never again"]).shape
        (3, 2)
        >>> predictor.predict("good film")[0] in predictor.classes
        True
        >>> predictor.predict(["good film", None])
        Traceback (most recent call last):
        minibert.errors.InputError: texts[1] is None, not a string
    """

    def __init__(
        self,
        classifier: TextClassifier,
        *,
        batch_size: int = 32,
        device: str = "auto",
        precision: str = "auto",
        max_length: int | None = None,
        raw: bool = False,
        keep: bool = True,
    ) -> None:
        longest = classifier.checkpoint.encoder.max_tokens
        head = classifier.checkpoint.head
        self.max_length = head.max_length if max_length is None else max_length
        if type(self.max_length) is not int or not 3 <= self.max_length <= longest:
            raise InputError(
                f"--max-length is {self.max_length!r}; this model takes 3 to {longest}"
            )
        if type(batch_size) is not int or batch_size < 1:
            raise InputError(f"--batch-size is {batch_size!r}; it must be 1 or more")
        self.task = task_of(with_temperature(head, 1.0) if raw else head)
        self.classifier = classifier
        self.batch_size = batch_size
        self.compute = choose_compute(device, precision)
        self.model = prepare_for_inference(classifier.model, self.compute, keep=keep)
        self.truncated = 0  # texts that lost tokens so far
        self.load_copy: Callable[[], Predictor] | None = None
        self._lock = threading.Lock()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the logits' columns: the classes, or the numbers of a regression."""
        return self.classifier.classes

    @property
    def how_truncated(self) -> str:
        """What happened to the texts that `truncated` counts, such as "cut at 128 tokens"."""
        return how_shortened(self.task.head.long_texts, self.max_length)

    def logits(self, texts: Texts, pairs: Texts | None = None) -> Tensor:
        """Return logits (N, C) of N texts or pairs of texts, float32 on the CPU.

        A single string is one text; a list, a tuple, and a pandas or numpy column are N. Longer
        texts are shortened as in training; `truncated` counts those that lose tokens. Raises
        InputError for values that are not strings.
        """
        return self.logits_of(self.tokenize(texts, pairs))

    def features(self, texts: Texts, pairs: Texts | None = None) -> np.ndarray:
        """Return what the head reads: the pooled vector of each text (N, D), float32."""
        tokenized = self.tokenize(texts, pairs)
        if not tokenized.rows:
            return np.empty((0, self.classifier.checkpoint.encoder.width), dtype=np.float32)
        dataset, places = self._distinct(tokenized)
        found = self.model.features(dataset, batch_size=self.batch_size)
        return found.values.cpu().numpy()[places]

    def tokenize(self, texts: Texts, pairs: Texts | None = None) -> TokenizedTexts:
        """Return the token ids of N texts or pairs of texts, as `logits` takes them."""
        return self.classifier.tokenize(texts, pairs, max_length=self.max_length)

    def logits_of(self, tokenized: TokenizedTexts) -> Tensor:
        """Return the logits (N, C) of texts that `tokenize` returned."""
        if not tokenized.rows:
            return torch.empty(0, len(self.classes))
        dataset, places = self._distinct(tokenized)
        return self.model.logits(dataset, batch_size=self.batch_size)[places]

    def _distinct(self, tokenized: TokenizedTexts) -> tuple[Dataset, list[int]]:
        """Return the texts without repeats, which are computed once, and where each text is."""
        with self._lock:
            self.truncated += tokenized.cut
        distinct, places = tokenized.distinct()
        return self.classifier.dataset_of(distinct), places

    def predict_proba(self, texts: Texts, pairs: Texts | None = None) -> np.ndarray:
        """Return probabilities (N, C), float32; the columns are `classes`.

        They are those of logits / temperature, unless `raw` leaves out the model's temperature.
        Raises InputError for a regression, which has none.
        """
        return self.task.probabilities(self.logits(texts, pairs)).numpy()

    def predict(self, texts: Texts, pairs: Texts | None = None) -> list[Any]:
        """Return each text's prediction.

        It is the most probable class; with several labels, a tuple of classes; in a regression, a
        number, or a tuple if the model predicts several.
        """
        return self.task.predict(self.logits(texts, pairs))

    def __reduce__(self) -> tuple:
        if self.load_copy is None:
            raise TypeError(
                "only a predictor from minibert.load can be pickled; save the classifier and load "
                "its folder"
            )
        return self.load_copy, ()
