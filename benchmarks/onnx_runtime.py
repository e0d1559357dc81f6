"""ONNX Runtime in the race, in fp32 and in int8."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime

from benchmarks.engines import Feed, engine_answerer
from benchmarks.export import exported
from benchmarks.task import Answerer, Task


def answerer(task: Task) -> Answerer:
    """Return the answering of texts with probabilities, in input order."""
    options = onnxruntime.SessionOptions()
    # Many batches are the fastest with one for each core, a single text with all cores on it.
    single = task.part == "latency"
    options.intra_op_num_threads = task.threads if single else 1
    session = onnxruntime.InferenceSession(
        exported(task.folder, task.precision), options, providers=["CPUExecutionProvider"]
    )

    def run_one(feed: Feed) -> np.ndarray:
        return session.run(None, feed)[0]

    def run_many(feeds: list[Feed]) -> list[np.ndarray]:
        with ThreadPoolExecutor(task.threads) as pool:
            return list(pool.map(run_one, feeds))

    return engine_answerer(
        task, (lambda feeds: [run_one(f) for f in feeds]) if single else run_many
    )
