"""A checkpoint's tensors reach their modules, or the error names the tensor that does not fit.

Run: pytest tests/test_load.py
"""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import (
    AXES,
    LINEAR,
    NATIVE,
    NATIVE_LAYERS,
    classified,
    folder_with,
    head_note,
    published,
    refused,
    same_encoder,
)
from helpers import VOCABULARY, tiny_config, write_checkpoint
from safetensors.torch import save_file

from minibert.checkpoint.config_file import encoder_entries
from minibert.checkpoint.load import load_classifier, load_encoder, to_float32
from minibert.errors import InputError
from minibert.model.config import HeadConfig, LongTexts

# The encoder


def test_the_tensors_arrive_at_their_modules(family: str, tmp_path: Path) -> None:
    tensors = published(family, prefix="")
    encoder, config = load_encoder(folder_with(tmp_path, family, tensors))
    assert config == tiny_config(family) and not encoder.training
    if family == "distilbert":
        three, up = "transformer.layer.1.attention.{}_lin.bias", "transformer.layer.2.ffn.lin1"
        pieces = [tensors[three.format(name)] for name in "qkv"]
    else:
        three, up = "encoder.layer.1.attention.self.{}.bias", "encoder.layer.2.intermediate.dense"
        pieces = [tensors[three.format(name)] for name in ("query", "key", "value")]
    assert torch.equal(encoder.get_parameter("blocks.1.attention.qkv.bias"), torch.cat(pieces))
    assert torch.equal(
        encoder.get_parameter("blocks.2.feed_forward.up.weight"), tensors[f"{up}.weight"]
    )


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


# Tensors that a classifier does not use


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
        ("roberta", "lm_head.dense.weight"),
        ("roberta", "lm_head.layer_norm.bias"),
        ("roberta", "roberta.embeddings.position_ids"),
        ("roberta", "classifier.out_proj.weight"),
        ("electra", "discriminator_predictions.dense.weight"),
        ("electra", "generator_predictions.LayerNorm.bias"),
        ("electra", "generator_lm_head.bias"),
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


def test_control_characters_in_a_tensor_name_are_escaped_in_the_notes(tmp_path: Path) -> None:
    tensors = {**published("bert"), "cls.\x1b[2J\u202e": torch.ones(2)}
    notes = load_classifier(folder_with(tmp_path, "bert", tensors), LINEAR).notes
    assert notes[-1] == r"ignored: cls.\x1b[2J\u202e (pre-training heads)"


@pytest.mark.parametrize(
    ("family", "name", "ignored"),
    [
        ("bert", "BertForPreTraining", "cls.predictions"),
        ("distilbert", "DistilBertForMaskedLM", "vocab_"),
        ("roberta", "RobertaForMaskedLM", "lm_head.bias"),
        ("xlm-roberta", "XLMRobertaForMaskedLM", "lm_head.bias"),
        ("camembert", "CamembertForMaskedLM", "lm_head.bias"),
        ("electra", "ElectraForPreTraining", "discriminator_predictions.dense"),
        ("electra", "ElectraForMaskedLM", "generator_lm_head.bias"),
    ],
)
def test_a_pretraining_model_as_transformers_writes_it(
    family: str, name: str, ignored: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(**encoder_entries(tiny_config(family)))
    torch.manual_seed(7)
    theirs = getattr(transformers, name)(config).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="4KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    found = load_classifier(tmp_path, LINEAR)
    ids = torch.tensor([[5, 3, 11, 8, 2]])
    with torch.no_grad():
        expected = theirs.base_model(ids).last_hidden_state
        torch.testing.assert_close(found.model.encoder(ids), expected, rtol=1e-5, atol=1e-5)
    assert found.notes[-1].startswith(f"ignored: {ignored}")
    assert "more" in found.notes[-1]


# Refusals: the message names the file and the tensor


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "bert.embeddings.token_type_embeddings.weight"),
        ("bert", "bert.encoder.layer.1.attention.self.key.bias"),
        ("bert", "bert.encoder.layer.2.output.LayerNorm.weight"),
        ("bert", "bert.pooler.dense.bias"),
        ("distilbert", "distilbert.embeddings.position_embeddings.weight"),
        ("distilbert", "distilbert.transformer.layer.0.attention.v_lin.weight"),
        ("roberta", "roberta.embeddings.token_type_embeddings.weight"),
        ("electra", "electra.embeddings_project.bias"),
    ],
)
def test_a_missing_tensor_is_refused(family: str, name: str, tmp_path: Path) -> None:
    tensors = published(family)
    del tensors[name]
    refused(folder_with(tmp_path, family, tensors), rf"model\.safetensors: lacks 1 .*: {name}$")


def test_an_encoder_of_another_family_is_refused(family: str, tmp_path: Path) -> None:
    other = {"bert": "distilbert", "electra": "roberta"}.get(family, "bert")
    refused(folder_with(tmp_path, family, published(other)), r"embeddings\.word_embeddings\.weight")


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "bert.encoder.layer.3.output.dense.bias"),  # a layer more than config.json says
        ("bert", "bert.embeddings.LayerNorm.running_mean"),
        ("bert", "something"),
        ("distilbert", "distilbert.embeddings.token_type_embeddings.weight"),
        ("distilbert", "distilbert.pooler.dense.weight"),
        ("electra", "electra.pooler.dense.weight"),
        ("bert", "bert.embeddings_project.weight"),
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
def test_a_tensor_of_integers_is_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    name = "bert.encoder.layer.0.output.dense.bias"
    tensors = published("bert") | {name: torch.ones(12, dtype=dtype)}
    refused(folder_with(tmp_path, "bert", tensors), rf"{name} holds {dtype}")


def test_a_tensor_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    tensors = published("bert")
    name = "bert.encoder.layer.1.output.dense.bias"
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    refused(folder_with(tmp_path, "bert", tensors), rf"{name} holds values that are not finite")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_found_wherever_it_is(dtype, value) -> None:
    tensor = torch.linspace(-1, 1, 100_003).to(dtype)
    assert to_float32("bias", tensor, (100_003,), Path("file")).isfinite().all()
    for place in (0, 50_001, 100_002):
        spoiled = tensor.index_fill(0, torch.tensor(place), value)
        with pytest.raises(InputError, match="bias holds values that are not finite"):
            to_float32("bias", spoiled, (100_003,), Path("file"))


# Pooler and head: what may be absent, and what is new


def test_the_pooler_may_be_absent_unless_it_is_requested(tmp_path: Path) -> None:
    tensors = {name: x for name, x in published("bert").items() if "pooler" not in name}
    folder = folder_with(tmp_path, "bert", tensors)
    for pooling in ("cls", "mean"):
        found = load_classifier(folder, replace(LINEAR, pooling=pooling))
        assert found.model.encoder.pooler is None
    refused(folder, "no pooler; use --pooling cls or mean", replace(LINEAR, pooling="pooler"))


def test_a_family_without_pooler_is_refused_if_the_pooler_is_requested(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "distilbert", published("distilbert"))
    refused(folder, "no pooler; use --pooling cls or mean", replace(LINEAR, pooling="pooler"))


def test_the_pooler_trains_only_if_it_is_used(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "bert", published("bert"))
    for pooling in ("cls", "mean", "pooler"):
        model = load_classifier(folder, replace(LINEAR, pooling=pooling)).model
        training = {name for name, weight in model.named_parameters() if weight.requires_grad}
        assert ("encoder.pooler.weight" in training) == (pooling == "pooler")
        assert len(training) == len(dict(model.named_parameters())) - 2 * (pooling != "pooler")


def test_a_checkpoint_without_head_is_loaded_only_with_a_requested_head(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "bert", published("bert"))
    refused(folder, r"no classification head; train a new head: minibert train --model ", head=None)
    found = load_classifier(folder, LINEAR)
    assert head_note(found) == "head: linear, 2 classes, new (its weights are random)"
    assert found.head == LINEAR


def test_a_native_head_is_read(family: str, tmp_path: Path) -> None:
    folder, tensors = classified(tmp_path, family)
    found = load_classifier(folder)
    assert found.head == NATIVE[family]
    assert head_note(found) == "head: native, 3 classes, from the checkpoint"
    *dense, out = NATIVE_LAYERS[family]
    assert torch.equal(found.model.head.out.weight, tensors[f"{out}.weight"])
    for name in dense:
        assert found.model.head.dense is not None
        assert torch.equal(found.model.head.dense.bias, tensors[f"{name}.bias"])
    assert (found.model.head.dense is None) == (family == "bert")


def test_the_stored_head_is_kept_for_another_length(family: str, tmp_path: Path) -> None:
    folder, tensors = classified(tmp_path, family)
    found = load_classifier(folder, replace(NATIVE[family], max_length=11))
    assert found.head.max_length == 11
    assert "from the checkpoint" in head_note(found)
    out = NATIVE_LAYERS[family][-1]
    assert torch.equal(found.model.head.out.weight, tensors[f"{out}.weight"])


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ("good", "fine", "bad")},
        {"labels": ("bad", "good")},
        {"kind": "linear"},
        {"kind": "mlp", "pooling": "mean"},
    ],
)
def test_another_head_is_new_and_the_notes_say_so(
    family: str, change: dict[str, Any], tmp_path: Path
) -> None:
    folder, tensors = classified(tmp_path, family)
    found = load_classifier(folder, replace(NATIVE[family], **change))
    assert head_note(found).endswith("new (its weights are random)")
    first, out = NATIVE_LAYERS[family][0], NATIVE_LAYERS[family][-1]
    first = "classifier" if family == "distilbert" else first  # by the alphabet
    assert any(note.startswith(f"ignored: {first}.bias, {first}.weight") for note in found.notes)
    assert not torch.equal(found.model.head.out.weight[:2], tensors[f"{out}.weight"][:2])


def test_a_native_head_has_one_pooling(family: str, tmp_path: Path) -> None:
    folder, _ = classified(tmp_path, family)
    native = NATIVE[family].pooling
    refused(
        folder, f"reads the pooling {native}, not mean", replace(NATIVE[family], pooling="mean")
    )


@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_tensors_of_a_declared_head_are_required(family: str, kind: str, tmp_path: Path) -> None:
    folder, tensors = classified(tmp_path, family)
    name = f"{NATIVE_LAYERS[family][-1]}.{kind}"
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")
    refused(folder, rf"lacks 1 .*{name}", head=None)


def test_a_head_of_another_size_than_its_labels_is_refused(family: str, tmp_path: Path) -> None:
    folder, tensors = classified(tmp_path, family)
    name = f"{NATIVE_LAYERS[family][-1]}.bias"
    save_file(tensors | {name: torch.zeros(4)}, folder / "model.safetensors")
    refused(folder, rf"{name} has the shape \[4\], config\.json asks for \[3\]", None)


# Stored heads that minibert cannot use


UNUSABLE_HEADS: dict[str, tuple[int, dict[str, Any], str]] = {
    "one class": (
        1,
        {"id2label": {"0": "LABEL_0"}, "problem_type": "single_label_classification"},
        "one class is none to choose from; id2label must name two",
    ),
    "another problem": (3, {"problem_type": "ranking"}, "problem_type is 'ranking'"),
    "classes with one name": (
        2,
        {"id2label": {"0": "a", "1": "a"}},
        "id2label gives one name to two",
    ),
    "a later minibert's": (3, {"minibert": {"head": "deep"}}, "the entry minibert "),
    "no list of architectures": (3, {"architectures": "BertModel"}, "architectures is 'BertModel'"),
}


ONE_OUTPUT = {"id2label": {"0": "LABEL_0"}}
OTHER_TASKS: dict[str, tuple[int, dict[str, Any], str]] = {
    "one output": (1, ONE_OUTPUT, "regression"),
    "one output, not named": (1, {"id2label": None, "num_labels": 1}, "regression"),
    "regression": (1, {**ONE_OUTPUT, "problem_type": "regression"}, "regression"),
    "several labels per text": (
        3,
        {"problem_type": "multi_label_classification"},
        "multi-label",
    ),
}


@pytest.mark.parametrize("stored", OTHER_TASKS)
def test_a_native_head_of_another_task_is_read(family: str, stored: str, tmp_path: Path) -> None:
    outputs, entries, task = OTHER_TASKS[stored]
    folder, tensors = classified(tmp_path, family, classes=outputs, **entries)
    found = load_classifier(folder)
    assert (found.head.task, len(found.head.labels)) == (task, outputs)
    count = "3 classes" if task == "multi-label" else "1 number"
    assert head_note(found) == f"head: native, {count}, from the checkpoint"
    out = NATIVE_LAYERS[family][-1]
    assert torch.equal(found.model.head.out.weight, tensors[f"{out}.weight"])
    assert torch.equal(found.model.head.out.bias, tensors[f"{out}.bias"])


def test_a_head_with_stored_thresholds_is_kept_for_other_thresholds(tmp_path: Path) -> None:
    """A finished run of several labels that is trained further: its thresholds are tuned anew."""
    head = HeadConfig("mlp", "cls", ("a", "b"), 40, "multi-label", thresholds=(0.25, 0.75))
    write_checkpoint(tmp_path, "bert", head)
    stored = load_classifier(tmp_path)
    assert stored.head == head
    found = load_classifier(tmp_path, replace(head, thresholds=()))
    assert head_note(found) == "head: mlp, 2 classes, from the checkpoint"
    assert torch.equal(found.model.head.out.weight, stored.model.head.out.weight)


def test_a_head_that_is_trained_further_is_kept_whatever_was_chosen_after_training(
    tmp_path: Path,
) -> None:
    head = HeadConfig("mlp", "cls", ("a", "b"), 40)
    write_checkpoint(tmp_path, "bert", replace(head, temperature=1.5, min_probability=0.75))
    for requested in (head, replace(head, long_texts=LongTexts("windows"))):
        found = load_classifier(tmp_path, requested)
        assert head_note(found) == "head: mlp, 2 classes, from the checkpoint"
        assert found.head == requested


@pytest.mark.parametrize("stored", [*UNUSABLE_HEADS, *OTHER_TASKS])
@pytest.mark.parametrize("kind", ["mlp", "native"])
def test_another_stored_head_does_not_matter_if_another_is_requested(
    family: str, kind: str, stored: str, tmp_path: Path
) -> None:
    classes, entries, _ = {**UNUSABLE_HEADS, **OTHER_TASKS}[stored]
    folder, _ = classified(tmp_path / "stored", family, classes=classes, **entries)
    requested = replace(NATIVE[family], kind=kind)
    found = load_classifier(folder, requested)
    assert found.head == requested and head_note(found).endswith("new (its weights are random)")
    encoder_alone = folder_with(tmp_path / "encoder", family, published(family))
    assert same_encoder(found, load_classifier(encoder_alone, LINEAR))


@pytest.mark.parametrize("stored", UNUSABLE_HEADS)
def test_the_error_for_an_unusable_head_gives_the_reason_and_what_to_do(
    family: str, stored: str, tmp_path: Path
) -> None:
    classes, entries, reason = UNUSABLE_HEADS[stored]
    folder, _ = classified(tmp_path, family, classes=classes, **entries)
    refused(folder, rf"config\.json: {reason}.*; train a new head: minibert train ", head=None)


@pytest.mark.parametrize("head", ["mlp", "native"])
def test_train_py_puts_a_new_head_on_a_cross_encoder(
    family: str, head: str, reviews: Path, tmp_path: Path, run_script: Callable[..., Any]
) -> None:
    folder, _ = classified(tmp_path / "cross", family, classes=1, id2label={"0": "LABEL_0"})
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    options = ["--data", reviews, "--head", head, "--epochs", "1", "--max-length", "16"]
    trained = run_script("train.py", "--model", folder, *options, "--out", "run")
    assert trained.returncode == 0, trained.stderr
    assert f"head: {head}, 2 classes, new (its weights are random)" in trained.stdout
    assert load_classifier(run_script.place / "run").head.labels == ("negative", "positive")

    predicted = run_script("predict.py", "--model", folder, "a good film")
    assert predicted.returncode == 0, predicted.stderr
    assert json.loads(predicted.stdout).keys() == {"text", "value"}
