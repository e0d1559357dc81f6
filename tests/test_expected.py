"""Published weights give the values in the tests and pages of their libraries.

These tests need the hub or its cache; without both they are skipped.
Run: pytest tests/test_expected.py
"""

import functools
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from minibert.checkpoint.load import load_classifier
from minibert.errors import InputError
from minibert.hub import find_model
from minibert.inference.predictor import Predictor, load
from minibert.model.config import HeadConfig

# Fetches up to 440 MB once.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SECONDS = 3.0
SST2 = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"


def answers(address: str) -> bool:
    """Return whether a server answers within SECONDS, with any status."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(address, timeout=SECONDS).close()
        except urllib.error.HTTPError:
            pass
        except OSError:
            return
        answered.set()

    # In a thread, because looking up a host name has no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return answered.is_set()


@pytest.fixture(scope="session")
def fetch() -> Callable[[str], Path]:
    """Find a model's folder, in the cache if the hub does not answer; else skip the test."""
    from huggingface_hub import constants

    reached = not constants.HF_HUB_OFFLINE and answers(constants.ENDPOINT)

    def find(name: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            if not reached:
                patch.setattr(constants, "HF_HUB_OFFLINE", True)
            try:
                return find_model(name)
            except InputError as error:
                if "the hub cannot be reached" not in str(error):
                    raise
                pytest.skip(f"{name}: the hub cannot be reached")

    return find


@functools.cache
def predictor(folder: Path) -> Predictor:
    return load(str(folder), device="cpu", precision="fp32")


# transformers tests/models/{bert,distilbert}/test_modeling_*.py, test_inference_no_head_*
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "google-bert/bert-base-uncased",
            [[0.4249, 0.1008, 0.7531], [0.3771, 0.1188, 0.7467], [0.4152, 0.1098, 0.7108]],
        ),
        (
            "distilbert/distilbert-base-uncased",
            [[-0.1639, 0.3299, 0.1648], [-0.1746, 0.3289, 0.1710], [-0.1884, 0.3357, 0.1810]],
        ),
    ],
)
def test_hidden_states(
    name: str, expected: list[list[float]], fetch: Callable[[str], Path]
) -> None:
    ids = torch.tensor([[0, 345, 232, 328, 740, 140, 1695, 69, 6078, 1588, 2]])
    mask = torch.tensor([[0, *[1] * 10]])
    head = HeadConfig("linear", "cls", ("a", "b"), 512)
    with torch.no_grad():
        hidden = load_classifier(fetch(name), head).model.encoder(ids, mask)
    assert hidden.shape == (1, 11, 768)
    torch.testing.assert_close(hidden[0, 1:4, 1:4], torch.tensor(expected), rtol=0, atol=1e-4)


# Hugging Face course, chapter 2
COURSE = {
    "I've been waiting for a HuggingFace course my whole life.": [-1.5607, 1.6123],
    "I hate this so much!": [4.1692, -3.3464],
    "So have I!": [-3.6183, 3.9137],
}


def test_logits_of_the_course(fetch: Callable[[str], Path]) -> None:
    sst2 = predictor(fetch(SST2))
    assert sst2.classes == ("NEGATIVE", "POSITIVE")
    expected = torch.tensor(list(COURSE.values()))
    torch.testing.assert_close(sst2.logits(list(COURSE)), expected, rtol=0, atol=2e-4)


def test_logits_of_the_course_without_special_tokens(fetch: Callable[[str], Path]) -> None:
    folder = fetch(SST2)
    (row,) = predictor(folder).classifier.tokenizer.encode([next(iter(COURSE))])
    with torch.no_grad():
        logits = load_classifier(folder).model(torch.from_numpy(row.ids[1:-1]).long()[None])
    torch.testing.assert_close(logits, torch.tensor([[-2.7276, 2.8789]]), rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("text", "label", "probability"),
    [
        # transformers tests/pipelines/test_pipelines_text_classification.py
        ("This is great !", "POSITIVE", 1.0),
        ("This is bad !", "NEGATIVE", 1.0),
        ("Birds are a type of animal", "POSITIVE", 0.988),
        # transformers' quick tour
        ("We are very happy to show you the 🤗 Transformers library.", "POSITIVE", 0.9998),
        ("We hope you don't hate it.", "NEGATIVE", 0.5309),
    ],
)
def test_sentiments(
    text: str, label: str, probability: float, fetch: Callable[[str], Path]
) -> None:
    sst2 = predictor(fetch(SST2))
    (row,) = sst2.predict_proba([text]).tolist()
    assert sst2.classes[row.index(max(row))] == label
    assert max(row) == pytest.approx(probability, abs=6e-4)


# transformers.js tests/models/bert/test_modeling_bert.js
def test_a_tiny_random_classifier(fetch: Callable[[str], Path]) -> None:
    tiny = predictor(fetch("hf-internal-testing/tiny-random-BertForSequenceClassification"))
    expected = [
        [0.00043986947275698185, -0.030218850821256638],
        [0.0003853091038763523, -0.03022204339504242],
    ]
    found = tiny.logits(["hello", "hello world"])
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-5)


# text-embeddings-inference, bert_classification_single
def test_a_classifier_of_pairs(fetch: Callable[[str], Path]) -> None:
    reranker = predictor(fetch("ibm-research/re2g-reranker-nq"))
    found = reranker.logits(
        ["PrimeTime is a timing signoff tool"],
        ["PrimeTime can perform most accurate timing analysis"],
    )
    torch.testing.assert_close(found, torch.tensor([[2.8580017, -2.9722357]]), rtol=0, atol=1e-3)
