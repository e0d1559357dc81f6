"""Every option checks its type, choices and range; all problems are reported at once.

The rooms are minibert/options.py, data/options.py and training/options.py.

Run: pytest tests/test_options.py
"""

import argparse
import dataclasses
import json
import math
import os
from dataclasses import dataclass
from typing import Any

import pytest

from minibert.data.columns import RequestedColumns
from minibert.data.options import DataOptions, ratios
from minibert.errors import InputError
from minibert.options import check_options, flag_name, length, option
from minibert.training.options import TrainingOptions

KINDS = (DataOptions, TrainingOptions)
FIELDS = [
    pytest.param(kind, field, id=field.name) for kind in KINDS for field in dataclasses.fields(kind)
]


# --- the values of an option


@dataclass(frozen=True)
class Lamp:
    """Options of every kind."""

    bulbs: int = option(3, "bulbs", parse=int, bounds=(1, 9))
    power: float = option(5.0, "watts", parse=float, bounds=(0, None))
    colour: str = option("white", "of the light", choices=("white", "red"))
    name: str | None = option(None, "for the label", shown="none")
    dimmed: bool = option(False, "half the power")

    def __post_init__(self) -> None:
        check_options(self)


@pytest.mark.parametrize(
    "values",
    [
        {"bulbs": 1, "power": 0},
        {"bulbs": 9, "power": 1e300},
        {"colour": "red", "name": "desk", "dimmed": True},
        {"name": None},
    ],
)
def test_allowed_values_and_the_bounds_themselves_are_accepted(values: dict[str, Any]) -> None:
    lamp = Lamp(**values)
    assert all(getattr(lamp, name) == value for name, value in values.items())


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("bulbs", 0, "is 0; it must be from 1 to 9"),
        ("bulbs", 10, "is 10; it must be from 1 to 9"),
        ("bulbs", None, "is empty"),
        ("bulbs", "3", "is '3', not a whole number"),
        ("bulbs", 2.5, "is 2.5, not a whole number"),
        ("bulbs", True, "is True, not a whole number"),
        ("power", -0.1, "is -0.1; it must be 0 or more"),
        ("power", math.nan, "is nan; it must be 0 or more"),
        ("power", math.inf, "is inf; it must be 0 or more"),
        ("power", [1], "is [1], not a number"),
        ("colour", "green", "is 'green', not one of white, red"),
        ("colour", None, "is empty"),
        ("colour", ["red"], "is ['red'], not text"),
        ("name", "", "is empty"),
        ("name", 7, "is 7, not text"),
        ("dimmed", "yes", "is 'yes', not true or false"),
        ("dimmed", 1, "is 1, not true or false"),
    ],
)
def test_other_values_raise_with_the_flag_and_the_limits(
    name: str, value: Any, problem: str
) -> None:
    with pytest.raises(InputError) as error:
        Lamp(**{name: value})
    assert str(error.value) == f"--{name} {problem}"


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(InputError) as error:
        Lamp(bulbs=0, colour="green", name="")
    assert str(error.value) == (
        "--bulbs is 0; it must be from 1 to 9; --colour is 'green', not one of white, red; "
        "--name is empty"
    )


def test_a_flag_is_the_field_s_name_with_hyphens() -> None:
    assert flag_name("freeze_layers") == "--freeze-layers"


# --- every option of data and training


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_are_allowed(kind: type) -> None:
    kind()


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_every_option_has_help_and_shows_its_default(kind: type, field: Any) -> None:
    assert field.metadata["help"] and field.metadata["shown"]
    assert field.default is not None or field.metadata["shown"] != "None"


def build(kind: type, field: Any, value: Any) -> Any:
    """Options with one value, and with windows, which some of them need."""
    needed = {"long_texts": "windows"} if kind is DataOptions else {}
    return kind(**{**needed, field.name: value})


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_the_bounds_themselves_are_allowed_and_values_beyond_raise(kind: type, field: Any) -> None:
    low, high = field.metadata["bounds"]
    for bound, beyond in ((low, -1e-9 if low == 0 else -1), (high, 1e-9)):
        if bound is None:
            continue
        build(kind, field, bound)
        step = beyond if field.metadata["parse"] is float else math.copysign(1, beyond)
        value = bound + step if field.metadata["parse"] is float else int(bound + step)
        with pytest.raises(InputError, match=f"^{flag_name(field.name)} is .*; it must be"):
            build(kind, field, value)


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_nan_and_infinity_are_never_allowed(kind: type, field: Any) -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(InputError, match=f"{flag_name(field.name)} is (nan|inf)"):
            build(kind, field, value)


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_choices_are_allowed_and_nothing_else(kind: type, field: Any) -> None:
    for choice in field.metadata["choices"] or ():
        build(kind, field, choice)
    if field.metadata["choices"]:
        with pytest.raises(InputError, match=f"{flag_name(field.name)} is 'cosin', not one of"):
            build(kind, field, "cosin")


# --- options of the data


@pytest.mark.parametrize(
    "split",
    [(70, 30, 0), (70, 30), (70, 15, 10, 5), (-1, 1, 1), (0.7, 0.2, 0.1), (1, "a", 2), None, 70],
)
def test_a_split_that_is_not_three_positive_whole_numbers_raises(split: Any) -> None:
    with pytest.raises(InputError, match=r"^--split is .*; it needs three whole numbers, none bel"):
        DataOptions(split=split)


@pytest.mark.parametrize("text", ["70:30", "a:b:c", "1:2:3:4", "", "0.7:0.2:0.1"])
def test_a_split_on_the_command_line_that_is_not_like_70_15_15_raises(text: str) -> None:
    assert ratios("8:1:1") == (8, 1, 1)
    with pytest.raises(argparse.ArgumentTypeError, match="is not like 70:15:15"):
        ratios(text)


def test_a_length_on_the_command_line_is_a_number_or_auto() -> None:
    assert (length("auto"), length("64")) == (None, 64)
    assert DataOptions(max_length=None).max_length is None
    with pytest.raises(argparse.ArgumentTypeError, match="'long' is neither a number nor auto"):
        length("long")


@pytest.mark.parametrize(
    "files",
    [
        {"data": "a.csv", "test": "a.csv"},
        {"data": "a.csv", "test": f".{os.sep}a.csv"},
        {"validation": "b.csv", "test": "b.csv"},
    ],
)
def test_one_file_for_two_splits_raises(files: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"^one file is given for two of --data, --validation and"):
        DataOptions(**files)


@pytest.mark.parametrize("option", [{"stride": 9}, {"window_pooling": "max"}, {"max_windows": 2}])
def test_options_of_windows_need_windows(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(InputError, match=f"^{flag_name(name)} is for --long-texts windows$"):
        DataOptions("reviews.csv", **option)
    DataOptions("reviews.csv", long_texts="windows", **option)


def test_the_requested_columns_are_those_of_the_options() -> None:
    options = DataOptions(text_column="body", label_column="topic")
    assert options.columns() == RequestedColumns("body", None, "topic")


def test_options_of_the_data_come_back_from_json() -> None:
    options = DataOptions("a.csv", bad_rows="drop", split=(8, 1, 1), max_length=None)
    assert DataOptions(**json.loads(json.dumps(dataclasses.asdict(options)))) == options


# --- options of training


@pytest.mark.parametrize("both", [{"freeze_layers": 1}, {"freeze_embeddings": True}])
def test_freezing_everything_and_something_raises(both: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^--freeze freezes all; drop --freeze-layers and"):
        TrainingOptions(freeze=True, **both)


def test_problems_of_several_options_are_reported_with_those_of_one() -> None:
    with pytest.raises(InputError) as error:
        TrainingOptions(epochs=0, clip=math.nan, freeze=True, freeze_layers=1)
    problems = str(error.value).split("; ")
    for start in ("--epochs is 0", "--clip is nan", "--freeze freezes all"):
        assert any(problem.startswith(start) for problem in problems), start
