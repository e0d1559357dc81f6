"""OpenVINO in the race, in fp32 and in bf16."""

import numpy as np
import openvino

from benchmarks.engines import Feed, engine_answerer
from benchmarks.export import exported
from benchmarks.task import Answerer, Task


def answerer(task: Task) -> Answerer:
    """Return the answering of texts with probabilities, in input order."""
    core = openvino.Core()
    single = task.part == "latency"
    settings = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(task.precision, task.precision),
        "INFERENCE_NUM_THREADS": task.threads,
        # Many batches go one to a core; all cores share the work of a single text.
        "PERFORMANCE_HINT": "LATENCY" if single else "THROUGHPUT",
    }
    model = core.compile_model(core.read_model(exported(task.folder, "fp32")), "CPU", settings)
    request = model.create_infer_request()

    def run_one(feeds: list[Feed]) -> list[np.ndarray]:
        return [request.infer(feed)[0] for feed in feeds]

    return engine_answerer(task, run_one if single else lambda feeds: run_many(model, feeds))


def run_many(model: openvino.CompiledModel, feeds: list[Feed]) -> list[np.ndarray]:
    """Return the logits of many batches, as many at a time as the engine finds best."""
    logits: dict[int, np.ndarray] = {}
    queue = openvino.AsyncInferQueue(model)
    queue.set_callback(
        lambda request, number: logits.update({number: request.get_output_tensor(0).data.copy()})
    )
    for number, feed in enumerate(feeds):
        queue.start_async(feed, number)
    queue.wait_all()
    return [logits[number] for number in range(len(feeds))]
