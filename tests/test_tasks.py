"""Each task: its loss is that of transformers, its figures are scikit-learn's, its answers right.

What a task does in a run is in test_task_runs.py. Run: pytest tests/test_tasks.py
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import VOCABULARY, a_task, random_texts, tiny_classifier, tiny_config
from models import make_batch
from torch import Tensor, nn

from minibert.checkpoint.config_file import encoder_entries, write_config
from minibert.checkpoint.load import load_classifier
from minibert.checkpoint.save import save_weights
from minibert.data.batches import TextDataset
from minibert.data.examples import Examples
from minibert.device import Compute
from minibert.errors import InputError
from minibert.evaluation.figures import show_figure
from minibert.evaluation.metrics import score
from minibert.inference.batched import prepare_for_inference
from minibert.inference.predictor import load
from minibert.inference.text_classifier import TextClassifier
from minibert.model.classifier import Head
from minibert.model.config import HeadConfig
from minibert.tasks.multi_label import MultiLabel, with_thresholds
from minibert.tasks.prior import prior_of
from minibert.tasks.task import Task, check_finite, check_shape, figures_of
from minibert.training.loop import fit, forward_backward
from minibert.training.optimizer import make_optimizer
from minibert.training.options import TrainingOptions
from minibert.training.prepare import as_row_weights
from minibert.training.state import TrainState

CPU = Compute(torch.device("cpu"))
WEIGHTS = [1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 2.0]  # of 7 rows
PLAIN = TrainingOptions()
NAMES = ("a", "b", "c")
SINGLE, MULTI, NUMBERS = (
    a_task(*NAMES, kind=kind) for kind in ("single-label", "multi-label", "regression")
)
NUMBER = a_task("stars", kind="regression")
TASKS = pytest.mark.parametrize("task", [SINGLE, MULTI, NUMBERS], ids=lambda x: type(x).__name__)


def targets_of(task: Task, rows: int, seed: int = 3) -> Tensor:
    """Random targets: classes, 0 and 1, or numbers in an odd unit."""
    random = torch.Generator().manual_seed(seed)
    columns = len(task.names)
    if task is SINGLE:
        return torch.randint(0, columns, (rows,), generator=random)
    if task is MULTI:
        return (torch.rand(rows, columns, generator=random) < 0.4).float()
    return 40 + 7 * torch.randn(rows, columns, generator=random)


def logits_of(task: Task, rows: int, seed: int = 4) -> Tensor:
    return torch.randn(rows, len(task.names), generator=torch.Generator().manual_seed(seed))


def mean_loss(
    task: Task, logits: Tensor, targets: Tensor, weights: Tensor, options: TrainingOptions = PLAIN
) -> float:
    """What a step of one batch minimizes."""
    losses = task.losses(logits, targets, weights, options)
    return float(losses.sum() / task.row_weights(targets, weights).sum())


def examples(*labels: Any) -> Examples:
    places = [f"row {number}" for number in range(len(labels))]
    return Examples("here", places, labels=list(labels), places=places)


# --- the loss


@TASKS
def test_the_loss_is_that_of_transformers_for_the_same_logits(task):
    transformers = pytest.importorskip("transformers")
    problem = {SINGLE: "single_label_classification", MULTI: "multi_label_classification"}
    numbers = encoder_entries(tiny_config("bert"))
    config = transformers.AutoConfig.for_model(
        **numbers, num_labels=3, problem_type=problem.get(task, "regression")
    )
    theirs = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    targets = targets_of(task, 4)
    with torch.no_grad():
        found = theirs(**make_batch("bert"), labels=targets)
    ours = mean_loss(task, found.logits, targets, torch.ones(3))
    assert ours == pytest.approx(float(found.loss), rel=1e-6)


def test_positive_weights_and_smoothing_of_several_labels_are_those_of_pytorch():
    logits, targets = logits_of(MULTI, 9), targets_of(MULTI, 9)
    balanced = TrainingOptions(class_weights="balanced")
    weights = MULTI.weights(targets, balanced)
    positive = targets.sum(dim=0)
    torch.testing.assert_close(weights, (9 - positive) / positive)
    expected = nn.BCEWithLogitsLoss(pos_weight=weights)(logits, targets)
    assert mean_loss(MULTI, logits, targets, weights, balanced) == pytest.approx(float(expected))
    smoothing = TrainingOptions(label_smoothing=0.1)
    smooth = targets * 0.9 + 0.05  # 0.95 for a class of the text, 0.05 for another
    expected = nn.BCEWithLogitsLoss()(logits, smooth)
    assert mean_loss(MULTI, logits, targets, torch.ones(3), smoothing) == pytest.approx(
        float(expected)
    )
    assert MULTI.weights(targets, PLAIN).tolist() == [1, 1, 1]
    roots = MULTI.weights(targets, TrainingOptions(class_weights="sqrt"))
    torch.testing.assert_close(roots, weights.sqrt())


@pytest.mark.parametrize("task", [SINGLE, MULTI])
def test_a_large_weight_of_a_rare_class_does_not_draw_smoothed_texts_of_others(task):
    """The lowest loss of a text of class 0 is where class 1 has what smoothing gives it.

    With PyTorch's `weight` and `pos_weight`, class 1 would be the most probable one there.
    """
    options = TrainingOptions(label_smoothing=0.1)
    targets = torch.tensor([0]) if task is SINGLE else torch.tensor([[1.0, 0.0, 0.0]])
    weights, share = torch.tensor([0.5, 50.0, 1.0]), 0.1 / 3 if task is SINGLE else 0.05
    best = torch.full((3,), share)
    best[0] = 1 - 2 * share if task is SINGLE else 1 - share
    logits = (best.log() if task is SINGLE else torch.logit(best)).requires_grad_()
    task.losses(logits[None], targets, weights, options).sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros(3), atol=1e-6, rtol=0)


def test_the_weight_of_a_class_that_no_text_has_or_all_have_is_finite_and_positive():
    targets = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    weights = MULTI.weights(targets, TrainingOptions(class_weights="balanced"))
    assert weights.isfinite().all() and (weights > 0).all()


@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_the_loss_of_numbers_is_that_of_standardized_numbers(kind):
    options = TrainingOptions(regression_loss=kind)
    targets = targets_of(NUMBERS, 9) * torch.tensor([1.0, 1000.0, 1e-3])
    weights = NUMBERS.weights(targets, options)
    deviations = targets.std(dim=0, correction=0)
    torch.testing.assert_close(weights, 1 / deviations)
    logits = targets + 2 * deviations * logits_of(NUMBERS, 9)
    loss = nn.HuberLoss() if kind == "huber" else nn.MSELoss()
    expected = loss(logits / deviations, targets / deviations)
    found = mean_loss(NUMBERS, logits, targets, weights, options)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_a_number_that_never_changes_has_the_deviation_1():
    targets = torch.tensor([[0.1, 1.0], [0.1, 3.0], [0.1, 2.0]])
    assert NUMBERS.weights(targets, PLAIN)[0] == 1


def a_model(task: Task, seed: int = 0, **changes: Any) -> Any:
    """A tiny classifier for a task."""
    model = tiny_classifier(seed=seed, dropout=0.0, attention_dropout=0.0, **changes)
    kind = {SINGLE: "single-label", MULTI: "multi-label"}.get(task, "regression")
    torch.manual_seed(seed)
    model.head = Head(tiny_config("bert"), HeadConfig("linear", "cls", task.names, 40, kind))
    nn.init.normal_(model.head.out.weight, std=0.5)
    return model


def a_dataset(task: Task, rows: int, seed: int = 0) -> TextDataset:
    texts = random_texts(rows, seed=seed)
    targets = targets_of(task, rows).numpy()
    return TextDataset(texts.rows, targets, pad_token_id=0, token_types=False)


Step = tuple[float, list[Tensor]]  # its loss and gradients


def a_step(
    task: Task, dataset: TextDataset, *rows: list[int], sample_weight: list[float] | None = None
) -> Step:
    """One step on batches of these rows, with the class weights of the first 7 rows."""
    options = TrainingOptions(class_weights="none" if task is NUMBERS else "balanced")
    weights = task.weights(dataset.labels[:7], options)
    row_weights = as_row_weights(sample_weight, task.row_weights(dataset.labels, weights))
    model, batches = a_model(task), [np.array(x) for x in rows]
    prior = prior_of(task, dataset.labels, dataset.labels, options)
    optimizer = make_optimizer(model, options)
    state = TrainState(*(model, optimizer, CPU.scaler(), CPU.device, task, options, 7, 1, prior))
    loss = forward_backward(state, dataset, batches, weights, CPU, row_weights)
    return float(loss), [p.grad for p in model.parameters() if p.grad is not None]


def assert_same(one: Step, other: Step) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    for found, expected in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@TASKS
def test_several_batches_of_a_step_equal_one(task):
    dataset = a_dataset(task, 7)
    several = a_step(task, dataset, [0, 1, 2], [3], [4, 5, 6], sample_weight=WEIGHTS)
    assert_same(several, a_step(task, dataset, [*range(7)], sample_weight=WEIGHTS))


@TASKS
def test_a_row_counts_the_same_in_whichever_step_it_is(task):
    dataset = a_dataset(task, 7)
    steps = [[2], [0, 5, 6], [1, 3, 4]]
    parts = [a_step(task, dataset, rows, sample_weight=WEIGHTS) for rows in steps]
    shares = [len(rows) / 7 for rows in steps]
    loss = sum(share * loss for share, (loss, _) in zip(shares, parts, strict=True))
    gradients = [
        sum(share * x for share, x in zip(shares, each, strict=True))
        for each in zip(*(gradients for _, gradients in parts), strict=True)
    ]
    assert_same((loss, gradients), a_step(task, dataset, [*range(7)], sample_weight=WEIGHTS))


@TASKS
def test_a_row_of_weight_2_equals_two_rows(task):
    seven = a_dataset(task, 7)
    rows = [*range(7), 1, 6]
    labels = seven.labels[rows].numpy()
    nine = TextDataset([seven.rows[x] for x in rows], labels, pad_token_id=0, token_types=False)
    weighted = a_step(task, seven, [*range(7)], sample_weight=WEIGHTS)
    assert_same(weighted, a_step(task, nine, [*range(9)]))


# --- the figures


def test_the_figures_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    truth, logits = targets_of(MULTI, 30), logits_of(MULTI, 30)
    found = figures_of(MULTI.score(logits, truth), MULTI.figures)
    answered = torch.sigmoid(logits) >= 0.5
    assert found["micro-f1"] == pytest.approx(metrics.f1_score(truth, answered, average="micro"))
    assert found["macro-f1"] == pytest.approx(metrics.f1_score(truth, answered, average="macro"))
    assert found["map"] == pytest.approx(metrics.average_precision_score(truth, logits))
    assert found["loss"] == pytest.approx(mean_loss(MULTI, logits, truth, torch.ones(3)), rel=1e-5)

    truth = targets_of(NUMBER, 30)
    values = truth + 5 * logits_of(NUMBER, 30)
    found = figures_of(NUMBER.score(values, truth), NUMBER.figures)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth, values))
    assert found["r2"] == pytest.approx(metrics.r2_score(truth, values))
    assert found["rmse"] == pytest.approx(metrics.mean_squared_error(truth, values) ** 0.5)

    truth, logits = targets_of(SINGLE, 30), logits_of(SINGLE, 30)
    found = figures_of(SINGLE.score(logits, truth), SINGLE.figures)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, logits.argmax(dim=1)))


def test_thresholds_change_the_classes_and_not_the_average_precision():
    truth, logits = targets_of(MULTI, 30), logits_of(MULTI, 30)
    other = MultiLabel(HeadConfig("linear", "cls", NAMES, 8, "multi-label", (0.2, 0.5, 0.9)))
    one, two = MULTI.score(logits, truth), other.score(logits, truth)
    assert one.figure("micro-f1") != two.figure("micro-f1")
    assert one.figure("map") == two.figure("map")


@pytest.mark.parametrize("logit", [float("nan"), float("inf")])
def test_figures_of_logits_that_are_not_finite_are_refused(logit):
    scores = score(torch.full((2, 3), logit), torch.tensor([0, 1]), NAMES)
    with pytest.raises(InputError, match="the loss is nan; the model's weights may be too large"):
        check_finite(scores)


def test_the_loss_of_the_largest_numbers_is_finite():
    values = torch.tensor([[1e38], [-1e38]])
    check_finite(NUMBER.score(values / 2, values))


def test_an_undefined_figure_is_no_best_one_and_is_shown_as_undefined():
    constant = torch.full((4, 1), 2.0)
    scores = NUMBER.score(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), constant)
    assert scores.figure("pearson") == float("-inf")
    assert figures_of(scores, ["pearson"]) == {"pearson": None}
    assert show_figure("pearson", None) == "pearson undefined"
    assert show_figure("macro-f1", 0.5) == "macro-F1 50.0%"
    assert show_figure("rmse", 1234.56) == "RMSE 1235"


@TASKS
def test_the_first_figure_selects_the_best_epoch_and_those_of_another_task_are_refused(task):
    assert task.selects(None) == task.figures[0]
    assert all(task.selects(name) == name for name in task.figures)
    other = "pearson" if task is not NUMBERS else "accuracy"
    with pytest.raises(InputError, match=f"--select {other} is not a figure of this task; it has"):
        task.selects(other)


@TASKS
def test_options_of_another_task_are_refused(task):
    task.check_options(PLAIN)
    for wrong in (
        [TrainingOptions(label_smoothing=0.1), TrainingOptions(class_weights="balanced")]
        if task is NUMBERS
        else [TrainingOptions(regression_loss="huber")]
    ):
        with pytest.raises(InputError, match=r"--(label-smoothing and|regression-loss huber)"):
            task.check_options(wrong)


# --- labels to targets and back, logits to answers


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (SINGLE, ["b", "a", "c"]),
        (MULTI, [("a", "c"), (), ("b",)]),
        (NUMBERS, [(1.0, 0.1, 16777217e-3), (-2.5, 1e30, 0.0)]),
    ],
)
def test_labels_come_back_from_their_targets(task, labels):
    targets = torch.from_numpy(task.targets(examples(*labels)))
    task.check(targets)
    found = task.labels(targets)
    assert found == [pytest.approx(x, rel=1e-7) if task is NUMBERS else x for x in labels]
    again = torch.from_numpy(task.targets(examples(*found)))
    assert torch.equal(again, targets)  # what a run writes is what eval.py reads


def test_one_number_is_a_number_and_several_are_a_tuple():
    assert NUMBER.labels(torch.tensor([[0.1], [3.0]])) == [0.1, 3.0]
    assert NUMBERS.labels(torch.tensor([[0.1, 2.0, 3.0]])) == [(0.1, 2.0, 3.0)]


@pytest.mark.parametrize("task", [MULTI, NUMBERS])
def test_targets_of_another_task_or_model_are_refused(task):
    for wrong in (torch.tensor([0, 1]), torch.zeros(4, 2), torch.zeros(4, 3, dtype=torch.int64)):
        with pytest.raises(InputError, match=r"the targets have shape .*; this model predicts"):
            task.check(wrong)
    check_shape(torch.zeros(4, 3), 3, "")
    for wrong in (torch.zeros(4, 3), torch.tensor([0, 3])):
        with pytest.raises(InputError, match="a label is not one of the model's 3 classes"):
            SINGLE.check(wrong)


def test_the_records_of_each_task():
    logits = torch.tensor([[2.0, -1.0, 0.0]])
    assert SINGLE.predict(logits) == ["a"] and MULTI.predict(logits) == [("a", "c")]
    (record,) = SINGLE.records(logits)
    assert record["label"] == "a" and record["probability"] == record["probabilities"]["a"]
    assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert MULTI.records(logits) == [
        {"labels": ["a", "c"], "probabilities": {"a": 0.880797, "b": 0.268941, "c": 0.5}}
    ]
    assert NUMBERS.records(logits) == [{"values": {"a": 2.0, "b": -1.0, "c": 0.0}}]
    assert NUMBER.records(torch.tensor([[0.1]])) == [{"value": 0.1}]
    for task in (SINGLE, MULTI, NUMBERS, NUMBER):
        assert list(task.records(logits[:, : len(task.names)])[0]) == list(task.keys)
        json.dumps(task.records(logits[:, : len(task.names)]))


def test_the_columns_of_a_table_are_one_for_each_output():
    assert SINGLE.columns == MULTI.columns == tuple(f"probability_{x}" for x in NAMES)
    assert NUMBERS.columns == ("value_a", "value_b", "value_c") and NUMBER.columns == ()


def test_numbers_have_no_probabilities():
    with pytest.raises(InputError, match="numbers, which have no probabilities; use predict"):
        NUMBER.probabilities(torch.zeros(1, 1))


# --- thresholds


@pytest.mark.parametrize("how", ["tuned", "shared", "0.3"])
def test_thresholds_are_tuned_for_each_class_for_all_or_given(how):
    head = HeadConfig("linear", "cls", NAMES, 8, "multi-label")
    truth = torch.tensor([[1.0, 0, 1], [1, 1, 0], [0, 0, 0], [0, 1, 0]])
    logits = torch.tensor([[-2.0, -1, 3], [-3, 1, 2], [-4, 0, 1], [-5, 2, 0]])
    found = with_thresholds(head, logits, truth, how=how)
    assert len(found.thresholds) == 3 and found.labels == head.labels
    if how == "0.3":
        assert found.thresholds == (0.3, 0.3, 0.3)
    elif how == "shared":
        assert len(set(found.thresholds)) == 1
    else:
        assert MultiLabel(found).predict(logits) == [("a", "c"), ("a", "b"), (), ("b",)]


# --- the unit of numbers


def a_head(outputs: int = 2, seed: int = 5) -> Head:
    """A regression head with random weights, as a checkpoint has it."""
    names = tuple(f"y{number}" for number in range(outputs))
    head = Head(tiny_config("bert"), HeadConfig("linear", "cls", names, 8, "regression"))
    random = torch.Generator().manual_seed(seed)
    nn.init.normal_(head.out.weight, generator=random)
    nn.init.normal_(head.out.bias, generator=random)
    return head


def test_the_unit_keeps_what_a_trained_head_computes():
    head, features = a_head(), torch.randn(5, 12)
    expected = head(features)
    for mean, deviation in (((40.0, -3.0), (7.0, 0.1)), ((0.0, 1e3), (1.0, 500.0))):
        head.set_unit(torch.tensor(mean), torch.tensor(deviation))
        torch.testing.assert_close(head(features), expected, rtol=1e-4, atol=1e-4)
        standardized = (expected - torch.tensor(mean)) / torch.tensor(deviation)
        torch.testing.assert_close(head.out(features), standardized, rtol=1e-4, atol=1e-4)


def test_a_new_head_predicts_the_mean():
    head = Head(tiny_config("bert"), HeadConfig("mlp", "cls", ("y",), 8, "regression"))
    NUMBER.prepare_head(head, torch.tensor([[10.0], [20.0], [60.0]]))
    assert head.eval()(torch.randn(5, 12)).tolist() == [[30.0]] * 5


def test_half_precision_does_not_round_numbers_in_the_data_s_unit():
    """A saved head has the unit in its weights, and bf16 has 3 digits."""
    head, features = a_head(1), torch.randn(5, 12)
    with torch.no_grad():
        head.out.bias += 1000
    expected = head(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)


def numbers_dataset(count: int, unit: Any = lambda y: y, seed: int = 0) -> TextDataset:
    """Texts and a number that their second token tells."""
    texts = random_texts(count, seed=seed)
    targets = np.array([[unit(float(row.ids[1]))] for row in texts.rows], dtype=np.float32)
    return TextDataset(texts.rows, targets, pad_token_id=0, token_types=False)


OPTIONS = TrainingOptions(epochs=3, batch_size=5, encoder_lr=3e-3, head_lr=3e-2)


def trained(model: Any, unit: Any = lambda y: y, options: TrainingOptions = OPTIONS) -> Any:
    torch.manual_seed(0)
    return fit(
        model, numbers_dataset(30, unit), numbers_dataset(9, unit, seed=1), options, compute=CPU
    )


def new_number_model() -> Any:
    torch.manual_seed(0)
    model = tiny_classifier(dropout=0.0, attention_dropout=0.0)
    head = HeadConfig("mlp", "cls", ("stars",), 40, "regression")
    model.head = Head(tiny_config("bert"), head)
    return model


@pytest.mark.parametrize("freeze", [False, True])
def test_training_does_not_depend_on_the_unit(freeze):
    options = TrainingOptions(**{**vars(OPTIONS), "freeze": freeze})
    one, two = new_number_model(), new_number_model()
    first = trained(one, options=options).history
    second = trained(two, lambda y: 1000 * y + 7, options).history
    for a, b in zip(first, second, strict=True):
        assert b.train_loss == pytest.approx(a.train_loss, rel=1e-3)
        assert b.validation["rmse"] == pytest.approx(1000 * a.validation["rmse"], rel=1e-3)
        assert b.validation["pearson"] == pytest.approx(a.validation["pearson"], abs=1e-3)
    assert first[0].train_loss < 1.5  # that of the mean is 1
    assert freeze or first[-1].train_loss < first[0].train_loss
    texts = numbers_dataset(9, seed=1)
    a, b = (prepare_for_inference(x, CPU).logits(texts, batch_size=4) for x in (one, two))
    torch.testing.assert_close(b, 1000 * a + 7, rtol=1e-3, atol=1.0)


def test_a_model_can_be_trained_twice_also_on_another_unit():
    """The second training starts where the first ended."""
    model = new_number_model()
    first = trained(model)
    best = min(record.validation["rmse"] for record in first.history)
    slow = TrainingOptions(epochs=1, batch_size=5, encoder_lr=0.0, head_lr=0.0, weight_decay=0.0)
    again = trained(model, options=slow)
    assert again.history[0].validation["rmse"] == pytest.approx(best, rel=1e-4)
    other = trained(model, lambda y: 2 * y)
    assert other.history[-1].validation["rmse"] < 2 * other.history[0].validation["rmse"]
    assert model.head.unit.deviation == 1  # folded into the output layer


def test_a_dataset_of_another_task_is_refused_before_training():
    texts = random_texts(9)
    with pytest.raises(InputError, match="the targets have shape"):
        fit(new_number_model(), texts, texts, OPTIONS, compute=CPU)


# --- saved models


def saved(folder: Path, model: Any, family: str, head: HeadConfig) -> Path:
    config = tiny_config(family)
    folder.mkdir()
    write_config(folder, config, head)
    save_weights(folder, model, config, head)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder


def test_a_saved_model_has_the_data_s_unit_here_and_in_transformers(family, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = tiny_classifier(
        family, head="native", pooling="pooler" if family == "bert" else "cls", classes=("x", "y")
    )
    head = HeadConfig("native", model.pooling, ("x", "y"), 40, "regression")
    model.head = Head(tiny_config(family), head)
    nn.init.normal_(model.head.out.weight)
    model.head.set_unit(torch.tensor([1000.0, -2.0]), torch.tensor([50.0, 0.1]))
    batch = make_batch(family)
    expected = model.eval()(**batch).detach()
    folder = saved(tmp_path / "run", model, family, head)
    torch.testing.assert_close(model(**batch).detach(), expected)  # saving changes nothing

    ours = load_classifier(folder)
    assert ours.head.task == "regression"
    torch.testing.assert_close(ours.model(**batch).detach(), expected, rtol=1e-5, atol=1e-4)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert theirs.config.problem_type == "regression"
    with torch.no_grad():
        torch.testing.assert_close(theirs(**batch).logits, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("problem", [None, "regression", "multi_label_classification"])
def test_a_model_that_transformers_wrote_answers_unchanged(family, problem, tmp_path):
    """One output without a problem_type is a cross-encoder or a scorer."""
    transformers = pytest.importorskip("transformers")
    outputs = 3 if problem == "multi_label_classification" else 1
    config = transformers.AutoConfig.for_model(
        **encoder_entries(tiny_config(family)), num_labels=outputs, problem_type=problem
    )
    torch.manual_seed(9)
    theirs = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.4)
    folder = tmp_path / "theirs"
    theirs.save_pretrained(folder)
    found, batch = load_classifier(folder), make_batch(family)
    assert found.head.task == ("multi-label" if outputs == 3 else "regression")
    with torch.no_grad():
        torch.testing.assert_close(found.model(**batch), theirs(**batch).logits)


def test_thresholds_are_saved_and_used(tmp_path):
    """A text whose classes are a and b has none with the thresholds of another folder."""
    head = HeadConfig("linear", "cls", NAMES, 40, "multi-label")
    model = a_model(MULTI)
    low = saved(tmp_path / "low", model, "bert", HeadConfig(*_values(head), (1e-6, 1e-6, 1e-6)))
    high = saved(tmp_path / "high", model, "bert", HeadConfig(*_values(head), (0.999999,) * 3))
    options = {"device": "cpu", "precision": "fp32"}
    assert load(str(low), **options).predict("good film") == [NAMES]
    assert load(str(high), **options).predict("good film") == [()]
    copied = tmp_path / "copy"
    TextClassifier.from_folder(low).save(copied)
    assert load(str(copied), **options).task.thresholds == (1e-6,) * 3


def _values(head: HeadConfig) -> tuple[Any, ...]:
    return head.kind, head.pooling, head.labels, head.max_length, head.task


# --- in Python


def test_labels_of_several_kinds_are_given_to_dataset(tmp_path):
    numbers = TextClassifier.from_folder(
        saved(tmp_path / "n", new_number_model(), "bert", new_number_model().head.config)
    )
    for labels in ([1, 2.5], np.array([1, 2.5]), torch.tensor([[1.0], [2.5]]), ["1", "2.5"]):
        assert numbers.dataset(["good", "bad"], labels).labels.tolist() == [[1.0], [2.5]]
    with pytest.raises(InputError, match=r"labels\[1\]: column labels: holds 'x', not a number"):
        numbers.dataset(["good", "bad"], [1, "x"])
    with pytest.raises(InputError, match=r"labels\[1\]: 2 numbers; the model predicts 1 \(stars\)"):
        numbers.dataset(["good", "bad"], [1, [1, 2]])

    head = HeadConfig("linear", "cls", NAMES, 40, "multi-label")
    several = TextClassifier.from_folder(saved(tmp_path / "m", a_model(MULTI), "bert", head))
    lists = ([["a", "c"], []], [("c", "a"), ()], [{"a", "c"}, set()], [[0, 2], []])
    for labels in (*lists, ["a|c", ""]):
        assert several.dataset(["good", "bad"], labels).labels.tolist() == [[1, 0, 1], [0, 0, 0]]
    with pytest.raises(InputError, match=r"labels\[0\]: the label 'd' is none of the model's 3"):
        several.dataset("good", [["d"]])
    flags = [[1, 0, 1], [0, 0, 0]]
    for table in (np.array(flags), torch.tensor(flags, dtype=torch.float32)):
        assert several.dataset(["good", "bad"], table).labels.tolist() == flags
    for rows in (flags, [np.array(row) for row in flags]):  # numbers of classes, or flags?
        with pytest.raises(InputError, match=r"give names, or an array of 0 and 1 \(N, C\)"):
            several.dataset(["good", "bad"], rows)


def test_thresholds_are_for_several_labels(tmp_path):
    numbers = TextClassifier.from_folder(
        saved(tmp_path / "n", new_number_model(), "bert", new_number_model().head.config)
    )
    with pytest.raises(InputError, match="a regression model has no thresholds"):
        numbers.tune_thresholds(numbers.dataset(["good"], [1]))
    head = HeadConfig("linear", "cls", NAMES, 40, "multi-label")
    several = TextClassifier.from_folder(saved(tmp_path / "m", a_model(MULTI), "bert", head))
    several.tune_thresholds(several.dataset(["good", "bad"], [["a"], ["b"]]), how="0.25")
    assert several.task.thresholds == several.model.head.config.thresholds == (0.25,) * 3


def test_weights_after_training_are_in_the_data_s_unit():
    model, other = new_number_model(), new_number_model()
    trained(model)
    other.load_state_dict(model.state_dict())
    batch = numbers_dataset(9).batch(range(9))
    torch.testing.assert_close(other.eval()(*batch.inputs), model(*batch.inputs))


def test_the_report_of_classes_that_are_numbers_has_their_mean_distance():
    logits = torch.eye(3)[[0, 2, 1, 0]]
    labels = torch.tensor([0, 0, 1, 1])
    line = "mean distance from the true number: 2.750"  # (0 + 9 + 0 + 2) / 4
    assert line in a_task("1", "3", "10").report(logits, labels)
    assert "distance" not in a_task("1", "2", "ten").report(logits, labels)
