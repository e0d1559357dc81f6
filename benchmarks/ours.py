"""minibert in the race, as its scripts run it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import minibert
from benchmarks.task import EPOCHS, Answerer, Repetition, Task, run_whole
from minibert.checkpoint.load import load_classifier
from minibert.commands.process import prepare_training
from minibert.data.batches import Dataset, TextDataset
from minibert.device import choose_compute
from minibert.inference.text_classifier import TextClassifier
from minibert.model.config import HeadConfig
from minibert.training.callback import Callback
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions
from minibert.training.state import TrainState

MANY = 1000  # epochs: more than a benchmark trains


class CorpusDataset(TextDataset):
    """Some texts of a corpus, to be trained with the word rows that the whole corpus uses."""

    corpus_ids: Tensor

    def used_ids(self) -> Tensor:
        """Return the token ids of the corpus, sorted."""
        return self.corpus_ids


class EpochByEpoch(Callback):
    """Lets `fit` train one epoch per turn, and reports its seconds without the validation."""

    def __init__(self, turns: Iterator[int], report: Callable[[Repetition], None]) -> None:
        self.turns, self.report = turns, report

    def on_start(self, state: TrainState) -> None:
        """Wait for the first turn."""
        self._wait()

    def validating(self, state: TrainState) -> AbstractContextManager:
        """Stop the clock: validation is not part of the benchmark."""
        self.seconds = time.perf_counter() - self.started
        return super().validating(state)

    def on_epoch(self, state: TrainState) -> None:
        """Report the epoch; wait for the next turn."""
        self.report(Repetition(self.seconds, state.texts_per_epoch))
        self._wait()

    def _wait(self) -> None:
        if next(self.turns, None) is None:
            sys.exit()
        self.started = time.perf_counter()


def serve_training(task: Task, turns: Iterator[int], report: Callable[[Repetition], None]) -> None:
    """Train the whole model; a repetition, the warm-up too, is the next epoch over all texts.

    `fit` stays in the main thread: in another one an epoch of MiniLM took a sixth longer.
    """
    prepare_training()  # as train.py does
    classifier = TextClassifier.from_folder(Path(task.folder))
    config = classifier.checkpoint.encoder
    padding: Any = {
        "pad_token_id": config.pad_token_id,
        "token_types": config.token_types > 1,
    }
    train = CorpusDataset(classifier.tokenize(task.texts).rows, np.array(task.labels), **padding)
    corpus = classifier.tokenize(task.corpus or task.texts).rows
    train.corpus_ids = TextDataset(corpus, None, **padding).used_ids()
    fit(
        classifier.model,
        train,
        labelled_texts(classifier, task, 1),
        TrainingOptions(epochs=MANY, batch_size=task.batch),
        compute=choose_compute(task.device, task.precision),
        callback=EpochByEpoch(turns, report),
        keep_best=False,
    )


def frozen(task: Task) -> Callable[[int], Repetition]:
    """Encode each text once, then train a head on its features for EPOCHS epochs."""
    prepare_training()  # as train.py does
    folder = Path(task.folder)
    classifier = TextClassifier.from_folder(folder)
    stored = classifier.checkpoint.head
    head = HeadConfig("relu", stored.pooling, stored.labels, stored.max_length)
    model = load_classifier(folder, head).model
    compute = choose_compute(task.device, task.precision)
    options = TrainingOptions(epochs=EPOCHS, batch_size=task.batch, freeze=True)
    validation = labelled_texts(classifier, task, 1)

    def repeat(count: int) -> Repetition:
        train = labelled_texts(classifier, task, count)
        started = time.perf_counter()
        fit(model, train, validation, options, compute=compute)
        return Repetition(time.perf_counter() - started, EPOCHS * count)

    return repeat


def answerer(task: Task) -> Answerer:
    """Return what turns texts into probabilities."""
    return minibert.load(
        task.folder, device=task.device, precision=task.precision, batch_size=task.batch
    ).predict_proba


def start(task: Task) -> Callable[[int], Repetition]:
    """Run predict.py on one text."""
    command = [sys.executable, "predict.py", "--model", task.folder, "--device", task.device]
    return lambda count: run_whole([*command, task.texts[0]])


def labelled_texts(classifier: TextClassifier, task: Task, count: int) -> Dataset:
    """Tokenize the first texts of the task."""
    texts = classifier.tokenize(task.texts[:count])
    return classifier.dataset_of(texts, np.array(task.labels[:count]))
