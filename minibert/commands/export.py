"""The story of an export: a classifier to a folder that others run; checked, scored and timed."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from minibert.commands.export_arguments import ExportArguments
from minibert.data.batches import Dataset
from minibert.data.examples import Examples
from minibert.data.options import DataOptions
from minibert.data.splits import read_splits
from minibert.device import choose_compute
from minibert.errors import InputError, printable
from minibert.export.folder import GRAPH, write_folder
from minibert.export.graph import for_export
from minibert.export.onnx_runtime import OnnxModel, describe_graph
from minibert.files import new_folder
from minibert.hub import find_model
from minibert.inference.batched import InferenceModel, prepare_for_inference
from minibert.inference.text_classifier import TextClassifier
from minibert.model.config import HeadConfig
from minibert.processes import ONE_PROCESS, Processes, check_single
from minibert.runs import RunFolder
from minibert.tasks.task import Task

BATCH = 32
TOLERANCE = 1e-4  # of a logit, relative to the largest if that is over 1
TEXTS = (
    "Good",
    "I want my money back.",
    "The staff were kind, the soup was cold, and we would go again all the same.",
    "never " * 60,
)


def main(arguments: ExportArguments, processes: Processes = ONE_PROCESS) -> None:
    """Write the folder, unless the graph's logits differ from PyTorch's."""
    check_single(processes, "export")
    if not (find_spec("onnx") and find_spec("onnxruntime")):
        raise InputError(
            'export needs the extra onnx, on Python 3.11 or later: pip install -e ".[onnx]"'
        )
    folder = find_model(arguments.model)
    out = arguments.out or Path(f"{Path(arguments.model).resolve().name}-onnx")
    classifier = TextClassifier.from_folder(folder)
    exported = for_export(classifier)
    examples = validation_split(folder, exported.task)
    with new_folder(out) as temporary:
        graphs = write_folder(temporary, exported, int8=arguments.int8)
        check(graphs, classifier, exported, examples)
    for line in differences(classifier.checkpoint.head):
        print(line)
    example = printable(shlex.quote(str(out / "example.py")), 1000)
    print(f"exported: {printable(str(out), 1000)} (python {example} TEXT)")


def validation_split(folder: Path, task: Task) -> Examples | None:
    """Return a run's validation split; None, and a line that says why, if it is not there."""
    run = RunFolder(folder)
    try:
        if not run.settings_file.is_file():
            raise InputError(f"{folder} is not a run of minibert (no settings.json)")
        values, metadata = run.parse_settings()
        # Of the data alone: other options may be those of another version of minibert.
        named = {x.name: values[x.name] for x in fields(DataOptions) if x.name in values}
        lists = {name: tuple(x) for name, x in named.items() if isinstance(x, list)}
        splits = read_splits(DataOptions(**(named | lists)), model_task=task.head.task)
        if not splits.fingerprints().items() <= metadata.digests.items():
            raise InputError(f"{named['data']} has changed since the run was trained")
    except InputError as error:
        print(f"no validation split: {error}")
        return None
    return splits.validation


def check(
    graphs: Sequence[Path],
    classifier: TextClassifier,
    exported: TextClassifier,
    examples: Examples | None,
) -> None:
    """Compare the graphs with PyTorch and print the figures of each: logits, speed, scores.

    Without labelled examples, only the logits of fixed texts. Raises InputError if those of the
    first graph differ.
    """
    task, compute = exported.task, choose_compute("cpu", "fp32")
    texts, pairs = (examples.texts, examples.pairs) if examples else (TEXTS, TEXTS[::-1])
    dataset = exported.dataset_of(exported.tokenize(texts, pairs))
    where = f"{len(texts):,} texts of {examples.source}" if examples else "pairs of fixed texts"
    print(f"checked on {printable(where)}")

    def print_figures(logits: Tensor, seconds: float) -> None:
        if examples:
            scores = task.score_with_intervals(logits, torch.from_numpy(task.targets(examples)))
            print(f"  {len(texts) / seconds:,.0f} texts/s; {scores}")

    print(f"minibert in fp32, threads: {torch.get_num_threads()}, texts per batch: at most {BATCH}")
    model = prepare_for_inference(classifier.model, compute, keep=True)
    expected, seconds = timed_logits(model, dataset)
    expected /= classifier.checkpoint.head.temperature
    print_figures(expected, seconds)
    for graph in graphs:
        name = f"onnx/{graph.name}"
        print(f"{name}, {describe_graph(graph)}")
        logits, seconds = timed_logits(InferenceModel(OnnxModel(graph), compute.device), dataset)
        difference = float((logits - expected).abs().max())
        tolerance = TOLERANCE * max(1.0, float(expected.abs().max()))
        if name == GRAPH and not difference <= tolerance:
            raise InputError(
                f"{name}: its logits differ from PyTorch's by up to {difference:.1e}; nothing is "
                "exported"
            )
        found = zip(task.predict(logits), task.predict(expected), strict=True)
        others = sum(ours != theirs for ours, theirs in found)
        predictions = "" if task.head.task == "regression" else f"; {others:,} other predictions"
        print(f"  logits differ by at most {difference:.1e}{predictions}")
        print_figures(logits, seconds)


def timed_logits(model: InferenceModel, dataset: Dataset) -> tuple[Tensor, float]:
    """Return the logits (N, C) and the seconds that they took."""
    started = time.perf_counter()
    logits = model.logits(dataset, batch_size=BATCH)
    return logits, time.perf_counter() - started


def differences(head: HeadConfig) -> list[str]:
    """Return a line for each thing that readers of the folder do otherwise than minibert."""
    lines = []
    if head.kind != "native":
        lines.append(
            f"the {head.kind} head is in the graph: to readers of weights, such as "
            "text-embeddings-inference without ONNX, the run is an encoder and no classifier"
        )
    if head.long_texts.how != "cut":
        lines.append(
            f"texts over {head.max_length} tokens: cut in the figures above and by every reader "
            f"({head.long_texts.how} in minibert)"
        )
    if head.thresholds:
        lines.append("thresholds: example.py applies those of config.json, other readers do not")
    if head.min_probability:
        lines.append("rejected texts: only minibert marks them")
    if head.task == "regression":
        lines.append("the logits are the numbers; pipelines that apply a softmax hide them")
    return lines
