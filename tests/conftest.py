"""What the tests share: tiny checkpoints of both families with odd sizes, and their word list.

Run all tests: pytest
"""

import json
import os
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from minibert.config import EncoderConfig, HeadConfig
from minibert.hf import save_config, save_weights
from minibert.model import Classifier, Encoder, Head, initialize

# Tiny models gain nothing from threads, and lose much where the machine is busy.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

# No two sizes are equal, so that swapped axes cannot pass.
SIZES = {"width": 12, "layers": 3, "heads": 2, "feed_forward": 23, "positions": 40}
# fmt: off
WORDS = [
    "good", "bad", "film", "food", "not", "very", "the", "a", "was", "it", "and", "slow",
    "great", "awful", "i", "love", "hate", "this", "plot", "boring", "fun", "cold", "warm",
    "soup", "room", "clean", "dirty", "never", "again", "would", "go", "back", "staff", "rude",
    "kind",
]
# fmt: on
VOCABULARY = (
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    + list(string.ascii_lowercase + string.digits + string.punctuation)
    + [f"##{letter}" for letter in string.ascii_lowercase + string.digits]
)


def tiny_config(family: str, **changes: Any) -> EncoderConfig:
    """A small configuration; DistilBERT without token types, as its checkpoints are."""
    values: dict[str, Any] = {"vocab_size": len(VOCABULARY), **SIZES}
    values["token_types"] = 0 if family == "distilbert" else 2
    values["classifier_dropout"] = 0.2 if family == "distilbert" else None
    return EncoderConfig(family=family, **{**values, **changes})


def write_checkpoint(
    folder: Path,
    family: str = "distilbert",
    head: HeadConfig | None = None,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Write a random tiny checkpoint with a vocab.txt; without a head it is a bare encoder."""
    torch.manual_seed(seed)
    config = tiny_config(family, **changes)
    given = head or HeadConfig("linear", "cls", ("a", "b"), config.positions)
    encoder = Encoder(config, pooler=family == "bert")
    initialize(encoder, 0.2)
    module = Head(config, given)
    folder.mkdir(parents=True, exist_ok=True)
    save_config(folder, config, given)
    save_weights(folder, Classifier(encoder, module, pooling=given.pooling), config, given)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    if head is None:
        data = json.loads((folder / "config.json").read_text())
        for key in ("minibert", "id2label", "label2id"):
            del data[key]
        (folder / "config.json").write_text(json.dumps(data))
    return folder


@pytest.fixture(params=["bert", "distilbert"])
def family(request: pytest.FixtureRequest) -> str:
    """Each family in turn."""
    return str(request.param)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A bare tiny DistilBERT on disk."""
    return write_checkpoint(tmp_path / "checkpoint")


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A CSV that a tiny model can learn: 60 texts in two classes, none twice."""
    lines = ["text,label"]
    for i in range(30):
        a, b = WORDS[5 + i % 20], WORDS[5 + (7 * i + 3) % 20]
        lines += [
            f"the {a} was good great {b} {i},positive",
            f"the {b} was bad awful {a} {i},negative",
        ]
    file = tmp_path / "reviews.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def run_script(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run a script as a process in an empty folder; returns what it printed."""
    place = tmp_path / "work"
    place.mkdir()

    def run(script: str, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        environment |= options.pop("env", {})
        command = [sys.executable, str(ROOT / script), *map(str, words)]
        defaults: dict[str, Any] = {
            "cwd": place,
            "capture_output": True,
            "text": True,
            "timeout": 120,
        }
        return subprocess.run(command, env=environment, **{**defaults, **options})

    run.place = place  # type: ignore[attr-defined]
    yield run
