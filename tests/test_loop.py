"""The training loop: one step, frozen layers, the best epoch, seeds, resuming.

Run: pytest tests/test_loop.py
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import PRIOR, a_task, random_texts, tiny_classifier
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from minibert.data.batches import Batch, Dataset, FeatureDataset, TextDataset, training_order
from minibert.device import Compute
from minibert.errors import InputError
from minibert.model.classifier import Classifier
from minibert.training.callback import Callback
from minibert.training.frozen import encode_features
from minibert.training.loop import fit, forward_backward
from minibert.training.optimizer import (
    learning_rate_factor,
    make_optimizer,
    parameter_groups,
    set_learning_rates,
)
from minibert.training.options import TrainingOptions
from minibert.training.prepare import as_row_weights
from minibert.training.state import (
    EpochRecord,
    TrainResult,
    TrainState,
    load_state,
    save_state,
    state_files,
)
from minibert.training.steps import seed_dropout

pytestmark = pytest.mark.machine  # results depend on the processor's instructions

CPU = Compute(torch.device("cpu"))
OPTIONS = TrainingOptions(
    batch_size=4, epochs=3, encoder_lr=1e-2, head_lr=3e-2, schedule="cosine", weight_decay=0.3
)


BALANCED = TrainingOptions(class_weights="balanced")


def train(
    model: Classifier,
    options: TrainingOptions = OPTIONS,
    *,
    callback: Callback | None = None,
    dataset: Dataset | None = None,
    compute: Compute = CPU,
    keep_best: bool = False,
) -> TrainResult:
    """Fit on 14 texts and validate on 7."""
    return fit(
        model,
        random_texts(14) if dataset is None else dataset,
        random_texts(7, seed=1),
        options,
        compute=compute,
        callback=callback,
        keep_best=keep_best,
    )


def copied_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model: torch.nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}


def without_times(history: tuple[EpochRecord, ...]) -> list[EpochRecord]:
    return [dataclasses.replace(record, seconds=0, texts_per_second=0) for record in history]


# --- one step


def test_what_an_earlier_training_fitted_to_its_probabilities_is_dropped():
    model = tiny_classifier()
    fitted = {"temperature": 2.0, "min_probability": 0.9, "thresholds": (0.1, 0.2, 0.3)}
    model.head.config = dataclasses.replace(model.head.config, **fitted)
    fit(model, random_texts(5), random_texts(3), OPTIONS, compute=CPU)
    kept = {name: getattr(model.head.config, name) for name in fitted}
    assert kept == {"temperature": 1.0, "min_probability": 0.0, "thresholds": ()}


def test_weights_that_are_rounded_for_inference_are_not_trained():
    model = tiny_classifier()
    model.encoder.blocks.to(torch.bfloat16)  # as a GPU's predictor has them
    with pytest.raises(InputError, match="this model was prepared for inference"):
        fit(model, random_texts(5), random_texts(3), OPTIONS, compute=CPU)
    with pytest.raises(InputError, match=r"weights in torch\.float64; training needs float32"):
        fit(tiny_classifier().double(), random_texts(5), random_texts(3), OPTIONS, compute=CPU)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.3, 2.0, 0.9)])
@pytest.mark.parametrize("sizes", [(5, 5), (4, 4, 1), (2,), (1, 7, 3)])
def test_gradients_of_several_batches_equal_those_of_one_big_batch(sizes, weights, smoothing):
    dataset, model, weights = random_texts(sum(sizes)), tiny_classifier().eval(), Tensor(weights)
    big = dataset.batch(range(sum(sizes)))
    losses = F.cross_entropy(
        model(*big.inputs), big.labels, label_smoothing=smoothing, reduction="none"
    )
    loss = losses @ weights[big.labels] / weights[big.labels].sum()  # PyTorch's weighted mean
    loss.backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    options = TrainingOptions(label_smoothing=smoothing)
    ends = np.cumsum(sizes)
    rows = [np.arange(end - n, end) for n, end in zip(sizes, ends, strict=True)]
    state = TrainState(
        model,
        make_optimizer(model, options),
        CPU.scaler(),
        CPU.device,
        a_task(),
        options,
        len(dataset),
        1,
        PRIOR,
    )
    row_weights = as_row_weights(None, weights[dataset.labels])
    mean = forward_backward(state, dataset, rows, weights, CPU, row_weights)
    assert mean.item() == pytest.approx(loss.item(), rel=1e-5)
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, expected.pop(name), rtol=1e-4, atol=1e-6)
    assert not expected


@pytest.mark.parametrize(
    "weights", [[1.0] * 5, [1.0] * 6 + [0.0], [1.0] * 6 + [math.nan], ["1", "x"], [None] * 7]
)
def test_sample_weights_that_are_not_positive_or_of_other_rows_are_one_line(weights):
    texts = random_texts(7)
    with pytest.raises(InputError, match="sample_weight must be 7 positive numbers"):
        fit(tiny_classifier(), texts, texts, OPTIONS, compute=CPU, sample_weight=weights)


def test_sample_weights_of_any_size_count_by_their_ratios():
    ratios = as_row_weights([0.5e308, 1.5e308], torch.ones(2))
    assert ratios.tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("options", "weights"),
    [({"select": "r2"}, None), ({"regression_loss": "huber"}, None), ({}, [0.0] * 7)],
)
def test_a_fit_that_is_refused_changes_nothing(options, weights):
    model, texts = tiny_classifier(), random_texts(7)
    model.head.config = dataclasses.replace(model.head.config, temperature=2.5)
    with pytest.raises(InputError):
        fit(model, texts, texts, TrainingOptions(**options), compute=CPU, sample_weight=weights)
    assert model.head.config.temperature == 2.5


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_fit_equals_the_textbook_loop_over_big_batches(clip):
    """13 rows in batches of 2, three per step: steps of 6, 6 and 1 rows, or a 5 for a 6."""
    features = FeatureDataset(torch.randn(13, 12), torch.arange(13) % 3)
    options = dataclasses.replace(
        OPTIONS, batch_size=2, accumulate=3, epochs=2, clip=clip, warmup=0.3, freeze=True
    )
    model, plain = (tiny_classifier(head="linear") for _ in range(2))
    result = fit(model, features, features, options, compute=CPU, keep_best=False)

    groups = parameter_groups(
        None, plain.head, encoder_lr=0, head_lr=options.head_lr, weight_decay=0.3
    )
    optimizer = torch.optim.AdamW(groups)
    for epoch, record in enumerate(result.history):
        order = training_order(features.lengths, 2, seed=0, epoch=epoch)
        losses = []
        for step in range(3):
            rows = np.concatenate(order[3 * step : 3 * step + 3])
            factor = learning_rate_factor(3 * epoch + step, 6, kind="cosine", warmup=0.3)
            set_learning_rates(optimizer, factor)
            loss = F.cross_entropy(plain.head(features.values[rows]), features.labels[rows])
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(plain.head.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item() * len(rows))
        assert record.train_loss == pytest.approx(sum(losses) / 13, rel=1e-5)
        assert record.learning_rate == pytest.approx(factor * options.head_lr)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    assert result.steps == 6


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_fp16_with_its_scaled_loss_takes_nearly_the_same_step(clip):
    features = FeatureDataset(torch.randn(8, 12), torch.arange(8) % 3)
    options = dataclasses.replace(
        OPTIONS, batch_size=8, epochs=1, head_lr=0.01, clip=clip, freeze=True
    )
    moved = []
    for precision in ("fp32", "fp16"):
        model = tiny_classifier(head="linear")
        before = model.head.out.weight.detach().clone()
        fit(model, features, features, options, compute=Compute(CPU.device, precision))
        moved.append(model.head.out.weight.detach() - before)
    assert moved[0].abs().max() > 0.005
    torch.testing.assert_close(moved[0], moved[1], rtol=0.05, atol=1e-4)


# --- class weights


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=50).map(lambda x: [0, 1, 2, 3, *x]))
def test_balanced_weights_equal_those_of_scikit_learn(labels):
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    weights = a_task("a", "b", "c", "d").weights(torch.tensor(labels), BALANCED)
    assert weights.tolist() == pytest.approx(expected.tolist())


def test_sqrt_weights_are_the_square_roots_of_the_balanced_ones():
    roots = TrainingOptions(class_weights="sqrt")
    task, labels = a_task(), torch.tensor([0] * 9 + [1, 1, 1, 2])
    assert task.weights(labels, roots).tolist() == pytest.approx(
        task.weights(labels, BALANCED).sqrt().tolist()
    )


def test_class_weights_are_one_by_default_and_finite_for_an_absent_class():
    labels = torch.tensor([0, 0, 1])
    assert a_task().weights(labels, OPTIONS).tolist() == [1, 1, 1]
    assert a_task().weights(labels, BALANCED).isfinite().all()


def test_class_weights_and_label_smoothing_change_the_training_loss():
    dataset = random_texts(14)
    dataset.labels = torch.tensor([0] * 11 + [1, 2, 2])
    changes: list[dict[str, Any]] = [{}, {"class_weights": "balanced"}, {"label_smoothing": 0.3}]
    results = [
        train(tiny_classifier(), dataclasses.replace(OPTIONS, **change), dataset=dataset)
        for change in changes
    ]
    assert len({result.history[0].train_loss for result in results}) == 3


# --- frozen encoders and layers


def test_features_are_computed_without_dropout(family):
    model, dataset = tiny_classifier(family).train(), random_texts(7)
    (features,) = encode_features(model, [dataset], OPTIONS, CPU)
    model.eval()
    for i in range(7):
        expected = model.features(*dataset.batch([i]).inputs)
        torch.testing.assert_close(features.values[i : i + 1], expected, rtol=1e-5, atol=1e-5)
    assert features.labels.tolist() == dataset.labels.tolist()
    assert not features.values.requires_grad


def test_freeze_trains_the_head_alone(family):
    """The features may be computed by fit or before it."""
    options = dataclasses.replace(OPTIONS, freeze=True)
    model, same = tiny_classifier(family), tiny_classifier(family)
    before = copied_weights(model)
    result = train(model, options)
    assert changed(model, before) == {name for name in before if name.startswith("head.")}
    assert result.history[-1].train_loss < result.history[0].train_loss
    train(same, options, dataset=encode_features(same, [random_texts(14)], options, CPU)[0])
    assert changed(same, model.state_dict()) == set()


@pytest.mark.parametrize(("layers", "embeddings"), [(0, True), (2, False), (1, True), (3, False)])
def test_frozen_layers_do_not_change_and_all_others_learn(family, layers, embeddings):
    model = tiny_classifier(family)
    before = copied_weights(model)
    train(
        model,
        dataclasses.replace(OPTIONS, epochs=1, freeze_layers=layers, freeze_embeddings=embeddings),
    )
    frozen = [f"encoder.blocks.{i}." for i in range(layers)]
    frozen += ["encoder.embeddings."] * (embeddings or layers > 0)
    frozen += ["encoder.pooler."]  # not used by the pooling `cls`
    expected = {name for name in before if not name.startswith(tuple(frozen))}
    assert changed(model, before) == expected


def test_freezing_more_layers_than_there_are_is_refused():
    with pytest.raises(InputError, match="--freeze-layers is 4; this model has 3 layers"):
        train(tiny_classifier(), dataclasses.replace(OPTIONS, freeze_layers=4))


def test_what_the_caller_froze_stays_frozen():
    model = tiny_classifier()
    block = model.encoder.blocks[1].requires_grad_(False)
    before = copied_weights(block)
    train(model, dataclasses.replace(OPTIONS, epochs=1, freeze_layers=1))
    assert changed(block, before) == set()
    assert all(p.requires_grad for p in model.encoder.blocks[0].parameters())
    assert not any(p.requires_grad for p in block.parameters())


def test_labels_of_another_classifier_are_refused():
    with pytest.raises(InputError, match="a label is not one of the model's 2 classes"):
        train(tiny_classifier(classes=("a", "b")))


def test_a_second_fit_trains_what_the_first_one_froze():
    model = tiny_classifier()
    train(model, dataclasses.replace(OPTIONS, epochs=1, freeze_layers=3, freeze_embeddings=True))
    before = copied_weights(model)
    train(model, dataclasses.replace(OPTIONS, epochs=1))
    assert changed(model, before) == {name for name in before if "pooler" not in name}


@pytest.mark.parametrize("count", [0, 5])
def test_texts_without_labels_are_refused(count):
    rows = random_texts(5).rows[:count]
    dataset = TextDataset(rows, None, pad_token_id=0, token_types=False)
    with pytest.raises(InputError, match="training needs texts with labels"):
        train(tiny_classifier(), dataset=dataset)


def test_int8_is_refused():
    with pytest.raises(InputError, match="int8 is for inference"):
        train(tiny_classifier(), compute=dataclasses.replace(CPU, precision="int8"))


# --- the best epoch

LABELS = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]
# Of each epoch: the predicted classes, and the margin of the logits of correct predictions.
EPOCHS = [
    ([0, 0, 0, 0, 0, 1, 1, 0, 0, 0], 0.1),  # accuracy 0.5, macro-F1 0.33, loss 0.67
    ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0.1),  # 0.7, 0.41, 0.66
    ([0, 0, 0, 0, 1, 1, 1, 1, 1, 1], 0.5),  # 0.7, 0.70, 0.54
    ([0, 0, 0, 0, 1, 1, 1, 1, 1, 0], 3.0),  # 0.6, 0.58, 0.31
    ([0, 0, 0, 0, 1, 1, 1, 1, 1, 0], 3.0),
]


class Scripted(Callback):
    """Lets each epoch's validation find the features of EPOCHS; counts the best epochs."""

    def __init__(self, validation: FeatureDataset) -> None:
        super().__init__()
        self.validation, self.best_epochs, self.epochs = validation, [], 0

    def validating(self, state: TrainState) -> AbstractContextManager:
        predictions, margin = EPOCHS[state.epoch]
        values = torch.zeros(len(LABELS), 12)
        for row, (label, predicted) in enumerate(zip(LABELS, predictions, strict=True)):
            values[row, predicted] = margin if label == predicted else 0.01
        self.validation.values = values
        self.epochs = state.epoch + 1
        return super().validating(state)

    def on_best(self, model: Classifier) -> None:
        super().on_best(model)
        self.best_epochs.append(self.epochs)


def scripted_fit(**options: Any) -> tuple[TrainResult, Scripted]:
    """Fit a head that returns the first two features as logits, at a learning rate of 0."""
    model = tiny_classifier(head="linear", classes=("a", "b"))
    with torch.no_grad():
        model.head.out.weight.copy_(torch.eye(2, 12))
        model.head.out.bias.zero_()
    validation = FeatureDataset(torch.zeros(len(LABELS), 12), torch.tensor(LABELS))
    train = FeatureDataset(torch.randn(4, 12), torch.tensor([0, 1, 0, 1]))
    callback = Scripted(validation)
    given = TrainingOptions(epochs=5, head_lr=0, freeze=True, **options)
    return fit(model, train, validation, given, compute=CPU, callback=callback), callback


@pytest.mark.parametrize(
    ("select", "best"), [("accuracy", [1, 2]), ("macro-f1", [1, 2, 3]), ("loss", [1, 2, 3, 4])]
)
def test_an_epoch_is_the_best_if_its_figure_is_better_than_all_before(select, best):
    result, callback = scripted_fit(select=select)
    assert callback.best_epochs == best
    assert result.best_epoch == best[-1]
    assert len(result.history) == 5


@pytest.mark.parametrize(
    ("select", "patience", "epochs"),
    [("accuracy", 1, 3), ("accuracy", 2, 4), ("accuracy", None, 5), ("loss", 1, 5)],
)
def test_training_stops_after_patience_epochs_without_a_better_figure(select, patience, epochs):
    assert len(scripted_fit(select=select, patience=patience)[0].history) == epochs


def test_the_model_ends_with_the_weights_of_the_best_epoch():
    class Recorder(Callback):
        """Keeps the weights of every epoch."""

        def __init__(self) -> None:
            super().__init__()
            self.weights: list[Tensor] = []

        def on_epoch(self, state: TrainState) -> None:
            self.weights.append(state.module.head.out.weight.detach().clone())

    model, callback = tiny_classifier(), Recorder()
    options = dataclasses.replace(OPTIONS, epochs=6)
    result = train(model, options, callback=callback, keep_best=True)
    assert not model.training
    assert result.best_epoch < 6  # else the test shows nothing
    assert torch.equal(model.head.out.weight, callback.weights[result.best_epoch - 1])
    assert not torch.equal(model.head.out.weight, callback.weights[-1])


def test_the_history_has_one_record_per_epoch():
    result = train(tiny_classifier())
    assert [record.epoch for record in result.history] == [1, 2, 3]
    assert result.history[0].learning_rate > result.history[2].learning_rate > 0
    assert result.steps == 3 * 4
    assert result.seconds == pytest.approx(sum(x.seconds for x in result.history), abs=0.01)


def test_fit_prints_nothing(capfd):
    train(tiny_classifier())
    assert capfd.readouterr() == ("", "")


# --- seeds and resuming


def test_one_seed_gives_one_model_and_another_seed_another():
    models, histories = [], []
    for seed in (3, 3, 4):
        models.append(tiny_classifier())
        result = train(models[-1], dataclasses.replace(OPTIONS, seed=seed))
        histories.append(without_times(result.history))
    first, same, other = models
    assert changed(first, same.state_dict()) == set() and histories[0] == histories[1]
    assert "head.out.weight" in changed(first, other.state_dict())
    assert histories[0] != histories[2]


def test_training_neither_reads_nor_changes_the_random_state():
    """Dropout depends on the seed of the options, the step, and the batch in it."""
    models, drawn = [], []
    for seed in (0, 1):
        models.append(tiny_classifier())
        torch.manual_seed(seed)
        train(models[-1])
        drawn.append(torch.rand(3))
        torch.manual_seed(seed)
        assert torch.equal(torch.rand(3), drawn[-1])
    assert changed(models[0], models[1].state_dict()) == set()


def test_each_batch_of_a_step_has_dropout_of_its_own():
    masks = []
    for step, batch in [(0, 0), (0, 1), (1, 0), (0, 0)]:
        seed_dropout(7, step, batch, CPU.device)
        masks.append(F.dropout(torch.ones(64), 0.5))
    first, *others, again = masks
    assert torch.equal(first, again)
    assert not any(torch.equal(first, other) for other in others)
    assert not torch.equal(*others)


class Saver(Callback):
    """Starts from the newest state in a folder, saves after each epoch, and may stop there."""

    def __init__(self, folder: Path, stop_after: int | None = None) -> None:
        super().__init__()
        self.folder, self.stop_after = folder, stop_after
        folder.mkdir(exist_ok=True)

    def on_start(self, state: TrainState) -> None:
        if files := state_files(self.folder):
            load_state(files[-1], state)

    def on_epoch(self, state: TrainState) -> None:
        save_state(self.folder, state)
        if state.epoch == self.stop_after:
            raise KeyboardInterrupt


def test_what_happens_before_the_first_step_is_not_timed():
    class SlowStart(Callback):
        """Continues, after a while, where all steps of the epoch are done."""

        def on_start(self, state: TrainState) -> None:
            time.sleep(0.5)
            state.step, state.texts = state.steps_per_epoch, state.texts_per_epoch

    result = train(tiny_classifier(), TrainingOptions(epochs=1), callback=SlowStart())
    assert 0 < result.seconds < 0.5


class StopsInBatch(TextDataset):
    """Texts whose n-th batch is where the machine is switched off."""

    def __init__(self, texts: TextDataset, batch: int) -> None:
        super().__init__(texts.rows, texts.labels.numpy(), pad_token_id=0, token_types=False)
        self.left = batch

    def batch(self, rows: Any) -> Batch:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().batch(rows)


def assert_resumes_to_the_same_weights(
    folder: Path, options: TrainingOptions, stop: Callable[[], tuple[Callback, Dataset]]
) -> None:
    """A run that stops and resumes ends as one that never stops, bit for bit."""
    whole = tiny_classifier()
    expected = train(whole, options)
    callback, dataset = stop()
    with pytest.raises(KeyboardInterrupt):
        train(tiny_classifier(), options, callback=callback, dataset=dataset)
    # A state brings all weights but the frozen ones; without a state, a new process starts from the
    # same weights.
    frozen = options.freeze or options.freeze_layers
    fresh = tiny_classifier(seed=9 if state_files(folder) and not frozen else 0)
    result = train(fresh, options, callback=Saver(folder))
    assert changed(fresh, whole.state_dict()) == set()
    assert without_times(result.history) == without_times(expected.history)
    assert result.best_epoch == expected.best_epoch


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("change", [{}, {"freeze": True}, {"freeze_layers": 1}])
def test_training_resumes_after_an_epoch_to_the_same_weights(tmp_path, epoch, change):
    options = dataclasses.replace(OPTIONS, accumulate=2, label_smoothing=0.1, **change)
    assert_resumes_to_the_same_weights(
        tmp_path, options, lambda: (Saver(tmp_path, stop_after=epoch), random_texts(14))
    )


@pytest.mark.parametrize("batch", [2, 10])
def test_training_stopped_in_an_epoch_resumes_from_the_epoch_before(tmp_path, batch):
    """An epoch is 4 batches."""
    assert_resumes_to_the_same_weights(
        tmp_path, OPTIONS, lambda: (Saver(tmp_path), StopsInBatch(random_texts(14), batch))
    )


class StopsInValidation(Saver):
    """Saves the state and stops where a signal would."""

    @contextmanager
    def validating(self, state: TrainState) -> Iterator[None]:
        save_state(self.folder, state)
        raise KeyboardInterrupt
        yield


def test_training_stopped_in_a_validation_resumes_with_that_validation(tmp_path):
    """The record of the epoch is the same too, its learning rate included."""
    assert_resumes_to_the_same_weights(
        tmp_path, OPTIONS, lambda: (StopsInValidation(tmp_path), random_texts(14))
    )


def test_a_resumed_run_that_is_out_of_patience_does_not_train(tmp_path):
    """At a learning rate of 0 no epoch is better than the first."""
    options = dataclasses.replace(OPTIONS, encoder_lr=0, head_lr=0, patience=1)
    train(tiny_classifier(), options, callback=Saver(tmp_path))
    again = train(tiny_classifier(), options, callback=Saver(tmp_path))
    assert len(again.history) == 2 and again.steps == 2 * 4


# --- callbacks


def test_a_callback_is_closed_after_the_last_epoch_and_after_an_error():
    class Recorder(Callback):
        """Notes what is called."""

        def __init__(self) -> None:
            super().__init__()
            self.calls: list[str] = []

        def on_epoch(self, state: TrainState) -> None:
            self.calls.append("epoch")

        def close(self) -> None:
            self.calls.append("close")

        def on_end(self, state: TrainState) -> None:
            self.calls.append("end")

    callback = Recorder()
    train(tiny_classifier(), dataclasses.replace(OPTIONS, epochs=1), callback=callback)
    assert callback.calls == ["epoch", "end", "close"]
    callback = Recorder()
    with pytest.raises(KeyboardInterrupt):
        train(tiny_classifier(), callback=callback, dataset=StopsInBatch(random_texts(14), batch=6))
    assert callback.calls == ["epoch", "close"]
