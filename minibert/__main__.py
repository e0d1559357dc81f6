"""The command `minibert`, also `python -m minibert`. Each story is in minibert/commands/."""

import os
import sys
from collections.abc import Sequence
from functools import partial

from minibert import __version__
from minibert.commands.process import run_command, run_script
from minibert.errors import InputError

COMMANDS = {  # name: module of minibert.commands, what it does
    "train": ("train", "train a text classifier"),
    "eval": ("evaluate", "score a classifier on labelled texts"),
    "predict": ("predict", "classify texts"),
    "explain": ("explain", "show what happens to one text in a model"),
    "export": ("export", "write a classifier as ONNX, for other programs"),
    "push": ("push", "publish a run on the Hugging Face hub"),
}


def main() -> int:
    """Run the command that the first argument names; return its exit status."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how the line goes on
        find_command_to_complete()
    name = sys.argv.pop(1) if len(sys.argv) > 1 else "--help"
    return run_script(COMMANDS[name][0]) if name in COMMANDS else run_command(partial(show, name))


def show(name: str, _: Sequence[str]) -> None:
    """Print the commands, or the version. Raises InputError for anything else."""
    if name == "--version":
        print(f"minibert {__version__}")
    elif name in ("-h", "--help"):
        print("usage: minibert COMMAND [options]; minibert COMMAND --help\n")
        print("\n".join(f"  {command:10}{what}" for command, (_, what) in COMMANDS.items()))
    else:
        raise InputError(f"{name!r} is not a command; choose from {', '.join(COMMANDS)}")


def find_command_to_complete() -> None:
    """Complete the command's name, or let the command's own parser complete its options."""
    from argcomplete import split_line

    before = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))[3]
    program = int(os.environ["_ARGCOMPLETE"])  # words up to the name of the program
    if len(before) > program:
        sys.argv[1:] = [before[program]]
        os.environ["_ARGCOMPLETE"] = str(program + 1)
        return
    from minibert.commands.parser import Parser

    parser = Parser()
    parser.add_argument("command", choices=COMMANDS)
    parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
