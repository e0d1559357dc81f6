"""Training the used word embeddings equals training the whole table (the plain twin).

Run: pytest tests/test_word_rows.py
"""

import gc
import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import random_texts, tiny_classifier
from torch import Tensor, nn

from minibert.data.batches import TextDataset
from minibert.device import Compute
from minibert.model.classifier import Classifier
from minibert.model.kernels import Dropout
from minibert.training.callback import Callback
from minibert.training.finite import step_batches
from minibert.training.loop import fit
from minibert.training.optimizer import clip_gradients, make_optimizer, set_learning_rates
from minibert.training.options import TrainingOptions
from minibert.training.state import TrainState, load_state, save_state
from minibert.training.word_rows import CompactEmbedding, compact_word_rows

pytestmark = pytest.mark.machine  # results depend on the processor's instructions

CPU = torch.device("cpu")
# Decay that can be seen after a few steps.
OPTIONS = TrainingOptions(
    batch_size=2, accumulate=2, epochs=3, encoder_lr=1e-2, head_lr=3e-2, weight_decay=0.3, clip=0.05
)


def model_without_dropout(family: str = "distilbert", **changes: Any) -> Classifier:
    model = tiny_classifier(family, head="linear", **changes)
    for layer in model.modules():
        if isinstance(layer, Dropout):
            layer.p = 0.0
    for block in model.encoder.blocks:
        block.attention.attention_dropout = 0.0
    return model


def train_plain(model: Classifier, dataset: TextDataset, options: TrainingOptions) -> None:
    """Train with nn.Embedding under AdamW, at a constant learning rate."""
    optimizer = make_optimizer(model, options)
    for epoch in range(options.epochs):
        for rows in step_batches(dataset, options, epoch):
            for batch in (dataset.batch(x) for x in rows):
                loss = F.cross_entropy(model(*batch.inputs), batch.labels, reduction="sum")
                (loss / sum(map(len, rows))).backward()
            clip_gradients(optimizer, options.clip)
            optimizer.step()
            optimizer.zero_grad()


def assert_same_weights(model: nn.Module, expected: nn.Module) -> None:
    """Equal, but for the keys' bias.

    Softmax does not depend on that: its gradient is noise, which Adam turns into full steps.
    """
    for name, value in expected.state_dict().items():
        found = model.state_dict()[name].clone()
        if name.endswith("qkv.bias"):
            found[12:24] = value[12:24]
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("pairs", [False, True])
def test_fit_equals_training_the_whole_table(family, pairs):
    """Over three epochs: rows that come, stay away and come again, unused rows, the padding's."""
    dataset = random_texts(11, pairs=pairs and family == "bert")
    model, plain = model_without_dropout(family), model_without_dropout(family)
    before = plain.encoder.embeddings.word.weight.detach().clone()
    constant = TrainingOptions(**{**vars(OPTIONS), "schedule": "constant", "warmup": 0.0})
    fit(model, dataset, random_texts(5), constant, compute=Compute(CPU), keep_best=False)
    train_plain(plain, dataset, constant)
    assert_same_weights(model, plain)

    table = model.encoder.embeddings.word
    assert isinstance(table, nn.Embedding) and table.weight.shape == before.shape
    used = dataset.used_ids()
    unused = torch.ones(len(before), dtype=torch.bool)
    unused[used] = False
    assert 0 in used and 0 < unused.sum() < len(before)
    # 9 steps at a rate of 0.01 and a decay of 0.3.
    decayed = before[unused] * (1 - 0.01 * 0.3) ** 9
    torch.testing.assert_close(table.weight[unused].detach(), decayed, rtol=1e-5, atol=1e-6)


def test_nothing_of_a_finished_training_stays_in_memory():
    model = tiny_classifier()
    parts = [weakref.ref(model)]

    class Watch(Callback):
        def on_start(self, state: TrainState) -> None:
            parts.append(weakref.ref(state.optimizer))
            for group in state.optimizer.param_groups:
                parts.extend(map(weakref.ref, group["params"]))

    fit(model, random_texts(5), random_texts(3), TrainingOptions(epochs=1), callback=Watch())
    del model
    gc.collect()
    assert len(parts) > 5
    assert [part() for part in parts] == [None] * len(parts)


# --- the embedding alone

USED = torch.tensor([0, 1, 3, 4, 7])
UNUSED = torch.tensor([2, 5, 6, 8])
EPOCHS = [
    [[[0, 1, 3, 4, 7]], [[7]], [[3, 1], [4, 0]]],
    [[[1, 3]], [[7, 4]], [[1, 1]]],
]


def new_table(padding_idx: int | None = None) -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(9, 4, padding_idx=padding_idx)


class Trainer:
    """Trains one embedding; a step may have infinite gradients or none at all."""

    def __init__(self, module: nn.Module, *, fp16: bool = False) -> None:
        self.module = module
        self.optimizer = torch.optim.AdamW(
            [{"params": list(module.parameters()), "weight_decay": 0.3, "base_lr": 0.05}],
            fused=True,
        )
        self.scaler = torch.amp.GradScaler("cpu", enabled=fp16, growth_interval=2)
        self.steps = 0

    def step(self, batches: list[list[int]], *, bad: bool = False, empty: bool = False) -> None:
        self.steps += 1
        set_learning_rates(self.optimizer, 1 / self.steps)
        for ids in [] if empty else batches:
            values = self.module(torch.tensor([ids]))
            loss = (values * torch.arange(4)).pow(2).sum() * (float("inf") if bad else 1.0)
            self.scaler.scale(loss).backward()
        if not empty:
            self.scaler.unscale_(self.optimizer)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad()


def assert_same_tables(trained: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(trained, expected, rtol=1e-5, atol=1e-6)
    assert (expected[UNUSED] / new_table().weight[UNUSED] < 0.999).all()  # the decay can be seen


@pytest.mark.parametrize("padding_idx", [None, 0])
@pytest.mark.parametrize("fp16", [False, True])
def test_the_compact_embedding_equals_the_whole_table(fp16, padding_idx):
    """In fp16 a step with infinite gradients is skipped: the unused rows do not decay either."""
    table, plain = new_table(padding_idx), new_table(padding_idx)
    compact = CompactEmbedding(table, USED)
    ours, theirs = Trainer(compact, fp16=fp16), Trainer(plain, fp16=fp16)
    for epoch, steps in enumerate(EPOCHS):
        for number, batches in enumerate(steps):
            bad = fp16 and (epoch, number) == (1, 1)
            ours.step(batches, bad=bad)
            theirs.step(batches, bad=bad)
        compact.write_back()
    assert_same_tables(table.weight.detach(), plain.weight.detach())
    assert ours.scaler.state_dict() == theirs.scaler.state_dict()


def test_a_step_without_a_gradient_changes_nothing():
    """AdamW skips parameters without a gradient, and so must the unused rows' decay."""
    table, plain = new_table(), new_table()
    compact = CompactEmbedding(table, USED)
    for trainer in (Trainer(compact), Trainer(plain)):
        for empty in (False, True, False):
            trainer.step([[1, 3]], empty=empty)
    compact.write_back()
    assert_same_tables(table.weight.detach(), plain.weight.detach())


def test_write_back_at_any_step_changes_nothing():
    """Validation and saving may come at any time, and twice."""
    table, plain = new_table(), new_table()
    compact = CompactEmbedding(table, USED)
    ours, theirs = Trainer(compact), Trainer(plain)
    for batches in EPOCHS[0]:
        ours.step(batches)
        theirs.step(batches)
        compact.write_back()
        compact.write_back()
        assert_same_tables(table.weight.detach(), plain.weight.detach())


def test_the_compact_embedding_returns_the_vectors_of_the_table():
    table, ids = new_table(), torch.tensor([[7, 1, 1], [4, 3, 7]])
    compact = CompactEmbedding(table, USED)
    assert torch.equal(compact(ids), table(ids))
    assert [tuple(p.shape) for p in compact.parameters()] == [(5, 4), (1, 1)]
    with pytest.raises(IndexError):
        compact(torch.tensor([[2]]))


# --- resuming


def test_training_resumes_in_an_epoch_with_the_decay_of_the_unused_rows(tmp_path):
    """Saved after the fourth of six steps, and in a second epoch."""
    options = TrainingOptions(**{**vars(OPTIONS), "epochs": 2})
    dataset = random_texts(11)

    class Saver(Callback):
        """Saves after the fourth step; starts from what is saved."""

        def __init__(self, folder: Path) -> None:
            super().__init__()
            self.folder = folder

        def on_start(self, state: TrainState) -> None:
            for file in self.folder.glob("*.safetensors"):
                load_state(file, state)

        def on_step(self, state: TrainState, loss: Tensor, lr: float) -> None:
            if state.step == 4 and not list(self.folder.glob("*.safetensors")):
                save_state(self.folder, state)

    models = [model_without_dropout(), model_without_dropout(seed=9)]
    for model in models:
        saver = Saver(tmp_path)
        fit(
            *(model, dataset, dataset, options),
            compute=Compute(CPU),
            callback=saver,
            keep_best=False,
        )
    for name, value in models[0].state_dict().items():
        assert torch.equal(models[1].state_dict()[name], value), name


# --- the context


def test_the_context_gives_the_model_its_table_back():
    """For validation inside of it, at its end, and after an error."""
    model, dataset = model_without_dropout(), random_texts(4)
    table = model.encoder.embeddings.word
    before = table.weight.detach().clone()
    with (
        pytest.raises(KeyboardInterrupt),
        compact_word_rows(model.encoder, dataset) as whole_table,
    ):
        assert isinstance(model.encoder.embeddings.word, CompactEmbedding)
        with whole_table():
            assert model.encoder.embeddings.word is table
        assert isinstance(model.encoder.embeddings.word, CompactEmbedding)
        raise KeyboardInterrupt
    assert model.encoder.embeddings.word is table and torch.equal(table.weight, before)


def test_a_frozen_table_stays_as_it_is():
    model, dataset = model_without_dropout(), random_texts(4)
    table = model.encoder.embeddings.word
    table.weight.requires_grad_(False)
    with compact_word_rows(model.encoder, dataset) as whole_table:
        assert model.encoder.embeddings.word is table and whole_table is nullcontext
