"""Proves on a GPU what the other files prove on a CPU; skipped without one.

Run: pytest tests/test_cuda.py
"""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import finish_script, random_texts, tiny_classifier, write_checkpoint
from models import make_batch, original

import minibert
from minibert.data import hidden
from minibert.device import Compute, choose_compute, memory_advice
from minibert.errors import InputError
from minibert.inference.batched import prepare_for_inference
from minibert.model.classifier import Classifier
from minibert.model.config import HeadConfig
from minibert.training.callback import Callback
from minibert.training.frozen import encode
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions
from minibert.training.state import TrainResult, TrainState, load_state, save_state

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OPTIONS = TrainingOptions(batch_size=4, epochs=3, encoder_lr=1e-3, head_lr=1e-2, weight_decay=0.3)
NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
# Heads of width 64, as in BERT: flash and efficient attention do not take the tiny ones' 6.
WIDE = {"width": 128, "feed_forward": 256}
NATIVE = HeadConfig("native", "cls", ("a", "b"), 40)
FROZEN = [{}, {"freeze": True}, {"freeze_layers": 2}, {"freeze_embeddings": True}]


@pytest.fixture(autouse=True)
def exact_products() -> None:
    """Products of float32 without TF32, which is PyTorch's default."""
    assert torch.get_float32_matmul_precision() == "highest"


def train(model: Classifier, compute: Compute, **changes: object) -> TrainResult:
    callback = changes.pop("callback", None)
    options = dataclasses.replace(OPTIONS, **changes)
    texts, validation = random_texts(14), random_texts(7, seed=1)
    # A callback that saves keeps the best weights elsewhere: the model ends with the last ones.
    best = callback is None
    return fit(
        model, texts, validation, options, compute=compute, callback=callback, keep_best=best
    )


# Inference


@pytest.mark.parametrize("sizes", [{}, WIDE], ids=["tiny", "wide"])
@pytest.mark.parametrize("lengths", [(9, 1, 6, 4), (7, 7)], ids=["padded", "not padded"])
def test_logits_equal_those_of_transformers(family, sizes, lengths, tmp_path):
    theirs, checkpoint = original(family, tmp_path, **sizes)
    batch = {name: x.to(CUDA) for name, x in make_batch(family, lengths).items()}
    ours = prepare_for_inference(checkpoint.model, Compute(CUDA)).module
    without_mask = {name: x for name, x in batch.items() if name != "attention_mask"}
    with torch.no_grad():
        expected = theirs.to(CUDA)(**batch).logits
        found = ours(**(batch if len(set(lengths)) > 1 else without_mask))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sizes", [{}, WIDE], ids=["tiny", "wide"])
def test_logits_equal_the_cpus(family, sizes):
    model, dataset = tiny_classifier(family, **sizes), random_texts(14, pairs=family == "bert")
    expected = prepare_for_inference(model, Compute(CPU), keep=True).logits(dataset, batch_size=4)
    logits = prepare_for_inference(model, Compute(CUDA)).logits(dataset, batch_size=4)
    assert logits.device == CPU
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "pooler"])
def test_lower_precisions_are_close_to_fp32(precision, pooling):
    model, dataset = tiny_classifier("bert", pooling=pooling, **WIDE), random_texts(14)
    expected = prepare_for_inference(model, Compute(CPU), keep=True).logits(dataset, batch_size=4)
    ready = prepare_for_inference(model, Compute(CUDA, precision))
    word = ready.module.encoder.embeddings.word.weight
    assert word.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    logits = ready.logits(dataset, batch_size=4)
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() < 0.05 * expected.std()


def test_a_text_alone_and_among_others_has_the_same_logits():
    model, dataset = tiny_classifier("bert", **WIDE), random_texts(14)
    ready = prepare_for_inference(model, Compute(CUDA))
    alone, among = (ready.logits(dataset, batch_size=size) for size in (1, 14))
    torch.testing.assert_close(alone, among, atol=1e-4, rtol=1e-4)


def test_attention_does_not_use_cudnn(monkeypatch):
    used = []

    def attend(*args: torch.Tensor, **options: object) -> torch.Tensor:
        used.append(torch.backends.cuda.cudnn_sdp_enabled())
        return pytorchs(*args, **options)

    pytorchs = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    ready = prepare_for_inference(tiny_classifier("bert", **WIDE), Compute(CUDA, "bf16"))
    ready.logits(random_texts(7), batch_size=7)
    assert used == [False] * 3
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


def test_threads_share_a_predictor(tmp_path):
    predictor = minibert.load(str(write_checkpoint(tmp_path, head=NATIVE)), device="cuda")
    texts = ["good film", "the soup was cold and the staff rude", "never again"] * 5
    expected = predictor.predict_proba(texts)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(predictor.predict_proba, [texts] * 8):
            assert found == pytest.approx(expected, abs=1e-3)


def test_int8_is_refused():
    with pytest.raises(InputError, match="int8 is for a CPU, not for cuda"):
        choose_compute("cuda", "int8")


def test_running_out_of_memory_is_an_error_with_advice():
    with (
        pytest.raises(InputError, match="out of memory, use smaller batches"),
        memory_advice(lambda: "use smaller batches"),
    ):
        torch.empty(2**50, dtype=torch.uint8, device=CUDA)


# Training


@pytest.mark.parametrize("frozen", FROZEN, ids=str)
@pytest.mark.parametrize("sizes", [{}, WIDE], ids=["tiny", "wide"])
def test_training_without_dropout_equals_the_cpus(family, sizes, frozen):
    results = []
    for device in (CPU, CUDA):
        model = tiny_classifier(family, head="native", **sizes, **NO_DROPOUT)
        results.append(train(model, Compute(device), **frozen))
    for ours, theirs in zip(results[1].history, results[0].history, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
        assert ours.validation["loss"] == pytest.approx(theirs.validation["loss"], rel=1e-3)


@pytest.mark.parametrize("frozen", FROZEN, ids=str)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_lower_precisions_learn(precision, accumulate, frozen):
    model, compute = tiny_classifier(**WIDE), Compute(CUDA, precision)
    history = train(model, compute, epochs=8, accumulate=accumulate, **frozen).history
    assert history[-1].train_loss < history[0].train_loss


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_output_of_frozen_layers_stays_on_the_gpu_if_it_fits(precision, monkeypatch):
    model, compute = tiny_classifier().to(CUDA), Compute(CUDA, precision)
    for options in (TrainingOptions(freeze=True), TrainingOptions(freeze_layers=2)):
        _, (kept,), encoding = encode(model, [random_texts(7)], options, compute, folder=None)
        assert kept.values.device.type == "cuda" and not encoding.in_file
        assert kept.batch([6, 0, 3]).inputs[0].device.type == "cuda"
    on_gpu = kept
    monkeypatch.setattr(hidden, "free_gpu_memory", lambda _: 0)
    _, (kept,), _ = encode(model, [random_texts(7)], options, compute, folder=None)
    assert kept.values.device == CPU
    torch.testing.assert_close(on_gpu.values.cpu(), kept.values)


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


@pytest.mark.parametrize("frozen", FROZEN, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_resumed_run_ends_as_one_that_never_stopped(tmp_path, precision, frozen):
    compute = Compute(CUDA, precision)
    whole, resumed = (tiny_classifier(seed=seed, **WIDE) for seed in (0, 9))
    if frozen:  # what does not train is not in the state
        resumed.load_state_dict(whole.state_dict())
    first = train(whole, compute, callback=Resumable(tmp_path, save_at=6), **frozen)
    second = train(resumed, compute, callback=Resumable(tmp_path, save_at=None), **frozen)
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


class NoWaiting(Callback):
    """Makes PyTorch raise if a step after the first one waits for the GPU."""

    def on_step(self, state: TrainState, loss: torch.Tensor, lr: float) -> None:
        last = state.step % state.steps_per_epoch == 0
        torch.cuda.set_sync_debug_mode("default" if last else "error")

    def close(self) -> None:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_step_waits_for_the_gpu(precision):
    train(tiny_classifier(**WIDE), Compute(CUDA, precision), callback=NoWaiting())


def test_a_model_that_trained_on_the_gpu_predicts_on_the_cpu():
    model, dataset = tiny_classifier(), random_texts(5)
    train(model, Compute(CUDA))
    expected = prepare_for_inference(model, Compute(CUDA), keep=True).logits(dataset, batch_size=4)
    found = prepare_for_inference(model, Compute(CPU)).logits(dataset, batch_size=4)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_loss_that_is_not_finite_is_found_at_the_epochs_end():
    with pytest.raises(InputError, match=r"step \d+: the (loss|gradient's norm) is (nan|inf)"):
        train(tiny_classifier(), Compute(CUDA), head_lr=1e30, encoder_lr=1e30)


# The commands


def test_the_commands_run(checkpoint, reviews, tmp_path):
    def run(script: str, *words: str | Path) -> str:
        finished = finish_script(script, *words, cwd=tmp_path, fresh=True)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    data = ["--model", checkpoint, "--data", reviews, "--epochs", "2", "--max-length", "40"]
    out = run("train.py", *data, "--out", "run", "--device", "cuda")
    assert "bf16" in out or "fp16" in out
    out = run("train.py", *data, "--out", "upper", "--device", "cuda", "--freeze-layers", "2")
    assert "2 frozen layers" in out
    assert "accuracy" in run("eval.py", "--model", "run", "--device", "cuda")
    assert '"label"' in run("predict.py", "--model", "run", "good film")
