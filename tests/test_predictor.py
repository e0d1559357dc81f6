"""Predictor: columns of texts in, probabilities out, shared by threads and copied to processes.

Run: pytest tests/test_predictor.py
"""

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, WORDS, finish_script, write_checkpoint

import minibert
from minibert.errors import InputError
from minibert.inference.batched import InferenceModel
from minibert.inference.predictor import Predictor, load
from minibert.inference.text_classifier import TextClassifier
from minibert.model.config import HEADS, HeadConfig

pytestmark = pytest.mark.machine  # results depend on the processor's instructions

SENTENCES = ["good film", "the slow cold soup was very bad", "i love it", "never again", "rude"]
PLAIN = {"device": "cpu", "precision": "fp32"}


class Column:
    """What a pandas column is to its reader: it has a length and yields its values."""

    def __init__(self, values: list) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self):
        return iter(self.values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    head = HeadConfig("linear", "cls", ("a", "b", "c"), 40)
    return write_checkpoint(tmp_path_factory.mktemp("predictor") / "classifier", "bert", head)


@pytest.fixture(scope="module")
def predictor(folder) -> Predictor:
    return load(str(folder), **PLAIN)


def test_probabilities_and_classes_follow_from_the_logits(predictor):
    logits, probabilities = predictor.logits(SENTENCES), predictor.predict_proba(SENTENCES)
    assert logits.shape == probabilities.shape == (5, 3)
    assert logits.dtype == torch.float32 and probabilities.dtype == np.float32
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(5))
    expected = [predictor.classes[number] for number in probabilities.argmax(axis=1)]
    assert predictor.predict(SENTENCES) == expected


@pytest.mark.parametrize(
    "column",
    [tuple, Column, iter, np.array, lambda values: np.array(values, dtype=object)],
    ids=["tuple", "pandas", "iterator", "numpy", "numpy of objects"],
)
def test_any_column_of_strings_works(predictor, column):
    torch.testing.assert_close(predictor.logits(column(SENTENCES)), predictor.logits(SENTENCES))


def test_a_single_string_is_one_text(predictor):
    torch.testing.assert_close(predictor.logits("good film"), predictor.logits(["good film"]))
    pair = predictor.logits("good film", "bad soup")
    torch.testing.assert_close(pair, predictor.logits(["good film"], ["bad soup"]))
    assert predictor.predict("good film") == predictor.predict(["good film"])


def test_equal_texts_are_computed_once(folder, monkeypatch):
    """In pairs, equal tokens split elsewhere are not equal."""
    predictor, computed = load(str(folder), batch_size=2, **PLAIN), []
    whole = InferenceModel.logits

    def count(model, dataset, **options):
        computed.append(len(dataset))
        return whole(model, dataset, **options)

    texts = ["good film", "never again", "GOOD film", "rude", "never again", "good film"]
    expected = torch.cat([predictor.logits(text) for text in texts])
    monkeypatch.setattr(InferenceModel, "logits", count)
    found = predictor.logits(texts)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(found[0], found[5]) and torch.equal(found[1], found[4])
    predictor.logits(["good", "good film", "good"], ["film was", "was", "film was"])
    assert computed == [3, 2]


def test_no_texts_have_no_predictions(predictor):
    assert predictor.logits([]).shape == (0, 3)
    assert predictor.predict_proba([]).shape == (0, 3)
    assert predictor.predict([], []) == []


BAD_TEXTS = {
    "None": (None, r"texts is None; give a string or a list"),
    "a number": (7, r"texts is 7; give a string or a list"),
    "bytes": (b"good", r"texts is b'good'; give a string or a list"),
    "a dictionary": ({"text": "good"}, r"texts is \{'text': 'good'\}; give a string or a list"),
    "None in the list": (["good", None], r"texts\[1\] is None, not a string"),
    "a number in the list": (["good", 5], r"texts\[1\] is 5, not a string"),
    "a gap in a column": (Column(["good", float("nan")]), r"texts\[1\] is nan, not a string"),
    "a list in the list": ([["good"]], r"texts\[0\] is \['good'\], not a string"),
    "half of a surrogate pair": (["good", "\ud83d"], r"texts\[1\] has half of a surrogate pair"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_other_values_are_one_line_that_says_what_to_give(predictor, name):
    texts, message = BAD_TEXTS[name]
    with pytest.raises(InputError, match=message) as caught:
        predictor.logits(texts)
    assert "\n" not in str(caught.value)


def test_pairs_are_checked_too(predictor):
    with pytest.raises(InputError, match=r"pairs\[0\] is None, not a string"):
        predictor.predict("good", [None])
    with pytest.raises(InputError, match=r"2 texts have 1 pairs"):
        predictor.predict(["good", "bad"], "film")


def test_options_out_of_range_are_refused(folder):
    for options, message in (
        ({"max_length": 41}, "--max-length is 41; this model takes 3 to 40"),
        ({"max_length": 0}, "--max-length is 0; this model takes 3 to 40"),
        ({"batch_size": 0}, "--batch-size is 0; it must be 1 or more"),
        ({"precision": "fp8"}, "--precision fp8: is not one of auto, fp32, bf16, fp16, int8"),
        ({"device": "abacus"}, "--device abacus: not on this machine"),
    ):
        with pytest.raises(InputError, match=message):
            load(str(folder), **options)


def test_long_texts_are_cut_and_counted(folder):
    predictor = load(str(folder), max_length=5, **PLAIN)
    logits = predictor.logits(["good film and food", "good film and soup", "bad"])
    torch.testing.assert_close(logits[0], logits[1])  # [CLS] good film and [SEP]
    assert predictor.truncated == 2


def test_a_predictor_can_leave_the_classifier_as_it_is(folder, tmp_path):
    classifier = TextClassifier.from_folder(folder)
    expected = Predictor(classifier, **PLAIN).logits(SENTENCES)
    classifier.save(tmp_path / "copy")
    torch.testing.assert_close(load(str(tmp_path / "copy"), **PLAIN).logits(SENTENCES), expected)


# Threads and processes


def texts_of_lengths(count: int, seed: int) -> list[str]:
    return [
        " ".join(WORDS[(i * j + seed) % 30] for j in range(1, 2 + (i + seed) % 9))
        for i in range(count)
    ]


def test_threads_share_one_predictor(folder):
    """Half of the texts are cut, in which the tokenizer changes its state."""
    shared = load(str(folder), max_length=6, batch_size=3, **PLAIN)
    batches = [texts_of_lengths(20, seed) for seed in range(12)]
    alone = load(str(folder), max_length=6, batch_size=3, **PLAIN)
    expected = [alone.logits(texts) for texts in batches]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(shared.logits, batches))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert shared.truncated == alone.truncated > 0


def test_two_predictors_of_one_classifier_work_at_once(folder):
    """They share the tokenizer, and each cuts at its length."""
    classifier = TextClassifier.from_folder(folder)
    both = [Predictor(classifier, max_length=length, **PLAIN) for length in (5, 9)]
    batches = [texts_of_lengths(20, seed) for seed in range(12)]
    expected = [both[i % 2].logits(texts) for i, texts in enumerate(batches)]
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(both[i % 2].logits, texts) for i, texts in enumerate(batches)]
        for job, theirs in zip(jobs, expected, strict=True):
            torch.testing.assert_close(job.result(), theirs, rtol=1e-4, atol=1e-5)
    assert torch.get_num_threads() == threads


def test_a_pickled_predictor_loads_the_same_model_with_the_same_options(
    folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(folder.parent)
    predictor = load(folder.name, max_length=7, batch_size=2, **PLAIN)
    monkeypatch.chdir(tmp_path)  # a relative name must lead to the same folder
    copy = pickle.loads(pickle.dumps(predictor))
    assert (copy.max_length, copy.batch_size) == (7, 2)
    assert copy.compute.precision == "fp32"
    torch.testing.assert_close(copy.logits(SENTENCES), predictor.logits(SENTENCES))
    again = pickle.loads(pickle.dumps(copy))
    torch.testing.assert_close(again.logits(SENTENCES), predictor.logits(SENTENCES))


def test_a_pickled_predictor_works_in_another_process(predictor, tmp_path):
    (tmp_path / "predictor").write_bytes(pickle.dumps(predictor))
    code = (
        "import pickle, sys; predictor = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(predictor.logits(sys.argv[2:]).tolist())"
    )
    done = finish_script(["-c", code], tmp_path / "predictor", *SENTENCES, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = torch.tensor(eval(done.stdout))
    torch.testing.assert_close(found, predictor.logits(SENTENCES), rtol=1e-4, atol=1e-5)


CHILDREN = """
import multiprocessing, sys
import minibert

folder, *texts = sys.argv[1:]

def load_and_classify(texts):
    return minibert.load(folder, device="cpu", precision="fp32").predict_proba(texts)

with multiprocessing.get_context("fork").Pool(2) as pool:  # this process has no model yet
    found = pool.map(load_and_classify, [texts, texts])
predictor = minibert.load(folder, device="cpu", precision="fp32")
found.append(predictor.predict_proba(texts))
with multiprocessing.get_context("spawn").Pool(1) as pool:  # although this process used its model
    found.append(pool.apply(predictor.predict_proba, [texts]))
print([probabilities.tolist() for probabilities in found])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_predict_that_load_after_a_fork_or_are_spawned(predictor, folder):
    """With two threads: those of PyTorch do not survive a fork."""
    texts = texts_of_lengths(60, 0)
    done = finish_script(["-c", CHILDREN], folder, *texts, cwd=ROOT, env={"OMP_NUM_THREADS": "2"})
    assert done.returncode == 0, done.stderr
    expected = predictor.predict_proba(texts)
    for found in json.loads(done.stdout):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_predictor_of_a_trained_classifier_says_how_to_copy_it(folder):
    with pytest.raises(TypeError, match=r"minibert\.load can be pickled; save the classifier"):
        pickle.dumps(Predictor(TextClassifier.from_folder(folder), **PLAIN))


def test_predicting_imports_neither_the_compiler_nor_scikit_learn(tmp_path):
    """Each would add a second to every start. Every kind of head is opened."""
    for kind in HEADS:
        head = HeadConfig(kind, "cls", ("bad", "good"), 20)
        write_checkpoint(tmp_path / kind, head=head)
    code = (
        "import sys, minibert\n"
        "for folder in sys.argv[1:]:\n"
        "    minibert.load(folder, device='cpu').predict_proba(['good film'])\n"
        "print([name for name in ('torch._dynamo', 'sklearn') if name in sys.modules])"
    )
    folders = [tmp_path / kind for kind in HEADS]
    done = finish_script(["-c", code], *folders, cwd=ROOT, fresh=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_public_names_are_these_functions():
    assert minibert.load is load and minibert.Predictor is Predictor
