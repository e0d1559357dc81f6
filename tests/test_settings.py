"""Proves that every option has its flag, its default in --help, and its bounds.

Run: pytest tests/test_settings.py
"""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
from helpers import ROOT

from minibert import config
from minibert.commands.options import (
    ANSWERING_PRECISIONS,
    HEADS,
    POOLINGS,
    PRECISIONS,
    SCHEDULES,
    Flags,
    RunSettings,
    add_model_options,
    add_options,
)
from minibert.device import DTYPES
from minibert.errors import InputError
from minibert.training.optimizer import learning_rate_factor

FIELDS = dataclasses.fields(RunSettings)

# One value of each option that is not its default: on the command line, and in Python.
GIVEN = {
    "model": ("my/model", "my/model"),
    "revision": ("main", "main"),
    "head": ("native", "native"),
    "pooling": ("mean", "mean"),
    "max_length": ("auto", None),
    "data": ("a.csv", "a.csv"),
    "validation": ("b.csv", "b.csv"),
    "test": ("c.csv", "c.csv"),
    "text_column": ("body", "body"),
    "pair_column": ("title", "title"),
    "label_column": ("topic", "topic"),
    "encoding": ("cp1252", "cp1252"),
    "bad_rows": ("drop", "drop"),
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
    "class_weights": ("balanced", "balanced"),
    "freeze": (None, True),
    "freeze_layers": ("2", 2),
    "freeze_embeddings": (None, True),
    "select": ("loss", "loss"),
    "patience": ("1", 1),
    "seed": ("4294967295", 2**32 - 1),
    "save_every": ("100", 100),
    "keep_states": ("2", 2),
    "device": ("cuda:1", "cuda:1"),
    "precision": ("fp32", "fp32"),
}


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def read(*words: str) -> RunSettings:
    """The settings that these words give."""
    parser = Flags()
    add_options(parser)
    return RunSettings(**vars(parser.parse_args(words)))


# --- flags


def test_without_flags_the_defaults_hold():
    assert read() == RunSettings()


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_option_has_a_flag(field):
    word, value = GIVEN[field.name]
    settings = read(flag_of(field.name), *([] if word is None else [word]))
    assert getattr(settings, field.name) == value != field.default
    assert dataclasses.replace(settings, **{field.name: field.default}) == RunSettings()


def test_help_shows_every_flag_with_its_default():
    parser = Flags()
    add_options(parser)
    text = " ".join(parser.format_help().split())
    for field in FIELDS:
        start = text.index(f" {flag_of(field.name)} ", text.index("model: "))
        if not isinstance(field.default, bool):
            shown = field.metadata["shown"] or field.default
            assert f"(default: {shown})" in text[start : start + 300], field.name


def test_only_the_named_options_can_be_had():
    parser = Flags()
    add_options(parser, ["epochs"])
    assert vars(parser.parse_args(["--epochs", "4"])) == {"epochs": 4}
    with pytest.raises(InputError, match="unrecognized arguments: --seed 1"):
        parser.parse_args(["--seed", "1"])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3"),  # no guessing at short forms
        (["--head", "tree"], "argument --head: invalid choice"),
        (["--split", "70:30"], "argument --split: '70:30' is not like 70:15:15"),
        (["--max-length", "long"], "argument --max-length: 'long' is neither a number nor auto"),
        (["--seed"], "argument --seed: expected one argument"),
    ],
)
def test_a_mistyped_flag_is_one_sentence(words, problem):
    with pytest.raises(InputError) as error:
        read(*words)
    assert problem in str(error.value) and str(error.value).endswith("(see --help)")


def test_eval_and_predict_open_a_model_with_the_flags_of_predictor():
    parser = Flags()
    add_model_options(parser)
    assert vars(parser.parse_args([])) == {"model": None}
    words = "--model m --revision r --max-length 9 --batch-size 2 --device cpu --precision fp32"
    assert vars(parser.parse_args(words.split())) == {
        "model": "m",
        "revision": "r",
        "max_length": 9,
        "batch_size": 2,
        "device": "cpu",
        "precision": "fp32",
    }


# --- bounds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("accumulate", 0),
        ("max_length", 2),
        ("split_seed", -1),
        ("seed", 2**32),
        ("encoder_lr", -1e-9),
        ("head_lr", math.inf),
        ("weight_decay", 1.1),
        ("warmup", -0.1),
        ("clip", -1.0),
        ("label_smoothing", 1.0),
        ("freeze_layers", -1),
        ("patience", 0),
        ("head", "tree"),
        ("pooling", "max"),
        ("schedule", "cosin"),
        ("precision", "fp8"),
        ("precision", "int8"),
        ("split", (70, 30, 0)),
        ("split", (70, 30)),
    ],
)
def test_a_value_out_of_range_is_named_with_its_flag(name, value):
    with pytest.raises(InputError, match=f"^{flag_of(name)} is "):
        RunSettings(**{name: value})


@pytest.mark.parametrize("field", [f for f in FIELDS if f.metadata["kind"] is float])
def test_nan_is_never_in_range(field):
    with pytest.raises(InputError, match=f"{flag_of(field.name)} is nan; it must be"):
        RunSettings(**{field.name: math.nan})


@pytest.mark.parametrize("field", [f for f in FIELDS if f.metadata["low"] is not None])
def test_the_bounds_themselves_are_in_range(field):
    for bound in (field.metadata["low"], field.metadata["high"]):
        if bound is not None:
            RunSettings(**{field.name: bound})


FREEZE = "--freeze freezes all"
ONE_FILE = "one file is given for two of --data, --validation and --test"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"freeze": True, "freeze_layers": 1}, FREEZE),
        ({"freeze": True, "freeze_embeddings": True}, FREEZE),
        ({"data": "a.csv", "test": "a.csv"}, ONE_FILE),
        ({"data": "a.csv", "test": "./a.csv"}, ONE_FILE),
        ({"validation": "b.csv", "test": "b.csv"}, ONE_FILE),
    ],
)
def test_options_that_contradict_each_other_are_refused(values, problem):
    with pytest.raises(InputError, match=f"^{problem}"):
        RunSettings(**values)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(InputError) as error:
        RunSettings(epochs=0, clip=math.nan, freeze=True, freeze_layers=1, data="a", test="a")
    problems = str(error.value).split("; ")
    for start in ("--epochs is 0", "--clip is nan", "--freeze freezes all", "one file is given"):
        assert any(problem.startswith(start) for problem in problems), start


# --- settings.json


def test_settings_come_back_from_json():
    settings = RunSettings(
        **{name: value for name, (_, value) in GIVEN.items() if name != "freeze"}
    )
    data = json.loads(json.dumps(settings.to_json()))
    assert RunSettings.from_json(data, where="here") == settings


@pytest.mark.parametrize(
    "change", [{"colour": "red"}, {"split": None}, {"split": [1, "a", 2]}, {"epochs": "3"}]
)
def test_json_that_is_no_settings_is_refused_with_its_file(change):
    data = {**RunSettings().to_json(), **change}
    with pytest.raises(InputError, match=r"^settings.json: is not the settings of a run"):
        RunSettings.from_json(data, where="settings.json")


def test_json_without_or_with_impossible_settings_is_refused():
    with pytest.raises(InputError, match=r"^settings.json: is not the settings of a run"):
        RunSettings.from_json({}, where="settings.json")
    with pytest.raises(InputError, match="--epochs is 0"):
        RunSettings.from_json({**RunSettings().to_json(), "epochs": 0}, where="settings.json")


# --- one list of choices


def test_the_choices_are_those_that_the_code_knows():
    assert HEADS == config.HEADS
    assert POOLINGS == config.POOLINGS
    assert set(ANSWERING_PRECISIONS) == {"auto", *DTYPES}
    assert set(ANSWERING_PRECISIONS) - set(PRECISIONS) == {"int8"}  # no training in int8
    # Half-way down, each schedule says something of its own.
    factors = {kind: learning_rate_factor(3, 4, kind=kind, warmup=0) for kind in SCHEDULES}
    assert len(set(factors.values())) == len(SCHEDULES)


def test_reading_flags_does_not_wait_for_torch():
    code = "import sys, minibert.commands.options; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_an_empty_name_is_not_taken_for_none_given():
    with pytest.raises(InputError, match="--test is empty"):
        RunSettings(test="")
