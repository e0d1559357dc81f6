"""minibert in the race, with texts that were tokenized before: what the tokenizer does not take."""

from collections.abc import Sequence

import numpy as np
import torch

import minibert
from benchmarks.task import Answerer, Task


def answerer(task: Task) -> Answerer:
    """Return the answering of all texts of the task with probabilities."""
    predictor = minibert.load(task.folder, device=task.device, precision=task.precision)
    dataset = predictor.classifier.dataset(task.texts)

    def answer(texts: Sequence[str]) -> np.ndarray:
        assert len(texts) == len(dataset)
        logits = predictor.model.logits(dataset, batch_size=task.batch)
        return torch.softmax(logits, dim=1).numpy()

    return answer
