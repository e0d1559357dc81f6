"""The command lines of train.py, eval.py and predict.py, parsed and checked. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minibert.commands.explain_arguments import EXPLAIN_HELP, check_explain
from minibert.commands.explain_arguments import parse_explain as parse_explain
from minibert.commands.export_arguments import parse_export as parse_export
from minibert.commands.model_flags import ModelArguments, add_model_flags, take_model_arguments
from minibert.commands.options import RunOptions, Settings
from minibert.commands.parser import Parser, add_options
from minibert.commands.push_arguments import parse_push as parse_push
from minibert.data.options import DataOptions
from minibert.errors import InputError, program_name
from minibert.options import flag_name
from minibert.training.options import TrainingOptions

DATA_FLAGS = (
    *("text_column", "pair_column", "label_column", "label_columns", "label_separator"),
    *("encoding", "bad_rows"),
)
READING_FLAGS = ("text_column", "pair_column", "encoding")
TABLES = (".csv", ".tsv")
JSON_LINES = (".jsonl", ".ndjson", ".json")
RESUME_HELP = (
    "continue a stopped run with its settings; in its settings.json, epochs may grow, and device, "
    "save_every, keep_states, tensorboard, log_json and the places of model and data may change"
)


@dataclass(frozen=True)
class TrainArguments:
    """The command line of train.py: a new run's settings and folder, or a run to resume."""

    settings: Settings
    out: Path | None
    resume: Path | None
    check_data: bool = False


def parse_train(argv: Sequence[str]) -> TrainArguments:
    """Parse the command line of train.py."""
    parser = Parser(
        prog=program_name("train"),
        usage="%(prog)s [options]",
        description="Train a text classifier: a pretrained BERT or a relative of it and labelled "
        "texts in; a run folder out, with the model, its settings, history.csv, metrics.json and "
        "the test split's predictions.",
    )
    add = parser.add_argument_group("run folder").add_argument
    add("--out", type=Path, metavar="DIR", help="new folder (default: under runs/, by time)")
    add("--resume", type=Path, metavar="DIR", help=RESUME_HELP)
    model = ("model", "revision", "head", "pooling", "thresholds", "rare_class", "target_accuracy")
    add_options(parser.add_argument_group("model"), RunOptions, model)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--check-data", action="store_true", help="report what is in the data, and do not train"
    )
    add_options(data, DataOptions)
    training = parser.add_argument_group("training")
    add_options(training, TrainingOptions)
    add_options(training, RunOptions, ("save_every", "keep_states", "tensorboard", "log_json"))
    add_options(training, RunOptions, ("no_baseline", "seeds", "learning_curve", "folds"))
    add_options(parser.add_argument_group("machine"), RunOptions, ("device", "precision"))
    values: dict[str, Any] = vars(parser.parse_args(argv))
    out, resume = values.pop("out"), values.pop("resume")
    check_data = values.pop("check_data")
    if check_data and (out or resume):
        raise InputError("--check-data makes no run; drop --out and --resume")
    if resume and (values or out):
        names = [flag_name(name) for name in values] + (["--out"] if out else [])
        raise InputError(
            f"--resume uses the settings in {resume / 'settings.json'}; drop {', '.join(names)}"
        )
    if "learning_curve" in values and "train_percent" in values:
        raise InputError("--learning-curve has its own parts of the texts; drop --train-percent")
    if "folds" in values and "fold" in values:
        raise InputError("--folds trains one run for each fold; drop --fold")
    return TrainArguments(Settings.from_dict(values), out, resume, check_data)


@dataclass(frozen=True)
class EvaluateArguments:
    """The command line of eval.py; `reading` says how to read the data."""

    model: ModelArguments
    compare: tuple[str, str] | None
    data: str | None
    json: Path | None
    plot: Path | None
    errors: Path | None
    report: Path | None
    reading: dict[str, Any]


def parse_evaluate(argv: Sequence[str]) -> EvaluateArguments:
    """Parse the command line of eval.py."""
    parser = Parser(
        prog=program_name("eval"),
        usage="%(prog)s [options]",
        description="Score a finished run, a folder or a hub model on labelled texts: "
        "scikit-learn's classification report, confusion matrix, accuracy with its 95% interval; "
        "for several labels F1 and average precision, for numbers errors and correlations.",
    )
    add_model_flags(parser)
    parser.add_argument_group("comparison").add_argument(
        "--compare",
        nargs=2,
        metavar="RUN",
        help="compare two runs on the test split that they share, or two models on --data: the "
        "paired difference with its 95%% interval, and whether it is significant",
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", metavar="NAME", help="file, hub:owner/name, sst2 (default: the run's test split)"
    )
    add_options(data, DataOptions, DATA_FLAGS)
    add = parser.add_argument_group("output").add_argument
    add("--json", type=Path, metavar="FILE", help="write the figures here too")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw the confusion matrix of single labels (extra: plots)",
    )
    add(
        "--errors",
        type=Path,
        metavar="FILE",
        help="write the wrong predictions of single labels as JSON lines, the most confident first",
    )
    add(
        "--report",
        type=Path,
        metavar="RUN",
        help="write report.html of a finished run again, from its files, and score nothing",
    )
    values = vars(parser.parse_args(argv))
    reading = {name: values.pop(name) for name in DATA_FLAGS if name in values}
    if values["report"] and sum(word.startswith("--") for word in argv) > 1:
        raise InputError("--report RUN reads the run's files alone; drop all other flags")
    arguments = EvaluateArguments(take_model_arguments(values), **values, reading=reading)
    check_evaluate(arguments)
    return arguments


def check_evaluate(arguments: EvaluateArguments) -> None:
    """Raise InputError for flags of eval.py that do not go together, and for files in use."""
    if arguments.compare and (arguments.model.model or arguments.plot or arguments.errors):
        raise InputError("--model, --plot and --errors do not go with --compare; drop them")
    if arguments.compare and arguments.model.options and not arguments.data:
        raise InputError(
            "--compare without --data reads the predictions that the runs saved; drop "
            + ", ".join(map(flag_name, arguments.model.options))
        )
    for name in ("min_probability", "raw"):
        if arguments.compare and name in arguments.model.options:
            raise InputError(f"{flag_name(name)} changes no figure of --compare; drop it")
    if arguments.data is None and arguments.reading:
        raise InputError("the flags of columns and files go with --data; drop them")
    source = arguments.data
    for flag, file in (("--json", arguments.json), ("--errors", arguments.errors)):
        if file and source and file.resolve() == Path(source).resolve():
            raise InputError(f"{flag} {file}: is the file to score; give another")
    for file in (arguments.json, arguments.plot, arguments.errors):
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise InputError(f"{file}: is a folder, or its folder does not exist; make it first")


@dataclass(frozen=True)
class PredictArguments:
    """The command line of predict.py; `reading` says how to read the input."""

    model: ModelArguments
    texts: list[str]
    input: str | None
    input_format: str | None
    output: str
    resume_output: bool
    csv_safe: bool
    explain: Path | None
    reading: dict[str, Any]


def parse_predict(argv: Sequence[str]) -> PredictArguments:
    """Parse the command line of predict.py."""
    parser = Parser(
        prog=program_name("predict"),
        usage="%(prog)s [options] [TEXT ...]",
        description="Classify texts: one prediction per text, in input order, as JSON lines "
        '{"text", "label", "probability", "probabilities"}, CSV or TSV; "labels" and '
        '"probabilities" for several labels, "value" for a number; "rejected" (true or false) if '
        "texts can be rejected. The input is streamed and may be of any length. A row that cannot "
        "be used gets nulls and an error. Other columns of the input are kept; one with a "
        "prediction's name gets the prefix input_. NaN and infinity in them become null; dates, "
        "bytes and whatever else JSON has no type for become strings. An output file gets its name "
        "when it is complete; until then, or if the run stops, the predictions are in .FILE.new.",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to classify")
    add_model_flags(parser)
    source = parser.add_argument_group("input")
    add = source.add_argument
    add("--input", metavar="FILE", help=".jsonl .csv .tsv .parquet, .txt (one text per line), or -")
    add(
        "--input-format",
        choices=("lines", "jsonl", "csv", "tsv"),
        help="format of - (default: lines, one text per line)",
    )
    add_options(source, DataOptions, READING_FLAGS)
    add = parser.add_argument_group("output").add_argument
    add(
        "--output",
        default="-",
        metavar="FILE",
        help=".jsonl .csv .tsv, or - (default: -, JSON lines)",
    )
    add(
        "--resume-output",
        action="store_true",
        help="continue an interrupted output; give the same input again",
    )
    add(
        "--csv-safe",
        action="store_true",
        help="put ' before cells of a .csv or .tsv that a spreadsheet would run as formulas",
    )
    add("--explain", type=Path, metavar="FILE", help=EXPLAIN_HELP)
    values = vars(parser.parse_args(argv))
    reading = {name: values.pop(name) for name in READING_FLAGS if name in values}
    arguments = PredictArguments(take_model_arguments(values), **values, reading=reading)
    check_predict(arguments)
    return arguments


def check_predict(arguments: PredictArguments) -> None:
    """Raise InputError for flags that do not go together."""
    source, output = arguments.input, arguments.output
    if arguments.explain:
        check_explain(arguments.explain, (source, output), resume=arguments.resume_output)
    suffix = Path(output).suffix.lower()
    if bool(arguments.texts) == bool(source):
        raise InputError("give either TEXT or --input FILE")
    if arguments.input_format and source != "-":
        raise InputError("--input-format goes with --input -; a file's name tells its format")
    if arguments.resume_output and output == "-":
        raise InputError("--resume-output goes with --output FILE")
    if arguments.csv_safe and suffix not in TABLES:
        raise InputError("--csv-safe goes with an --output FILE that ends in .csv or .tsv")
    if output == "-":
        return
    path = Path(output)
    if suffix not in (*TABLES, *JSON_LINES):
        raise InputError(f"--output {output}: has none of the endings .jsonl, .csv, .tsv")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"--output {output}: is a folder, or its folder does not exist")
    if source and path.exists() and Path(source).exists() and path.samefile(source):
        raise InputError(f"--output {output}: is the input file; give another")
