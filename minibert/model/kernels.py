"""Attention, dropout and linear layers for training on a CPU, faster than PyTorch's own.

`python -m benchmarks tricks` measures what each saves; docs/speed.md has results.
"""

import functools
import itertools
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CACHED_WEIGHTS = 2**23  # attention weights that a processor's cache holds
LEVELS = 2**16  # dropout probabilities are rounded to multiples of 1 / LEVELS
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def use_stepwise_attention(q: Tensor, dropout_p: float) -> bool:
    """Return whether `stepwise_attention` is the faster way for these queries (B, H, S, K).

    On a CPU, scaled_dot_product_attention's flash kernel is the fastest for inference. In training
    it has no dropout, and its backward pass in half precision is slower than two plain products up
    to about 128 tokens.
    """
    if q.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    half = q.dtype in (torch.bfloat16, torch.float16)
    return dropout_p > 0 or (half and q.shape[2] <= 128)


def attention_kernels(device: torch.device) -> AbstractContextManager:
    """Return a context for scaled_dot_product_attention: on a GPU without cuDNN.

    Flash, efficient and math attention remain. PyTorch prefers cuDNN's on some GPUs (2.11 and
    later: on H100). It plans each shape of its inputs when it first sees it, which can take longer
    than a training step, and the lengths of texts make many shapes.
    """
    return without_cudnn_attention() if device.type == "cuda" else nullcontext()


class _CuDNN:
    """The setting belongs to the process: the first thread saves it, the last one restores it."""

    def __init__(self) -> None:
        self.lock, self.threads, self.enabled = threading.Lock(), 0, True


_CUDNN = _CuDNN()


@contextmanager
def without_cudnn_attention() -> Iterator[None]:
    """Turn cuDNN's attention off, for the whole process, until no thread is in this context."""
    with _CUDNN.lock:
        if not _CUDNN.threads:
            _CUDNN.enabled = torch.backends.cuda.cudnn_sdp_enabled()
            torch.backends.cuda.enable_cudnn_sdp(False)
        _CUDNN.threads += 1
    try:
        yield
    finally:
        with _CUDNN.lock:
            _CUDNN.threads -= 1
            if not _CUDNN.threads:
                torch.backends.cuda.enable_cudnn_sdp(_CUDNN.enabled)


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, dropout_p: float
) -> Tensor:
    """Compute `encoder.attention` as its formula is written; the shapes are the same."""
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, S, S)
    if mask is not None:
        weights = weights.masked_fill_(~mask, -math.inf)
    return dropout(torch.softmax(weights, dim=-1), dropout_p) @ v


def stepwise_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    dropout_p: float,
    cached_weights: int = CACHED_WEIGHTS,
) -> Tensor:
    """Compute `plain_attention` for a few texts at a time, so that the weights stay in cache.

    Each chunk holds at most `cached_weights` attention weights and at least one text.
    """
    size = max(1, cached_weights // (q.shape[1] * q.shape[2] * k.shape[2]))
    if len(q) <= size:
        return plain_attention(q, k, v, mask, dropout_p=dropout_p)
    masks = itertools.repeat(None) if mask is None else mask.split(size)
    steps = zip(q.split(size), k.split(size), v.split(size), masks, strict=False)
    return torch.cat([plain_attention(*step, dropout_p=dropout_p) for step in steps])


class Dropout(nn.Dropout):
    """nn.Dropout on the faster `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape. Changes nothing in evaluation mode."""
        return dropout(x, self.p) if self.training else x


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element with probability p and scale the rest by 1 / (1 - p) (Srivastava 2014).

    On a CPU, PyTorch draws one random number per element, one after another. Here one 64-bit number
    serves four elements, and p is rounded to a multiple of 1 / 65,536.
    """
    zeroed = round(p * LEVELS)
    if x.device.type != "cpu" or zeroed == LEVELS:
        return F.dropout(x, p)
    return _Dropout.apply(x, zeroed) if zeroed else x


class _Dropout(torch.autograd.Function):
    """`dropout` by a kept mask, which the backward pass uses again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, zeroed: int) -> Tensor:
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = (bits.view(torch.int16)[: x.numel()] >= zeroed - LEVELS // 2).view(x.shape)
        ctx.save_for_backward(kept)
        ctx.scale = LEVELS / (LEVELS - zeroed)
        return masked_scale(x, kept, ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return masked_scale(gradient, kept, ctx.scale), None


def masked_scale(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    """Return x times `scale` where it is kept, and zero elsewhere.

    Equals x * kept * scale for finite x. A bitwise and is faster than a product with booleans.
    """
    mask = kept.view(torch.int8).to(INTEGERS[x.element_size()]).neg_()  # -1, all bits set, or 0
    return mask.bitwise_and_(x.view(mask.dtype)).view(x.dtype).mul_(scale)


class Linear(nn.Linear):
    """nn.Linear, whose training in fp32 uses oneDNN where that is faster than MKL."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self.training and use_onednn(x):
            return _Linear.apply(x, self.weight, self.bias)
        return super().forward(x)


def use_onednn(x: Tensor) -> bool:
    """Return whether oneDNN multiplies these inputs faster than PyTorch's own product does.

    PyTorch's builds for x86 multiply fp32 matrices by MKL, which leaves part of the speed of AMD
    processors with AVX512 unused. With AVX2 MKL is the faster; Intel's AVX512 was not measured.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and amd_with_avx512()
        and onednn_works()
    )


@functools.cache
def amd_with_avx512() -> bool:
    """Return whether PyTorch uses AVX512 on a processor of AMD."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        return "AMD" in torch.cpu.get_capabilities().get("cpu_name", "")
    except AttributeError:  # before torch 2.10
        return False


class _Linear(torch.autograd.Function):
    """x W^T + b and its gradients, with fp32 products by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_product(x, weight.t(), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, len(weight))
        return (
            onednn_product(gradient, weight) if needs_x else None,
            onednn_product(rows.t(), x.reshape(-1, x.shape[-1])) if needs_weight else None,
            rows.sum(dim=0) if needs_bias else None,
        )


def onednn_product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a b + bias: (..., N, K) and (K, M) -> (..., N, M). Neither needs to be contiguous."""
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")


@functools.cache
def onednn_works() -> bool:
    """Try `onednn_product` on small cases; warn once if this PyTorch's operator has changed."""
    a, b, bias = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(3, 4), torch.arange(4.0)
    expected = a @ b
    try:
        works = onednn_product(a, b, bias).equal(expected + bias)
        works = works and onednn_product(b.t(), a.t()).equal(expected.t())
    except (AttributeError, RuntimeError, TypeError):
        works = False
    if not works:
        warnings.warn(
            f"mkldnn._linear_pointwise of torch {torch.__version__} is missing or has changed; "
            "training uses PyTorch's own linear layers",
            stacklevel=2,
        )
    return works
