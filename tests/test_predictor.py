"""Proves that answers come in input order from any number of threads, and errors too.

Run: pytest tests/test_predictor.py
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_checkpoint
from torch import Tensor

from minibert.data.batches import TextDataset
from minibert.data.tokenizer import TokenIds
from minibert.device import Compute
from minibert.errors import InputError
from minibert.inference.predictor import Predictor, predict_batches
from minibert.model.config import HEADS, HeadConfig

CPU = torch.device("cpu")
SENTENCES = ["good film", "the slow cold soup was very bad", "i love it", "never again", "rude"]


@pytest.fixture(params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """The number of threads that torch is set to, put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    try:
        yield request.param
    finally:
        torch.set_num_threads(before)


def texts(count: int) -> TextDataset:
    """TextDataset of 1 to 9 tokens; the first token is the text's own number."""
    rows = [np.array([number, *[0] * (number * 7 % 9)]) for number in range(count)]
    return TextDataset(
        [TokenIds(row, len(row)) for row in rows], None, pad_token_id=0, token_types=False
    )


def own_number(ids: Tensor, *_: Tensor | None) -> Tensor:
    time.sleep(0.002)  # so that another thread gets a turn
    return torch.stack([ids[:, 0], -ids[:, 0]], dim=1)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_rows_are_in_input_order_in_fp32(threads, count):
    found = predict_batches(own_number, texts(count), batch_size=3, runtime=Compute(CPU))
    assert found.dtype == torch.float32
    assert found.tolist() == [[number, -number] for number in range(count)]
    assert torch.get_num_threads() == threads


def test_each_core_takes_batches_with_one_thread_and_no_gradients(threads):
    seen: set[tuple[int, int, bool]] = set()
    together = threading.Barrier(threads, timeout=10)  # all must come, or none goes on

    def function(ids: Tensor, *_: Tensor | None) -> Tensor:
        seen.add((threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()))
        together.wait()
        return ids[:, :1]

    predict_batches(function, texts(6), batch_size=2, runtime=Compute(CPU))
    assert len({ident for ident, _, _ in seen}) == threads
    assert {(count, gradients) for _, count, gradients in seen} == {(1, False)}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_comes_through_and_the_threads_are_as_before(threads, error):
    def function(ids: Tensor, *_: Tensor | None) -> Tensor:
        if (ids[:, 0] == 11).any():
            raise error("text 11")
        return own_number(ids)

    with pytest.raises(error, match="text 11"):
        predict_batches(function, texts(40), batch_size=3, runtime=Compute(CPU))
    assert torch.get_num_threads() == threads


def test_out_of_memory_says_what_to_lower(threads):
    def function(ids: Tensor, *_: Tensor | None) -> Tensor:
        return torch.empty(2**50)

    with pytest.raises(InputError, match=r"out of memory, with 3 texts of up to \d+ tokens"):
        predict_batches(function, texts(40), batch_size=3, runtime=Compute(CPU))
    assert torch.get_num_threads() == threads


def test_after_an_error_no_more_batches_are_begun(threads):
    begun: list[int] = []

    def function(ids: Tensor, *_: Tensor | None) -> Tensor:
        begun.append(len(ids))
        if len(begun) == 1:
            raise ValueError
        return own_number(ids)

    with pytest.raises(ValueError):
        predict_batches(function, texts(100), batch_size=1, runtime=Compute(CPU))
    assert len(begun) < 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    head = HeadConfig("linear", "cls", ("a", "b", "c"), 40)
    return write_checkpoint(tmp_path_factory.mktemp("predictor") / "classifier", "bert", head)


@pytest.mark.parametrize(
    ("precision", "error"), [("fp32", 1e-5), ("bf16", 0.02), ("fp16", 0.02), ("int8", 0.1)]
)
def test_every_precision_answers_alike_with_any_number_of_threads(
    folder, threads, precision, error
):
    plain = Predictor(folder, device="cpu", precision="fp32", batch_size=99).logits(SENTENCES)
    predictor = Predictor(folder, device="cpu", precision=precision, batch_size=2)
    found = predictor.logits(SENTENCES)
    assert (found - plain).abs().max() < error * plain.std()
    if precision != "fp32":
        assert not torch.equal(found, plain)
    assert torch.get_num_threads() == threads
    assert predictor.probabilities(SENTENCES).sum(dim=1).tolist() == pytest.approx([1] * 5)
    assert predictor.logits([]).shape == (0, 3)


@pytest.mark.parametrize("kind", HEADS)
def test_opening_a_model_imports_neither_compiler_nor_scikit_learn(
    tmp_path: Path, kind: str
) -> None:
    """Each would take a second of every start."""
    head = HeadConfig(kind, "cls", ("bad", "good"), 20)
    folder = write_checkpoint(tmp_path / "model", head=head)
    code = (
        "import sys; from minibert.inference.predictor import Predictor\n"
        "Predictor.open(sys.argv[1], device='cpu').probabilities(['good film'])\n"
        "print([name for name in ('torch._dynamo', 'sympy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
