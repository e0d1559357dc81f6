"""The door `python -m minibert explain` and `push`. The stories are in minibert/commands/."""

import sys

from minibert.commands.process import run_script

COMMANDS = ("explain", "push")

if __name__ == "__main__":
    if sys.argv[1:2] not in ([name] for name in COMMANDS):
        print(f"usage: python -m minibert {{{','.join(COMMANDS)}}} ... (--help)", file=sys.stderr)
        sys.exit(2)
    sys.exit(run_script(sys.argv.pop(1)))
