"""Score a classifier: `python eval.py --help`. The story is minibert/commands/evaluate.py."""

import sys

from minibert.commands.process import run_script

if __name__ == "__main__":
    sys.exit(run_script("evaluate"))
