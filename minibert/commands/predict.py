"""The story of a prediction: rows in, one record per row out, a window at a time."""

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from minibert.commands.arguments import PredictArguments
from minibert.commands.explanations import Explanations
from minibert.commands.model_flags import ModelArguments
from minibert.data.columns import Columns, choose_columns, field_names
from minibert.data.options import DataOptions
from minibert.data.readers import Row, check_characters, read_rows, read_stream
from minibert.errors import InputError
from minibert.hub import find_model
from minibert.inference.formats import WINDOW, Record
from minibert.inference.predictor import Predictor, load
from minibert.inference.rows import predict_window
from minibert.inference.writers import PredictionWriter, open_writer
from minibert.processes import ONE_PROCESS, Processes, check_gpus, check_single
from minibert.run_folders import check_output, newest_run
from minibert.runs import NO_MODEL, RunFolder
from minibert.tasks.calibrated import with_min_probability
from minibert.tasks.choice import task_of


def main(arguments: PredictArguments, processes: Processes = ONE_PROCESS) -> None:
    """Classify texts and write one record per text, in input order.

    Several processes share the windows of the input; the first one writes.
    """
    if arguments.input == "-":
        check_single(processes, "standard input")
    if arguments.explain:
        check_single(processes, "--explain")
    for flag, file in (("--output", arguments.output), ("--explain", arguments.explain)):
        if file and str(file) != "-":
            check_output(flag, Path(file))
    folder, predictor = load_predictor(arguments.model)
    check_gpus(predictor.compute.device, processes)
    default = RunFolder(folder).columns()
    if arguments.texts and default and default.pair:
        raise InputError("the model reads two texts; give --input FILE with a column for each")
    explanations = None
    if arguments.explain:
        explanations = Explanations(arguments.explain, folder, predictor)
    errors = 0
    with open_writer(
        arguments.output if processes.is_first else "-",  # the others write nothing: process.py
        predictor.task,
        safe=arguments.csv_safe,
        resume=arguments.resume_output,
    ) as writer:
        for window, records in predictions(arguments, predictor, default, writer, processes):
            writer.write(window, records)
            if explanations:
                explanations.add(records)
            errors += sum("error" in record for record in records)
    if explanations:
        explanations.write()
    if errors:
        print(f"{errors:,} rows could not be used; the field error says why", file=sys.stderr)
    truncated = sum(processes.gather(predictor.truncated))
    if truncated:
        print(f"{truncated:,} texts were {predictor.how_truncated}", file=sys.stderr)


def load_predictor(
    model: ModelArguments, processes: Processes = ONE_PROCESS
) -> tuple[Path, Predictor]:
    """Return the folder of the named model, or of the newest finished run, and its predictor.

    The processes share each call's texts.
    """
    options = dict(model.options)
    revision, min_probability = (options.pop(x, None) for x in ("revision", "min_probability"))
    folder = newest_run() if model.model is None else find_model(model.model, revision=revision)
    if RunFolder(folder).is_cross_validation:
        raise InputError(f"{folder}: {NO_MODEL}")
    predictor = load(str(folder), **options)
    check_gpus(predictor.compute.device, processes)
    predictor.compute = replace(predictor.compute, processes=processes)
    predictor.model = replace(predictor.model, processes=processes)
    if min_probability is not None:
        predictor.task = task_of(with_min_probability(predictor.task.head, min_probability))
    return folder, predictor


def predictions(
    arguments: PredictArguments,
    predictor: Predictor,
    default: Columns | None,
    writer: PredictionWriter,
    processes: Processes,
) -> Iterator[tuple[int, list[Record]]]:
    """Yield each window's number and records, for the windows that the writer needs.

    Of several processes, each predicts one window at a time, and the first one yields them all.
    """

    def needs(window: int) -> bool:
        return processes.call_first(lambda: writer.needs(window))

    needed = needed_windows(arguments, default, needs)
    while windows := list(itertools.islice(needed, processes.size)):
        predicted = [
            (number, predict_window(rows, columns, predictor))
            for number, rows, columns in processes.deal(windows)
        ]
        for of_process in processes.gather(predicted):
            yield from of_process


def needed_windows(
    arguments: PredictArguments, default: Columns | None, needs: Callable[[int], bool]
) -> Iterator[tuple[int, list[Row], Columns | None]]:
    """Yield the number, the rows and the columns of each window that is needed."""
    options = DataOptions(**arguments.reading)
    rows = input_rows(arguments, options.encoding)
    columns = None
    for number in itertools.count():
        window = list(itertools.islice(rows, WINDOW))
        if not window:
            return
        names = field_names(window)
        if columns is None and names:
            source = arguments.input or "the command line"
            requested = options.columns()
            columns = choose_columns(names, source, requested, labelled=False, default=default)
        if needs(number):
            yield number, window, columns


def input_rows(arguments: PredictArguments, encoding: str) -> Iterator[Row]:
    """Yield the rows of the command line's texts, of standard input, or of a file."""
    source = arguments.input
    if source is None:
        texts = enumerate(arguments.texts, start=1)
        rows = (Row(number, {"text": text}) for number, text in texts)
        return (check_characters(row, sys.getfilesystemencoding()) for row in rows)
    if source == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed; give --input FILE")
        form = arguments.input_format or "lines"
        return read_stream(sys.stdin.buffer, form, "standard input", encoding=encoding)
    return read_rows(Path(source), encoding=encoding)
