"""benchmarks/broken.py breaks what it says, and docs/broken.md names tests that exist.

Run: pytest tests/test_broken.py
"""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT, tiny_classifier
from models import make_batch, randomize

from benchmarks.broken import IN_INFERENCE, IN_TRAINING, mean_of_means
from minibert.model.classifier import Classifier
from minibert.training.optimizer import make_optimizer
from minibert.training.options import TrainingOptions

PAGE = (ROOT / "docs" / "broken.md").read_text(encoding="utf-8")


@pytest.fixture
def model() -> Classifier:
    model = tiny_classifier("bert", pooling="mean").eval()
    randomize(model)
    return model


@pytest.mark.parametrize("name", IN_INFERENCE)
@torch.no_grad()
def test_each_fault_changes_a_copy_alone(name: str, model: Classifier) -> None:
    batch = tuple(make_batch("bert").values())
    expected, broken = model(*batch), copy.deepcopy(model)
    IN_INFERENCE[name](broken)
    torch.manual_seed(0)
    assert (broken(*batch) - expected).abs().max() > 1e-5
    torch.testing.assert_close(model(*batch), expected)


def test_lost_norms_are_one_and_zero_and_all_groups_decay(model: Classifier) -> None:
    _, spoil, _ = IN_TRAINING["gamma and beta not renamed: norms lost"]
    spoil(model)
    for norm in (model.encoder.embeddings.norm, model.encoder.blocks[2].feed_forward_norm):
        assert norm.weight.eq(1).all() and norm.bias.eq(0).all()
    context, _, _ = IN_TRAINING["decay on norms and biases"]
    for broken in (False, True):
        with context() if broken else torch.no_grad():
            optimizer = make_optimizer(model, TrainingOptions())
        decays = {group["weight_decay"] for group in optimizer.param_groups}
        assert decays == ({0.01} if broken else {0.0, 0.01})


def test_the_mean_of_means_counts_the_texts_of_a_small_last_batch_more() -> None:
    logits = torch.tensor([[0.0, 2.0]]).expand(33, 2)
    labels = torch.ones(33, dtype=torch.int64)
    labels[32] = 0  # the only wrong one, alone in its batch
    right, wrong = (F.cross_entropy(logits[:1], torch.tensor([x])).item() for x in (1, 0))
    assert mean_of_means(logits, labels) == pytest.approx((right + wrong) / 2)


def test_the_page_has_each_fault_and_a_test_that_exists_for_it() -> None:
    rows = dict(re.findall(r"^\| ([^|]*) \|.*\| ([^|]*) \|$", PAGE, re.MULTILINE))
    faults = [*IN_INFERENCE, *(name for name in IN_TRAINING if not name.startswith("none"))]
    for name in (*faults, "the last batch counted as a full one", "pooler left out"):
        ((file, test),) = re.findall(r"`(test_\w+\.py)`: `(test_\w+)`", rows[name])
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
