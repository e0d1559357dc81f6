"""Frozen layers: what is above them trains on their output as it would on top of them.

Run: pytest tests/test_frozen.py
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from helpers import random_texts, tiny_classifier
from torch import nn

from minibert.data import hidden
from minibert.data.batches import Dataset
from minibert.data.hidden import HiddenDataset
from minibert.device import Compute
from minibert.errors import InputError
from minibert.inference.batched import prepare_for_inference
from minibert.training.callback import Callback
from minibert.training.frozen import Encoding, HiddenStates, encode, frozen_layers
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions

pytestmark = pytest.mark.machine  # results depend on the processor's instructions

CPU = Compute(torch.device("cpu"))
BF16 = dataclasses.replace(CPU, precision="bf16")
ROWS = [6, 0, 3, 1]


def gradients(module: nn.Module, dataset: Dataset) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """The logits of ROWS, and the gradient of each trainable parameter by its identity."""
    batch = dataset.batch(ROWS)
    logits = module(*batch.inputs)
    F.cross_entropy(logits, batch.labels, reduction="sum").backward()
    found = {id(p): p.grad.clone() for p in module.parameters() if p.grad is not None}
    module.zero_grad()
    return logits.detach(), found


@pytest.mark.parametrize("pooling", ["cls", "mean", "pooler"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_logits_and_gradients_equal_those_of_the_whole_model(family, layers, pooling):
    if pooling == "pooler" and family in ("distilbert", "electra"):
        pytest.skip("the family has no pooler")
    model = tiny_classifier(family, pooling=pooling).eval()
    texts = random_texts(7, pairs=family == "bert")
    options = TrainingOptions(freeze_layers=layers, batch_size=3)
    upper, (kept,), encoding = encode(model, [texts], options, CPU, folder=None)
    assert isinstance(kept, HiddenDataset)
    with frozen_layers(model, options):
        expected_logits, expected = gradients(model, texts)
        logits, found = gradients(upper, kept)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-5, atol=1e-5)
    assert found.keys() == expected.keys() != set()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-5)
    assert (encoding.layers, encoding.texts, encoding.in_file) == (layers, 7, False)
    assert encoding.bytes == (texts.lengths.sum() + 1) * 12 * 4


def test_dropout_is_off_below_and_on_above():
    model, texts = tiny_classifier().train(), random_texts(7)
    options = TrainingOptions(freeze_layers=2, batch_size=3)
    upper, (kept,), _ = encode(model, [texts], options, CPU, folder=None)
    model.eval()
    upper.eval()
    with torch.no_grad():
        plain = [
            module(*data.batch(ROWS).inputs) for module, data in ((model, texts), (upper, kept))
        ]
        torch.testing.assert_close(*plain, rtol=1e-5, atol=1e-5)
        upper.train()
        assert not torch.allclose(upper(*kept.batch(ROWS).inputs), plain[0], atol=1e-3)


@pytest.mark.filterwarnings("ignore:bf16 is emulated")
def test_where_bf16_computes_the_output_is_kept_in_bf16():
    model, texts = tiny_classifier().eval(), random_texts(7)
    options = TrainingOptions(freeze_layers=2, batch_size=3)
    upper, (kept,), encoding = encode(model, [texts], options, BF16, folder=None)
    assert encoding.bytes == (texts.lengths.sum() + 1) * 12 * 2
    expected = model(*texts.batch(ROWS).inputs)
    with BF16.autocast():
        trained = upper(*kept.batch(ROWS).inputs).float()
    torch.testing.assert_close(trained, expected, rtol=0.05, atol=0.05)
    scored = prepare_for_inference(upper, BF16, keep=True).logits(kept, batch_size=3)
    torch.testing.assert_close(scored[ROWS], expected, rtol=0.05, atol=0.05)


def test_validation_of_what_is_above_equals_that_of_the_whole_model():
    """`fit` validates on kept hidden states; the model that it leaves gives the same figures."""
    model, train, validation = tiny_classifier(), random_texts(14), random_texts(9, seed=1)
    options = TrainingOptions(
        epochs=2, batch_size=4, freeze_layers=2, encoder_lr=1e-2, head_lr=1e-2
    )
    history = fit(model, train, validation, options, compute=CPU, keep_best=False).history
    logits = prepare_for_inference(model, CPU).logits(validation, batch_size=4)
    loss = float(F.cross_entropy(logits, validation.labels))
    assert history[-1].validation["loss"] == pytest.approx(loss, rel=1e-4)


def test_hidden_states_stay_on_the_device_of_their_dataset():
    states = HiddenStates()
    assert states(torch.zeros(1, 2, 3, device="meta")).device.type == "meta"


class Folder(Callback):
    """Gives the scratch folder; keeps what was encoded."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def scratch_folder(self):
        return self.folder

    def on_encoded(self, encoding: Encoding) -> None:
        self.seen.append(encoding)


def test_fit_says_what_it_keeps_and_leaves_nothing_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(hidden, "LARGE", 100)
    model, train, validation = tiny_classifier(), random_texts(14), random_texts(7)
    options = TrainingOptions(epochs=1, batch_size=4, freeze_layers=2)
    callback = Folder(tmp_path)
    fit(model, train, validation, options, compute=CPU, callback=callback)
    (encoding,) = callback.seen
    assert (encoding.layers, encoding.texts, encoding.in_file) == (2, 21, True)
    assert list(tmp_path.iterdir()) == []
    callback.folder = tmp_path / "missing"
    with pytest.raises(InputError, match="missing: no room"):
        fit(model, train, validation, options, compute=CPU, callback=callback)


def test_the_line_says_where_the_output_is():
    line = "4 frozen layers: 1,234 texts encoded once in 5.7 s; 1,500.0 MB of output in "
    encoding = Encoding(4, texts=1234, seconds=5.68, bytes=15 * 10**8, in_file=True)
    assert str(encoding) == line + "a temporary file"
    assert str(dataclasses.replace(encoding, in_file=False)) == line + "memory"
