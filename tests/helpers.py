"""What the tests share: tiny checkpoints and models with odd sizes, and scripts as processes."""

import csv
import io
import json
import os
import signal
import string
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forks import ForkedScript, ForkServer, read_once
from pytest import approx

from minibert.checkpoint.config_file import write_config
from minibert.checkpoint.families import FAMILIES
from minibert.checkpoint.save import save_weights
from minibert.data.batches import TextDataset
from minibert.data.tokenizer import TokenIds
from minibert.model.classifier import Classifier, Head
from minibert.model.config import EncoderConfig, HeadConfig
from minibert.model.encoder import Encoder, initialize
from minibert.tasks.choice import task_of
from minibert.tasks.prior import Prior
from minibert.tasks.task import Task

PRIOR = Prior(train_loss=1.1, validation={"accuracy": 0.4}, distinct_targets=3)
ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
ONE_THREAD_NO_HUB = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
ENVIRONMENT = {**os.environ, **ONE_THREAD_NO_HUB}  # before any test changes it
FORKED_OPTIONS = {"stdin", "stdout", "stderr", "text", "cwd", "env"}  # all that a fork takes

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
    """A small configuration for 40 tokens, with the token types of the family's checkpoints."""
    values = {**FAMILIES[family].config_defaults, "vocab_size": len(VOCABULARY), **SIZES}
    values["pad_token_id"] = 0
    if values.get("positions_after_padding"):
        values |= {"positions": SIZES["positions"] + 1, "token_types": 1}
    if family == "electra":
        values["embedding_width"] = 5
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
    given = head or HeadConfig("linear", "cls", ("a", "b"), config.max_tokens)
    encoder = Encoder(config, pooler="pooler" in FAMILIES[family].encoder_names)
    initialize(encoder, 0.2)
    module = Head(config, given)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, config, given)
    save_weights(folder, Classifier(encoder, module, pooling=given.pooling), config, given)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    if head is None:
        data = json.loads((folder / "config.json").read_text())
        for key in ("minibert", "id2label", "label2id"):
            del data[key]
        (folder / "config.json").write_text(json.dumps(data))
    return folder


def a_task(*names: str, kind: str = "single-label") -> Task:
    """The task of a head with these outputs (default: the classes a, b and c)."""
    return task_of(HeadConfig("linear", "cls", names or ("a", "b", "c"), 8, kind))


def record_of(task: Task, probabilities: list[float]) -> dict[str, Any]:
    """The record of a prediction with these probabilities."""
    return task.records(torch.tensor([probabilities]).log())[0]


def tiny_classifier(
    family: str = "bert",
    *,
    head: str = "mlp",
    pooling: str = "cls",
    classes: tuple[str, ...] = ("a", "b", "c"),
    seed: int = 0,
    **changes: Any,
) -> Classifier:
    """A random tiny classifier; a pooler, if the family has one, only serves its own pooling."""
    torch.manual_seed(seed)
    config = tiny_config(family, **changes)
    encoder = Encoder(config, pooler="pooler" in FAMILIES[family].encoder_names)
    initialize(encoder, 0.2)
    given = HeadConfig(head, pooling, classes, config.max_tokens)
    return Classifier(encoder, Head(config, given), pooling=pooling)


def random_texts(
    count: int, *, seed: int = 0, places: list[str] | None = None, pairs: bool = False
) -> TextDataset:
    """Random texts of 3 to 9 tokens in three classes; a text's class is its second token's.

    In pairs, the second text starts at the third token.
    """
    random = np.random.default_rng(seed)
    rows = [random.integers(5, 35, size=random.integers(3, 10)) for _ in range(count)]
    return TextDataset(
        [TokenIds(ids, 2 if pairs else len(ids)) for ids in rows],
        np.array([ids[1] % 3 for ids in rows]),
        pad_token_id=0,
        token_types=pairs,
        places=places,
    )


@cache
def fork_server() -> ForkServer:
    """The process that scripts are forks of, with one thread and no hub."""
    return ForkServer(ENVIRONMENT)


def start_script(
    script: str | list[str],
    *words: str | Path,
    cwd: Path,
    env: dict[str, str] | None = None,
    fresh: bool = False,
    **options: Any,
) -> subprocess.Popen[str]:
    """Start a script of the repository (or a list: `python` with these words) as a process.

    It has one thread, no hub, and pipes for its three streams. It is a fork with torch imported
    (see forks.py) unless it is to be `fresh` or an option forbids that. Ctrl-C works in it even if
    pytest was started as a background job, which ignores SIGINT.
    """
    environment = {**os.environ, **ONE_THREAD_NO_HUB, **(env or {})}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    options = {**streams, "text": True, "cwd": cwd, "env": environment, **options}
    argv = [str(ROOT / script)] if isinstance(script, str) else script
    argv = [*argv, *map(str, words)]
    if not fresh and options.keys() <= FORKED_OPTIONS and argv[0].endswith((".py", "-c")):
        server = fork_server()
        if server.environment == read_once(environment):
            return ForkedScript(server, argv, **options)
    environment.setdefault("PYTHONPATH", str(ROOT))  # minibert need not be installed
    options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return subprocess.Popen([sys.executable, *argv], **options)


def finish_script(
    script: str | list[str],
    *words: str | Path,
    cwd: Path,
    input: str | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Start a script as `start_script` does, and return what it printed to its end."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with start_script(script, *words, cwd=cwd, **options) as process:
        try:
            output, errors = process.communicate(input, timeout=120)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def strict_json(line: str) -> Any:
    """Parse I-JSON (RFC 7493), which every reader takes. Python's reader takes more.

    No NaN, no infinity, no name twice in an object, no half of a surrogate pair.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    def names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), f"a name is there twice: {pairs}"
        return dict(pairs)

    assert json.dumps(json.loads(line), ensure_ascii=False).encode()
    return json.loads(line, parse_constant=refuse, object_pairs_hook=names_once)


def assert_same_figures(found: Any, expected: Any) -> None:
    """Compare figures as metrics.json nests them, to 1e-5; more names may have been found."""
    if isinstance(expected, dict):
        names = [name for name in found if name in expected]
        assert names == list(expected)
        for name in expected:
            assert_same_figures(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same_figures(one, other)
    elif isinstance(expected, float):
        assert found == approx(expected, rel=1e-5, abs=1e-6)
    else:
        assert found == expected


def read_table(file: Path) -> list[dict[str, str]]:
    """Read a CSV or TSV strictly. Before Python 3.11 the csv module cannot read a NUL."""
    style: dict[str, Any] = {}
    if file.suffix == ".tsv":
        style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    text = file.read_bytes().decode().replace("\0", "\ue000")
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True, **style)
    return [{name: cell.replace("\ue000", "\0") for name, cell in row.items()} for row in rows]
