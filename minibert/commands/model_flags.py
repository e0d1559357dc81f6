"""The flags by which eval.py and predict.py load a model. Imports no torch."""

import argparse
from dataclasses import dataclass
from typing import Any

from minibert.commands.options import PRECISIONS, RunOptions
from minibert.commands.parser import add_options, probability
from minibert.errors import InputError


@dataclass(frozen=True)
class ModelArguments:
    """What eval.py and predict.py load: `options` are those of `load_predictor`."""

    model: str | None  # None: the newest finished run
    options: dict[str, Any]


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags by which eval.py and predict.py load a model."""
    group = parser.add_argument_group("model")
    add = group.add_argument
    add("--model", metavar="NAME", help="run, folder or hub id (default: the newest finished run)")
    add_options(group, RunOptions, ("revision",))
    add(
        "--max-length",
        type=int,
        default=argparse.SUPPRESS,
        metavar="N",
        help="tokens per text, or per window of it (default: the model's)",
    )
    add(
        "--min-probability",
        type=probability,
        default=argparse.SUPPRESS,
        metavar="P",
        help="mark texts whose highest probability is below P as rejected; 0: none (default: the "
        "model's, from --target-accuracy)",
    )
    add(
        "--raw",
        action="store_true",
        default=argparse.SUPPRESS,
        help="probabilities without the temperature that calibrates them",
    )
    machine = parser.add_argument_group("machine")
    add_options(machine, RunOptions, ("device",))
    machine.add_argument(
        "--precision",
        choices=(*PRECISIONS, "int8"),
        default=argparse.SUPPRESS,
        help="of matrix products; int8 is for x86 CPUs and rounds more than bf16 "
        "(docs/accuracy.md has figures; default: auto)",
    )
    machine.add_argument(
        "--batch-size",
        type=int,
        default=argparse.SUPPRESS,
        metavar="N",
        help="maximum number of texts per forward pass (default: 32)",
    )


def take_model_arguments(values: dict[str, Any]) -> ModelArguments:
    """Take the flags of `add_model_flags` out of the parsed values."""
    model = values.pop("model")
    of_model = ("revision", "max_length", "min_probability", "raw")
    names = (*of_model, "device", "precision", "batch_size")
    options = {name: values.pop(name) for name in names if name in values}
    if model is None and "revision" in options:
        raise InputError("--revision goes with a hub id; give --model")
    return ModelArguments(model, options)
