"""A saved classifier gives transformers and sentence-transformers what it gives minibert.

Run: pytest tests/test_other_readers.py
"""

import itertools
import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from helpers import write_checkpoint
from models import TOLERANCE, randomize
from torch import Tensor

from minibert.checkpoint.save import save_weights
from minibert.errors import InputError
from minibert.inference.predictor import Predictor
from minibert.inference.text_classifier import TextClassifier

TEXTS = ["good film", "the slow soup was bad , and the staff was rude", "never"]  # one is cut
PLAIN = {"device": "cpu", "precision": "fp32"}


def tiny(folder: Path, family: str = "bert", **options: object) -> TextClassifier:
    """A random classifier of three classes for texts of up to 9 tokens."""
    name = str(write_checkpoint(folder / "encoder", family))
    classifier = TextClassifier.pretrained(name, ["bad", "fine", "good"], max_length=9, **options)
    randomize(classifier.model.head)
    return classifier


def with_temperature(classifier: TextClassifier, temperature: float) -> TextClassifier:
    head = classifier.model.head
    head.config = replace(head.config, temperature=temperature)
    return classifier


def features(classifier: TextClassifier) -> Tensor:
    """The pooled vectors of TEXTS."""
    batch = classifier.dataset(TEXTS).batch(range(len(TEXTS)))
    with torch.no_grad():
        return classifier.model.features(*batch.inputs)


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_a_pipeline_gives_the_labels_and_calibrated_probabilities(family, task, tmp_path):
    transformers = pytest.importorskip("transformers")
    classifier = with_temperature(tiny(tmp_path, family, head="native", task=task), 2.5)
    classifier.save(tmp_path / "saved")
    expected = torch.as_tensor(Predictor(classifier, **PLAIN).predict_proba(TEXTS))

    pipeline = transformers.pipeline(
        "text-classification", model=str(tmp_path / "saved"), device="cpu", top_k=None
    )
    for row, answers in zip(expected, pipeline(TEXTS, truncation=True), strict=True):
        scores = {answer["label"]: answer["score"] for answer in answers}
        found = torch.tensor([scores[name] for name in classifier.classes])
        torch.testing.assert_close(found, row, **TOLERANCE)

    ours = Predictor(TextClassifier.from_folder(tmp_path / "saved"), **PLAIN)
    found = torch.as_tensor(ours.predict_proba(TEXTS))
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_another_head_keeps_its_temperature_beside_its_weights(tmp_path):
    classifier = with_temperature(tiny(tmp_path), 2.5)
    classifier.save(tmp_path / "saved")
    saved = TextClassifier.from_folder(tmp_path / "saved")
    assert saved.checkpoint.head == classifier.checkpoint.head
    assert torch.equal(saved.model.head.out.weight, classifier.model.head.out.weight)


@pytest.mark.parametrize(("head", "pooling"), [("mlp", "mean"), ("linear", "cls")])
def test_sentence_transformers_gives_the_same_vectors(family, head, pooling, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    classifier = tiny(tmp_path, family, head=head, pooling=pooling)
    classifier.save(tmp_path / "saved")
    theirs = library.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    found = torch.as_tensor(theirs.encode(TEXTS))
    torch.testing.assert_close(found, features(classifier), **TOLERANCE)


def test_the_pooler_is_none_of_sentence_transformers_poolings(tmp_path):
    tiny(tmp_path, head="native").save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "modules.json").exists()


def test_nothing_of_an_earlier_model_is_left_in_its_folder(tmp_path):
    saved, other = tmp_path / "saved", tmp_path / "other"
    tiny(tmp_path, pooling="mean").save(saved)
    (saved / "notes.txt").write_text("mine")
    tiny(tmp_path, pooling="pooler").save(other)
    (other / "vocab.txt").unlink()
    TextClassifier.from_folder(other).save(saved)
    assert {str(file.relative_to(saved)) for file in saved.rglob("*") if file.is_file()} == {
        *("config.json", "model.safetensors", "special_tokens_map.json", "notes.txt"),
        *("tokenizer.json", "tokenizer_config.json"),
    }


def run_with_temperature(folder: Path, temperature: float) -> TextClassifier:
    """A native head in a run's folder, which has the temperature beside the weights."""
    classifier = with_temperature(tiny(folder, head="native"), temperature)
    checkpoint = classifier.checkpoint
    (folder / "run").mkdir()
    classifier.save_settings(folder / "run", checkpoint.head)
    save_weights(folder / "run", classifier.model, checkpoint.encoder, checkpoint.head)
    return TextClassifier.from_folder(folder / "run")


def test_a_save_that_fails_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    def full_disk(*_: object, **__: object) -> None:
        raise InputError("no space left on device")

    classifier, folder = run_with_temperature(tmp_path, 2.5), tmp_path / "run"
    before = {file: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr("minibert.inference.text_classifier.save_weights", full_disk)
    with pytest.raises(InputError, match="no space left"):
        classifier.save(folder)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def probabilities(classifier: TextClassifier) -> Tensor:
    return torch.as_tensor(Predictor(classifier, **PLAIN).predict_proba(TEXTS))


def test_a_save_that_is_killed_never_leaves_other_probabilities(tmp_path):
    """It is killed before each renaming of a file, in turn; then it is repeated."""
    classifier = run_with_temperature(tmp_path, 2.5)
    expected, unreadable = probabilities(classifier), 0
    for renamed in itertools.count():
        folder = shutil.copytree(tmp_path / "run", tmp_path / f"killed-{renamed}")
        kill = mock.Mock(wraps=os.replace, side_effect=[mock.DEFAULT] * renamed + [SystemExit])
        with mock.patch("os.replace", kill), suppress(SystemExit):
            TextClassifier.from_folder(folder).save(folder)
        try:
            found = TextClassifier.from_folder(folder)
        except InputError as error:
            assert "holds no checkpoint (no config.json)" in str(error)
            unreadable += 1
            classifier.save(folder)
            found = TextClassifier.from_folder(folder)
        torch.testing.assert_close(probabilities(found), expected, **TOLERANCE)
        if kill.call_count == renamed:
            break
    assert unreadable


def test_distilberts_sizes_have_the_names_that_other_readers_know(tmp_path):
    transformers = pytest.importorskip("transformers")
    tiny(tmp_path, "distilbert").save(tmp_path / "saved")
    data = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (data["hidden_size"], data["dim"]) == (12, 12)
    assert (data["num_hidden_layers"], data["n_layers"]) == (3, 3)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "saved")
    assert (theirs.dim, theirs.hidden_size, theirs.num_hidden_layers) == (12, 12, 3)


def test_the_special_tokens_and_the_length_are_saved_but_no_paths_of_another_computer(tmp_path):
    encoder = write_checkpoint(tmp_path / "encoder")
    places = ("name_or_path", "vocab_file", "cache_dir", "tokenizer_name_or_path", "other")
    settings = dict.fromkeys(places, "/home/me/bert")
    settings["init_kwargs"] = {"name_or_path": "/home/me/bert"}
    settings["additional_special_tokens"] = ["[MASK]"]
    (encoder / "tokenizer_config.json").write_text(json.dumps(settings))
    classifier = TextClassifier.pretrained(str(encoder), ["a", "b"], max_length=9)
    classifier.save(tmp_path / "saved")
    tokens = json.loads((tmp_path / "saved" / "special_tokens_map.json").read_text())
    assert tokens == {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert saved["model_max_length"] == 9 and saved["additional_special_tokens"] == ["[MASK]"]
    assert "/home/me" not in json.dumps(saved)
