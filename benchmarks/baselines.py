"""The baselines that train.py prints, without its model.

python -m benchmarks.baselines --data FILE [options of train.py]; uses those of the data
"""

import sys
from collections.abc import Sequence

from minibert.commands.arguments import parse_train
from minibert.commands.baselines import score_baselines
from minibert.commands.process import run_command
from minibert.data.classes import output_names
from minibert.data.splits import read_splits
from minibert.model.config import HeadConfig


def main(argv: Sequence[str]) -> None:
    """Print what train.py prints of its baselines."""
    settings = parse_train(argv).settings
    splits = read_splits(settings.data)
    names = output_names(splits.train)
    head = HeadConfig("linear", "cls", names, max_length=3, task=splits.train.task)
    score_baselines(splits, head, thresholds=settings.run.thresholds)


if __name__ == "__main__":
    sys.exit(run_command(main))
