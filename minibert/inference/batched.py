"""Batches in length order, results in input order, every core busy."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minibert.data.batches import Dataset, FeatureDataset, length_order
from minibert.device import Compute, memory_advice
from minibert.inference.cpu import prepack, prepacking_works
from minibert.model.classifier import Classifier
from minibert.model.encoder import Encoder

# The number of threads belongs to the process: only one call at a time may change it.
_THREADS = threading.Lock()


@dataclass(frozen=True)
class InferenceModel:
    """A module in evaluation mode, its device, the context of its calls, and how it batches."""

    module: nn.Module
    device: torch.device
    context: Callable[[], AbstractContextManager] = nullcontext
    equal_lengths: bool = False  # all texts of a batch have the same length

    def logits(self, dataset: Dataset, *, batch_size: int) -> Tensor:
        """Return logits (N, C), float32 on the CPU, in the dataset's order."""
        return self._predict(self.module, dataset, batch_size)

    def features(self, dataset: Dataset, *, batch_size: int) -> FeatureDataset:
        """Return the features (N, D) below the head, with the dataset's labels."""
        assert isinstance(self.module, Classifier)
        values = self._predict(self.module.features, dataset, batch_size)
        return FeatureDataset(values, dataset.labels, places=dataset.places)

    def _predict(self, function: Callable, dataset: Dataset, batch_size: int) -> Tensor:
        return predict_batches(
            function,
            dataset,
            batch_size=batch_size,
            device=self.device,
            context=self.context,
            equal_lengths=self.equal_lengths,
        )


def prepare_for_inference(
    model: Classifier, compute: Compute, *, keep: bool = False
) -> InferenceModel:
    """Return the model ready for inference: on a CPU with faster layers where they work.

    The model is changed and cannot train any more. With `keep`, a copy is changed.
    """
    model = copy.deepcopy(model) if keep else model
    ours = isinstance(model.encoder, Encoder)  # benchmarks also have transformers' encoder
    if ours and compute.device.type == "cpu" and prepack(model, compute.precision):
        # Padding changes the last bits of attention, which int8's roundings make visible.
        return InferenceModel(model, compute.device, equal_lengths=compute.precision == "int8")
    return InferenceModel(model.eval().to(compute.device), compute.device, compute.autocast)


def head_for_inference(model: Classifier, compute: Compute) -> InferenceModel:
    """Return the head, in place, in the precision that it has under `prepare_for_inference`."""
    prepacked = compute.device.type == "cpu" and prepacking_works(compute.precision)
    context = nullcontext if prepacked else compute.autocast
    return InferenceModel(model.head.eval(), compute.device, context)


def predict_batches(
    function: Callable[..., Tensor],
    dataset: Dataset,
    *,
    batch_size: int,
    device: torch.device,
    context: Callable[[], AbstractContextManager] = nullcontext,
    equal_lengths: bool = False,
) -> Tensor:
    """Call `function` on every batch; return its rows, float32 on the CPU, in the dataset's order.

    On a CPU each core computes batches of its own: all cores on one batch would wait for each other
    after every small operation. Raises InputError if memory runs out.
    """
    order = length_order(dataset.lengths, batch_size, equal_lengths=equal_lengths)
    advice = f"with {batch_size} texts of up to {dataset.lengths.max()} tokens per batch; lower "
    lock = threading.Lock()
    pending = iter(order)
    rows: list[Tensor] = []
    results: list[Tensor] = []

    @torch.no_grad()
    def work() -> None:
        # One context around all batches: autocast keeps its half-precision weights inside it.
        with memory_advice(lambda: advice + "--batch-size or --max-length"), context():
            while True:
                with lock:
                    batch_rows = next(pending, None)
                if batch_rows is None:
                    return
                batch = dataset.batch(batch_rows).to(device)
                values = function(*batch.inputs).float()
                with lock:
                    rows.append(torch.from_numpy(batch_rows))
                    results.append(values)

    def stop() -> None:
        with lock:
            list(pending)  # empties the queue: no thread starts another batch

    workers = min(torch.get_num_threads(), len(order)) if device.type == "cpu" else 1
    if workers == 1:
        work()
    else:
        _run_in_threads(work, workers, stop=stop)
    values = torch.cat(results).cpu()
    ordered = torch.empty_like(values)
    ordered[torch.cat(rows)] = values
    return ordered


def _run_in_threads(work: Callable[[], None], workers: int, *, stop: Callable[[], object]) -> None:
    """Run `work` in several threads that share the cores; after an error, `stop` the others."""

    def share_cores() -> None:
        torch.set_num_threads(max(1, cores // workers))
        work()

    with _THREADS:
        cores = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(workers) as pool:
                running = [pool.submit(share_cores) for _ in range(workers)]
                try:
                    for done in as_completed(running):
                        done.result()
                finally:
                    stop()
        finally:
            torch.set_num_threads(cores)
