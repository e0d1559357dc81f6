"""ONNX Runtime in the race, in fp32 and in int8."""

import numpy as np
import onnxruntime

from benchmarks.engines import Feed, engine_answerer
from benchmarks.export import exported
from benchmarks.task import Answerer, Task


def answerer(task: Task) -> Answerer:
    """Return the answering of texts with probabilities, in input order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    session = onnxruntime.InferenceSession(
        exported(task.folder, task.precision), options, providers=["CPUExecutionProvider"]
    )

    def run(feeds: list[Feed]) -> list[np.ndarray]:
        return [session.run(None, feed)[0] for feed in feeds]

    return engine_answerer(task, run)
