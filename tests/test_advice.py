"""Advice after an epoch: each line is made to happen, and a run that learns gets none.

Run: pytest tests/test_advice.py
"""

import contextlib
import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import PRIOR, a_task, random_texts, tiny_classifier
from torch import Tensor

from minibert.data.batches import Dataset, FeatureDataset
from minibert.device import Compute
from minibert.model.classifier import Classifier
from minibert.tasks.prior import Prior
from minibert.training.advice import no_progress, overfitting, worse_than_prior
from minibert.training.history import EpochRecord
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions
from minibert.training.progress import ProgressBar
from minibert.training.state import TrainState, load_state, save_state, state_files

CPU = Compute(torch.device("cpu"))
FROZEN = TrainingOptions(batch_size=8, epochs=4, head_lr=1e-2, freeze=True)
LEARNABLE = torch.arange(3).repeat(30)  # 90 rows; the first three features tell the class


class Printer(ProgressBar):
    """Prints as a run does; continues from a folder's newest state and stops after an epoch."""

    def __init__(self, folder: Path | None = None, stop_after: int | None = None) -> None:
        super().__init__()
        self.folder, self.stop_after = folder, stop_after

    def on_start(self, state: TrainState) -> None:
        if self.folder and (files := state_files(self.folder)):
            load_state(files[-1], state)

    def on_epoch(self, state: TrainState) -> None:
        super().on_epoch(state)
        if self.folder:
            save_state(self.folder, state)
        if state.epoch == self.stop_after:
            raise KeyboardInterrupt


@pytest.fixture
def advice(capsys):
    """Train a head on features; return the lines of advice, each with the number of its epoch."""

    def run(
        train: Dataset | None = None,
        validation: Dataset | None = None,
        model: Classifier | None = None,
        *,
        callback: Printer | None = None,
        **changes: Any,
    ) -> list[tuple[int, str]]:
        torch.manual_seed(5)
        with contextlib.suppress(KeyboardInterrupt):
            fit(
                model or tiny_classifier(head="linear"),
                train or features(LEARNABLE),
                validation or features(LEARNABLE[:45], seed=1),
                dataclasses.replace(FROZEN, **changes),
                compute=CPU,
                callback=callback or Printer(),
            )
        return numbered(capsys.readouterr().out)

    return run


def features(classes: Tensor, labels: Tensor | None = None, *, seed: int = 0) -> FeatureDataset:
    """Features (N, 12) of noise, in which a row's class adds 2 to the feature of its number."""
    values = torch.randn(len(classes), 12, generator=torch.Generator().manual_seed(seed))
    values[torch.arange(len(classes)), classes] += 2
    return FeatureDataset(values, classes if labels is None else labels)


def numbered(output: str) -> list[tuple[int, str]]:
    """The lines of advice in what a run printed, each with the epoch that it follows."""
    epoch, found = 0, []
    for line in output.splitlines():
        if match := re.match(r"epoch (\d+)/", line):
            epoch = int(match[1])
        if line.startswith("advice: "):
            found.append((epoch, line.removeprefix("advice: ")))
    return found


def about(lines: list[tuple[int, str]], start: str) -> tuple[int, str]:
    """The one line with this text."""
    (found,) = [line for line in lines if start in line[1]]
    return found


def noise(rows: int, seed: int) -> FeatureDataset:
    """Rows whose labels are random."""
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, 3, (2, rows), generator=random)
    return features(drawn[0], drawn[1], seed=seed)


def test_a_run_that_learns_gets_no_advice(advice):
    assert advice() == []
    assert advice(class_weights="balanced", label_smoothing=0.1) == []


def test_a_rate_of_zero_is_named_as_too_low(advice):
    epoch, line = about(advice(head_lr=0.0), "the training loss is")
    assert epoch == 2  # the first epoch's loss includes the steps before anything is learned
    assert "but knowing only the class frequencies gives 1.0986; likely --head-lr 0 is too" in line
    assert line.endswith("low (try 5e-05 to 0.01)")
    (epoch, _) = about(advice(head_lr=0.0, epochs=1), "the training loss is")
    assert epoch == 1  # there is no later one


def test_both_rates_are_named_if_the_encoder_trains(advice):
    texts = random_texts(20)
    lines = advice(
        texts, texts, tiny_classifier(), freeze=False, encoder_lr=0.5, head_lr=0.5, epochs=3
    )
    (_, line) = about(lines, "the training loss is")
    assert line.endswith(
        "likely --encoder-lr 0.5 is too high (try 1e-05 to 0.0002) and --head-lr 0.5 is too high "
        "(try 5e-05 to 0.01)"
    )


def test_labels_without_sense_are_named_if_rates_and_steps_are_usual(advice):
    lines = advice(noise(400, seed=1), noise(90, seed=2), head_lr=1e-4, epochs=6)
    (_, line) = about(lines, "the training loss is")
    assert line.endswith(
        "the labels do not follow from the texts; compare some texts with their labels"
    )


def test_few_steps_are_named_if_rates_are_usual(advice):
    (_, line) = about(advice(head_lr=5e-5, epochs=2), "the training loss is")
    assert line.endswith("likely 24 steps are too few; try more --epochs or higher learning rates")


def test_one_prediction_for_all_texts(advice):
    """The head has a bias for its first class, and does not learn."""
    model = tiny_classifier(head="linear")
    with torch.no_grad():
        model.head.out.bias[0] = 100
    lines = advice(model=model, head_lr=0.0)
    epoch, line = about(lines, "the same prediction")
    assert epoch == 2
    assert line.startswith(
        "all validation texts get the same prediction, but they have 3 different labels (accuracy "
        "33.3%); likely --head-lr 0 is too low"
    )


def test_a_validation_of_one_class_is_no_sign(advice):
    assert advice(validation=features(torch.zeros(20, dtype=torch.int64), seed=1)) == []


def test_one_prediction_of_a_model_that_learns_is_about_rare_classes(advice):
    """The head starts from the frequencies; four of 200 rows differ a little from the others."""
    classes = torch.zeros(200, dtype=torch.int64)
    rows = features(classes, torch.cat([torch.ones_like(classes[:4]), classes[4:]]))
    rows.values[:4, 5] += 1
    model = tiny_classifier(head="linear")
    with torch.no_grad():
        model.head.out.weight.zero_()
        model.head.out.bias.copy_(torch.tensor([0.98, 0.02, 1e-6]).log())
    ((epoch, line),) = advice(rows, rows, model, head_lr=1e-3)
    assert epoch == 2
    assert line == (
        "all validation texts get the same prediction, but they have 2 different labels (accuracy "
        "98.0%); likely it needs more epochs, or, if a class is rare, --class-weights balanced"
    )


def test_a_validation_of_other_labels_is_worse_than_its_commonest_class(advice):
    validation = features(LEARNABLE[:45], (LEARNABLE[:45] + 1) % 3, seed=1)
    epoch, line = about(advice(validation=validation), "is worse than")
    assert epoch > 1
    assert re.match(
        r"validation accuracy \d+\.\d% is worse than accuracy 33\.3%, which knowing only the class "
        "frequencies gives; likely the validation texts or labels are of another kind",
        line,
    )


def test_a_larger_error_than_the_mean_has_is_worse():
    """For numbers, lower is better."""
    state: Any = SimpleNamespace(
        options=TrainingOptions(),
        task=a_task("score", kind="regression"),
        prior=Prior(1.0, {"rmse": 1.5}, distinct_targets=9),
        step=500,
    )
    records = [EpochRecord(2, 1.1, 0.0, {"rmse": rmse}, 1.0, 1.0) for rmse in (1.4, 1.625)]
    assert worse_than_prior(state, records[:1]) is None
    assert worse_than_prior(state, records) == (
        "validation RMSE 1.625 is worse than RMSE 1.5, which knowing only the mean gives; likely "
        "the labels do not follow from the texts; compare some texts with their labels"
    )


def test_a_loss_of_zero_is_no_sign():
    """If all numbers are equal, knowing only their mean also gives 0."""
    state: Any = SimpleNamespace(
        options=TrainingOptions(),
        task=a_task("score", kind="regression"),
        prior=Prior(0.0, {"rmse": 0.0}, distinct_targets=1),
        step=500,
    )
    assert no_progress(state, [EpochRecord(2, 0.0, 0.0, {"rmse": 0.0}, 1.0, 1.0)]) is None


@pytest.mark.parametrize("change", [{"class_weights": "balanced"}, {"select": "macro-f1"}])
def test_accuracy_is_not_judged_if_rare_classes_matter_more(advice, change):
    validation = features(LEARNABLE[:45], (LEARNABLE[:45] + 1) % 3, seed=1)
    assert not any("is worse than" in line for _, line in advice(validation=validation, **change))


def test_a_low_clip_and_large_gradients(advice):
    epoch, line = about(advice(clip=1e-3), "the gradient was clipped")
    assert epoch == 1
    assert re.search(
        r"clipped at 100% of the steps, in the median from a norm of [\d.]+ to 0\.001; likely "
        "--clip is too low; try --clip 1$",
        line,
    )
    wrong = LEARNABLE[torch.randperm(len(LEARNABLE), generator=torch.Generator().manual_seed(1))]
    large = features(LEARNABLE, wrong)  # else a step with all labels right has a small gradient
    large.values *= 1000
    _, line = about(advice(large, head_lr=0.5), "the gradient was clipped")
    assert line.endswith(
        "to 1; likely a learning rate is too high, or labels are wrong; try half of both rates"
    )
    assert not any("clipped" in line for _, line in advice(large, clip=0.0))


OVERFITTING = re.compile(
    r"since epoch (?P<since>\d+) the training loss fell from (?P<high>\S+) to (?P<low>\S+) and the "
    r"validation loss rose from (?P<first>\S+) to (?P<last>\S+); likely the model learns the "
    r"training texts by heart; \S+ was best after epoch (?P<best>\d+); try (?P<remedy>.+)"
)


def test_overfitting_is_named_after_two_epochs(advice):
    """12 features fit the labels of 9 rows, whatever they are."""
    lines = advice(noise(9, seed=1), noise(90, seed=2), head_lr=0.05, epochs=12, select="loss")
    epoch, line = about(lines, "since epoch")
    found = OVERFITTING.fullmatch(line)
    assert found and int(found["since"]) == epoch - 2 >= int(found["best"])
    assert float(found["high"]) > float(found["low"])
    assert float(found["first"]) < float(found["last"])
    assert found["remedy"] == "fewer --epochs, --patience 1 or more texts"


def test_a_loss_that_rises_with_the_accuracy_is_about_probabilities():
    """As all-MiniLM on 2,000 phrases of SST-2 from the third epoch of five."""
    figures = [(0.52, 0.81, 0.43), (0.14, 0.82, 0.62), (0.04, 0.825, 0.8), (0.02, 0.83, 0.91)]
    state: Any = SimpleNamespace(
        options=TrainingOptions(),
        task=a_task(),
        prior=PRIOR,
        best_epoch=4,
        history=[
            EpochRecord(i + 1, train, 0.0, {"accuracy": accuracy, "loss": loss}, 1.0, 1.0)
            for i, (train, accuracy, loss) in enumerate(figures)
        ],
    )
    assert overfitting(state, state.history[:2]) is None
    assert overfitting(state, state.history) == (
        "since epoch 2 the training loss fell from 0.1400 to 0.0200 and the validation loss rose "
        "from 0.6200 to 0.9100; likely the model learns the training texts by heart; accuracy was "
        "best after epoch 4; try --select loss if it matters more than accuracy"
    )


def test_a_head_slower_than_the_encoder(advice):
    texts = random_texts(20)
    changes = {"freeze": False, "encoder_lr": 1e-3, "head_lr": 1e-4, "epochs": 1}
    epoch, line = about(advice(texts, texts, tiny_classifier(), **changes), "--head-lr 0.0001")
    assert epoch == 1 and line.startswith("--head-lr 0.0001 is below --encoder-lr 0.001, but")
    assert line.endswith("try --head-lr 0.005")
    changes["freeze"] = True
    lines = advice(texts, texts, tiny_classifier(), **changes)
    assert not any("--encoder-lr" in line for _, line in lines)


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_line_is_printed_once_also_by_a_resumed_run(advice, tmp_path, stop_after):
    faults: dict[str, Any] = {
        "train": noise(9, seed=1),
        "validation": noise(90, seed=2),
        "head_lr": 0.5,
        "epochs": 6,
        "clip": 1e-3,
    }
    whole = advice(**faults)
    assert len(whole) >= 3 and len({line[:20] for _, line in whole}) == len(whole)
    first = advice(**faults, callback=Printer(tmp_path, stop_after))
    assert all(epoch <= stop_after for epoch, _ in first)
    assert first + advice(**faults, callback=Printer(tmp_path)) == whole
