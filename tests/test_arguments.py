"""The command lines of the three scripts, and the settings that settings.json keeps.

Run: pytest tests/test_arguments.py
"""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, start_script

from minibert.commands.arguments import parse_evaluate, parse_predict, parse_train
from minibert.commands.options import PRECISIONS, RunOptions, Settings
from minibert.data.options import DataOptions
from minibert.device import DTYPES
from minibert.errors import InputError
from minibert.training.options import TrainingOptions

KINDS: tuple[Any, ...] = (RunOptions, DataOptions, TrainingOptions)
FIELDS = [field for kind in KINDS for field in dataclasses.fields(kind)]
SCRIPTS = ("train.py", "eval.py", "predict.py")

# A value of each option that is not its default: on the command line, and in Python.
EXAMPLES = {
    "model": ("my/model", "my/model"),
    "revision": ("main", "main"),
    "head": ("native", "native"),
    "pooling": ("mean", "mean"),
    "thresholds": ("0.25", "0.25"),
    "target_accuracy": ("0.98", 0.98),
    "rare_class": ("recall=0.9", "recall=0.9"),
    "max_length": ("auto", None),
    "long_texts": ("windows", "windows"),
    "stride": ("9", 9),
    "window_pooling": ("max", "max"),
    "max_windows": ("2", 2),
    "data": ("a.csv", "a.csv"),
    "validation": ("b.csv", "b.csv"),
    "test": ("c.csv", "c.csv"),
    "text_column": ("body", "body"),
    "pair_column": ("title", "title"),
    "label_column": ("topic", "topic"),
    "label_columns": ("topic, mood", ("topic", "mood")),
    "label_separator": (";", ";"),
    "task": ("regression", "regression"),
    "encoding": ("cp1252", "cp1252"),
    "bad_rows": ("drop", "drop"),
    "leaks": ("drop", "drop"),
    "split": ("8:1:1", (8, 1, 1)),
    "split_seed": ("5", 5),
    "epochs": ("7", 7),
    "batch_size": ("3", 3),
    "accumulate": ("2", 2),
    "encoder_lr": ("3e-5", 3e-5),
    "head_lr": ("0.5", 0.5),
    "weight_decay": ("0", 0.0),
    "schedule": ("cosine", "cosine"),
    "warmup": ("1", 1.0),
    "clip": ("0", 0.0),
    "label_smoothing": ("0.1", 0.1),
    "class_weights": ("sqrt", "sqrt"),
    "regression_loss": ("huber", "huber"),
    "freeze": (None, True),
    "freeze_layers": ("2", 2),
    "freeze_embeddings": (None, True),
    "select": ("loss", "loss"),
    "patience": ("1", 1),
    "seed": ("4294967295", 2**32 - 1),
    "save_every": ("100", 100),
    "keep_states": ("2", 2),
    "no_baseline": (None, True),
    "tensorboard": (None, True),
    "log_json": (None, True),
    "seeds": ("3", 3),
    "learning_curve": (None, True),
    "train_percent": ("20", 20),
    "folds": ("5", 5),
    "fold": ("2/5", (2, 5)),
    "device": ("cuda:1", "cuda:1"),
    "precision": ("fp32", "fp32"),
}
DEFAULTS = Settings.from_dict({})


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


# --- the flags of train.py


def test_without_flags_the_defaults_hold():
    arguments = parse_train([])
    assert arguments.settings == DEFAULTS == Settings(*(kind() for kind in KINDS))
    assert arguments.out is None and arguments.resume is None


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_option_has_a_flag(field):
    text, value = EXAMPLES[field.name]
    words = [flag_of(field.name), *([] if text is None else [text])]
    expected = {**DEFAULTS.to_dict(), field.name: value}
    if field.name in ("stride", "window_pooling", "max_windows"):
        words += ["--long-texts", "windows"]
        expected["long_texts"] = "windows"
    assert parse_train(words).settings.to_dict() == expected
    assert value != field.default


def test_resume_takes_no_other_flags():
    assert parse_train(["--resume", "run"]).resume == Path("run")
    with pytest.raises(InputError, match=r"--resume uses .* --epochs, --freeze, --out$"):
        parse_train(["--resume", "run", "--epochs", "3", "--freeze", "--out", "new"])


def test_checking_the_data_makes_no_run():
    assert parse_train(["--check-data"]).check_data and not parse_train([]).check_data
    for flag in ("--out", "--resume"):
        with pytest.raises(InputError, match="--check-data makes no run; drop --out and --resume"):
            parse_train(["--check-data", flag, "run"])


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3"),  # no abbreviations
        (["--head", "tree"], "argument --head: invalid choice"),
        (["--split", "70:30"], "argument --split: '70:30' is not like 70:15:15"),
        (["--max-length", "long"], "argument --max-length: 'long' is neither a number nor auto"),
        (["--seed"], "argument --seed: expected one argument"),
    ],
)
def test_a_mistyped_flag_is_one_line(argv, problem):
    with pytest.raises(InputError) as error:
        parse_train(argv)
    assert problem in str(error.value) and str(error.value).endswith("(see --help)")


def test_all_wrong_options_are_named_at_once():
    """Of the run, the data and the training, in one error."""
    argv = "--keep-states 0 --split 1:0:1 --epochs 0 --clip nan --freeze --freeze-layers 1"
    with pytest.raises(InputError) as error:
        parse_train([*argv.split(), "--data", "a.csv", "--test", "a.csv"])
    message = str(error.value)
    for problem in (
        "--keep-states is 0; it must be 1 or more",
        "--split is (1, 0, 1); it needs three",
        "one file is given for two of",
        "--epochs is 0",
        "--clip is nan",
        "--freeze freezes all",
    ):
        assert problem in message
    assert "\n" not in message


def test_precisions_are_those_that_the_code_knows():
    assert {*PRECISIONS, "int8"} == {"auto", *DTYPES}
    with pytest.raises(InputError, match="--precision"):  # int8 is for inference only
        parse_train(["--precision", "int8"])
    assert parse_predict(["--precision", "int8", "good"]).model.options == {"precision": "int8"}


# --- the flags of eval.py and predict.py


@pytest.mark.parametrize("parse", [parse_evaluate, parse_predict])
def test_eval_and_predict_load_a_model_with_the_same_flags(parse):
    texts = [] if parse is parse_evaluate else ["good"]
    assert parse(texts).model.model is None and parse(texts).model.options == {}
    argv = "--model m --revision r --max-length 9 --batch-size 2 --device cpu --precision fp32"
    model = parse([*argv.split(), *texts]).model
    assert model.model == "m"
    assert model.options == {
        "revision": "r",
        "max_length": 9,
        "batch_size": 2,
        "device": "cpu",
        "precision": "fp32",
    }
    with pytest.raises(InputError, match="--revision goes with a hub id; give --model"):
        parse(["--revision", "r", *texts])


def test_eval_reads_data_with_the_column_flags():
    arguments = parse_evaluate(["--data", "a.csv", "--text-column", "body", "--bad-rows", "drop"])
    assert arguments.data == "a.csv"
    assert arguments.reading == {"text_column": "body", "bad_rows": "drop"}
    with pytest.raises(InputError, match="the flags of columns and files go with --data"):
        parse_evaluate(["--bad-rows", "drop"])


def test_predict_needs_texts_or_an_input():
    assert parse_predict(["good", "bad"]).texts == ["good", "bad"]
    assert parse_predict(["--input", "a.csv"]).input == "a.csv"
    for argv in ([], ["good", "--input", "a.csv"]):
        with pytest.raises(InputError, match="give either TEXT or --input FILE"):
            parse_predict(argv)


# --- --help


def shown_help(script: str, place: Path, columns: int) -> str:
    environment = {"COLUMNS": str(columns)}
    process = start_script(script, "--help", cwd=place, env=environment)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    return output


def test_help_shows_every_flag_with_its_default(tmp_path):
    text = " ".join(shown_help("train.py", tmp_path, 100).split())
    for field in FIELDS:
        start = text.index(f" {flag_of(field.name)} ", text.index("run folder:"))
        if not isinstance(field.default, bool):
            assert f"(default: {field.metadata['shown']})" in text[start : start + 300], field.name


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_fits_the_terminal(tmp_path, script, columns):
    lines = shown_help(script, tmp_path, columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert max(map(len, lines)) > columns - 20  # and uses its width


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_neither_torch_nor_scikit_learn(tmp_path, script):
    code = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
sys.argv = [{script!r}, "--help"]
try:
    runpy.run_path({str(ROOT / script)!r}, run_name="__main__")
except SystemExit as ended:
    print(ended.code, [name for name in ("torch", "sklearn", "numpy") if name in sys.modules])
"""
    output, errors = start_script(["-c", code], cwd=tmp_path, fresh=True).communicate(timeout=60)
    assert errors == "" and output.splitlines()[-1] == "0 []"


# --- settings.json

FILE = Path("run/settings.json")


def test_settings_come_back_from_json():
    """All options but those that exclude others, and the same as tuples."""
    values: dict[str, Any] = {name: value for name, (_, value) in EXAMPLES.items()}
    excluded = {"freeze": False, "label_column": None, "learning_curve": False, "folds": None}
    excluded |= {"target_accuracy": None, "label_separator": None, "test": None}
    settings = Settings.from_dict({**values, **excluded})
    data = json.loads(json.dumps(settings.to_dict()))
    assert Settings.from_json(data, FILE) == settings


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"colour": "red"}, "colour"),
        ({"split": None}, "split"),
        ({"split": [1, "a", 2]}, "split"),
        ({"split": "1:2:3"}, "split"),
        ({"label_columns": "a,b"}, "label_columns"),
        ({"label_columns": [1, 2]}, "label_columns"),
        ({"thresholds": 0.5}, "thresholds"),
        ({"epochs": "3"}, "epochs"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"head_lr": "fast"}, "head_lr"),
        ({"freeze": "no"}, "freeze"),
        ({"data": 5}, "data"),
        ({"model": None}, "model"),
        ({"model": ["a"]}, "model"),
        ({"max_length": "auto"}, "max_length"),
        ({"revision": {}}, "revision"),
    ],
)
def test_json_that_is_not_the_settings_of_a_run_is_refused(change, name):
    data = {**json.loads(json.dumps(DEFAULTS.to_dict())), **change}
    message = rf"^run/settings.json: is not the settings of a run of this version .*\({name}\)"
    with pytest.raises(InputError, match=message):
        Settings.from_json(data, FILE)


@pytest.mark.parametrize("name", ["epochs", "data", "precision"])
def test_json_without_an_option_is_refused(name):
    """The default may have been another one."""
    data = DEFAULTS.to_dict()
    del data[name]
    with pytest.raises(InputError, match=rf"is not the settings of a run .* \({name}\)"):
        Settings.from_json(data, FILE)


def test_json_with_values_out_of_range_names_the_file():
    data = {**DEFAULTS.to_dict(), "epochs": 0, "keep_states": 0, "clip": math.nan}
    with pytest.raises(InputError) as error:
        Settings.from_json(data, FILE)
    problems = re.findall(r"--[a-z-]+ is", str(error.value))
    assert str(error.value).startswith("run/settings.json: --")
    assert sorted(problems) == ["--clip is", "--epochs is", "--keep-states is"]
