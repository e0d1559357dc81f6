"""Every published form of a checkpoint gives the same model, a doubtful one is refused by name, and
what minibert writes opens in transformers.

Run: pytest tests/test_hf.py
"""

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SIZES, VOCABULARY, tiny_config, write_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minibert.checkpoint.load import Checkpoint, load_classifier, save_config, save_weights
from minibert.errors import InputError
from minibert.model.config import HeadConfig

LINEAR = HeadConfig("linear", "cls", ("a", "b"), 40)
Tensors = dict[str, Tensor]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """At these sizes threads only wait for each other, for seconds on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# The published names, spelled out as the checkpoints have them; not made from hf.py's table.
LAYER = {
    "bert": {
        "attention.self.query": "DD",
        "attention.self.key": "DD",
        "attention.self.value": "DD",
        "attention.output.dense": "DD",
        "attention.output.LayerNorm": "D",
        "intermediate.dense": "FD",
        "output.dense": "DF",
        "output.LayerNorm": "D",
    },
    "distilbert": {
        "attention.q_lin": "DD",
        "attention.k_lin": "DD",
        "attention.v_lin": "DD",
        "attention.out_lin": "DD",
        "sa_layer_norm": "D",
        "ffn.lin1": "FD",
        "ffn.lin2": "DF",
        "output_layer_norm": "D",
    },
}
AXES = {"D": SIZES["width"], "F": SIZES["feed_forward"], "V": len(VOCABULARY)}


def published(family: str, prefix: str | None = None) -> Tensors:
    """Return random tensors under the names of a published encoder, with the family's prefix."""
    prefix = f"{family}." if prefix is None else prefix
    random = torch.Generator().manual_seed(6)
    tensors: Tensors = {}

    def add(name: str, *shape: int) -> None:
        tensors[prefix + name] = torch.randn(shape, generator=random)

    add("embeddings.word_embeddings.weight", AXES["V"], AXES["D"])
    add("embeddings.position_embeddings.weight", SIZES["positions"], AXES["D"])
    if family == "bert":
        add("embeddings.token_type_embeddings.weight", 2, AXES["D"])
        add("pooler.dense.weight", AXES["D"], AXES["D"])
        add("pooler.dense.bias", AXES["D"])
    add("embeddings.LayerNorm.weight", AXES["D"])
    add("embeddings.LayerNorm.bias", AXES["D"])
    layers = "encoder.layer" if family == "bert" else "transformer.layer"
    for number in range(SIZES["layers"]):
        for name, axes in LAYER[family].items():
            add(f"{layers}.{number}.{name}.weight", *(AXES[axis] for axis in axes))
            add(f"{layers}.{number}.{name}.bias", AXES[axes[0]])
    return tensors


def folder_with(folder: Path, family: str, tensors: Tensors, **config: Any) -> Path:
    """Write a folder with a config.json and, as model.safetensors, these tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tiny_config(family).to_json() | config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def same_encoder(one: Checkpoint, other: Checkpoint) -> bool:
    a, b = one.model.encoder.state_dict(), other.model.encoder.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def refused(folder: Path, pattern: str, head: HeadConfig | None = LINEAR) -> None:
    with pytest.raises(InputError, match=pattern):
        load_classifier(folder, head)


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


def test_the_tensors_arrive_at_their_modules(family: str, tmp_path: Path) -> None:
    tensors = published(family, prefix="")
    state = load_classifier(folder_with(tmp_path, family, tensors), LINEAR).model.encoder
    if family == "bert":
        three, up = "encoder.layer.1.attention.self.{}.bias", "encoder.layer.2.intermediate.dense"
        parts = [tensors[three.format(name)] for name in ("query", "key", "value")]
    else:
        three, up = "transformer.layer.1.attention.{}_lin.bias", "transformer.layer.2.ffn.lin1"
        parts = [tensors[three.format(name)] for name in "qkv"]
    assert torch.equal(state.get_parameter("blocks.1.attention.qkv.bias"), torch.cat(parts))
    assert torch.equal(
        state.get_parameter("blocks.2.feed_forward.up.weight"), tensors[f"{up}.weight"]
    )


def test_safetensors_are_preferred_to_the_pickle(tmp_path: Path) -> None:
    tensors = published("bert")
    folder = folder_with(tmp_path / "both", "bert", tensors)
    torch.save({name: tensor + 1 for name, tensor in tensors.items()}, folder / "pytorch_model.bin")
    alone = load_classifier(folder_with(tmp_path / "one", "bert", tensors), LINEAR)
    assert same_encoder(load_classifier(folder, LINEAR), alone)


def test_with_and_without_the_familys_prefix(family: str, tmp_path: Path) -> None:
    plain = load_classifier(folder_with(tmp_path / "a", family, published(family, "")), LINEAR)
    named = load_classifier(folder_with(tmp_path / "b", family, published(family)), LINEAR)
    assert same_encoder(plain, named)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_becomes_fp32(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in published("distilbert").items()}
    found = load_classifier(folder_with(tmp_path, "distilbert", tensors), LINEAR)
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}
    stored = tensors["distilbert.transformer.layer.0.ffn.lin2.weight"]
    assert torch.equal(found.model.encoder.blocks[0].feed_forward.down.weight, stored.float())


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


# What a classifier has no use for


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "cls.predictions.bias"),
        ("bert", "cls.predictions.transform.LayerNorm.gamma"),
        ("bert", "cls.seq_relationship.weight"),
        ("bert", "bert.embeddings.position_ids"),
        ("bert", "embeddings.position_ids"),
        ("bert", "classifier.weight"),
        ("bert", "qa_outputs.bias"),
        ("bert", "minibert_head.out.weight"),
        ("distilbert", "vocab_transform.weight"),
        ("distilbert", "vocab_layer_norm.bias"),
        ("distilbert", "vocab_projector.bias"),
        ("distilbert", "pre_classifier.weight"),
        ("distilbert", "distilbert.embeddings.position_ids"),
    ],
)
def test_other_heads_and_buffers_are_ignored_and_named(
    family: str, name: str, tmp_path: Path
) -> None:
    tensors = published(family)
    plain = load_classifier(folder_with(tmp_path / "plain", family, tensors), LINEAR)
    more = tensors | {name: torch.arange(7)}
    found = load_classifier(folder_with(tmp_path / "more", family, more), LINEAR)
    assert same_encoder(found, plain)
    assert not any(note.startswith("ignored") for note in plain.notes)
    name = name.replace("gamma", "weight")
    assert any(note.startswith(f"ignored: {name} (") for note in found.notes)


def test_a_name_in_the_notes_has_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    tensors = {**published("bert"), "cls.\x1b[2J\u202e": torch.ones(2)}
    notes = load_classifier(folder_with(tmp_path, "bert", tensors), LINEAR).notes
    assert notes[-1] == r"ignored: cls.\x1b[2J\u202e (pre-training heads)"


@pytest.mark.parametrize("name", ["BertForPreTraining", "DistilBertForMaskedLM"])
def test_a_pretraining_model_as_transformers_writes_it(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    family = "bert" if name.startswith("Bert") else "distilbert"
    config = transformers.AutoConfig.for_model(**tiny_config(family).to_json())
    torch.manual_seed(7)
    theirs = getattr(transformers, name)(config).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="4KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    found = load_classifier(tmp_path, LINEAR)
    ids = torch.tensor([[5, 3, 11, 8, 2]])
    with torch.no_grad():
        expected = theirs.base_model(ids).last_hidden_state
        torch.testing.assert_close(found.model.encoder(ids), expected, rtol=1e-5, atol=1e-5)
    first = "cls.predictions" if family == "bert" else "vocab_"
    assert found.notes[-1].startswith(f"ignored: {first}")
    assert "more" in found.notes[-1]


# What is refused: the message names the file and the tensor


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "bert.embeddings.token_type_embeddings.weight"),
        ("bert", "bert.encoder.layer.1.attention.self.key.bias"),
        ("bert", "bert.encoder.layer.2.output.LayerNorm.weight"),
        ("bert", "bert.pooler.dense.bias"),
        ("distilbert", "distilbert.embeddings.position_embeddings.weight"),
        ("distilbert", "distilbert.transformer.layer.0.attention.v_lin.weight"),
    ],
)
def test_a_missing_tensor_is_refused(family: str, name: str, tmp_path: Path) -> None:
    tensors = published(family)
    del tensors[name]
    refused(folder_with(tmp_path, family, tensors), rf"model\.safetensors: lacks 1 .*: {name}$")


def test_an_encoder_of_another_family_is_refused(family: str, tmp_path: Path) -> None:
    other = "distilbert" if family == "bert" else "bert"
    refused(folder_with(tmp_path, family, published(other)), r"embeddings\.word_embeddings\.weight")


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "bert.encoder.layer.3.output.dense.bias"),  # a layer more than config.json says
        ("bert", "bert.embeddings.LayerNorm.running_mean"),
        ("bert", "something"),
        ("distilbert", "distilbert.embeddings.token_type_embeddings.weight"),
        ("distilbert", "distilbert.pooler.dense.weight"),
    ],
)
def test_an_unknown_tensor_is_refused(family: str, name: str, tmp_path: Path) -> None:
    tensors = published(family) | {name: torch.zeros(12, 12)}
    refused(folder_with(tmp_path, family, tensors), f"1 tensors are unknown to this family: {name}")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("bert.embeddings.word_embeddings.weight", (AXES["V"] + 1, 12)),
        ("bert.encoder.layer.0.intermediate.dense.weight", (12, 23)),  # transposed
        ("bert.encoder.layer.0.attention.self.query.weight", (36, 12)),  # three in one
        ("bert.encoder.layer.2.output.LayerNorm.bias", (12, 1)),
        ("bert.pooler.dense.bias", ()),
    ],
)
def test_a_misshaped_tensor_is_refused(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    tensors = published("bert") | {name: torch.zeros(shape)}
    said = rf"{name} has the shape \[{', '.join(map(str, shape))}\], config\.json asks for \["
    refused(folder_with(tmp_path, "bert", tensors), said)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool])
def test_a_tensor_without_fractions_is_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    name = "bert.encoder.layer.0.output.dense.bias"
    tensors = published("bert") | {name: torch.ones(12, dtype=dtype)}
    refused(folder_with(tmp_path, "bert", tensors), rf"{name} holds {dtype}")


def test_a_tensor_under_its_old_and_its_new_name_is_refused(tmp_path: Path) -> None:
    name = "bert.embeddings.LayerNorm"
    tensors = published("bert") | {f"{name}.gamma": torch.ones(12)}
    refused(folder_with(tmp_path, "bert", tensors), rf"tensor {name}\.weight is there twice")


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
    refused(folder, r"pytorch_model\.bin: holds no table of tensors")


# Pooler and head: what may be absent, what is new


def test_the_pooler_may_be_absent_until_it_is_asked_for(tmp_path: Path) -> None:
    tensors = {name: x for name, x in published("bert").items() if "pooler" not in name}
    folder = folder_with(tmp_path, "bert", tensors)
    for pooling in ("cls", "mean"):
        found = load_classifier(folder, replace(LINEAR, pooling=pooling))
        assert found.model.encoder.pooler is None
    refused(folder, "no pooler; use --pooling cls or mean", replace(LINEAR, pooling="pooler"))


def test_a_family_without_pooler_says_so(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "distilbert", published("distilbert"))
    refused(folder, "no pooler; use --pooling cls or mean", replace(LINEAR, pooling="pooler"))


def test_the_pooler_trains_only_where_it_is_used(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "bert", published("bert"))
    for pooling in ("cls", "mean", "pooler"):
        model = load_classifier(folder, replace(LINEAR, pooling=pooling)).model
        training = {name for name, weight in model.named_parameters() if weight.requires_grad}
        assert ("encoder.pooler.weight" in training) == (pooling == "pooler")
        assert len(training) == len(dict(model.named_parameters())) - 2 * (pooling != "pooler")


def head_note(found: Checkpoint) -> str:
    (note,) = (note for note in found.notes if note.startswith("head: "))
    return note


def test_a_checkpoint_without_head_needs_one_to_be_asked_for(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "bert", published("bert"))
    refused(folder, "no classification head; train one: ", head=None)
    found = load_classifier(folder, LINEAR)
    assert head_note(found) == "head: linear, 2 classes, new (its weights are random)"
    assert found.head == LINEAR


NATIVE = {
    "bert": HeadConfig("native", "pooler", ("bad", "fine", "good"), 40),
    "distilbert": HeadConfig("native", "cls", ("bad", "fine", "good"), 40),
}


def classified(folder: Path, family: str) -> tuple[Path, Tensors]:
    """Write a classifier as transformers names it; return its folder and its tensors."""
    tensors = published(family)
    random = torch.Generator().manual_seed(8)
    if family == "distilbert":
        tensors["pre_classifier.weight"] = torch.randn(12, 12, generator=random)
        tensors["pre_classifier.bias"] = torch.randn(12, generator=random)
    tensors["classifier.weight"] = torch.randn(3, 12, generator=random)
    tensors["classifier.bias"] = torch.randn(3, generator=random)
    name = "Bert" if family == "bert" else "DistilBert"
    entries = {
        "architectures": [f"{name}ForSequenceClassification"],
        "id2label": {"0": "bad", "1": "fine", "2": "good"},
    }
    return folder_with(folder, family, tensors, **entries), tensors


def test_a_native_head_is_read(family: str, tmp_path: Path) -> None:
    folder, tensors = classified(tmp_path, family)
    found = load_classifier(folder)
    assert found.head == NATIVE[family]
    assert head_note(found) == "head: native, 3 classes, from the checkpoint"
    assert torch.equal(found.model.head.out.weight, tensors["classifier.weight"])
    if found.model.head.dense is not None:
        assert torch.equal(found.model.head.dense.bias, tensors["pre_classifier.bias"])
    assert (found.model.head.dense is None) == (family == "bert")


def test_the_same_head_is_kept_whatever_the_length(family: str, tmp_path: Path) -> None:
    folder, tensors = classified(tmp_path, family)
    found = load_classifier(folder, replace(NATIVE[family], max_length=11))
    assert found.head.max_length == 11
    assert "from the checkpoint" in head_note(found)
    assert torch.equal(found.model.head.out.weight, tensors["classifier.weight"])


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ("good", "fine", "bad")},
        {"labels": ("bad", "good")},
        {"kind": "linear"},
        {"kind": "mlp", "pooling": "mean"},
    ],
)
def test_another_head_is_new_and_says_so(
    family: str, change: dict[str, Any], tmp_path: Path
) -> None:
    folder, tensors = classified(tmp_path, family)
    found = load_classifier(folder, replace(NATIVE[family], **change))
    assert head_note(found).endswith("new (its weights are random)")
    assert any(
        note.startswith("ignored: classifier.bias, classifier.weight") for note in found.notes
    )
    assert not torch.equal(found.model.head.out.weight[:2], tensors["classifier.weight"][:2])


def test_a_native_head_has_one_pooling(family: str, tmp_path: Path) -> None:
    folder, _ = classified(tmp_path, family)
    own = NATIVE[family].pooling
    refused(folder, f"reads the pooling {own}, not mean", replace(NATIVE[family], pooling="mean"))


@pytest.mark.parametrize("name", ["classifier.weight", "classifier.bias"])
def test_a_declared_head_must_be_there(family: str, name: str, tmp_path: Path) -> None:
    folder, tensors = classified(tmp_path, family)
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")
    refused(folder, rf"lacks 1 .*{name}", head=None)


def test_a_head_of_another_size_than_its_labels_is_refused(family: str, tmp_path: Path) -> None:
    folder, tensors = classified(tmp_path, family)
    save_file(tensors | {"classifier.bias": torch.zeros(4)}, folder / "model.safetensors")
    refused(folder, r"classifier\.bias has the shape \[4\], config\.json asks for \[3\]", None)


# What minibert writes


HEADS = [
    ("bert", NATIVE["bert"]),
    ("bert", HeadConfig("mlp", "mean", ("a", "b", "c"), 17)),
    ("bert", HeadConfig("relu", "pooler", ("a", "b"), 40)),
    ("bert", HeadConfig("linear", "cls", ("a", "b", "c", "d"), 3)),
    ("distilbert", NATIVE["distilbert"]),
    ("distilbert", HeadConfig("mlp", "cls", ("a", "b"), 17)),
    ("distilbert", HeadConfig("relu", "mean", ("a", "b", "c"), 9)),
    ("distilbert", HeadConfig("linear", "cls", ("ä\u200d", "b"), 40)),
]
EVERY_HEAD = pytest.mark.parametrize(
    ("family", "head"), HEADS, ids=[f"{family}-{head.kind}" for family, head in HEADS]
)
BATCH = {
    "input_ids": torch.tensor([[5, 9, 13, 2, 7], [8, 1, 6, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


def randomized(model: nn.Module) -> None:
    random = torch.Generator().manual_seed(9)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4, generator=random)


def written(folder: Path, family: str, head: HeadConfig) -> Checkpoint:
    """Write a classifier whose every number is random; return it as minibert had it."""
    found = load_classifier(write_checkpoint(folder, family, head))
    randomized(found.model)
    save_config(folder, found.encoder, found.head)
    save_weights(folder, found.model, found.encoder, found.head)
    return found


@EVERY_HEAD
def test_minibert_reads_back_what_it_wrote(family: str, head: HeadConfig, tmp_path: Path) -> None:
    before = written(tmp_path, family, head)
    torch.manual_seed(123)  # nothing of it comes from the generator
    after = load_classifier(tmp_path)
    assert (after.encoder, after.head) == (before.encoder, head)
    assert "from the checkpoint" in head_note(after)
    assert not any(note.startswith("ignored") for note in after.notes)
    assert torch.equal(after.model(**BATCH), before.model(**BATCH))


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_native_head_opens_as_transformers_classifier(family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = written(tmp_path, family, NATIVE[family])
    theirs, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(loading.values()), loading
    assert theirs.config.architectures == [type(theirs).__name__]
    assert load_file(tmp_path / "model.safetensors").keys() == theirs.state_dict().keys()
    assert theirs.config.id2label == {0: "bad", 1: "fine", 2: "good"}
    assert theirs.config.label2id == {"bad": 0, "fine": 1, "good": 2}
    with torch.no_grad():
        torch.testing.assert_close(
            ours.model(**BATCH), theirs(**BATCH).logits, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    ("family", "head"), [(family, head) for family, head in HEADS if head.kind != "native"]
)
def test_another_head_opens_as_transformers_encoder(
    family: str, head: HeadConfig, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    ours = written(tmp_path, family, head)
    theirs, loading = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["mismatched_keys"]
    assert theirs.config.architectures == [type(theirs).__name__]
    names = load_file(tmp_path / "model.safetensors").keys()
    own = {name for name in names if name.startswith("minibert_head.")}
    assert own == set(loading["unexpected_keys"]) and len(own) in (2, 4)
    assert names - own == theirs.state_dict().keys()
    with torch.no_grad():
        expected = theirs(**BATCH)
        hidden = ours.model.encoder(**BATCH)
        torch.testing.assert_close(hidden, expected.last_hidden_state, rtol=1e-5, atol=1e-5)
        if head.pooling == "pooler":
            features = ours.model.features(**BATCH)
            torch.testing.assert_close(features, expected.pooler_output, rtol=1e-5, atol=1e-5)


def test_half_precision_models_are_written_in_fp32(tmp_path: Path) -> None:
    found = load_classifier(write_checkpoint(tmp_path, "bert", LINEAR))
    save_weights(tmp_path, found.model.bfloat16(), found.encoder, found.head)
    kinds = {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()}
    assert kinds == {torch.float32}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"


def test_a_tensor_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    tensors = published("bert")
    name = "bert.encoder.layer.1.output.dense.bias"
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    refused(folder_with(tmp_path, "bert", tensors), rf"{name} holds values that are not finite")
