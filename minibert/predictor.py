"""Answers: batches in length order, results in input order."""

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minibert.batches import Features, Part, Texts, length_order
from minibert.data import Columns
from minibert.errors import InputError
from minibert.hf import load_classifier
from minibert.hub import find_model
from minibert.model import Classifier, Encoder
from minibert.packed import pack, packable
from minibert.runs import RunFolder, newest_run
from minibert.runtime import Runtime, choose_runtime, memory_advice
from minibert.tokenizer import Tokenizer


def in_length_order(
    function: Callable[..., Tensor],
    part: Part,
    *,
    batch_size: int,
    runtime: Runtime,
) -> Tensor:
    """Call `function` on every batch; return its rows, fp32 on the CPU, in the part's order.

    On a CPU each core takes batches of its own: all cores on one batch wait for each other at every
    small operation.
    """
    order = length_order(part.lengths, batch_size)
    advice = f"with {batch_size} texts of up to {part.lengths.max()} tokens at once; lower "
    cores = torch.get_num_threads()
    threads = min(cores, len(order)) if runtime.device.type == "cpu" else 1
    waiting, lock = iter(order), threading.Lock()
    rows: list[Tensor] = []
    results: list[Tensor] = []

    @torch.no_grad()
    def work() -> None:
        if threads > 1:
            torch.set_num_threads(max(1, cores // threads))
        # One context around all batches: it keeps the weights' half-precision copies.
        with memory_advice(lambda: advice + "--batch-size or --max-length"), runtime.autocast():
            while True:
                with lock:
                    batch_rows = next(waiting, None)
                if batch_rows is None:
                    return
                batch = part.batch(batch_rows).to(runtime.device)
                values = function(*batch.inputs).float()
                with lock:
                    rows.append(torch.from_numpy(batch_rows))
                    results.append(values)

    if threads == 1:
        work()
    else:
        try:
            with ThreadPoolExecutor(threads) as pool:
                working = [pool.submit(work) for _ in range(threads)]
                try:
                    for done in as_completed(working):
                        done.result()
                finally:
                    with lock:
                        list(waiting)  # after an error or Ctrl-C no thread begins another batch
        finally:
            torch.set_num_threads(cores)
    values = torch.cat(results).cpu()
    ordered = torch.empty_like(values)
    ordered[torch.cat(rows)] = values
    return ordered


def ready_to_answer(
    model: Classifier, runtime: Runtime, *, keep: bool = False
) -> tuple[Classifier, Runtime]:
    """Pack a model, in place, where there are kernels for that; it cannot train any more then.

    With `keep` the model stays as it is, and a copy is packed.
    """
    ours = runtime.device.type == "cpu" and isinstance(model.encoder, Encoder)
    if ours and packable(runtime.precision):
        model = copy.deepcopy(model) if keep else model
        return pack(model, runtime.precision), replace(runtime, packed=True)
    if runtime.precision == "int8":
        raise InputError("--precision int8 needs an x86 processor with AVX2, and oneDNN in PyTorch")
    return model.eval().to(runtime.device), runtime


def encode_features(
    model: Classifier, part: Part, *, batch_size: int, runtime: Runtime
) -> Features:
    """Let a frozen encoder, its dropout off, make each text's features (N, D), once."""
    model, runtime = ready_to_answer(model, runtime, keep=True)
    values = in_length_order(model.features, part, batch_size=batch_size, runtime=runtime)
    return Features(values, part.labels)


class Predictor:
    """A finished run's, folder's or hub model's classifier, ready to answer."""

    def __init__(
        self,
        folder: Path,
        *,
        batch_size: int = 32,
        device: str = "auto",
        precision: str = "auto",
        max_length: int | None = None,
    ) -> None:
        self.folder = folder
        runtime = choose_runtime(device, precision)
        checkpoint = load_classifier(folder)
        self.model, self.runtime = ready_to_answer(checkpoint.model, runtime)
        self.config = checkpoint.encoder
        self.classes = checkpoint.head.labels
        self.max_length = checkpoint.head.max_length if max_length is None else max_length
        if not 3 <= self.max_length <= self.config.positions:
            raise InputError(
                f"--max-length is {self.max_length}; this model takes 3 to {self.config.positions}"
            )
        if batch_size < 1:
            raise InputError(f"--batch-size is {batch_size}; it must be 1 or more")
        self.tokenizer = Tokenizer.from_folder(folder, self.config)
        self.batch_size = batch_size
        self.truncated = 0  # texts cut so far

    @classmethod
    def open(cls, name: str | None, *, revision: str | None = None, **options: Any) -> "Predictor":
        """Open a model by name, or the newest finished run; `options` are `__init__`'s."""
        if name is None and revision:
            raise InputError("--revision goes with a hub id; give --model")
        folder = newest_run() if name is None else find_model(name, revision=revision)
        return cls(folder, **options)

    @property
    def columns(self) -> Columns | None:
        """The columns that the model was trained on, where a run remembers them."""
        return RunFolder(self.folder).columns()

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Tensor:
        """Return logits (N, C) of N texts; texts over `max_length` tokens are cut and counted."""
        if not texts:
            return torch.empty(0, len(self.classes))
        rows = self.tokenizer.encode(texts, pairs)
        self.truncated += self.tokenizer.truncate(rows, texts, pairs, max_length=self.max_length)
        part = Texts(
            rows, None, pad_token_id=self.config.pad_token_id, types=self.config.token_types > 1
        )
        return in_length_order(self.model, part, batch_size=self.batch_size, runtime=self.runtime)

    def probabilities(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Tensor:
        """Return probabilities (N, C), fp32."""
        return torch.softmax(self.logits(texts, pairs), dim=1)
