"""What the inference engines share: the bare tokenizer, batches in length order, a softmax."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from benchmarks.task import Answerer, Task

Feed = dict[str, np.ndarray]


def engine_answerer(task: Task, run: Callable[[list[Feed]], list[np.ndarray]]) -> Answerer:
    """Return the answering of texts by an engine that turns batches into logits."""
    tokenizer = Tokenizer.from_file(str(Path(task.folder) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def answer(texts: Sequence[str]) -> np.ndarray:
        rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
        batches = [order[i : i + task.batch] for i in range(0, len(order), task.batch)]
        logits = np.concatenate(run([padded([rows[i] for i in batch]) for batch in batches]))
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        answers = np.empty_like(shares)
        answers[order] = shares / shares.sum(axis=1, keepdims=True)
        return answers

    return answer


def padded(rows: Sequence[Sequence[int]]) -> Feed:
    """Return one batch, padded to its longest text."""
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}
