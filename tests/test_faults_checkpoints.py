"""A hostile model folder gives one clear error, and costs little memory and time.

Each fault changes a good folder, which a child process then opens, with limits: memory for the
folder's size and 48 MB, and two seconds of processor time.

Run: pytest -m faults tests/test_faults_checkpoints.py
"""

import json
import os
import pickle
import re
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import write_checkpoint
from safetensors.torch import load_file, save_file
from tokenizers import normalizers
from tokens import charsmap
from torch import Tensor

from minibert.checkpoint.config_file import read_encoder_config
from minibert.checkpoint.load import load_classifier
from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError
from minibert.model.config import HeadConfig

pytestmark = pytest.mark.faults

HEAD = HeadConfig("linear", "cls", ("a", "b"), 40)
ROOM = 48 * 2**20  # bytes: more than opening the good folder takes
EMBEDDINGS = "embeddings.word_embeddings.weight"


def opened(folder: Path) -> str:
    """Open a folder in a child process as train.py does; return the error or "no error"."""
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + size + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        start = time.process_time()
        try:
            config = read_encoder_config(folder)
            Tokenizer.from_folder(folder, config).encode(["a good film", "~"])
            load_classifier(folder, None if "minibert" in folder.name else HEAD)
            found = "no error"
        except InputError as error:
            found = f"InputError {error}"
        except BaseException as error:
            found = f"crash {type(error).__name__}: {error}"
        if time.process_time() - start > 2:
            found = f"{time.process_time() - start:.1f} seconds for {found}"
        os.write(writer, found[:2000].encode(errors="backslashreplace"))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        found = stream.read().decode()
    os.waitpid(child, 0)
    return found


def refused(folder: Path, pattern: str) -> None:
    found = opened(folder)
    assert re.match(rf"InputError .*{pattern}", found), found
    assert len(found) < 600 and found.isprintable()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", "bert")


def test_the_good_folder_opens_within_the_limits(folder: Path) -> None:
    assert opened(folder) == "no error"


# Safetensors


def header_of(folder: Path) -> tuple[dict[str, Any], bytes]:
    content = (folder / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def put(folder: Path, header: Any, body: bytes, size: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = struct.pack("<Q", len(text) if size is None else size)
    (folder / "model.safetensors").write_bytes(length + text + body)


def edited(**entry: Any) -> Callable[[Path], None]:
    """Change the header's entry of one tensor."""

    def edit(folder: Path) -> None:
        header, body = header_of(folder)
        header[EMBEDDINGS] |= entry
        put(folder, header, body)

    return edit


def lying(size: int) -> Callable[[Path], None]:
    """Write another length of the header."""

    def lie(folder: Path) -> None:
        put(folder, *header_of(folder), size=size)

    return lie


def twice(folder: Path) -> None:
    header, body = header_of(folder)
    text = json.dumps(header)
    put(
        folder,
        f"{text[:-1]}, {json.dumps(EMBEDDINGS)}: {json.dumps(header[EMBEDDINGS])}}}".encode(),
        body,
    )


def overlapping(folder: Path) -> None:
    header, body = header_of(folder)
    first, second = list(header)[1:3]
    header[second] = header[first]
    put(folder, header, body)


def gap(folder: Path) -> None:
    header, body = header_of(folder)
    del header[EMBEDDINGS]
    put(folder, header, body)


def crowded(folder: Path) -> None:
    header, body = header_of(folder)
    end = [len(body), len(body)]
    junk = {f"cls.{i}": {"dtype": "F32", "shape": [0], "data_offsets": end} for i in range(300_000)}
    put(folder, header | junk, body)


def longer(folder: Path) -> None:
    with open(folder / "model.safetensors", "ab") as file:
        file.write(b"more")


SAFETENSORS: dict[str, tuple[Callable[[Path], None], str]] = {
    "header of 2**63 bytes": (lying(2**63), "its header is 9,223,372,036,854,775,808 bytes"),
    "header of 3 MB, lying": (lying(3 * 2**20), "is damaged or unsafe"),
    "header of 0 bytes": (lying(0), "is damaged or unsafe"),
    "nested a million deep": (lambda f: put(f, b"[" * 1_000_000, b""), "is damaged or unsafe"),
    "300,000 tensors": (crowded, "its header is .* bytes long"),
    "a name twice": (twice, "an object has a key twice"),
    "a sparse giant": (lambda f: os.truncate(f / "model.safetensors", 10 * 2**30), "is damaged"),
    "longer than it says": (longer, "not fully covered"),
    "offsets past the end": (edited(data_offsets=[0, 2**62]), "is damaged or unsafe"),
    "negative offsets": (edited(data_offsets=[-4, 4]), "is damaged or unsafe"),
    "overlapping tensors": (overlapping, "invalid offset"),
    "a gap between tensors": (gap, "invalid offset"),
    "a shape of 2**80": (edited(shape=[2**40, 2**40]), "overflow"),
    "a negative shape": (edited(shape=[-1, 12]), "is damaged or unsafe"),
    "an unknown dtype": (edited(dtype="F7"), "is damaged or unsafe"),
}


@pytest.mark.parametrize("fault", SAFETENSORS)
def test_a_lying_safetensors_file(folder: Path, fault: str) -> None:
    spoil, pattern = SAFETENSORS[fault]
    spoil(folder)
    refused(folder, pattern)


@pytest.mark.parametrize("kept", [0, 7, 8, 9, 1000, 12_000, -1])
def test_a_truncated_file(folder: Path, kept: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    refused(folder, "is damaged or unsafe")


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda x: x.to(torch.float8_e4m3fn), "holds torch.float8_e4m3fn"),
        (lambda x: x.to(torch.complex64), "holds torch.complex64"),
        (lambda x: x.to(torch.int16), "holds torch.int16"),
        (lambda x: x.double() * 1e300, "not finite"),
        (lambda x: x.index_fill(1, torch.tensor(3), float("nan")), "not finite"),
        (lambda x: x.index_fill(0, torch.tensor(3), float("-inf")), "not finite"),
        (lambda x: x.sum(), r"shape \[\]"),
    ],
    ids=["float8", "complex", "int16", "too large for fp32", "nan", "inf", "no axes"],
)
def test_tensors_that_are_not_finite_floats(
    folder: Path, change: Callable[..., Tensor], pattern: str
) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[EMBEDDINGS] = change(tensors[EMBEDDINGS])
    save_file(tensors, folder / "model.safetensors")
    refused(folder, f"{re.escape(EMBEDDINGS)} .*{pattern}")


# Pickles


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "pytorch_model.bin", "config.json", "tokenizer.json", "vocab.txt"],
)
def test_code_in_a_pickle_does_not_run_whatever_its_name(folder: Path, name: str) -> None:
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    sprung = folder.parent / "sprung"
    (folder / name).write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    refused(folder, name)
    assert not sprung.exists()


def as_pickle(folder: Path, **tensors: Any) -> Path:
    """Put pytorch_model.bin, with some tensors changed, in the place of model.safetensors."""
    content = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {"words": EMBEDDINGS, "head": "cls.x", "number": 5}
    torch.save(content | {names[k]: v for k, v in tensors.items()}, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def test_a_pickle_with_tied_tensors_opens(folder: Path) -> None:
    words = load_file(folder / "model.safetensors")[EMBEDDINGS]
    as_pickle(folder, words=words, head=words)
    assert opened(folder) == "no error"


@pytest.mark.parametrize(
    ("tensors", "pattern"),
    [
        (
            {"words": torch.ones(144, 12).to_sparse()},
            "holds something else than a table of tensors",
        ),
        (
            {"words": torch.ones(144, 12, device="meta")},
            "holds something else than a table of tensors",
        ),
        ({"number": torch.ones(2)}, "holds something else than a table of tensors"),
        ({"words": torch.zeros(1).expand(5_000_000, 12)}, "larger than the file"),
    ],
    ids=["sparse", "meta", "a number for a name", "one zero expanded"],
)
def test_tensors_without_their_values_in_the_file(
    folder: Path, tensors: dict[str, Tensor], pattern: str
) -> None:
    as_pickle(folder, **tensors)
    refused(folder, pattern)


def test_an_expanded_tensor_of_the_size_in_config_json(folder: Path) -> None:
    change(folder, vocab_size=5_000_000)
    as_pickle(folder, words=torch.zeros(1).expand(5_000_000, 12))
    refused(folder, "larger than the file")


def test_a_zip_bomb(folder: Path) -> None:
    file = as_pickle(folder)
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, bytes(10**8) if name.endswith("data/0") else content)
    refused(folder, "unpacks to more than its size")


# Shards and links


@pytest.mark.parametrize(
    "name", ["s" * 5000, "a\0b", "\ud800", "", ".", "model.safetensors.index.json"]
)
def test_a_shard_that_is_not_a_file(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    refused(folder, r"(is not a file of this folder|is damaged or unsafe)")


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json", "tokenizer.json"],
)
def test_a_link_out_of_the_folder(folder: Path, name: str) -> None:
    Tokenizer.from_folder(folder, read_encoder_config(folder)).save(folder)
    secret, run = folder.parent / "secret", folder.parent / "run"
    (folder / name).rename(secret)
    (folder / name).symlink_to(secret)
    run.mkdir()
    with pytest.raises(InputError, match=f"{name}: is a link to a file outside its folder"):
        Tokenizer.from_folder(folder, read_encoder_config(folder)).save(run)
        load_classifier(folder, HEAD)
    assert not (run / name).exists()


# Config


def change(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


ABSURD: list[tuple[str, Any]] = [
    *((key, 10**9) for key in ("hidden_size", "vocab_size", "max_position_embeddings")),
    *((key, 10**7) for key in ("hidden_size", "vocab_size", "max_position_embeddings")),
    *((key, 10**7) for key in ("intermediate_size", "type_vocab_size", "num_hidden_layers")),
    ("num_hidden_layers", 201),
    ("num_hidden_layers", 200),
    ("hidden_size", 10**4000),
    *(("hidden_size", value) for value in (-12, 0, 12.0, "12", True, [12], {"a": 12}, None)),
    ("hidden_dropout_prob", float("nan")),
    ("layer_norm_eps", float("inf")),
    ("hidden_act", "gelu" * 10**6),
]


@pytest.mark.parametrize(("key", "value"), ABSURD, ids=[f"{k}-{v!s:.20}" for k, v in ABSURD])
def test_absurd_numbers_are_refused_before_anything_is_allocated(
    folder: Path, key: str, value: Any
) -> None:
    change(folder, **{key: value})
    refused(folder, "(config|safetensors)")


def test_a_head_of_100_000_classes_is_not_allocated_before_its_shape_is_checked(
    tmp_path: Path,
) -> None:
    folder = write_checkpoint(tmp_path / "minibert", "bert", width=602)  # 240 MB of numbers
    entry = {"head": "linear", "pooling": "cls", "max_length": 40}
    change(folder, num_labels=100_000, id2label=None, minibert=entry)
    refused(folder, r"minibert_head\.out\.weight has the shape \[2, 602\]")


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt"]
)
@pytest.mark.parametrize(
    "content",
    [
        b'{"model_type": "bert", "x": "' + b"a" * 100_000_000 + b'"}',
        b'{"model_type": "bert", "x": [' + b"1," * 50_000_000 + b"1]}",
        b'{"a": ' * 100_000,
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["100 MB of text", "100 MB of numbers", "deep", "deep and whole"],
)
def test_small_files_that_are_huge(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    refused(folder, name)


# Tokenizers


def tokenizer_json(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    Tokenizer.from_folder(folder, read_encoder_config(folder)).save(folder)
    data = json.loads((folder / "tokenizer.json").read_text())
    edit(data)
    (folder / "tokenizer.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("normalizer", "pattern"),
    [
        ({"type": "Prepend", "prepend": "x" * 10_000_000}, "makes up to 10,000,000 characters"),
        (
            {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
                    for _ in range(9)
                ],
            },
            "makes up to 1,000,000,000 characters of one",
        ),
        (
            json.loads(normalizers.Precompiled(charsmap({"a": "b" * 10**6})).__getstate__()),
            "makes up to 1,000,000 characters of one",
        ),
        ({"type": "Replace", "pattern": {"Regex": "((("}, "content": ""}, "is not a tokenizer"),
    ],
    ids=["prepend", "a billion laughs", "a map of characters", "no regex"],
)
def test_a_normalizer_that_multiplies_a_text(
    folder: Path, normalizer: dict[str, Any], pattern: str
) -> None:
    tokenizer_json(folder, lambda data: data.update(normalizer=normalizer))
    refused(folder, pattern)


def test_300_000_special_tokens_around_a_text(folder: Path) -> None:
    def flood(data: dict[str, Any]) -> None:
        for special in data["post_processor"]["special_tokens"].values():
            special |= {"ids": [2] * 100_000, "tokens": ["[CLS]"] * 100_000}

    tokenizer_json(folder, flood)
    refused(folder, "adds 300,000 special tokens")


def test_a_regular_expression_that_never_ends(folder: Path) -> None:
    tokenizer_json(
        folder,
        lambda data: data.update(
            normalizer={"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}
        ),
    )
    tokenizer = Tokenizer.from_folder(folder, read_encoder_config(folder))
    with pytest.raises(InputError, match="its tokenizer fails on a text"):
        tokenizer.encode(["a" * 40 + "b"])
