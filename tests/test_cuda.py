"""Proves on a GPU what the other files prove on a CPU; skipped without one.

Run: pytest tests/test_cuda.py
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import start_script, tiny_classifier

from minibert.data.batches import TextDataset, TokenIds
from minibert.device import Compute
from minibert.errors import InputError
from minibert.inference.batched import prepare_for_inference
from minibert.model.classifier import Classifier
from minibert.training.callback import Callback
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions
from minibert.training.state import TrainResult, TrainState, load_state, save_state

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OPTIONS = TrainingOptions(batch_size=4, epochs=3, encoder_lr=1e-3, head_lr=1e-2, weight_decay=0.3)
NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}


def texts(count: int, seed: int) -> TextDataset:
    """Random texts of 3 to 9 tokens; a text's class is its second token's."""
    random = np.random.default_rng(seed)
    ids = [random.integers(5, 35, size=random.integers(3, 10)) for _ in range(count)]
    rows = [TokenIds(x, len(x)) for x in ids]
    labels = np.array([x[1] % 3 for x in ids])
    return TextDataset(rows, labels, pad_token_id=0, token_types=False)


def train(model: Classifier, compute: Compute, **changes: object) -> TrainResult:
    callback = changes.pop("callback", None)
    options = dataclasses.replace(OPTIONS, **changes)
    torch.manual_seed(5)
    return fit(model, texts(14, 0), texts(7, 1), options, compute=compute, callback=callback)


def test_logits_equal_the_cpus(family):
    model, dataset = tiny_classifier(family), texts(14, 0)
    expected = prepare_for_inference(model, Compute(CPU), keep=True).logits(dataset, batch_size=4)
    logits = prepare_for_inference(model, Compute(CUDA)).logits(dataset, batch_size=4)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("freeze", [False, True])
def test_training_without_dropout_equals_the_cpus(family, freeze):
    results = []
    for device in (CPU, CUDA):
        model = tiny_classifier(family, head="native", **NO_DROPOUT)
        results.append(train(model, Compute(device), freeze=freeze))
    for ours, theirs in zip(results[1].history, results[0].history, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_lower_precisions_learn(family, precision, accumulate):
    history = train(
        tiny_classifier(family), Compute(CUDA, precision), epochs=8, accumulate=accumulate
    ).history
    assert history[-1].train_loss < history[0].train_loss


class Resumable(Callback):
    """Saves the state after one step, or starts from a saved one."""

    def __init__(self, folder: Path, *, save_at: int | None) -> None:
        super().__init__()
        self.folder, self.save_at = folder, save_at

    def on_start(self, state: TrainState) -> None:
        if self.save_at is None:
            load_state(next(self.folder.glob("resume-*")), state)

    def on_step(self, state: TrainState, loss: torch.Tensor, lr: float) -> None:
        if state.step == self.save_at:
            save_state(self.folder, state)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_resumed_run_ends_as_one_that_never_stopped(tmp_path, precision):
    compute = Compute(CUDA, precision)
    whole, resumed = tiny_classifier(), tiny_classifier(seed=9)
    first = train(whole, compute, callback=Resumable(tmp_path, save_at=6))
    second = train(resumed, compute, callback=Resumable(tmp_path, save_at=None))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)
    losses = [[record.train_loss for record in result.history] for result in (first, second)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("devices", [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_run_resumes_on_another_device(tmp_path, devices):
    first, second = (Compute(torch.device(device)) for device in devices)
    whole, resumed = (tiny_classifier(head="native", seed=seed, **NO_DROPOUT) for seed in (0, 9))
    train(whole, first, callback=Resumable(tmp_path, save_at=6))
    train(resumed, second, callback=Resumable(tmp_path, save_at=None))
    for name, tensor in whole.cpu().state_dict().items():
        torch.testing.assert_close(resumed.cpu().state_dict()[name], tensor, atol=1e-4, rtol=1e-3)


def test_a_loss_that_is_not_finite_is_found_at_the_epochs_end():
    with pytest.raises(InputError, match=r"step \d+: the (loss|gradient's norm) is (nan|inf)"):
        train(tiny_classifier(), Compute(CUDA), head_lr=1e30, encoder_lr=1e30)


def test_the_commands_run(checkpoint, reviews, tmp_path):
    words = ["--model", checkpoint, "--data", reviews, "--out", "run", "--device", "cuda"]
    process = start_script("train.py", *words, "--epochs", "2", cwd=tmp_path)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "bf16" in out or "fp16" in out
    process = start_script("predict.py", "--model", "run", "good film", cwd=tmp_path)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and '"label"' in out, errors
