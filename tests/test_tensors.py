"""Every published form of a checkpoint gives the same tensors; damaged files are refused.

Run: pytest tests/test_tensors.py
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import LINEAR, Tensors, folder_with, published, refused, same_encoder
from helpers import SIZES
from safetensors.torch import load_file, save_file

from minibert.checkpoint.load import load_classifier

# The forms of a checkpoint


def split(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Return two shards: every third tensor, and the others."""
    names = sorted(tensors)
    return {name: tensors[name] for name in names[::3]}, {
        name: tensors[name] for name in names if name not in names[::3]
    }


def write_shards(folder: Path, tensors: Tensors, stem: str, save: Callable[..., None]) -> None:
    name, _, suffix = stem.rpartition(".")
    weight_map = {}
    for number, shard in enumerate(split(tensors), start=1):
        file = f"{name}-0000{number}-of-00002.{suffix}"
        save(shard, folder / file)
        weight_map |= dict.fromkeys(shard, file)
    (folder / f"{stem}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def old_pickle(tensors: Tensors, file: Path) -> None:
    torch.save(tensors, file, _use_new_zipfile_serialization=False)


WRITE: dict[str, Callable[[Path, Tensors], None]] = {
    "model.safetensors": lambda to, t: save_file(t, to / "model.safetensors"),
    "model.safetensors.index.json": lambda to, t: write_shards(
        to, t, "model.safetensors", save_file
    ),
    "pytorch_model.bin": lambda to, t: torch.save(t, to / "pytorch_model.bin"),
    "pytorch_model.bin.index.json": lambda to, t: write_shards(
        to, t, "pytorch_model.bin", torch.save
    ),
    "pytorch_model.bin as of 2018": lambda to, t: old_pickle(t, to / "pytorch_model.bin"),
}


@pytest.mark.parametrize("form", WRITE)
def test_the_forms_of_a_checkpoint_hold_the_same_model(
    family: str, form: str, tmp_path: Path
) -> None:
    tensors = published(family)
    expected = load_classifier(folder_with(tmp_path / "one", family, tensors), LINEAR)
    folder = folder_with(tmp_path / "other", family, {})
    (folder / "model.safetensors").unlink()
    WRITE[form](folder, tensors)
    found = load_classifier(folder, LINEAR)
    assert same_encoder(found, expected)
    assert found.notes[0] == f"encoder: {len(tensors)} tensors from {form.partition(' ')[0]}"


def test_safetensors_are_preferred_to_the_pickle(tmp_path: Path) -> None:
    tensors = published("bert")
    folder = folder_with(tmp_path / "both", "bert", tensors)
    torch.save({name: tensor + 1 for name, tensor in tensors.items()}, folder / "pytorch_model.bin")
    alone = load_classifier(folder_with(tmp_path / "one", "bert", tensors), LINEAR)
    assert same_encoder(load_classifier(folder, LINEAR), alone)


# Old names


def test_gamma_and_beta_are_the_old_names_in_layer_norms(tmp_path: Path) -> None:
    tensors = published("bert")
    expected = load_classifier(folder_with(tmp_path / "new", "bert", tensors), LINEAR)
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    assert len(renamed.keys() - tensors.keys()) == 2 * (1 + 2 * SIZES["layers"])
    found = load_classifier(folder_with(tmp_path / "old", "bert", renamed), LINEAR)
    assert same_encoder(found, expected)


def test_gamma_and_beta_elsewhere_keep_their_names(tmp_path: Path) -> None:
    # A global replace broke other models (transformers #29554).
    tensors = published("bert")
    tensors["bert.encoder.layer.0.output.dense.gamma"] = tensors.pop(
        "bert.encoder.layer.0.output.dense.weight"
    )
    refused(folder_with(tmp_path, "bert", tensors), r"lacks 1 .*layer\.0\.output\.dense\.weight")
    tensors["bert.encoder.layer.0.output.dense.weight"] = torch.zeros(12, 23)
    refused(folder_with(tmp_path, "bert", tensors), r"unknown.*output\.dense\.gamma")


def test_a_tensor_under_its_old_and_its_new_name_is_refused(tmp_path: Path) -> None:
    name = "bert.embeddings.LayerNorm"
    tensors = published("bert") | {f"{name}.gamma": torch.ones(12)}
    refused(folder_with(tmp_path, "bert", tensors), rf"tensor {name}\.weight is there twice")


# Damaged and unsafe files


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "bert", {})
    (folder / "model.safetensors").unlink()
    WRITE["model.safetensors.index.json"](folder, published("bert"))
    first = load_file(folder / "model-00001-of-00002.safetensors")
    second = load_file(folder / "model-00002-of-00002.safetensors")
    name = next(iter(first))
    save_file(second | {name: first[name]}, folder / "model-00002-of-00002.safetensors")
    refused(folder, rf"model-00002.*{name} is there twice")


@pytest.mark.parametrize("left_out", ["config.json", "model.safetensors"])
def test_a_folder_without_checkpoint_is_refused(left_out: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "bert", published("bert"))
    (folder / left_out).unlink()
    refused(folder, "holds no checkpoint.*" + left_out.replace(".", r"\."))


@pytest.mark.parametrize(
    "outside", ["../outside.safetensors", "absolute", "sub/x.safetensors", "..", "gone.safetensors"]
)
def test_a_shard_outside_of_the_folder_is_refused(outside: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", "bert", {})
    (folder / "model.safetensors").unlink()
    (folder / "sub").mkdir()
    for place in (tmp_path / "outside.safetensors", folder / "sub" / "x.safetensors"):
        save_file(published("bert"), place)  # the file is there and whole
    name = str(tmp_path / "outside.safetensors") if outside == "absolute" else outside
    weight_map = dict.fromkeys(published("bert"), name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    refused(folder, r"index\.json: the shard .* is not a file of this folder")


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["x"]}])
def test_an_index_without_a_map_is_refused(index: Any, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "bert", {})
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    refused(folder, r"pytorch_model\.bin\.index\.json: has no weight_map")


@pytest.mark.parametrize("form", [form for form in WRITE if "index" not in form])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.7, 0.999])
def test_a_truncated_file_is_refused(form: str, kept: float, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "distilbert", {})
    (folder / "model.safetensors").unlink()
    WRITE[form](folder, published("distilbert"))
    file = folder / form.partition(" ")[0]
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    refused(folder, rf"{file.name}: is damaged or unsafe .*fetch it again")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 440449768\n",
        b"<!doctype html><title>404</title>",
        b"\x80\x02}q\x00X\x02\x00\x00\x00\xff\xfeq\x01K\x00s.",  # a key that is not UTF-8
    ],
    ids=["lfs pointer", "page", "bad text"],
)
def test_a_file_of_another_kind_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "bert", {})
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    refused(folder, rf"{name}: is damaged or unsafe")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("shape", ["zip", "plain", "shard"])
def test_code_in_a_pickle_does_not_run(shape: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", "bert", {})
    (folder / "model.safetensors").unlink()
    sprung = tmp_path / "sprung"
    content = {**published("bert"), "bert.pooler.dense.bias": Trap(sprung)}
    file = folder / "pytorch_model.bin"
    if shape == "plain":
        file.write_bytes(pickle.dumps({"x": Trap(sprung)}, protocol=2))
    elif shape == "zip":
        torch.save(content, file)
    else:
        file = folder / "part.bin"
        torch.save(content, file)
        index = {"weight_map": {"bert.pooler.dense.bias": "part.bin"}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    refused(folder, rf"{file.name}: is damaged or unsafe")
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()  # the trap itself works


@pytest.mark.parametrize("content", [{"model": {}}, [torch.ones(2)], {"epoch": 3}])
def test_a_pickle_of_something_else_is_refused(content: Any, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "bert", {})
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    refused(folder, r"pytorch_model\.bin: holds something else than a table of tensors")
