"""Linear layers for inference on a CPU: the plain computation, then oneDNN's kernels, then int8.

All private operators of PyTorch that inference uses are called in this file. Before an operator is
used it is compared with the plain computation on small cases; if it is missing or differs, the
plain layers stay. `python -m benchmarks tricks` measures what they save.
"""

import functools
import platform
import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.device import cpu_has_bf16

CHUNK = 2**19  # float32 inputs or outputs, or up to twice as many: a processor's cache holds them


def plain_linear(
    x: Tensor, weight: Tensor, bias: Tensor, activation: nn.Module | None = None
) -> Tensor:
    """Return activation(x W^T + b): (..., in) -> (..., out). The layers below equal this."""
    x = F.linear(x, weight, bias)
    return x if activation is None else activation(x)


class InferenceLinear(nn.Module):
    """A layer whose weights have a kernel's own layout: it cannot be saved, moved or converted."""

    def _save_to_state_dict(self, *_: object) -> None:
        raise RuntimeError("a model prepared for inference has no state_dict; load the checkpoint")

    def _apply(self, *_: object, **__: object) -> "InferenceLinear":
        raise RuntimeError("a model prepared for inference cannot be moved; load the checkpoint")


class PrepackedLinear(InferenceLinear):
    """activation(x W^T + b) by oneDNN's kernel, with prepacked weights, in the type of W."""

    def __init__(self, linear: nn.Linear, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = linear.bias.detach()
        # The kernel's own GELU is slower than PyTorch's where there is no AVX512.
        fused = activation if torch.backends.cpu.get_cpu_capability() == "AVX512" else None
        self.fused, self.variant = fused_name(fused)
        self.activation = activation if fused is None else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        x = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, self.fused, [], self.variant
        )
        return x if self.activation is None else self.activation(x)


class Levels(NamedTuple):
    """The largest quantized input (unsigned) and the largest quantized weight (signed)."""

    inputs: int
    weights: int


class QuantizedLinear(InferenceLinear):
    """activation(x W^T + b) with int8 weights and uint8 inputs.

    Each output has a scale for its weights; each token has a scale for its inputs. So a text's
    logits do not depend on other texts of the same length. Scales, bias and activation are float32.

    Args:
        levels: as `int8_levels` returns them.
        lowest: the smallest value that the inputs can have; smaller ones give wrong results.
            Without it, the levels are spread evenly around zero.
    """

    def __init__(
        self,
        linear: nn.Linear,
        activation: nn.Module | None = None,
        *,
        levels: Levels,
        lowest: float | None = None,
    ) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        self.scales = weight.abs().amax(dim=1).clamp(min=1e-12) / levels.weights
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        rounded = (weight / self.scales[:, None]).round()
        self.weight = torch.ops.onednn.qlinear_prepack(rounded.to(torch.int8), None)
        self.bias = linear.bias.detach().float()
        self.activation, self.levels, self.lowest = activation, levels.inputs, lowest
        self.middle = (levels.inputs + 1) // 2
        if lowest is None:
            self.zero = self.middle
        else:  # x = lowest + scale * quantized: what `lowest` adds is the same for every token
            self.zero = 0
            self.bias = self.bias + lowest * rounded.sum(dim=1) * self.scales

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in chunks of tokens whose float32 values stay in cache."""
        inputs = x.reshape(-1, x.shape[-1])
        outputs = x.new_empty(len(inputs), len(self.bias))
        count = max(1, min(len(inputs), max(inputs.numel(), outputs.numel()) // CHUNK))
        chunks = zip(inputs.tensor_split(count), outputs.tensor_split(count), strict=True)
        for chunk, output in chunks:
            output.copy_(self._forward_chunk(chunk.float()))
        return outputs.view(*x.shape[:-1], len(self.bias))

    def _forward_chunk(self, values: Tensor) -> Tensor:
        """(N, in) -> (N, out), both float32."""
        if self.lowest is None:
            largest = values.abs().amax(dim=-1, keepdim=True)
            scale = largest.clamp(min=1e-12) / (self.levels // 2)
            centred = (values * (1 / scale)).round_()
        else:
            largest = values.amax(dim=-1, keepdim=True)
            scale = (largest - self.lowest).clamp(min=1e-12) / self.levels
            offset = -self.middle - self.lowest / scale
            centred = (values * (1 / scale)).add_(offset).round_()
        # With AVX512 PyTorch converts to int8 faster than to uint8.
        quantized = centred.to(torch.int8).view(torch.uint8).add_(self.middle)
        product = torch.ops.onednn.qlinear_pointwise(
            *(quantized, 1.0, self.zero, self.weight, self.scales, self.zeros, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        )
        result = torch.addcmul(self.bias, product, scale, out=product)
        return result if self.activation is None else self.activation(result)


def fused_name(activation: nn.Module | None) -> tuple[str, str]:
    """Return oneDNN's name of an activation, and its variant."""
    if activation is None:
        return "none", ""
    if isinstance(activation, nn.GELU):
        return "gelu", activation.approximate
    assert isinstance(activation, nn.ReLU)
    return "relu", ""


ACTIVATIONS = (None, nn.GELU(), nn.GELU(approximate="tanh"), nn.ReLU())


@functools.cache
def prepacking_works(precision: str) -> bool:
    """Return whether PrepackedLinear equals the plain layer; warn once if its kernel is broken."""
    problem = prepacking_problem(precision)
    if problem:
        warnings.warn(
            f"torch {torch.__version__}: oneDNN's linear layer is not used ({problem}); "
            "predictions use the slower plain layer",
            stacklevel=2,
        )
    return problem is None


@functools.cache
def prepacking_problem(precision: str) -> str | None:
    """Return why PrepackedLinear does not work; None if it does, "" if this is expected."""
    if not is_x86() or precision == "fp16" or (precision == "bf16" and not cpu_has_bf16()):
        return ""
    dtype, tolerance = (torch.bfloat16, 0.02) if precision == "bf16" else (torch.float32, 1e-5)
    linear, x = _mixed_case(dtype)
    try:
        errors = [_relative_error(PrepackedLinear(linear, f), linear, x, f) for f in ACTIVATIONS]
    except (AttributeError, RuntimeError, TypeError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return None if all(error <= tolerance for error in errors) else "it gives other results"


# Without VNNI or AMX instructions two products are added in 16 bits, which saturate at 32,767:
# 2 x 255 x 127 is too large, 2 x 180 x 90 is not.
LEVELS = (Levels(255, 127), Levels(180, 90))


@functools.cache
def int8_levels(dtype: torch.dtype) -> Levels | None:
    """Return the first of LEVELS with which QuantizedLinear is right; None if there is none.

    `dtype` is that of the layer's input and output.
    """
    if not is_x86():
        return None
    cases = [(*_mixed_case(dtype), f) for f in ACTIVATIONS] + [(*_saturating_case(dtype), None)]
    for levels in LEVELS:
        try:
            errors = [
                _relative_error(
                    QuantizedLinear(linear, f, levels=levels, lowest=lowest), linear, x, f
                )
                for linear, x, f in cases
                for lowest in (None, float(x.min()))
            ]
        except (AttributeError, RuntimeError, TypeError):
            return None
        if all(error <= 0.02 for error in errors):  # rounding costs 0.002, saturation 0.04
            return levels
    return None


def is_x86() -> bool:
    """Return whether oneDNN's kernels are worth it: they are made for x86 processors."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and torch.backends.mkldnn.is_available()


def _mixed_case(dtype: torch.dtype) -> tuple[nn.Linear, Tensor]:
    """Return a layer and its input (32, 128); weights, inputs and outputs have both signs."""
    x = torch.sin(1.3 * torch.arange(32.0 * 128) ** 1.2).view(32, 128)
    weight = 0.1 * torch.sin(0.7 * torch.arange(64.0 * 128) ** 1.1).view(64, 128)
    return _layer(weight, dtype), x.to(dtype)


def _saturating_case(dtype: torch.dtype) -> tuple[nn.Linear, Tensor]:
    """Return a layer and its input (32, 128), all near the largest quantized values."""
    x = torch.linspace(0.9, 1.0, 32 * 128).view(32, 128)
    return _layer(torch.linspace(0.9, 1.0, 64 * 128).view(64, 128), dtype), x.to(dtype)


def _layer(weight: Tensor, dtype: torch.dtype) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):  # nn.Linear draws from torch's random state
        linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight = nn.Parameter(weight)
    linear.bias = nn.Parameter(torch.linspace(-1.0, 1.0, len(weight)))
    return linear.to(dtype)


@torch.no_grad()
def _relative_error(
    layer: InferenceLinear, linear: nn.Linear, x: Tensor, activation: nn.Module | None
) -> float:
    """Return the largest difference from the plain layer, relative to its largest output."""
    expected = plain_linear(x, linear.weight, linear.bias, activation)
    return float((layer(x) - expected).abs().max() / expected.abs().max())
