"""What each word adds to a prediction: the scores sum to what the words change together.

Run: pytest tests/test_attribution.py
"""

import json
import math
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import WORDS, strict_json, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from tokens import TEXTS, TRICKY, byte_level_bpe, unigram

from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError
from minibert.inference.attribution import TOLERANCE, attribute
from minibert.inference.predictor import Predictor
from minibert.inference.text_classifier import TextClassifier
from minibert.model.config import HeadConfig

CLASSES = ("bad", "good", "so & <so>")
PAIR = {"text": "a good film", "pair": "the soup was unkind"}


def classifier_of(folder: Path, family: str, **head: Any) -> TextClassifier:
    config = HeadConfig("mlp", "mean", CLASSES, 38, **head)
    return TextClassifier.from_folder(write_checkpoint(folder / family, family, config))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> TextClassifier:
    return classifier_of(tmp_path_factory.mktemp("attribution"), "bert", temperature=1.7)


# The sum


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from([*WORDS, "xq", "!"]), min_size=1, max_size=9).map(" ".join))
def test_the_scores_sum_to_what_the_words_change(bert: TextClassifier, text: str) -> None:
    found = attribute(bert, text)
    change = found.value - found.base
    assert sum(word.score for word in found.words) == pytest.approx(change, abs=found.error + 1e-6)
    assert found.error <= TOLERANCE * max(1.0, abs(change))
    assert [word.word for word in found.words] == text.split()


@pytest.mark.parametrize("task", ["single-label", "multi-label", "regression"])
def test_the_value_is_that_of_the_prediction(family: str, task: str, tmp_path: Path) -> None:
    scale = {} if task == "regression" else {"temperature": 1.7}
    classifier = classifier_of(tmp_path, family, task=task, **scale)
    found = attribute(classifier, PAIR["text"], PAIR["pair"])
    predictor = Predictor(classifier, device="cpu", precision="fp32")
    if task == "regression":
        expected, output = predictor.logits(PAIR["text"], PAIR["pair"])[0, 0].item(), "bad"
    else:
        probabilities = predictor.predict_proba(PAIR["text"], PAIR["pair"])[0]
        p, output = float(probabilities.max()), CLASSES[int(probabilities.argmax())]
        expected = math.log(p / (1 - p))
    assert found.output == output
    assert found.value == pytest.approx(expected, abs=1e-4)
    assert found.error <= TOLERANCE * max(1.0, abs(found.value - found.base))
    texts = [(word.word, word.in_pair) for word in found.words]
    assert texts == [
        *((word, False) for word in PAIR["text"].split()),
        *((word, True) for word in PAIR["pair"].split()),
    ]


def test_a_word_whose_vector_is_zero_adds_nothing(tmp_path: Path) -> None:
    classifier = classifier_of(tmp_path, "bert")
    (row,) = classifier.tokenizer.encode(["film"])
    with torch.no_grad():
        classifier.model.encoder.embeddings.word.weight[int(row.ids[1])] = 0.0
    scores = {word.word: word.score for word in attribute(classifier, "a good film").words}
    assert scores["film"] == 0 and abs(scores["good"]) > 1e-4


def test_an_explanation_leaves_the_model_as_it_was(bert: TextClassifier) -> None:
    attribute(bert, "good film")
    assert all(p.grad is None and p.requires_grad for p in bert.model.encoder.blocks.parameters())
    assert not any(module._forward_hooks for module in bert.model.modules())


def test_a_text_that_the_model_would_cut_is_refused(bert: TextClassifier) -> None:
    with pytest.raises(InputError, match="has over 8 tokens, and a text is explained as a whole"):
        attribute(bert, "good " * 7, max_length=8)


# Words


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """A tokenizer of each kind."""
    place, found = tmp_path_factory.mktemp("words"), {}
    for kind, write in (
        ("wordpiece", lambda folder: None),
        ("byte-level BPE", byte_level_bpe),
        ("unigram", lambda folder: unigram(folder, "xlm-roberta", "XLMRobertaTokenizer")),
    ):
        family = "bert" if kind == "wordpiece" else "roberta"
        folder = write_checkpoint(place / kind, family, vocab_size=400, pad_token_id=0)
        written = write(place / f"{kind} tokenizer")
        if written:
            (folder / "vocab.txt").unlink()
            for file in written.iterdir():
                if file.name != "config.json":
                    file.rename(folder / file.name)
        found[kind] = TextClassifier.pretrained(str(folder), ["a", "b"], max_length=20).tokenizer
    return found


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level BPE", "unigram"])
def test_words_are_whole_and_special_tokens_are_none(
    kind: str, tokenizers: dict[str, Tokenizer]
) -> None:
    tokenizer, text, pair = tokenizers[kind], "unkind  soup", "was it"
    words = tokenizer.words(text, pair)
    assert len(words) == len(tokenizer.encode([text], [pair])[0])
    assert words[0] is None and words[-1] is None
    spans = dict.fromkeys(word for word in words if word is not None)
    found = [((text, pair)[which][start:end].strip(), which) for which, start, end in spans]
    found = [word for word in found if word[0]]  # byte-level BPE: a second space is a word
    assert found == [("unkind", 0), ("soup", 0), ("was", 1), ("it", 1)]


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level BPE", "unigram"])
@settings(deadline=None, max_examples=50)
@given(text=st.one_of(TEXTS, st.sampled_from(list(TRICKY.values()))))
def test_words_of_any_text_follow_each_other(
    kind: str, tokenizers: dict[str, Tokenizer], text: str
) -> None:
    words = tokenizers[kind].words(text)
    assert len(words) == len(tokenizers[kind].encode([text])[0])
    spans = list(dict.fromkeys(word for word in words if word is not None))
    assert all(0 <= start <= end <= len(text) for _, start, end in spans)
    assert all(one[2] <= other[1] for one, other in pairwise(spans))


# predict.py --explain


class Shown(HTMLParser):
    """The text of a page, and its marked words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.marked = "", []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag != "i"
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "mark":
            self.marked.append(data)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", "bert", HeadConfig("mlp", "mean", CLASSES, 36))


def test_the_page_shows_the_texts_escaped_and_whole(
    model: Path, run_script: Callable[..., Any]
) -> None:
    text = "good <i>film</i>  &amp; \"soup\" 'bad'"
    done = run_script("predict.py", "--model", model, text, "never again", "--explain", "why.html")
    assert done.returncode == 0, done.stderr
    assert "why.html: 2 texts explained; the sum of a text's words is within " in done.stderr
    page = (run_script.place / "why.html").read_text(encoding="utf-8")
    shown = Shown(page)
    assert text in shown.text
    assert shown.marked[:5] == ["good", "<", "i", ">", "film"] and shown.marked[-1] == "again"
    assert "http" not in page


def test_json_lines_have_a_score_for_each_word(model: Path, run_script: Callable[..., Any]) -> None:
    (run_script.place / "in.jsonl").write_text(
        "\n".join(
            [
                json.dumps(PAIR),
                '{"text": null, "pair": "a"}',
                json.dumps({**PAIR, "text": "good " * 40}),
            ]
        )
    )
    flags = ["--input", "in.jsonl", "--pair-column", "pair", "--explain", "why.jsonl"]
    done = run_script("predict.py", "--model", model, *flags)
    assert done.returncode == 0, done.stderr
    assert "1 texts could not be explained; the file says why" in done.stderr
    lines = (run_script.place / "why.jsonl").read_text().splitlines()
    explained, long = map(strict_json, lines)
    predicted = [strict_json(line) for line in done.stdout.splitlines()]
    assert explained["output"] == predicted[0]["label"]
    p = predicted[0]["probability"]
    assert explained["value"] == pytest.approx(math.log(p / (1 - p)), abs=2e-2)
    scores = sum(word["score"] for word in explained["words"])
    change = explained["value"] - explained["base"]
    assert scores == pytest.approx(change, abs=explained["error"] + 1e-3)
    assert long["error"].startswith("has over 36 tokens")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--explain", "why.txt"], "--explain why.txt: has none of the endings .html, .jsonl"),
        (["--explain", "none/why.html"], "--explain none/why.html: is a folder, or its folder"),
        (
            ["--explain", "out.jsonl", "--output", "out.jsonl"],
            "--explain out.jsonl: is the input or the output; give another",
        ),
        (
            ["--explain", "why.html", "--output", "o.csv", "--resume-output"],
            "--explain does not go with --resume-output; drop one",
        ),
    ],
)
def test_mistakes_are_one_line(
    flags: list[str], message: str, model: Path, run_script: Callable[..., Any]
) -> None:
    done = run_script("predict.py", "--model", model, "good film", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
