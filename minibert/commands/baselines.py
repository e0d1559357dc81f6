"""What a run's figures stand beside: a guess that ignores the texts, and a model of their words."""

import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.data.examples import Examples
from minibert.data.splits import Splits
from minibert.evaluation.bag_of_words import OUTPUTS, fit_bag_of_words
from minibert.model.config import HeadConfig
from minibert.tasks.choice import task_of
from minibert.tasks.multi_label import with_thresholds
from minibert.tasks.task import Scores
from minibert.training.options import TrainingOptions

GUESSES = {
    "single-label": "the most frequent class",
    "multi-label": "the frequency of each class",
    "regression": "the mean",
}


def score_baselines(splits: Splits, head: HeadConfig, *, thresholds: str) -> dict[str, Any]:
    """Score two baselines on the rows of a run, print a line for each, return their figures.

    They learn from the training split, without class weights. `thresholds` says how those of
    several labels are chosen on validation, as for the model.
    """
    targets = task_of(head).targets
    labels = {name: torch.from_numpy(targets(split)) for name, split in splits.named().items()}
    guess = _guess(labels, head)
    figures = {"guess": _score(f"{GUESSES[head.task]} alone", guess, labels, head, thresholds)}
    if len(head.labels) > OUTPUTS:
        print(f"baseline of TF-IDF: left out, {len(head.labels):,} outputs are over {OUTPUTS}")
        return figures
    start = time.perf_counter()
    words, rows = _words(splits, labels, head)
    seconds = time.perf_counter() - start
    model = "ridge" if head.task == "regression" else "logistic"
    some = "" if rows == len(splits.train) else f" on {rows:,} of the training texts"
    name = f"TF-IDF and {model} regression{some} ({seconds:.1f} s)"
    scores = _score(name, words, labels, head, thresholds)
    return {**figures, "tf_idf": {**scores, "training_texts": rows, "seconds": round(seconds, 3)}}


def _guess(labels: dict[str, Tensor], head: HeadConfig) -> dict[str, Tensor]:
    """Return the same logits for every text, from the training split's frequencies or means."""
    task, options = task_of(head), TrainingOptions()
    constant = task.constant(labels["train"], task.weights(labels["train"], options), options)
    return {name: constant.expand(len(x), -1) for name, x in labels.items() if name != "train"}


def _words(
    splits: Splits, labels: dict[str, Tensor], head: HeadConfig
) -> tuple[dict[str, Tensor], int]:
    """Return the logits of a bag of words, and the number of texts that it was fitted on."""
    targets = labels["train"]
    if head.task == "single-label":
        targets = F.one_hot(targets, len(head.labels))
    texts = {name: _joined(split) for name, split in splits.named().items()}
    model = fit_bag_of_words(texts.pop("train"), targets.numpy(), head.task)
    logits = {name: model.logits(x).astype(np.float32) for name, x in texts.items()}
    return {name: torch.from_numpy(x) for name, x in logits.items()}, model.rows


def _joined(split: Examples) -> list[str]:
    """Return the texts, with their second texts if they have them."""
    if split.pairs is None:
        return split.texts
    return [f"{text}\n{pair}" for text, pair in zip(split.texts, split.pairs, strict=True)]


def _score(
    name: str,
    logits: dict[str, Tensor],
    labels: dict[str, Tensor],
    head: HeadConfig,
    thresholds: str,
) -> dict[str, Any]:
    """Print a line with the test figures, or without a test split validation's; return all."""
    if head.task == "multi-label":
        head = with_thresholds(head, logits["validation"], labels["validation"], how=thresholds)
    task = task_of(head)
    scores = {split: task.score(x, labels[split]) for split, x in logits.items()}
    print(f"baseline of {name}: {scores.get('test', scores['validation'])}")
    return {split: _overall(x) for split, x in scores.items()}


def _overall(scores: Scores) -> dict[str, Any]:
    """Return the figures of a split without those of each class or number."""
    return {name: x for name, x in scores.to_json().items() if not isinstance(x, dict)}
