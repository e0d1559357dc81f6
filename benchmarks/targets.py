"""Data with several labels or a number per text, made from public data with one class per text.

python -m benchmarks.targets several AG_NEWS.csv OUT.jsonl   topic, length and question as labels
python -m benchmarks.targets number SST5.csv OUT.csv         the five classes as 0 to 4

The labels are true of the texts, but nobody wrote them for such a task: they show that training
works, not how hard real tasks are.
"""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from minibert.commands.process import run_command
from minibert.errors import InputError

STARS = ("very negative", "negative", "neutral", "positive", "very positive")
LONG, SHORT = 45, 25  # words


def main(argv: Sequence[str]) -> None:
    """Write the data set."""
    if len(argv) != 3 or argv[0] not in ("several", "number"):
        raise InputError("give: several IN.csv OUT.jsonl, or number IN.csv OUT.csv")
    kind, source, target = argv[0], Path(argv[1]), Path(argv[2])
    with open(source, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(target, "w", encoding="utf-8", newline="") as file:
        if kind == "several":
            for row in rows:
                print(json.dumps({"text": row["description"], "labels": several(row)}), file=file)
        else:
            writer = csv.writer(file)
            writer.writerow(["text", "stars"])
            writer.writerows([row["text"], STARS.index(row["label"])] for row in rows)


def several(row: dict[str, str]) -> list[str]:
    """Return the topic and what else is true of a news item."""
    words = len(row["description"].split())
    labels = {"long": words > LONG, "short": words < SHORT, "quotes": "quot;" in row["description"]}
    labels["source named"] = row["description"].split(" -")[0].startswith(("AP", "Reuters", "AFP"))
    return [row["label"], *(name for name, is_true in labels.items() if is_true)]


if __name__ == "__main__":
    sys.exit(run_command(main))
