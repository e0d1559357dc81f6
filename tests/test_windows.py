"""Datasets of texts in windows, and what the model, training and inference make of them.

Run: pytest tests/test_windows.py
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import WORDS, random_texts, strict_json, tiny_classifier, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

import minibert
from minibert.commands.train import smaller_batches
from minibert.data.windows import WindowDataset, split_batch
from minibert.device import Compute
from minibert.errors import InputError
from minibert.inference.batched import prepare_for_inference
from minibert.inference.predictor import Predictor
from minibert.inference.text_classifier import TextClassifier
from minibert.model.classifier import Classifier, pool_windows
from minibert.model.config import HeadConfig, LongTexts
from minibert.training.frozen import encode
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions
from minibert.training.steps import optimizer_steps, step_batches

CPU = Compute(torch.device("cpu"))
COUNTS = np.array([1, 3, 1, 2])
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def in_windows(counts: np.ndarray = COUNTS, **options: Any) -> WindowDataset:
    """Random windows of 3 to 9 tokens, of as many texts as there are counts."""
    rows = random_texts(int(counts.sum()), **options)
    return WindowDataset(rows, counts, np.arange(len(counts)) % 3)


def model_of(pooling: str = "mean", *, windows: str = "mean") -> Classifier:
    model = tiny_classifier(pooling=pooling).eval()
    head = HeadConfig(
        "mlp", pooling, ("a", "b", "c"), 9, long_texts=LongTexts("windows", window_pooling=windows)
    )
    model.head.config = head
    return model


def logits_of_each_text(model: Classifier, texts: WindowDataset, *, how: str) -> torch.Tensor:
    """The head's logits of the pooled features of each text's windows, a window at a time."""
    result = []
    for start, count in zip(texts.starts, texts.counts, strict=True):
        rows = [texts.windows.batch([row]).inputs for row in range(start, start + count)]
        features = torch.cat([model.features(*inputs) for inputs in rows])
        pooled = features.mean(dim=0) if how == "mean" else features.max(dim=0).values
        result.append(model.head(pooled[None]))
    return torch.cat(result)


@pytest.mark.parametrize("how", ["mean", "max"])
@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_windows_are_pooled_text_by_text(how, counts, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(sum(counts), 3, generator=generator).requires_grad_()
    pooled = pool_windows(features, torch.tensor(counts), how=how)
    weights = torch.randn(pooled.shape, generator=generator)
    (gradient,) = torch.autograd.grad((pooled * weights).sum(), features)
    parts = features.split(counts)
    expected = torch.stack([x.mean(0) if how == "mean" else x.max(0).values for x in parts])
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), features)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_a_batch_has_all_windows_of_its_texts():
    texts = in_windows(pairs=True)
    batch = texts.batch([1, 3])
    expected = texts.windows.batch([1, 2, 3, 5, 6])
    for found, there in zip(batch.inputs[:3], expected.inputs, strict=True):
        assert torch.equal(found, there)
    assert batch.inputs[3].tolist() == [3, 2] and batch.labels.tolist() == [1, 0]
    assert texts.lengths[1] == texts.windows.lengths[1:4].sum()


@pytest.mark.parametrize("how", ["mean", "max"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_logits_are_the_heads_of_the_pooled_windows_in_training_and_inference(pooling, how):
    model, texts = model_of(pooling, windows=how), in_windows()
    with torch.no_grad():
        expected = logits_of_each_text(model, texts, how=how)
        torch.testing.assert_close(
            model(*texts.batch([3, 0, 1, 2]).inputs), expected[[3, 0, 1, 2]], **CLOSE
        )
    ready = prepare_for_inference(model, CPU, keep=True)
    torch.testing.assert_close(ready.logits(texts, batch_size=2), expected, **CLOSE)
    features = ready.features(texts, batch_size=2)
    assert features.values.shape == (4, 12) and features.labels.tolist() == texts.labels.tolist()


@pytest.mark.parametrize("options", [{"freeze": True}, {"freeze_layers": 2}])
def test_above_frozen_layers_texts_in_windows_have_the_same_logits(options):
    model, texts = model_of(), in_windows()
    expected = logits_of_each_text(model, texts, how="mean").detach()
    module, (kept,), _ = encode(model, [texts], TrainingOptions(**options), CPU, folder=None)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(*kept.batch(range(4)).inputs), expected, **CLOSE)
    assert kept.labels.tolist() == texts.labels.tolist()


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(1, 7), min_size=1, max_size=12),
    limit=st.integers(1, 9),
    seed=st.integers(0, 9),
)
def test_a_batch_is_split_where_it_has_too_many_windows(counts, limit, seed):
    texts = in_windows(np.array(counts))
    rows = np.random.default_rng(seed).permutation(len(counts))
    parts = split_batch(texts, rows, limit)
    assert np.concatenate(parts).tolist() == rows.tolist()
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        assert len(part) == 1 or texts.counts[part].sum() <= limit
        if following is not None:  # it would not fit
            assert texts.counts[part].sum() + texts.counts[following[0]] > limit


def test_windows_change_neither_the_number_of_steps_nor_the_texts_of_a_step():
    options = TrainingOptions(batch_size=3, accumulate=2, seed=1)
    texts = in_windows(np.array([1, 4, 2, 2, 1, 5, 1, 3, 1]))
    steps = step_batches(texts, options, epoch=0)
    assert len(steps) == optimizer_steps(len(texts), options)
    assert sorted(int(row) for step in steps for rows in step for row in rows) == [*range(9)]
    assert [sum(map(len, step)) for step in steps[:-1]] == [6] * (len(steps) - 1)
    batches = [rows for step in steps for rows in step]
    assert all(len(rows) == 1 or texts.counts[rows].sum() <= 3 for rows in batches)


def test_a_step_in_several_batches_equals_one_large_batch():
    figures = []
    for batch_size, accumulate in ((2, 2), (4, 1), (7, 1)):  # in 3, 2 and 1 batches
        torch.manual_seed(0)
        model = tiny_classifier(head="linear", dropout=0.0, attention_dropout=0.0)
        texts = in_windows()
        options = TrainingOptions(epochs=1, batch_size=batch_size, accumulate=accumulate)
        (record,) = fit(model, texts, texts, options, compute=CPU).history
        figures.append([record.train_loss, record.gradient_norm])
    assert figures[1:] == [pytest.approx(figures[0], rel=1e-4)] * 2


LAST_WORD = {"good": "pos", "bad": "neg"}


def reviews(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts of 14 words, whose class only the last 4 tell."""
    random = np.random.default_rng(seed)
    ends = [("good", "bad")[i % 2] for i in range(count)]
    texts = [" ".join([*random.choice(WORDS[5:], 10), *[end] * 4]) for end in ends]
    return texts, [LAST_WORD[end] for end in ends]


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    return str(write_checkpoint(tmp_path / "encoder"))


@pytest.mark.parametrize(
    ("long_texts", "learns"),
    [
        (LongTexts("cut"), False),
        (LongTexts("head-tail"), True),
        (LongTexts("windows", window_pooling="max"), True),
    ],
)
def test_what_only_the_end_of_a_text_tells_is_learnt_unless_it_is_cut_off(
    checkpoint, long_texts, learns, tmp_path
):
    torch.manual_seed(0)
    classifier = TextClassifier.pretrained(
        *(checkpoint, ["neg", "pos"]), pooling="mean", max_length=8, long_texts=long_texts
    )
    train, test = classifier.dataset(*reviews(80, 1)), classifier.dataset(*reviews(40, 2))
    options = TrainingOptions(epochs=6, batch_size=8, encoder_lr=0.01, head_lr=0.01)
    result = fit(classifier.model, train, test, options, compute=CPU)
    best = max(epoch.validation["accuracy"] for epoch in result.history)
    assert best > 0.9 if learns else best < 0.8

    classifier.save(tmp_path / "saved")
    texts, labels = reviews(40, 2)
    predictor = minibert.load(str(tmp_path / "saved"), device="cpu", precision="fp32")
    assert predictor.classifier.checkpoint.head.long_texts == long_texts
    correct = sum(x == y for x, y in zip(predictor.predict(texts), labels, strict=True))
    assert correct / 40 == pytest.approx(best)
    assert predictor.truncated == (0 if long_texts.how == "windows" else 40)
    assert (
        predictor.how_truncated
        == {
            "cut": "cut at 8 tokens",
            "head-tail": "reduced to their first and last tokens, 8 in all",
            "windows": "cut to fit windows of 8 tokens",  # the shorter texts of pairs
        }[long_texts.how]
    )


def test_a_very_long_text_is_answered_in_batches_of_bounded_size(checkpoint):
    classifier = TextClassifier.pretrained(
        checkpoint, ["a", "b"], max_length=40, long_texts=LongTexts("windows")
    )
    predictor = Predictor(classifier, batch_size=5, device="cpu", precision="fp32")
    shapes = []
    encoder = predictor.model.module.encoder
    encoder.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    text = "good film " * 50_000
    assert predictor.predict_proba([text, "bad"]).shape == (2, 2)
    assert (
        max(shapes) == (5, 40)
        and sum(rows for rows, _ in shapes) == 1 + -(-(100_000 - 38) // 19) + 1
    )


def test_wrong_values_are_refused(checkpoint):
    for wrong in (
        "windows",
        LongTexts("window"),
        LongTexts("windows", 0),
        LongTexts(window_pooling="cls"),
    ):
        with pytest.raises(InputError, match=r"long_texts is .*give LongTexts"):
            TextClassifier.pretrained(checkpoint, ["a", "b"], max_length=9, long_texts=wrong)


QUICK = (
    *("--pooling", "mean", "--max-length", "8", "--batch-size", "8", "--encoder-lr", "0.01"),
    *("--head-lr", "0.01", "--epochs", "5", "--device", "cpu", "--precision", "fp32"),
)


def test_the_commands_train_score_and_answer_in_windows(checkpoint, run_script):
    texts, labels = reviews(120, 3)
    lines = [f"{text},{label}" for text, label in zip(texts, labels, strict=True)]
    file = run_script.place / "reviews.csv"
    file.write_text("\n".join(["text,label", *lines]) + "\n")
    options = ("--model", checkpoint, "--data", file, *QUICK, "--long-texts", "windows")
    trained = run_script("train.py", *options, "--max-windows", "2", "--out", "run")
    assert trained.returncode == 0, trained.stderr
    assert (
        "train: 84 of 84 texts in 168 windows of 8 tokens (100.0%), which loses 168 of 1,344 tokens"
        in trained.stdout
    )
    assert "test: 18 of 18 texts in 72 windows of 8 tokens (100.0%)\n" in trained.stdout
    metrics = json.loads((run_script.place / "run" / "metrics.json").read_text())
    accuracy = metrics["test"]["accuracy"]
    assert accuracy > 0.85  # 0.5 without the end of the texts

    scored = run_script("eval.py", "--model", "run")
    assert scored.returncode == 0 and f"accuracy {100 * accuracy:.1f}%" in scored.stdout
    assert "0 texts cut to fit windows of 8 tokens" in scored.stdout
    lines = (run_script.place / "run" / "test_predictions.jsonl").read_text().splitlines()
    tested = [strict_json(line) for line in lines]
    answered = run_script("predict.py", "--model", "run", *(row["text"] for row in tested))
    answers = [strict_json(line)["label"] for line in answered.stdout.splitlines()]
    assert answers == [row["prediction"] for row in tested] and not answered.stderr

    refused = run_script("train.py", *options, "--stride", "9", "--out", "other")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--stride is 9; windows of 8 tokens (--max-length) would leave" in refused.stderr


def test_a_trained_head_is_kept_when_long_texts_are_read_otherwise(checkpoint, tmp_path):
    classifier = TextClassifier.pretrained(checkpoint, ["neg", "pos"], max_length=8)
    classifier.save(tmp_path / "cut")
    windows = LongTexts("windows", 5, "max")
    again = TextClassifier.pretrained(
        str(tmp_path / "cut"), ["neg", "pos"], max_length=12, long_texts=windows
    )
    assert torch.equal(again.model.head.out.weight, classifier.model.head.out.weight)
    assert again.model.head.config.long_texts == windows


def test_a_stored_stride_is_lowered_where_windows_are_shorter(checkpoint, tmp_path):
    windows = LongTexts("windows", stride=14)
    TextClassifier.pretrained(
        *(checkpoint, ["neg", "pos"]), max_length=16, long_texts=windows
    ).save(tmp_path / "run")
    predictor = minibert.load(str(tmp_path / "run"), max_length=8, device="cpu")
    assert len(predictor.predict(reviews(2, 1)[0])) == 2
    assert len(predictor.predict(["good " * 9], ["bad " * 9])) == 1


def test_int8_answers_in_windows_as_fp32_does(checkpoint):
    classifier = TextClassifier.pretrained(
        *(checkpoint, ["neg", "pos"]), max_length=8, long_texts=LongTexts("windows")
    )
    texts = reviews(9, 1)[0]
    try:
        quantized = Predictor(classifier, device="cpu", precision="int8")
    except InputError:
        pytest.skip("this machine has no int8")
    plain = Predictor(classifier, device="cpu", precision="fp32").predict_proba(texts)
    np.testing.assert_allclose(quantized.predict_proba(texts), plain, atol=0.05)


@pytest.mark.parametrize("size", [4, 16])
def test_too_little_memory_is_blamed_on_windows_that_fill_a_batch(size):
    texts, options = in_windows(np.array([1, 8, 2])), TrainingOptions(batch_size=size)
    advice = smaller_batches(texts, options, CPU)
    assert ("--max-windows below 8" in advice) == (size == 4)
    assert f"the longest of {texts.windows.lengths.max()} tokens" in advice
