"""Gives damaged files to the readers, which may raise InputError and nothing else.

Guided by coverage, with atheris (pip install atheris): python tests/fuzz.py --inputs 100000
The fuzzer's bytes choose edits of a good file, so that the edits get past the parser. A file that
breaks a reader is kept as crash-TARGET, to become a plain test.
The same targets with some hundred inputs each, without atheris: pytest tests/test_fuzz.py
"""

import argparse
import contextlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:
    atheris = None

with atheris.instrument_imports(include=["minibert"]) if atheris else contextlib.nullcontext():
    from minibert.checkpoint.config_file import parse_head, read_encoder_config
    from minibert.checkpoint.load import load_classifier
    from minibert.data.columns import choose_columns, field_names
    from minibert.data.examples import text_of
    from minibert.data.labels import read_label
    from minibert.data.long_texts import shorten
    from minibert.data.readers import FORMATS, read_stream
    from minibert.data.tokenizer import Tokenizer
    from minibert.errors import InputError, printable
    from minibert.files import read_json
from helpers import tiny_config, write_checkpoint

from minibert.model.config import HeadConfig, LongTexts

HEAD = HeadConfig("linear", "cls", ("a", "b"), 4)
FORMS = sorted(set(FORMATS.values()) - {"parquet"})
ENCODINGS = ("utf-8", "utf-16", "cp1252")
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")


class Place:
    """A folder with a good tiny model, in which one file at a time is damaged."""

    def __init__(self, root: Path) -> None:
        sizes = {"width": 2, "layers": 1, "heads": 1, "feed_forward": 3, "positions": 9}
        self.folder, self.saved = write_checkpoint(root / "model", "bert", **sizes), root / "saved"
        self.saved.mkdir()
        self.config = tiny_config("bert", **sizes)
        Tokenizer.from_folder(self.folder, self.config).save(self.folder)
        self.good = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        self.good["pytorch_model.bin"] = self.pickled()
        self.good["model.safetensors.index.json"] = json.dumps(
            {"weight_map": {"a": "model-1.safetensors", "b": "../x.bin"}}
        ).encode()

    def pickled(self) -> bytes:
        import torch
        from safetensors.torch import load_file

        stream = io.BytesIO()
        torch.save(load_file(self.folder / "model.safetensors"), stream)
        return stream.getvalue()

    def only(self, names: tuple[str, ...], name: str, content: bytes) -> None:
        """Write one of these files and remove the others."""
        for other in names:
            (self.folder / other).unlink(missing_ok=True)
        (self.folder / name).write_bytes(content)


def tables(data: bytes, place: Place) -> None:
    """Read a table as load_examples does, and ignore bad rows."""
    kind = data[0] if data else 0
    form = FORMS[kind % len(FORMS)]
    encoding = ENCODINGS[kind // len(FORMS) % len(ENCODINGS)]
    rows = list(read_stream(io.BytesIO(data[1:]), form, "here", encoding=encoding))
    columns = choose_columns(field_names(rows), "here", labelled=form != "lines")
    for row in rows:
        with contextlib.suppress(ValueError):
            text_of(row, columns.text)
        with contextlib.suppress(ValueError):
            read_label(row.fields.get(columns.label or columns.text), "single-label", columns, None)


def config(data: bytes, place: Place) -> None:
    """Read a config.json: the encoder's numbers and the head."""
    (place.folder / "config.json").write_bytes(data)
    try:
        found = read_encoder_config(place.folder)
        parse_head(read_json(place.folder / "config.json"), found, where="here")
    finally:
        (place.folder / "config.json").write_bytes(place.good["config.json"])


def checkpoint(data: bytes, place: Place) -> None:
    """Read a file of weights, or an index of shards."""
    name = WEIGHTS[data[0] % len(WEIGHTS) if data else 0]
    place.only(WEIGHTS, name, data[1:])
    load_classifier(place.folder, HEAD)


def tokenizer(data: bytes, place: Place) -> None:
    """Read a tokenizer's files, and encode a text and a pair."""
    name = VOCABULARIES[data[0] % len(VOCABULARIES) if data else 0]
    place.only(VOCABULARIES, name, data[1:])
    if name == "tokenizer_config.json":
        (place.folder / "vocab.txt").write_bytes(place.good["vocab.txt"])
    found = Tokenizer.from_folder(place.folder, place.config)
    pair = ["a good film ~"], ["b\u0301ad"]
    shorten(found, found.encode(*pair), *pair, max_length=4, long_texts=LongTexts())
    found.save(place.saved)


TARGETS: dict[str, Callable[[bytes, Place], None]] = {
    "tables": tables,
    "config": config,
    "checkpoint": checkpoint,
    "tokenizer": tokenizer,
}


def seeds(target: str, place: Place) -> list[bytes]:
    """Return good inputs of a target, to be damaged."""
    if target == "config":
        head = {"id2label": {"0": "a", "1": "b"}, "problem_type": None, "num_labels": 2}
        native = json.loads(place.good["config.json"]) | head
        native["architectures"] = ["BertForSequenceClassification"]
        return [place.good["config.json"], json.dumps(native).encode()]
    if target == "tables":
        rows = {
            "csv": 'text,label\r\n"a ""good"" film",1\n\n"two\nlines",0\nnot enough\n',
            "tsv": 'text\tlabel\na "good film\t1\nb\t-1.0\n',
            "jsonl": '{"text": "a", "label": 1}\n{"text": "\\ud83d", "label": [1e5]}\n',
            "lines": "good\r\nbad\rso so\n\u202e\n",
        }
        return [
            bytes([number + kind * len(FORMS)]) + rows[form].encode(encoding)
            for kind, encoding in enumerate(("utf-8", "utf-16", "cp1252"))
            for number, form in enumerate(FORMS)
            if encoding != "cp1252" or form != "lines"
        ]
    names = WEIGHTS if target == "checkpoint" else VOCABULARIES
    return [bytes([number]) + place.good[name] for number, name in enumerate(names)]


# Replacements for a number, a name or a list.
ODD: list[Any] = [
    *(None, True, -1, 0, 1, 2, 3, 513, 2**31, 2**63, 10**30, 0.5, 1e300, math.inf, math.nan),
    *(
        "",
        "a",
        "gelu",
        "F8_E4M3",
        "I64",
        "../x",
        "\x1b[2J",
        "\u202e",
        "\ud83d",
        "1",
        [],
        {},
        [[]],
        [-1, 2],
        {"a": 1},
    ),
]
# Bytes that are hard for a parser: its delimiters, huge numbers, incomplete characters.
PIECES = [
    *(b'"', b"{", b"[", b"}", b",", b"\n", b"\r", b"\t", b"\0", b"\xff", b"\xed\xa0\x80", b"\x1b["),
    *(b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b"9" * 20, b'"a":', b"[[[", b"../", b"\xe2"),
]
Choose = Callable[[int], int]  # a number below the one given


def damage(good: Sequence[bytes], choose: Choose) -> bytes:
    """Edit a good input up to four times, mostly in its JSON if it has some."""
    content = good[choose(len(good))]
    for _ in range(choose(5)):
        content = (damage_json if choose(4) else damage_bytes)(content, choose)
    return content


def damage_bytes(content: bytes, choose: Choose) -> bytes:
    """Insert an odd piece at a random place, or replace some bytes by it."""
    at, cut = choose(len(content) + 1), (0, 0, 1, 2, 8, 10**6)[choose(6)]
    piece = PIECES[choose(len(PIECES))] if choose(4) else bytes([choose(256), choose(256)])
    return content[:at] + piece + content[at + cut :]


def damage_json(content: bytes, choose: Choose) -> bytes:
    """Replace, remove or add a value in the first JSON object."""
    start = content.find(b"{")
    try:
        if start < 0:
            raise ValueError
        data, length = json.JSONDecoder().raw_decode(content.decode("latin-1")[start:])
    except (ValueError, RecursionError):
        return damage_bytes(content, choose)
    node = data
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = keys[choose(len(keys))]
        if isinstance(node[key], (dict, list)) and choose(4):
            node = node[key]
            continue
        odd = ODD[choose(len(ODD))]
        if choose(4):
            node[key] = node[key] * 2 if isinstance(node[key], (str, int)) and choose(2) else odd
        elif isinstance(node, dict) and choose(2):
            node[f"{key}x"] = node[key]
        else:
            del node[key]
        break
    made = json.dumps(data).encode()
    head, rest = content[:start], content[start + length :]
    if start == 9 and choose(8):  # safetensors: the header's length comes before it
        head = head[:1] + len(made).to_bytes(8, "little")
    return head + made + rest


def attempt(target: str, data: bytes, place: Place) -> None:
    """Give a target one input. Anything but an InputError on one printable line is raised."""
    try:
        TARGETS[target](data, place)
    except InputError as error:
        assert str(error) == printable(str(error), 1000), "the message is not one printable line"


def main() -> None:
    """Fuzz the targets one after the other, each in a new process."""
    parser = argparse.ArgumentParser(description="Fuzz the readers of files.")
    parser.add_argument("--inputs", type=int, default=100_000, help="of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=TARGETS)
    flags = parser.parse_args()
    if atheris is None:
        sys.exit("error: atheris is not installed; pip install atheris")
    if flags.target is None:
        command = [sys.executable, __file__, f"--inputs={flags.inputs}", f"--seed={flags.seed}"]
        ends = [subprocess.run([*command, f"--target={name}"]).returncode for name in TARGETS]
        sys.exit(max(map(abs, ends)))
    fuzz(flags.target, flags.inputs, flags.seed)


def fuzz(target: str, inputs: int, seed: int) -> None:
    """Fuzz one target. libFuzzer ends the process, with a status other than 0 for a crash."""
    os.environ["RUST_BACKTRACE"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        good = seeds(target, place)
        options: list[Any] = [
            f"-runs={inputs}",
            f"-seed={seed}",
            "-timeout=20",
            "-max_len=64",
            "-len_control=0",
        ]
        atheris.Setup(
            [sys.argv[0], *options, "-rss_limit_mb=4096", "-print_final_stats=1"],
            lambda data: fuzz_one(target, atheris.FuzzedDataProvider(data), good, place),
        )
        print(f"{target}: {inputs:,} inputs", file=sys.stderr)
        atheris.Fuzz()


def fuzz_one(target: str, data: Any, good: Sequence[bytes], place: Place) -> None:
    """Damage a good input as the fuzzer's bytes say; keep it if it breaks a reader."""
    content = damage(good, lambda below: data.ConsumeIntInRange(0, below - 1))
    try:
        attempt(target, content, place)
    except BaseException:
        Path(f"crash-{target}").write_bytes(content)
        raise


if __name__ == "__main__":
    main()
