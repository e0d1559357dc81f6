"""Batched inference: results in input order from any number of threads, and errors too.

Run: pytest tests/test_batched.py
"""

import math
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers import tiny_classifier
from torch import Tensor

from minibert.data.batches import TextDataset, TokenIds
from minibert.device import Compute, memory_advice
from minibert.errors import InputError
from minibert.inference import batched
from minibert.inference.batched import InferenceModel, has_bf16_weights, prepare_for_inference
from minibert.inference.cpu import int8_levels, prepacking_works
from minibert.training.loop import fit

pytestmark = pytest.mark.machine  # results depend on the processor's instructions

CPU = torch.device("cpu")
LEVELS = int8_levels(torch.float32)
INT8 = 1 / (LEVELS.weights if LEVELS else 1)  # one step of a weight, relative to the largest


@pytest.fixture(params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """The number of threads that torch is set to, restored afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    try:
        yield request.param
    finally:
        torch.set_num_threads(before)


def numbered_texts(count: int) -> TextDataset:
    """Texts of 1 to 9 tokens; the first token is the text's number."""
    rows = [np.array([number, *[0] * (number * 7 % 9)]) for number in range(count)]
    rows = [TokenIds(row, len(row)) for row in rows]
    return TextDataset(rows, None, pad_token_id=0, token_types=False)


def long_texts(*lengths: int) -> TextDataset:
    rows = [TokenIds(np.zeros(length, dtype=np.int32), length) for length in lengths]
    return TextDataset(rows, None, pad_token_id=0, token_types=False)


def number_of(ids: Tensor, *_: Tensor | None) -> Tensor:
    time.sleep(0.002)  # so that another thread gets a turn
    return torch.stack([ids[:, 0], -ids[:, 0]], dim=1)


@pytest.mark.parametrize(
    ("texts", "tokens", "sizes"),
    [
        (32, 16, [32]),  # few tokens stay together
        (32, 64, [16, 16]),
        (32, 128, [8] * 4),
        (64, 128, [8] * 8),
        (128, 200, [16] * 8),
        (32, 33, [16, 16]),
        (99, 512, [8] * 8 + [7] * 5),
        (3, 5000, [1] * 3),
    ],
)
def test_few_long_texts_make_several_batches_for_the_cores(threads, texts, tokens, sizes):
    dataset = long_texts(*[tokens] * texts)
    seen = []

    def count(ids: Tensor, *_: Tensor | None) -> Tensor:
        seen.append(len(ids))
        return ids[:, :1]

    InferenceModel(count, CPU).logits(dataset, batch_size=32)
    assert sorted(seen, reverse=True) == sizes  # with any number of threads
    seen.clear()
    elsewhere = InferenceModel(count, torch.device("meta"))
    elsewhere._run(count, dataset, lambda rows, values: None, batch_size=32)
    assert max(seen) - min(seen) <= 1 and len(seen) == math.ceil(texts / 32)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_rows_are_in_input_order_and_float32(threads, count):
    found = InferenceModel(number_of, CPU).logits(numbered_texts(count), batch_size=3)
    assert found.dtype == torch.float32
    assert found.tolist() == [[number, -number] for number in range(count)]
    assert torch.get_num_threads() == threads


def test_each_core_computes_its_batches_with_one_thread_and_no_gradients(threads):
    seen: set[tuple[int, int, bool]] = set()
    together = threading.Barrier(threads, timeout=10)  # all must come, or none continues

    def function(ids: Tensor, *_: Tensor | None) -> Tensor:
        seen.add((threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()))
        together.wait()
        return ids[:, :1]

    InferenceModel(function, CPU).logits(numbered_texts(6), batch_size=2)
    assert len({ident for ident, _, _ in seen}) == threads
    assert {(count, gradients) for _, count, gradients in seen} == {(1, False)}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_is_raised_and_the_threads_are_restored(threads, error):
    def function(ids: Tensor, *_: Tensor | None) -> Tensor:
        if (ids[:, 0] == 11).any():
            raise error("text 11")
        return number_of(ids)

    with pytest.raises(error, match="text 11"):
        InferenceModel(function, CPU).logits(numbered_texts(40), batch_size=3)
    assert torch.get_num_threads() == threads


def test_out_of_memory_says_what_to_lower(threads):
    def function(ids: Tensor, *_: Tensor | None) -> Tensor:
        return torch.empty(2**50)

    def advice(texts: int, tokens: int) -> str:
        largest = f"with {texts} texts of up to {tokens} tokens per batch"
        return f"out of memory, {largest}; lower --batch-size or --max-length$"

    with pytest.raises(InputError, match=advice(3, 9)):
        InferenceModel(function, CPU).logits(numbered_texts(40), batch_size=3)
    dataset = long_texts(600, *[200] * 9)  # the longest is not in the largest batch
    with pytest.raises(InputError, match=advice(5, 200)):
        InferenceModel(function, CPU).logits(dataset, batch_size=32)
    assert torch.get_num_threads() == threads


def test_a_model_too_large_for_the_device_is_an_error_with_advice(monkeypatch):
    def fail(*_: object):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = tiny_classifier()
    monkeypatch.setattr(model, "to", fail)
    with pytest.raises(InputError, match="out of memory, the model does not fit on cpu; take a s"):
        prepare_for_inference(model, Compute(CPU))


def test_a_copy_that_does_not_fit_keeps_the_advice_of_training(monkeypatch):
    """Training validates a copy: smaller batches leave room for it."""

    def fail(*_: object):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(batched.copy, "deepcopy", fail)
    with (
        pytest.raises(InputError, match=r"^out of memory, use smaller batches$"),
        memory_advice(lambda: "use smaller batches"),
    ):
        prepare_for_inference(tiny_classifier(), Compute(CPU), keep=True)


def test_no_thread_starts_a_batch_after_an_error(threads):
    started: list[int] = []

    def function(ids: Tensor, *_: Tensor | None) -> Tensor:
        started.append(len(ids))
        if len(started) == 1:
            raise ValueError
        return number_of(ids)

    with pytest.raises(ValueError):
        InferenceModel(function, CPU).logits(numbered_texts(100), batch_size=1)
    assert len(started) < 50


@pytest.mark.parametrize(
    ("precision", "error"), [("fp32", 1e-5), ("bf16", 0.05), ("fp16", 0.02), ("int8", 20 * INT8)]
)
def test_every_precision_gives_nearly_the_same_logits(family, threads, precision, error):
    """Prepacked where this processor has the kernels, under autocast where it has not."""
    if precision == "int8" and INT8 == 1:
        pytest.skip("needs x86 and oneDNN")
    model = tiny_classifier(family).eval()
    dataset = numbered_texts(40)
    with torch.no_grad():
        expected = torch.cat([model(*dataset.batch([row]).inputs) for row in range(40)])
    ready = prepare_for_inference(model, Compute(CPU, precision), keep=True)
    found = ready.logits(dataset, batch_size=7)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < error * expected.std()
    assert torch.get_num_threads() == threads


def test_a_kept_model_is_not_changed_and_can_still_train():
    model = tiny_classifier("bert").train()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    prepare_for_inference(model, Compute(CPU), keep=True).logits(numbered_texts(5), batch_size=2)
    assert model.training
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    model(*numbered_texts(3).batch([0, 1, 2]).inputs).sum().backward()


@pytest.mark.skipif(not prepacking_works("fp32"), reason="needs x86 and oneDNN")
def test_a_prepared_model_is_not_prepared_again_or_trained():
    model, texts = tiny_classifier("bert"), numbered_texts(5)
    prepare_for_inference(model, Compute(CPU))
    for keep in (True, False):
        with pytest.raises(InputError, match="this model was prepared for inference"):
            prepare_for_inference(model, Compute(CPU), keep=keep)
    with pytest.raises(InputError, match="this model was prepared for inference"):
        fit(model, texts, texts, compute=Compute(CPU))


def test_features_are_what_the_head_reads():
    model = tiny_classifier("bert", pooling="mean").eval()
    dataset = numbered_texts(11)
    ready = prepare_for_inference(model, Compute(CPU), keep=True)
    features = ready.features(dataset, batch_size=4)
    assert features.values.shape == (11, 12)
    assert torch.equal(features.labels, dataset.labels)
    with torch.no_grad():
        logits = model.head(features.values)
    torch.testing.assert_close(logits, ready.logits(dataset, batch_size=4))


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("cuda", "bf16", True),
        ("cuda:1", "bf16", True),
        ("cuda", "fp16", False),
        ("cuda", "fp32", False),
        ("cpu", "bf16", False),
        ("mps", "bf16", False),
    ],
)
def test_weights_are_bf16_only_for_bf16_on_a_gpu(device, precision, expected):
    assert has_bf16_weights(Compute(torch.device(device), precision)) == expected


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_with_bf16_weights_only_pooler_and_head_are_float32(monkeypatch, pooling):
    """What a GPU computes, tried on a CPU."""
    model, dataset = tiny_classifier("bert", pooling=pooling), numbered_texts(11)
    expected = prepare_for_inference(model, Compute(CPU), keep=True)
    expected = expected.logits(dataset, batch_size=4)
    monkeypatch.setattr(batched, "prepack", lambda *_: False)
    monkeypatch.setattr(batched, "has_bf16_weights", lambda _: True)
    ready = prepare_for_inference(model, Compute(CPU, "bf16"), keep=True)
    for name, parameter in ready.module.named_parameters():
        is_low = name.startswith(("encoder.embeddings.", "encoder.blocks."))
        assert parameter.dtype == (torch.bfloat16 if is_low else torch.float32), name
    found = ready.logits(dataset, batch_size=4)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.05 * expected.std()
    assert all(x.dtype == torch.float32 for x in model.parameters())
