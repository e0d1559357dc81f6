"""minibert reads back what it wrote, and transformers reads it as a classifier or an encoder.

Run: pytest tests/test_save.py
"""

import json
from pathlib import Path

import pytest
import torch
from checkpoints import LINEAR, NATIVE, head_note
from helpers import write_checkpoint
from safetensors.torch import load_file
from torch import nn

from minibert.checkpoint.config_file import write_config
from minibert.checkpoint.load import Checkpoint, load_classifier
from minibert.checkpoint.save import save_weights
from minibert.model.config import HeadConfig

HEADS = [
    ("bert", NATIVE["bert"]),
    ("bert", HeadConfig("mlp", "mean", ("a", "b", "c"), 17)),
    ("bert", HeadConfig("relu", "pooler", ("a", "b"), 40)),
    ("bert", HeadConfig("linear", "cls", ("a", "b", "c", "d"), 3)),
    ("distilbert", NATIVE["distilbert"]),
    ("distilbert", HeadConfig("mlp", "cls", ("a", "b"), 17)),
    ("distilbert", HeadConfig("relu", "mean", ("a", "b", "c"), 9)),
    ("distilbert", HeadConfig("linear", "cls", ("ä\u200d", "b"), 40)),
    ("roberta", NATIVE["roberta"]),
    ("roberta", HeadConfig("mlp", "mean", ("a", "b", "c"), 17)),
    ("roberta", HeadConfig("linear", "pooler", ("a", "b"), 40)),
    ("xlm-roberta", NATIVE["xlm-roberta"]),
    ("xlm-roberta", HeadConfig("relu", "cls", ("a", "b"), 9)),
    ("camembert", NATIVE["camembert"]),
    ("camembert", HeadConfig("linear", "mean", ("a", "b"), 40)),
    ("electra", NATIVE["electra"]),
    ("electra", HeadConfig("mlp", "cls", ("a", "b", "c"), 17)),
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
    """Write a classifier whose parameters are all random; return what was written."""
    found = load_classifier(write_checkpoint(folder, family, head))
    randomized(found.model)
    write_config(folder, found.encoder, found.head)
    save_weights(folder, found.model, found.encoder, found.head)
    return found


@EVERY_HEAD
def test_minibert_reads_back_what_it_wrote(family: str, head: HeadConfig, tmp_path: Path) -> None:
    before = written(tmp_path, family, head)
    torch.manual_seed(123)  # nothing is drawn
    after = load_classifier(tmp_path)
    assert (after.encoder, after.head) == (before.encoder, head)
    assert "from the checkpoint" in head_note(after)
    assert not any(note.startswith("ignored") for note in after.notes)
    assert torch.equal(after.model(**BATCH), before.model(**BATCH))


@pytest.mark.parametrize("family", NATIVE)
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
    head_names = {name for name in names if name.startswith("minibert_head.")}
    assert head_names == set(loading["unexpected_keys"]) and len(head_names) in (2, 4)
    assert names - head_names == theirs.state_dict().keys()
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
