"""Batches in length order, results in input order, every core busy."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from minibert.data.batches import Dataset, FeatureDataset, length_order, to_device
from minibert.data.hidden import HiddenDataset
from minibert.data.windows import WindowDataset, encoded_rows
from minibert.device import Compute, memory_advice
from minibert.inference.cpu import prepacking_works
from minibert.inference.prepack import check_not_prepacked, prepack
from minibert.model.classifier import Classifier, Head
from minibert.model.encoder import Encoder
from minibert.processes import ONE_PROCESS, Processes

# The number of threads belongs to the process: only one call at a time may change it.
_THREADS = threading.Lock()


@dataclass(frozen=True)
class InferenceModel:
    """A module in evaluation mode, its device, the context of its calls, and how it batches."""

    module: nn.Module
    device: torch.device
    context: Callable[[], AbstractContextManager] = nullcontext
    equal_lengths: bool = False  # all texts of a batch have the same length
    processes: Processes = ONE_PROCESS  # each computes some of the batches; all return all results

    def logits(self, dataset: Dataset, *, batch_size: int) -> Tensor:
        """Return logits (N, C), float32 on the CPU, in the dataset's order."""
        if isinstance(dataset, WindowDataset):
            dataset = self.features(dataset, batch_size=batch_size)
        if isinstance(dataset, FeatureDataset) and isinstance(self.module, Classifier):
            return replace(self, module=self.module.head).logits(dataset, batch_size=batch_size)
        logits = InOrder(len(dataset))
        self._run(self.module, dataset, logits.put, batch_size)
        return logits.complete(self.processes, self.device).cpu()

    def features(self, dataset: Dataset, *, batch_size: int) -> FeatureDataset:
        """Return the features (N, D) below the head, on the model's device, and the labels."""
        assert isinstance(self.module, Classifier)
        rows = encoded_rows(dataset)
        features = InOrder(len(rows))
        self._run(self.module.features, rows, features.put, batch_size)
        values = features.complete(self.processes, self.device)
        if isinstance(dataset, WindowDataset):
            counts = to_device(torch.from_numpy(dataset.counts), values.device)
            values = self.module.pool_windows(values, counts)
        return FeatureDataset(values, dataset.labels, places=dataset.places)

    def encode(self, dataset: Dataset, hidden: HiddenDataset, *, batch_size: int) -> None:
        """Put the encoder's output for every token of the dataset into `hidden`."""
        assert isinstance(self.module, Classifier)
        self._run(self.module.encoder, dataset, hidden.put, batch_size)
        self.processes.complete(hidden.values)

    def _run(
        self,
        function: Callable[..., Tensor],
        dataset: Dataset,
        put: Callable[[np.ndarray, Tensor], None],
        batch_size: int,
    ) -> None:
        """Call `function` on every batch, and `put` with its row numbers and the result.

        On a CPU each core computes batches of its own: all cores on one batch would wait for each
        other after every small operation. Only one call of `put` runs at a time. Raises InputError
        if memory runs out.
        """
        lengths = dataset.lengths
        on_cpu = self.device.type == "cpu"
        batches = length_order(
            lengths,
            batch_size,
            max_tokens=tokens_per_batch(lengths) if on_cpu else None,
            equal_lengths=self.equal_lengths,
        )
        largest = max(batches, key=lambda rows: len(rows) * lengths[rows[0]])
        advice = (
            f"with {len(largest)} texts of up to {lengths[largest[0]]} tokens per batch; lower "
            "--batch-size or --max-length"
        )
        order = self.processes.deal(batches)
        lock = threading.Lock()
        pending = iter(order)

        @torch.no_grad()
        def work() -> None:
            # One context around all batches: autocast keeps its half-precision weights inside it.
            with memory_advice(lambda: advice), self.context():
                while True:
                    with lock:
                        rows = next(pending, None)
                    if rows is None:
                        return
                    values = function(*dataset.batch(rows).to(self.device).inputs)
                    with lock:
                        put(rows, values)

        def stop() -> None:
            with lock:
                list(pending)  # empties the queue: no thread starts another batch

        cores = torch.get_num_threads() if on_cpu else 1
        workers = min(cores, len(order))
        if workers <= 1:
            work()
        else:
            _run_in_threads(work, workers, stop=stop)


class InOrder:
    """Results of batches, in the order of the dataset's rows.

    Args:
        count: the number of rows.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.values = torch.empty(0)  # (N, ...) float32, on the device of the results

    def put(self, rows: np.ndarray, results: Tensor) -> None:
        """Add the results (B, ...) of these rows."""
        if len(self.values) == 0:
            shape = (self.count, *results.shape[1:])
            self.values = torch.zeros(shape, device=results.device)
        self.values[to_device(torch.from_numpy(rows), results.device)] = results.float()

    def complete(self, processes: Processes, device: torch.device) -> Tensor:
        """Return the results of all rows, those that other processes computed included."""
        shape = processes.call_first(lambda: self.values.shape)
        if self.values.shape != shape:  # fewer batches than processes
            self.values = torch.zeros(shape, device=device)
        processes.complete(self.values)
        return self.values


def tokens_per_batch(lengths: np.ndarray) -> int:
    """Return how many tokens a batch may have on a CPU.

    Few enough that a call with long texts makes batches for several cores and that its memory stays
    small; enough for a core's full speed. It does not depend on the number of cores, because the
    last bits of the results depend on the batches. docs/speed.md has measurements.
    """
    return int(np.clip(lengths.sum() // 8, 1024, 4096))


def prepare_for_inference(
    model: Classifier, compute: Compute, *, keep: bool = False
) -> InferenceModel:
    """Return the model ready for inference: on a CPU with faster layers where they work.

    For bf16 on a GPU, embeddings and blocks become bf16; pooler and head stay float32. The model is
    changed and cannot train any more. With `keep`, a copy is changed.
    """
    check_not_prepacked(model)
    model = copy.deepcopy(model) if keep else model
    with memory_advice(lambda: f"the model does not fit on {compute.device}; take a smaller one"):
        model = model.to(compute.device)
    ready = InferenceModel(model, compute.device, processes=compute.processes)
    ours = isinstance(model.encoder, Encoder)  # benchmarks also have transformers' encoder
    if ours and compute.device.type == "cpu" and prepack(model, compute.precision):
        # Padding changes the last bits of attention, which int8's roundings make visible.
        return replace(ready, equal_lengths=compute.precision == "int8")
    if ours and has_bf16_weights(compute):
        for module in (model.encoder.embeddings, model.encoder.blocks):
            module.to(torch.bfloat16)
    else:
        ready = replace(ready, context=compute.autocast)
    model.eval()
    return ready


def has_bf16_weights(compute: Compute) -> bool:
    """Return whether inference on this device keeps bf16 weights.

    Autocast casts the weights anew in every call, and computes norms and sums in float32.
    """
    return compute.device.type == "cuda" and compute.precision == "bf16"


def head_for_inference(head: Head, compute: Compute) -> InferenceModel:
    """Return the head, in place, in the precision that it has under `prepare_for_inference`."""
    prepacked = compute.device.type == "cpu" and prepacking_works(compute.precision)
    context = nullcontext if prepacked or has_bf16_weights(compute) else compute.autocast
    return InferenceModel(head.eval(), compute.device, context, processes=compute.processes)


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
