"""minibert in the race, as its scripts run it."""

import itertools
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from minibert.training.epoch import optimizer_steps, train_steps

from benchmarks.task import BATCH, EPOCHS, Answerer, Repetition, Task, run_whole
from minibert.checkpoint.load import Checkpoint, load_classifier
from minibert.commands.interrupts import DeferredInterrupt
from minibert.commands.options import RunSettings
from minibert.data.batches import Dataset, TextDataset
from minibert.data.tokenizer import Tokenizer
from minibert.device import Compute, choose_compute
from minibert.inference.predictor import Predictor, encode_features
from minibert.model.config import HeadConfig
from minibert.training.loop import make_optimizer
from minibert.training.state import Learner, Progress

MANY = 1000  # epochs: a length of training that no benchmark reaches


def training(task: Task) -> Callable[[int], Repetition]:
    """Train the whole model; a repetition is the next epoch."""
    checkpoint = load_classifier(Path(task.folder))
    runtime = choose_compute(task.device, task.precision)
    checkpoint.model.to(runtime.device)
    train = epoch_trainer(checkpoint, task, runtime, freeze=False)

    def repeat(count: int) -> Repetition:
        texts = labelled_texts(checkpoint, task, count)
        started = time.perf_counter()
        train(texts)
        return Repetition(time.perf_counter() - started, count)

    return repeat


def frozen(task: Task) -> Callable[[int], Repetition]:
    """Let the encoder read each text once, then train a head EPOCHS times on what it made."""
    stored = load_classifier(Path(task.folder)).head
    wanted = HeadConfig("relu", stored.pooling, stored.labels, stored.max_length)
    checkpoint = load_classifier(Path(task.folder), wanted)
    runtime = choose_compute(task.device, task.precision)
    checkpoint.model.to(runtime.device)
    train = epoch_trainer(checkpoint, task, runtime, freeze=True)

    def repeat(count: int) -> Repetition:
        texts = labelled_texts(checkpoint, task, count)
        started = time.perf_counter()
        features = encode_features(checkpoint.model, texts, batch_size=BATCH, runtime=runtime)
        for _ in range(EPOCHS):
            train(features)
        return Repetition(time.perf_counter() - started, EPOCHS * count)

    return repeat


def answerer(task: Task) -> Answerer:
    """Return the answering of texts with probabilities."""
    predictor = Predictor.open(task.folder, device=task.device, precision=task.precision)
    return predictor.probabilities


def start(task: Task) -> Callable[[int], Repetition]:
    """Run predict.py on one text."""
    command = [sys.executable, "predict.py", "--model", task.folder, "--device", task.device]
    return lambda count: run_whole([*command, task.texts[0]])


def labelled_texts(checkpoint: Checkpoint, task: Task, count: int) -> TextDataset:
    """Tokenize the first texts of the task."""
    config = checkpoint.encoder
    rows = Tokenizer.from_folder(Path(task.folder), config).encode(task.texts[:count])
    return TextDataset(
        rows,
        np.array(task.labels[:count]),
        pad_token_id=config.pad_token_id,
        types=config.token_types > 1,
    )


def whole_corpus(checkpoint: Checkpoint, task: Task) -> TextDataset:
    """Tokenize the data set that the task's texts are a part of."""
    config = checkpoint.encoder
    rows = Tokenizer.from_folder(Path(task.folder), config).encode(task.corpus or task.texts)
    return TextDataset(rows, None, pad_token_id=config.pad_token_id, types=False)


def epoch_trainer(
    checkpoint: Checkpoint, task: Task, runtime: Compute, *, freeze: bool
) -> Callable[[Dataset], object]:
    """Return what trains one more epoch with the defaults of train.py."""
    settings = RunSettings(head="native", epochs=MANY, batch_size=BATCH, freeze=freeze)
    model = checkpoint.model
    optimizer, words = make_optimizer(model, whole_corpus(checkpoint, task), settings)
    weights = torch.ones(len(checkpoint.head.labels), device=runtime.device)
    module = model.head if freeze else model
    learner = Learner(module, optimizer, runtime.scaler(), runtime)
    epochs = itertools.count()
    never = DeferredInterrupt(patient=True)

    def train(part: Dataset) -> None:
        epoch = next(epochs)
        progress = Progress(epoch, epoch * optimizer_steps(len(part), settings))
        with words.in_place() if words else nullcontext():
            train_steps(learner, part, weights, settings, progress, never)
        if words:
            words.settle(optimizer)

    return train
