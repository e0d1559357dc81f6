"""Proves that dropout drops the right share, at random, and that its gradient is of what it kept.

Run: pytest tests/test_dropout.py
"""

import math

import pytest
import torch
from torch import Tensor

from minibert.model.kernels import STEPS, Dropout, dropout

MANY = 2**20
RATES = [1 / STEPS, 0.001, 0.1, 0.3, 0.5, 0.9, 1 - 1 / STEPS]


def kept(size: int, p: float, seed: int = 0) -> Tensor:
    """Return 1 where an element stays and 0 where it is dropped."""
    torch.manual_seed(seed)
    return (dropout(torch.ones(size), p) != 0).float()


@pytest.mark.parametrize("p", RATES)
def test_a_share_p_is_dropped_and_the_mean_stays(p):
    torch.manual_seed(1)
    values = dropout(torch.ones(MANY), p)
    spread = math.sqrt(p * (1 - p) / MANY)  # of a binomial share; five of them are one in a million
    assert (values == 0).float().mean().item() == pytest.approx(p, abs=5 * spread)
    assert values.double().mean().item() == pytest.approx(1, abs=5 * spread / (1 - p))


@pytest.mark.parametrize("p", [*RATES, 0.123456])
def test_what_is_kept_is_scaled_by_the_share_that_is_really_dropped(p):
    x = torch.randn(MANY, generator=torch.Generator().manual_seed(2)) + 9  # no zeros of its own
    values = dropout(x, p)
    scale = STEPS / (STEPS - round(STEPS * p))
    assert torch.equal(values[values != 0], (x * scale)[values != 0])


@pytest.mark.parametrize("p", [0.0, 1e-9, 0.49 / STEPS])
def test_a_share_that_rounds_to_none_leaves_all(p):
    x = torch.randn(999)
    assert torch.equal(dropout(x, p), x)


@pytest.mark.parametrize("p", [1.0, 1 - 1e-9])
def test_a_share_that_rounds_to_all_leaves_none(p):
    x = torch.randn(999, requires_grad=True)
    values = dropout(x, p)
    values.sum().backward()
    assert not values.any() and x.grad is not None and not x.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_gradient_has_the_mask_and_the_scale_of_the_values(dtype):
    x = (torch.rand(7, 33) + 1).to(dtype).requires_grad_()
    gradient = torch.randn(7, 33).to(dtype)
    values = dropout(x, 0.25)
    values.backward(gradient)
    mask = values != 0
    assert values.dtype == x.grad.dtype == dtype
    assert 0 < mask.sum() < mask.numel()
    scale = 4 / 3
    torch.testing.assert_close(values, (x * mask * scale).to(dtype))
    torch.testing.assert_close(x.grad, (gradient * mask * scale).to(dtype))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2,), (3,), (5,), (3, 7), (2, 0, 3), (1, 5, 11)])
def test_every_size_is_served_also_those_that_four_does_not_divide(shape):
    found = torch.stack([dropout(torch.ones(shape), 0.5) for _ in range(60)])
    assert found.shape == (60, *shape)
    assert ((found == 0) | (found == 2)).all()
    # Each element, the last one too, is now dropped and now kept.
    assert ((found == 0).any(dim=0) & (found == 2).any(dim=0)).all()


def test_a_transposed_or_cut_input_is_dropped_in_its_own_places():
    x = torch.arange(1.0, 61.0).view(3, 4, 5)
    for view in (x.transpose(0, 2), x[:, 1:3, ::2], x[:1].expand(6, 4, 5)):
        leaf = view.detach().requires_grad_()
        values = dropout(leaf, 0.5)
        values.sum().backward()
        assert torch.equal(values, view * 2 * (values != 0))
        assert torch.equal(leaf.grad, 2.0 * (values != 0))


def test_one_seed_gives_one_mask_and_another_call_another():
    assert torch.equal(kept(1001, 0.5, seed=3), kept(1001, 0.5, seed=3))
    assert not torch.equal(kept(1001, 0.5, seed=3), kept(1001, 0.5, seed=4))
    torch.manual_seed(3)
    first, second = dropout(torch.ones(1001), 0.5), dropout(torch.ones(1001), 0.5)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_neighbours_are_dropped_independently(p):
    """Four elements share one random number; none of them may tell of another."""
    mask = kept(MANY, p) - (1 - p)
    for lag in (1, 2, 3, 4):
        correlation = (mask[lag:] * mask[:-lag]).mean() / (p * (1 - p))
        assert abs(correlation) < 5 / math.sqrt(MANY), lag
    shares = (kept(MANY, p) == 0).view(-1, 4).float().mean(dim=0)  # of each quarter of a number
    assert shares.tolist() == pytest.approx([p] * 4, abs=5 * math.sqrt(4 * p * (1 - p) / MANY))


def test_the_layer_drops_while_training_only():
    layer, x = Dropout(0.5), torch.ones(999)
    assert 300 < (layer.train()(x) == 0).sum() < 700
    assert torch.equal(layer.eval()(x), x)
