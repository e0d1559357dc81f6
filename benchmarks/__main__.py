"""Speed beside the peers: python -m benchmarks [PART ...]; Markdown tables, progress on stderr."""

import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import parts
from benchmarks.growth import growth
from benchmarks.long import long
from benchmarks.task import BATCH
from benchmarks.tricks import tricks
from benchmarks.workload import SIZES, read_corpus
from minibert.commands.parser import Parser
from minibert.commands.process import run_command
from minibert.device import choose_compute
from minibert.errors import InputError
from minibert.files import write_json

PARTS = {
    "training": parts.training,
    "frozen": parts.frozen,
    "answering": parts.answering,
    "latency": parts.latency,
    "start": parts.start,
    "long": long,
    "growth": growth,
    "tricks": tricks,
}
QUICK = ("training", "answering", "latency")


def main(argv: Sequence[str]) -> None:
    """Run the parts and print their tables; exit status 1 where a contestant failed."""
    flags = read_flags(argv)
    small = flags.parts == ["quick"]
    chosen = QUICK if small else flags.parts or list(PARTS)
    torch.set_num_threads(flags.threads)
    sections = []
    with tempfile.TemporaryDirectory(prefix="minibert-benchmarks-") as place:
        setup = parts.Setup(
            place=Path(place),
            size=flags.size,
            corpus=read_corpus(flags.data, flags.test),
            device=flags.device,
            threads=flags.threads,
            repeats=flags.repeats or (3 if small else 5),
            small=small,
            best=choose_compute(flags.device, "auto").precision,
            batch=flags.batch,
        )
        for part in chosen:
            sections.append(PARTS[part](setup))
            print(sections[-1], flush=True)
            if flags.json:
                write_json(flags.json, [section.to_json() for section in sections])
    if any(section.problems for section in sections):
        sys.exit(1)


def read_flags(argv: Sequence[str]) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    known = [*PARTS, "quick"]
    add("parts", nargs="*", metavar="PART", help=f"{', '.join(known)} (default: all, not quick)")
    add("--size", choices=SIZES, default="distilbert", help="of the model (default: distilbert)")
    add("--data", type=Path, metavar="FILE", help="labelled texts (default: SST-2 or the reviews)")
    add("--test", type=Path, metavar="FILE", help="those to classify (default: the same)")
    add("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="of everyone")
    add("--repeats", type=int, metavar="N", help="rounds (default: 5, quick 3)")
    add("--batch", type=int, default=BATCH, metavar="N", help=f"texts (default: {BATCH})")
    add("--json", type=Path, metavar="FILE", help="write all that was measured")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="(default: cpu)")
    flags = parser.parse_args(argv)
    strange = [part for part in flags.parts if part not in known]
    if strange or ("quick" in flags.parts and len(flags.parts) > 1):
        raise InputError(f"the parts are {', '.join(PARTS)}, or quick alone")
    if min(flags.threads, flags.batch, 1 if flags.repeats is None else flags.repeats) < 1:
        raise InputError("--threads, --batch and --repeats must be 1 or more")
    return flags


if __name__ == "__main__":
    sys.exit(run_command(main))
