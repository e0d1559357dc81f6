"""minibert in the race, as its scripts run it."""

import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from torch import Tensor

import minibert
from benchmarks.task import BATCH, EPOCHS, Answerer, Repetition, Task, run_whole
from minibert.checkpoint.load import load_classifier
from minibert.data.batches import TextDataset
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
    """Lets `fit` train one epoch per call of `next_epoch`; runs it in a thread of its own."""

    def __init__(self, train: Callable[["EpochByEpoch"], object]) -> None:
        self.requests: queue.Queue[None] = queue.Queue()
        self.results: queue.Queue[float | BaseException] = queue.Queue()
        threading.Thread(target=self._run, args=[train], daemon=True).start()

    def next_epoch(self) -> float:
        """Return the seconds of all steps of an epoch."""
        self.requests.put(None)
        result = self.results.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def on_start(self, state: TrainState) -> None:
        """Wait for the first request."""
        self._wait()

    def validating(self, state: TrainState) -> AbstractContextManager:
        """Stop the clock: validation is not part of the benchmark."""
        self.seconds = time.perf_counter() - self.started
        return super().validating(state)

    def on_epoch(self, state: TrainState) -> None:
        """Report the epoch; wait for the next request."""
        self.results.put(self.seconds)
        self._wait()

    def _wait(self) -> None:
        self.requests.get()
        self.started = time.perf_counter()

    def _run(self, train: Callable[["EpochByEpoch"], object]) -> None:
        try:
            train(self)
        except BaseException as error:
            self.results.put(error)


def training(task: Task) -> Callable[[int], Repetition]:
    """Train the whole model; a repetition, the warm-up too, is the next epoch over all texts."""
    classifier = TextClassifier.from_folder(Path(task.folder))
    compute = choose_compute(task.device, task.precision)
    config = classifier.checkpoint.encoder
    rows, _ = classifier.tokenize(task.texts)
    train = CorpusDataset(
        rows,
        np.array(task.labels),
        pad_token_id=config.pad_token_id,
        token_types=config.token_types > 1,
    )
    corpus, _ = classifier.tokenize(task.corpus or task.texts)
    train.corpus_ids = classifier.dataset_of(corpus).used_ids()
    options = TrainingOptions(epochs=MANY, batch_size=BATCH)
    validation = labelled_texts(classifier, task, 1)
    epochs = EpochByEpoch(
        lambda callback: fit(
            classifier.model,
            train,
            validation,
            options,
            compute=compute,
            callback=callback,
            keep_best=False,
        )
    )
    return lambda count: Repetition(epochs.next_epoch(), len(train))


def frozen(task: Task) -> Callable[[int], Repetition]:
    """Encode each text once, then train a head on its features for EPOCHS epochs."""
    folder = Path(task.folder)
    classifier = TextClassifier.from_folder(folder)
    stored = classifier.checkpoint.head
    head = HeadConfig("relu", stored.pooling, stored.labels, stored.max_length)
    model = load_classifier(folder, head).model
    compute = choose_compute(task.device, task.precision)
    options = TrainingOptions(epochs=EPOCHS, batch_size=BATCH, freeze=True)
    validation = labelled_texts(classifier, task, 1)

    def repeat(count: int) -> Repetition:
        train = labelled_texts(classifier, task, count)
        started = time.perf_counter()
        fit(model, train, validation, options, compute=compute)
        return Repetition(time.perf_counter() - started, EPOCHS * count)

    return repeat


def answerer(task: Task) -> Answerer:
    """Return what turns texts into probabilities."""
    return minibert.load(task.folder, device=task.device, precision=task.precision).predict_proba


def start(task: Task) -> Callable[[int], Repetition]:
    """Run predict.py on one text."""
    command = [sys.executable, "predict.py", "--model", task.folder, "--device", task.device]
    return lambda count: run_whole([*command, task.texts[0]])


def labelled_texts(classifier: TextClassifier, task: Task, count: int) -> TextDataset:
    """Tokenize the first texts of the task."""
    rows, _ = classifier.tokenize(task.texts[:count])
    return classifier.dataset_of(rows, np.array(task.labels[:count]))
