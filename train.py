"""Train a text classifier: `python train.py --help`. The story is minibert/commands/train.py."""

import sys

from minibert.commands.process import run_script

if __name__ == "__main__":
    sys.exit(run_script("train"))
