"""The command line of `minibert export`. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minibert.commands.parser import Parser
from minibert.errors import program_name


@dataclass(frozen=True)
class ExportArguments:
    """The command line of `minibert export`."""

    model: str
    out: Path | None
    int8: bool
    format: str = "onnx"


def parse_export(argv: Sequence[str]) -> ExportArguments:
    """Parse the command line of `minibert export`."""
    parser = Parser(
        prog=program_name("export"),
        description="Write a trained classifier as an ONNX graph with its tokenizer and an "
        "example, in the layout that ONNX Runtime, transformers.js and text-embeddings-inference "
        "read. The files are checked against PyTorch and scored on the run's validation split "
        "before they get their name. docs/export.md says what each reader does with them.",
    )
    add = parser.add_argument
    add("model", metavar="RUN", help="finished run, folder or hub id of a classifier")
    add("--format", choices=("onnx",), default="onnx", help="(default: onnx; extra: onnx)")
    add("--out", type=Path, metavar="DIR", help="new folder (default: RUN-onnx, here)")
    add("--int8", action="store_true", help="write onnx/model_quantized.onnx too: int8 weights")
    return ExportArguments(**vars(parser.parse_args(argv)))
