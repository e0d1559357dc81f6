"""Proves the training loop: accumulated gradients, frozen layers, the best epoch, resuming.

Run: pytest tests/test_training.py
"""

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from minibert.training.epoch import accumulate_gradients, groups_of, optimizer_steps, train_steps
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from minibert import training
from minibert.commands.interrupts import DeferredInterrupt, Interrupted
from minibert.commands.options import RunSettings
from minibert.data.batches import Batch, Dataset, FeatureDataset, TextDataset, training_order
from minibert.data.tokenizer import TokenIds
from minibert.device import Compute
from minibert.errors import InputError
from minibert.evaluation.metrics import Scores
from minibert.inference.predictor import encode_features
from minibert.model.config import HeadConfig
from minibert.model.encoder import Classifier, Encoder, Head, initialize
from minibert.runs import RunFolder
from minibert.training.loop import balanced_weights, fit, freeze_layers, make_optimizer
from minibert.training.optimizer import (
    adamw,
    learning_rate_factor,
    parameter_groups,
    set_learning_rates,
)
from minibert.training.state import Learner, Progress, state_files

CPU, FP32 = torch.device("cpu"), torch.float32
CLASSES = ("a", "b", "c")
QUICK = RunSettings(batch_size=4, epochs=3, encoder_lr=1e-2, head_lr=3e-2, schedule="cosine")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads only wait for each other at these sizes, for minutes on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def classifier(family: str = "bert", seed: int = 0, head: str = "mlp") -> Classifier:
    """A random tiny model with BERT's dropout; under `cls` a BERT's pooler never has a gradient."""
    torch.manual_seed(seed)
    config = tiny_config(family)
    encoder = Encoder(config, pooler=family == "bert")
    initialize(encoder, 0.2)
    given = HeadConfig(head, "cls", CLASSES, config.positions)
    return Classifier(encoder, Head(config, given), pooling="cls")


def texts(count: int, seed: int = 0) -> TextDataset:
    """Random texts of 3 to 9 tokens; a text's class is its second token's."""
    random = np.random.default_rng(seed)
    rows = [random.integers(5, 35, size=random.integers(3, 10)) for _ in range(count)]
    labels = np.array([ids[1] % 3 for ids in rows])
    return TextDataset(
        [TokenIds(ids, len(ids)) for ids in rows], labels, pad_token_id=0, token_types=False
    )


def run_fit(
    model: Classifier, folder: Path | RunFolder, given: RunSettings = QUICK, **parts: Dataset
) -> Progress:
    """fit() on a CPU in fp32 with 14 texts to train on and 7 to validate."""
    run = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    run.path.mkdir(exist_ok=True)
    return fit(
        model,
        parts.get("train", texts(14)),
        parts.get("validation", texts(7, seed=1)),
        given,
        classes=CLASSES,
        run=run,
        save_best=lambda: None,
        runtime=Compute(CPU),
    )


def train_epoch(
    module: torch.nn.Module,
    part: Dataset,
    given: RunSettings,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    runtime: Compute = Compute(CPU),  # noqa: B008 (frozen)
) -> float:
    """Train all steps of one epoch on three classes; return the mean loss."""
    progress = Progress(epoch, step=epoch * optimizer_steps(len(part), given))
    learner = Learner(module, optimizer, runtime.scaler(), runtime)
    train_steps(learner, part, torch.ones(3), given, progress, DeferredInterrupt(patient=True))
    return progress.loss_sum / progress.weight_sum


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model: torch.nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if "second" not in name} for row in history]


# --- one step


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.3, 2.0, 0.9)])
@pytest.mark.parametrize("sizes", [(5, 5), (4, 4, 1), (2,), (1, 7, 3)])
def test_the_gradients_of_several_batches_are_those_of_one_big_batch(sizes, weights, smoothing):
    part, model, weights = texts(sum(sizes)), classifier().eval(), torch.tensor(weights)
    big = part.batch(range(sum(sizes)))
    loss = F.cross_entropy(
        model(*big.inputs), big.labels, weight=weights, label_smoothing=smoothing
    )
    loss.backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    ends = np.cumsum(sizes)
    batches = [part.batch(range(end - n, end)) for n, end in zip(sizes, ends, strict=True)]
    optimizer = torch.optim.AdamW(model.parameters())
    learner = Learner(model, optimizer, Compute(CPU).scaler(), Compute(CPU))
    found, weight = accumulate_gradients(learner, batches, weights, smoothing)
    assert weight == pytest.approx(weights[part.labels].sum())
    assert found.item() == pytest.approx(loss.item(), rel=1e-5)
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, expected.pop(name), rtol=1e-4, atol=1e-6)
    assert not expected


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5))
def test_the_steps_of_an_epoch_are_counted_as_they_are_made(rows, batch_size, accumulate):
    order = training_order(np.ones(rows, dtype=int), batch_size, seed=0, epoch=0)
    groups = list(groups_of(order, accumulate))
    chosen = RunSettings(batch_size=batch_size, accumulate=accumulate)
    assert len(groups) == optimizer_steps(rows, chosen)
    assert [batch.tolist() for group in groups for batch in group] == [x.tolist() for x in order]


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_an_epoch_is_the_textbook_loop_over_big_batches_the_last_one_partial(clip):
    """13 rows in batches of 2, three a step: steps of 6, 6 and 1 rows, or with 1 in the middle."""
    part = FeatureDataset(torch.randn(13, 12), torch.arange(13) % 3)
    given = dataclasses.replace(QUICK, batch_size=2, accumulate=3, clip=clip, warmup=0.3)

    def start() -> tuple[Head, torch.optim.Optimizer]:
        head = classifier(head="linear").head
        rates = {"encoder_lr": 0.0, "head_lr": given.head_lr, "weight_decay": 0.1}
        return head, adamw(parameter_groups(None, head, **rates))

    head, optimizer = start()
    loss = train_epoch(head, part, given, 1, optimizer)
    (lr,) = {group["lr"] for group in optimizer.param_groups}

    plain, optimizer = start()
    order = training_order(part.lengths, 2, seed=0, epoch=1)
    losses = []
    for step in range(3):
        rows = np.concatenate(order[3 * step : 3 * step + 3])
        factor = learning_rate_factor(3 + step, 9, kind="cosine", warmup=0.3)
        set_learning_rates(optimizer, factor)
        big = F.cross_entropy(plain(part.values[rows]), part.labels[rows])
        big.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(plain.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(big.item() * len(rows))
    assert loss == pytest.approx(sum(losses) / 13, rel=1e-5)
    assert lr == pytest.approx(factor * given.head_lr)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(head.state_dict()[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_used_rows_train_as_a_plain_loop_over_the_whole_table_does(family, clip, pairs):
    """Two epochs of three steps each, without dropout: word rows come, stay away and come again."""
    part = texts(11)
    if pairs:  # a second segment from the third token on, which DistilBERT does not tell
        rows = [TokenIds(row.ids, 2) for row in part.rows]
        part = TextDataset(rows, part.labels.numpy(), pad_token_id=0, types=family == "bert")
    given = dataclasses.replace(QUICK, batch_size=2, accumulate=2, epochs=2, clip=clip)
    rates = {"encoder_lr": 1e-2, "head_lr": 3e-2, "weight_decay": given.weight_decay}
    ours, plain = (classifier(family, head="linear") for _ in range(2))
    for model in (ours, plain):
        for layer in model.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
        for block in model.encoder.blocks:
            block.attention.attention_dropout = 0.0
    before = weights_of(ours)

    optimizer, words = make_optimizer(ours, part, given)
    plain_optimizer = adamw(parameter_groups(plain.encoder, plain.head, **rates))
    for epoch in range(2):
        with words.in_place():
            train_epoch(ours, part, given, epoch, optimizer)
        words.settle(optimizer)
        order = training_order(part.lengths, 2, seed=0, epoch=epoch)
        for step in range(3):
            factor = learning_rate_factor(3 * epoch + step, 6, kind="cosine", warmup=given.warmup)
            set_learning_rates(plain_optimizer, factor)
            batches = [part.batch(rows) for rows in order[2 * step : 2 * step + 2]]
            for batch in batches:
                loss = F.cross_entropy(plain(*batch.inputs), batch.labels, reduction="sum")
                (loss / sum(len(batch.labels) for batch in batches)).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(plain.parameters(), clip)
            plain_optimizer.step()
            plain_optimizer.zero_grad()
    assert ours.encoder.embeddings.word.weight.shape == (144, 12)
    assert "encoder.embeddings.word.weight" in changed(ours, before)
    for name, value in weights_of(plain).items():
        found = weights_of(ours)[name]
        if name.endswith("qkv.bias"):
            # Softmax does not see the keys' bias; its gradient is noise, which Adam makes steps of.
            found[12:24] = value[12:24]
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_fp16_with_its_scaled_loss_takes_nearly_the_same_step(clip):
    part, found = FeatureDataset(torch.randn(8, 12), torch.arange(8) % 3), []
    given = dataclasses.replace(QUICK, batch_size=8, clip=clip)
    for dtype in (FP32, torch.float16):
        head = classifier(head="linear").head
        groups = parameter_groups(None, head, encoder_lr=0, head_lr=0.01, weight_decay=0)
        before = head.out.weight.detach().clone()
        train_epoch(head, part, given, 0, adamw(groups), Compute(CPU, dtype))
        found.append(head.out.weight.detach() - before)
    assert found[0].abs().max() > 0.005
    torch.testing.assert_close(found[0], found[1], rtol=0.05, atol=1e-4)


# --- class weights


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=50).map(lambda x: [0, 1, 2, 3, *x]))
def test_balanced_weights_are_scikit_learn_s(labels):
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    found = balanced_weights(torch.tensor(labels), 4, "balanced")
    assert found.tolist() == pytest.approx(expected.tolist())


def test_no_class_weights_are_ones_and_an_absent_class_has_a_finite_one():
    assert balanced_weights(torch.tensor([0, 0, 1]), 3, "none").tolist() == [1, 1, 1]
    assert balanced_weights(torch.tensor([0, 0, 1]), 3, "balanced").isfinite().all()


def test_balanced_weights_and_smoothing_reach_the_training(tmp_path):
    part = texts(14)
    part.labels = torch.tensor([0] * 11 + [1, 2, 2])
    losses = {
        run_fit(
            classifier(), tmp_path / name, dataclasses.replace(QUICK, **change), train=part
        ).history[0]["train_loss"]
        for name, change in {
            "plain": {},
            "balanced": {"class_weights": "balanced"},
            "smooth": {"label_smoothing": 0.3},
        }.items()
    }
    assert len(losses) == 3


# --- frozen


def test_features_made_once_are_the_model_s_own_without_dropout(family):
    model, part = classifier(family).train(), texts(7)
    found = encode_features(model, part, batch_size=3, runtime=Compute(CPU))
    model.eval()
    for i in range(7):
        own = model.features(*part.batch([i]).inputs)
        torch.testing.assert_close(found.values[i : i + 1], own, rtol=1e-5, atol=1e-5)
    assert found.labels.tolist() == part.labels.tolist() and not found.values.requires_grad


def test_a_frozen_encoder_stays_as_it_is_to_the_bit_while_the_head_learns(family, tmp_path):
    model, given = classifier(family), dataclasses.replace(QUICK, freeze=True)
    parts = {
        name: encode_features(model, part, batch_size=4, runtime=Compute(CPU))
        for name, part in {"train": texts(14), "validation": texts(7, seed=1)}.items()
    }
    before = weights_of(model)
    progress = run_fit(model, tmp_path, given, **parts)
    names = set(before)
    assert changed(model, before) == {name for name in names if name.startswith("head.")}
    assert progress.history[-1]["train_loss"] < progress.history[0]["train_loss"]


@pytest.mark.parametrize(("layers", "embeddings"), [(0, False), (2, False), (1, True), (3, True)])
def test_frozen_layers_stay_as_they_are_to_the_bit_and_all_others_learn(
    family, tmp_path, layers, embeddings
):
    model = classifier(family)
    freeze_layers(model, layers=layers, embeddings=embeddings)
    before = weights_of(model)
    run_fit(model, tmp_path, dataclasses.replace(QUICK, epochs=1))
    frozen = [f"encoder.blocks.{i}." for i in range(layers)]
    frozen += ["encoder.embeddings."] * embeddings
    frozen += ["encoder.pooler."]  # not used under `cls`
    names = set(before)
    assert changed(model, before) == {name for name in names if not name.startswith(tuple(frozen))}


def test_more_layers_than_there_are_cannot_be_frozen():
    with pytest.raises(InputError, match="--freeze-layers is 4; this model has 3 layers"):
        freeze_layers(classifier(), layers=4, embeddings=False)


# --- the best epoch


def scripted(monkeypatch, figures: list[tuple[float, float, float]]) -> None:
    """Let each epoch's validation give the next (accuracy, macro-F1, loss)."""
    left = iter(figures)

    def score(*_: Any) -> Scores:
        accuracy, macro_f1, loss = next(left)
        return Scores(7, accuracy, (0.0, 1.0), macro_f1, loss, {})

    monkeypatch.setattr(training, "score", score)


FIGURES = [(0.5, 0.5, 0.9), (0.7, 0.6, 0.8), (0.7, 0.8, 0.7), (0.6, 0.7, 0.6), (0.6, 0.7, 0.6)]


@pytest.mark.parametrize(
    ("select", "saved"), [("accuracy", [1, 2]), ("macro-f1", [1, 2, 3]), ("loss", [1, 2, 3, 4])]
)
def test_an_epoch_is_saved_when_its_figure_is_better_than_all_before(
    monkeypatch, tmp_path, select, saved
):
    scripted(monkeypatch, FIGURES)
    steps: list[int] = []
    run = RunFolder(tmp_path)
    progress = fit(
        classifier(),
        texts(4),
        texts(7, seed=1),
        dataclasses.replace(QUICK, epochs=5, select=select),
        classes=CLASSES,
        run=run,
        save_best=lambda: steps.append(len(steps) + 1),
        runtime=Compute(CPU),
    )
    assert len(steps) == len(saved)
    assert progress.best_epoch == saved[-1]
    assert progress.epoch == len(progress.history) == 5


@pytest.mark.parametrize(
    ("select", "patience", "epochs"),
    [("accuracy", 1, 3), ("accuracy", 2, 4), ("accuracy", None, 5), ("loss", 1, 5)],
)
def test_patience_ends_a_run_after_so_many_epochs_without_a_better_figure(
    monkeypatch, tmp_path, select, patience, epochs
):
    scripted(monkeypatch, FIGURES)
    given = dataclasses.replace(QUICK, epochs=5, select=select, patience=patience)
    assert run_fit(classifier(), tmp_path, given, train=texts(4)).epoch == epochs


def test_the_history_tells_an_epoch_a_line(tmp_path, capsys):
    progress = run_fit(classifier(), tmp_path)
    assert [row["epoch"] for row in progress.history] == [1, 2, 3]
    assert progress.history[0]["learning_rate"] > progress.history[2]["learning_rate"] > 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in out] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert out[progress.best_epoch - 1].endswith(" *")


def test_a_loss_that_is_no_number_ends_the_run_with_what_to_do(tmp_path):
    model = classifier()
    torch.nn.init.constant_(model.head.out.bias, torch.inf)
    with pytest.raises(InputError, match=r"step 1: the loss is (nan|inf), with rows .*\(--enc"):
        run_fit(model, tmp_path)
    assert not (tmp_path / "history.csv").exists()


# --- seeds and resuming


def test_one_seed_gives_one_model_and_another_seed_another(tmp_path):
    found = []
    for number, seed in enumerate([3, 3, 4]):
        model = classifier()
        torch.manual_seed(seed)
        given = dataclasses.replace(QUICK, seed=seed)
        progress = run_fit(model, tmp_path / str(number), given)
        found.append((model, without_times(progress.history)))
    (first, history), (same, same_history), (other, other_history) = found
    assert changed(first, weights_of(same)) == set() and history == same_history
    assert "head.out.weight" in changed(first, weights_of(other)) and history != other_history


class StopsAfter(RunFolder):
    """A run whose machine goes off right after an epoch's state was written."""

    stop = 1

    def save_state(self, progress: Progress, learner: Learner, *, keep: int = 1) -> None:
        super().save_state(progress, learner, keep=keep)
        if progress.epoch == self.stop:
            raise KeyboardInterrupt


class StopsInBatch(TextDataset):
    """TextDataset whose machine goes off at the n-th batch."""

    left = 0

    def batch(self, rows: Any) -> Batch:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().batch(rows)


def stopping_texts(after: int) -> StopsInBatch:
    part = texts(14)
    stopping = StopsInBatch(part.rows, part.labels.numpy(), pad_token_id=0, token_types=False)
    stopping.left = after
    return stopping


@pytest.mark.parametrize("where", ["after epoch 1", "after epoch 2", "in epoch 1", "in epoch 3"])
def test_a_resumed_run_ends_in_the_very_weights_of_one_that_was_never_stopped(tmp_path, where):
    given = dataclasses.replace(QUICK, epochs=3, accumulate=2, label_smoothing=0.1)
    whole = classifier()
    torch.manual_seed(5)
    expected = run_fit(whole, tmp_path / "whole", given)

    stopped = classifier()
    torch.manual_seed(5)
    run = RunFolder(tmp_path / "stopped")
    parts = {}
    if where.startswith("after"):
        run = StopsAfter(run.path)
        run.stop = int(where[-1])
    else:  # an epoch is 4 batches
        parts["train"] = stopping_texts({"in epoch 1": 2, "in epoch 3": 10}[where])
    with pytest.raises(KeyboardInterrupt):
        run_fit(stopped, run, given, **parts)

    # As a new process does: the same first weights, unless there is a state to bring its own.
    fresh = classifier(seed=0 if where == "in epoch 1" else 9)
    torch.manual_seed(5)
    found = run_fit(fresh, RunFolder(run.path), given)
    assert changed(fresh, weights_of(whole)) == set()
    assert without_times(found.history) == without_times(expected.history)
    assert (found.epoch, found.best_epoch) == (expected.epoch, expected.best_epoch)


class SignalInBatch(StopsInBatch):
    """TextDataset whose n-th batch meets a SIGTERM on its way."""

    def batch(self, rows: Any) -> Batch:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return TextDataset.batch(self, rows)


def assert_goes_on(family: str, given: RunSettings, stopped: Path, whole: Path) -> None:
    """A new process's run in `stopped` ends as one in `whole` that is never stopped."""
    models = [classifier(family), classifier(family, seed=9)]  # the state brings its own weights
    histories = []
    for model, folder in zip(models, (whole, stopped), strict=True):
        torch.manual_seed(5)
        histories.append(without_times(run_fit(model, folder, given).history))
    assert changed(models[0], weights_of(models[1])) == set()
    assert histories[0] == histories[1]


@pytest.mark.parametrize("step", [1, 3, 4, 6, 12])
def test_a_signal_in_any_step_ends_it_and_the_run_goes_on_to_the_very_weights(
    family, tmp_path, step
):
    """Of 3 epochs of 4 steps: at the first, within epochs, at the end of one, at the very last."""
    given = dataclasses.replace(QUICK, weight_decay=0.3)
    part = texts(14)
    part = SignalInBatch(part.rows, part.labels.numpy(), pad_token_id=0, token_types=False)
    part.left = step
    model = classifier(family)
    torch.manual_seed(5)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        run_fit(model, tmp_path / "stopped", given, train=part)
    (state,) = state_files(tmp_path / "stopped")
    assert state.name == f"resume-{step:08d}.safetensors"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert_goes_on(family, given, tmp_path / "stopped", tmp_path / "whole")


def test_a_signal_cuts_a_validation_short_and_the_epoch_s_training_is_kept(monkeypatch, tmp_path):
    calls = []

    def validation_logits(*given: Any) -> Tensor:
        calls.append(len(calls))
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return answered(*given)

    answered = training.validation_logits
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(training, "validation_logits", validation_logits)
        model = classifier()
        torch.manual_seed(5)
        with pytest.raises(Interrupted, match="stopped by SIGINT"):
            run_fit(model, tmp_path / "stopped")
    signal.signal(signal.SIGINT, before)
    (state,) = state_files(tmp_path / "stopped")
    assert state.name == "resume-00000008.safetensors"
    assert (tmp_path / "stopped" / "history.csv").read_text().count("\n") == 2
    assert_goes_on("bert", QUICK, tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("step", [1, 3, 7, 8])
def test_what_is_saved_every_so_many_steps_leads_to_the_very_weights(family, tmp_path, step):
    given = dataclasses.replace(QUICK, save_every=3, keep_states=9, weight_decay=0.3)
    model = classifier(family)
    torch.manual_seed(5)
    run_fit(model, tmp_path / "stopped", given)
    files = state_files(tmp_path / "stopped")
    assert [int(file.stem[-8:]) for file in files] == [3, 4, 6, 8, 9, 12]
    for file in files:
        if int(file.stem[-8:]) > step + 2:
            file.unlink()
    assert_goes_on(
        family,
        dataclasses.replace(QUICK, weight_decay=0.3),
        tmp_path / "stopped",
        tmp_path / "whole",
    )


@pytest.mark.parametrize("change", [{"freeze": True}, {"freeze_layers": 1}])
def test_a_run_with_frozen_layers_resumes_to_the_very_weights_too(tmp_path, change):
    given = dataclasses.replace(QUICK, **change)

    def train(run: RunFolder) -> tuple[Classifier, Progress]:
        model = classifier("distilbert")
        parts: dict[str, Dataset] = {"train": texts(14), "validation": texts(7, seed=1)}
        if given.freeze:
            for name, part in parts.items():
                parts[name] = encode_features(model, part, batch_size=4, runtime=Compute(CPU))
        freeze_layers(model, layers=given.freeze_layers, embeddings=False)
        return model, run_fit(model, run, given, **parts)

    whole, expected = train(RunFolder(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train(StopsAfter(tmp_path / "stopped"))
    fresh, found = train(RunFolder(tmp_path / "stopped"))
    assert changed(fresh, weights_of(whole)) == set()
    assert without_times(found.history) == without_times(expected.history)


def test_a_run_that_is_out_of_patience_is_not_trained_further(monkeypatch, tmp_path):
    scripted(monkeypatch, FIGURES)
    given = dataclasses.replace(QUICK, epochs=5, patience=1)
    run_fit(classifier(), tmp_path, given, train=texts(4))
    again = run_fit(classifier(), tmp_path, given, train=texts(4))
    assert again.epoch == 3 and len(again.history) == 3
