"""TextClassifier: from a checkpoint, to labelled datasets, into a folder and back.

Run: pytest tests/test_text_classifier.py
"""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_checkpoint

from minibert.errors import InputError
from minibert.inference.cpu import prepacking_works
from minibert.inference.predictor import Predictor
from minibert.inference.text_classifier import TextClassifier, load_encoder

TEXTS = ["good film", "the slow soup was bad", "never again"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare tiny BERT."""
    return write_checkpoint(tmp_path_factory.mktemp("text-classifier") / "bert", "bert")


@pytest.fixture(scope="module")
def classifier(folder) -> TextClassifier:
    return TextClassifier.pretrained(str(folder), ["bad", "good"], max_length=20)


def test_a_new_head_has_the_requested_classes(folder):
    options = {"head": "relu", "pooling": "mean", "max_length": 17}
    classifier = TextClassifier.pretrained(str(folder), ("x", "y", "z"), **options)
    assert classifier.classes == ("x", "y", "z")
    assert classifier.model.head.out.weight.shape == (3, 512)
    assert classifier.model.pooling == "mean" and classifier.checkpoint.head.max_length == 17


def test_the_native_head_has_its_familys_pooling(folder):
    native = TextClassifier.pretrained(str(folder), ["a", "b"], head="native", max_length=20)
    assert native.model.pooling == "pooler"


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        ("good", {}, r"classes is 'good'; give 2 or more different names"),
        (["good"], {}, r"classes is \['good'\]; give 2 or more"),
        (["a", "b", "a"], {}, r"give 2 or more different names"),
        (["a", None], {}, r"classes\[1\] is None, not a class name or number"),
        (None, {}, r"classes is None; give a string or a list"),
        (["a", "b"], {"head": "big"}, r"head is 'big', not one of mlp, relu, linear, native"),
        (["a", "b"], {"pooling": "max"}, r"pooling is 'max', not one of cls, pooler, mean"),
    ],
)
def test_arguments_out_of_range_are_refused(folder, classes, options, message):
    with pytest.raises(InputError, match=message):
        TextClassifier.pretrained(str(folder), classes, max_length=20, **options)


def test_more_tokens_than_positions_are_refused(folder):
    with pytest.raises(InputError, match="max_length is 128; this model takes 3 to 40"):
        TextClassifier.pretrained(str(folder), ["a", "b"])


def test_a_saved_classifier_is_the_same(classifier, tmp_path):
    classifier.save(tmp_path / "saved")
    saved = TextClassifier.from_folder(tmp_path / "saved")
    assert saved.classes == ("bad", "good")
    options = {"device": "cpu", "precision": "fp32"}
    found, expected = (Predictor(x, **options).logits(TEXTS) for x in (saved, classifier))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "labels",
    [
        ["good", "bad", "good"],
        ("Good", "BAD", "good"),
        [1, 0, 1],
        [1.0, 0.0, 1.0],
        np.array(["good", "bad", "good"]),
        np.array([1, 0, 1]),
        torch.tensor([1, 0, 1]),
    ],
    ids=["names", "other case", "numbers", "floats", "numpy names", "numpy numbers", "tensor"],
)
def test_labels_are_class_names_or_numbers(classifier, labels):
    dataset = classifier.dataset(TEXTS, labels)
    assert dataset.labels.tolist() == [1, 0, 1]
    assert len(dataset) == 3


def test_a_single_text_and_label_are_a_dataset_of_one(classifier):
    assert classifier.dataset("good film", "good").labels.tolist() == [1]


def test_a_dataset_without_labels_has_texts_and_pairs(classifier):
    dataset = classifier.dataset(TEXTS, pairs=np.array(TEXTS, dtype=object))
    batch = dataset.batch([0])
    assert batch.inputs[2].sum() == 3  # good film [SEP]


BAD = {
    "None": ([None, "bad", "good"], r"labels\[0\] is None, not a class name or number"),
    "a gap in a column": (["good", float("nan"), 1], r"labels\[1\] is nan, not a class"),
    "a fraction": ([0.5, 0, 1], r"labels\[0\] is 0\.5, not a class"),
    "two columns": (np.array([[0, 1]] * 3), r"labels\[0\] is array\(\[0, 1\]\), not a class"),
    "a list": ([["good"], "bad", "bad"], r"labels\[0\] is \['good'\], not a class"),
    "an unknown name": (["good", "bad", "so"], r"labels\[2\]: the label 'so' is none of .* 2"),
    "an unknown number": ([0, 1, 2], r"labels\[2\]: the label '2' is none of .* 2 classes"),
    "a single string": ("good", r"3 texts have 1 labels; give one for each text"),
    "too few": (["good"], r"3 texts have 1 labels"),
    "a number": (1, r"labels is 1; give a string or a list"),
}


@pytest.mark.parametrize("name", BAD)
def test_other_labels_are_refused(classifier, name):
    labels, message = BAD[name]
    with pytest.raises(InputError, match=message):
        classifier.dataset(TEXTS, labels)


def test_texts_that_are_not_strings_are_refused(classifier):
    with pytest.raises(InputError, match=r"texts\[1\] is 5, not a string"):
        classifier.dataset(["good", 5], ["good", "bad"])
    with pytest.raises(InputError, match=r"pairs is None|pairs\[0\] is None"):
        classifier.dataset(["good"], ["good"], [None])


def test_names_with_control_characters_are_refused(folder):
    """Such a model could be trained and saved, and then not be loaded."""
    with pytest.raises(InputError, match=r"classes\[1\] is 'neg\\n'; remove its control char"):
        TextClassifier.pretrained(str(folder), ["pos", "neg\n"])


@pytest.mark.parametrize("max_windows", [0, -1, 1.5, True])
def test_a_text_has_at_least_one_window(classifier, max_windows):
    """With none, the text would be missing, and its label would be the next text's."""
    with pytest.raises(InputError, match=f"max_windows is {max_windows}; give None or 1 or more"):
        classifier.dataset(TEXTS, [0, 1, 0], max_windows=max_windows)


@pytest.mark.parametrize("how", ["packed", "rounded"])
def test_a_model_prepared_for_inference_is_not_saved(folder, tmp_path, how):
    classifier = TextClassifier.pretrained(str(folder), ["bad", "good"], max_length=20)
    classifier.save(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    if how == "packed":
        Predictor(classifier, device="cpu", precision="fp32", keep=False)
    else:
        classifier.model.encoder.to(torch.bfloat16)  # as a predictor does on a GPU
    if how == "rounded" or prepacking_works("fp32"):
        with pytest.raises(InputError, match=r"load it again with TextClassifier\.from_folder"):
            classifier.save(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_folder_may_be_a_string(classifier, tmp_path):
    classifier.save(str(tmp_path / "saved"))
    assert TextClassifier.from_folder(str(tmp_path / "saved")).classes == ("bad", "good")


def test_a_classifier_can_be_copied(classifier):
    for other in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
        assert other.dataset(TEXTS).lengths.tolist() == classifier.dataset(TEXTS).lengths.tolist()
        for name, tensor in classifier.model.state_dict().items():
            assert torch.equal(other.model.state_dict()[name], tensor)


def test_load_encoder_gives_encoder_and_tokenizer(folder):
    encoder, tokenizer = load_encoder(str(folder))
    ids = torch.from_numpy(tokenizer.encode(["good film"])[0].ids)[None]
    assert encoder(ids).shape == (1, 4, 12)
    assert not encoder.training
