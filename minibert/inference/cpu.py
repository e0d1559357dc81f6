"""Linear layers for inference on a CPU: the plain computation, then oneDNN's kernels, then int8.

Every private operator of PyTorch for inference is called in this file. Before an operator is used
it is compared with the plain computation on a small case; if it is missing or differs, the plain
layers stay. Measured on a Xeon with AMX, 2 cores, DistilBERT size: 839 texts/s in bf16 with these
layers, 368 with plain ones under autocast.
"""

import functools
import platform
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.device import cpu_has_bf16
from minibert.errors import InputError
from minibert.model.classifier import Classifier
from minibert.model.encoder import Block


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
    """activation(x W^T + b) in one oneDNN kernel, with prepacked weights, in the type of W."""

    def __init__(self, linear: nn.Linear, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = linear.bias.detach()
        self.activation, self.variant = fused_name(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, self.activation, [], self.variant
        )


class QuantizedLinear(InferenceLinear):
    """activation(x W^T + b) with int8 weights, one scale per output, and uint8 activations.

    Activations are scaled per batch, so logits depend on what else is in the batch. `largest` is
    the largest quantized weight: 127, or 63 where two products are added in 16 bits.
    """

    def __init__(
        self, linear: nn.Linear, activation: nn.Module | None = None, *, largest: int
    ) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        self.scales = weight.abs().amax(dim=1).clamp(min=1e-12) / largest
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        rounded = (weight / self.scales[:, None]).round().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.bias = linear.bias.detach().float()
        self.activation, self.variant = fused_name(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        low, high = (float(value) for value in torch.aminmax(x))
        low, high = min(low, 0.0), max(high, 0.0)  # zero must be representable
        scale = max(high - low, 1e-12) / 254  # one level is left for the rounding of zero
        zero = round(-low / scale)
        # The conversion to whole numbers truncates; adding a half makes it round.
        offset = torch.tensor(zero + 0.5)
        quantized = torch.add(offset, x.float(), alpha=1 / scale).to(torch.uint8)
        return torch.ops.onednn.qlinear_pointwise(
            *(quantized, scale, zero, self.weight, self.scales, self.zeros, self.bias),
            *(1.0, 0, x.dtype, self.activation, [], self.variant),
        )


def fused_name(activation: nn.Module | None) -> tuple[str, str]:
    """Return oneDNN's name of an activation, and its variant."""
    if activation is None:
        return "none", ""
    if isinstance(activation, nn.GELU):
        return "gelu", activation.approximate
    assert isinstance(activation, nn.ReLU)
    return "relu", ""


def prepack(model: Classifier, precision: str) -> bool:
    """Replace the encoder's linear layers, in place; inference only. Return whether it was done.

    Embeddings and norms become bf16 for bf16, and for int8 if the processor has bf16. Everything
    else, pooler and head included, is fp32. Raises InputError for int8 if it cannot be computed.
    """
    if precision == "int8" and not int8_levels():
        raise InputError("--precision int8 needs an x86 processor with AVX2, and oneDNN in PyTorch")
    if precision != "int8" and not prepacking_works(precision):
        return False
    half = precision == "bf16" or (precision == "int8" and cpu_has_bf16())
    encoder = model.eval().encoder
    for module in (encoder.embeddings, encoder.blocks):
        module.to(torch.bfloat16 if half else torch.float32)

    def layer(linear: nn.Linear, activation: nn.Module | None = None) -> InferenceLinear:
        if precision == "int8":
            return QuantizedLinear(linear, activation, largest=int8_levels())
        return PrepackedLinear(linear, activation)

    for block in encoder.blocks:
        assert isinstance(block, Block)
        attention, feed_forward = block.attention, block.feed_forward
        attention.qkv = layer(attention.qkv)  # type: ignore[assignment]
        attention.out = layer(attention.out)  # type: ignore[assignment]
        feed_forward.up = layer(feed_forward.up, feed_forward.activation)  # type: ignore[assignment]
        feed_forward.activation = nn.Identity()
        feed_forward.down = layer(feed_forward.down)  # type: ignore[assignment]
    return True


@functools.cache
def prepacking_works(precision: str) -> bool:
    """Compare PrepackedLinear with the plain layer on a small case; warn once if it differs."""
    if not is_x86() or precision == "fp16" or (precision == "bf16" and not cpu_has_bf16()):
        return False
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    linear, x = _small_case(largest=1.0)
    linear, x, gelu = linear.to(dtype), x.to(dtype), nn.GELU()
    with torch.no_grad():
        expected = plain_linear(x, linear.weight, linear.bias, gelu)
        try:
            error = (PrepackedLinear(linear, gelu)(x) - expected).abs().max()
        except (AttributeError, RuntimeError, TypeError) as problem:
            return _warn_plain(str(problem))
    tolerance = 0.02 if precision == "bf16" else 1e-5
    return bool(error <= tolerance * expected.abs().max()) or _warn_plain("it gives other results")


@functools.cache
def int8_levels() -> int:
    """Return the largest quantized weight with which int8 products are exact; 0 if none is.

    With VNNI or AMX it is 127. With AVX2, two products are added in 16 bits, which saturates:
    2 x 255 x 63 still fits.
    """
    if not is_x86():
        return 0
    linear, x = _small_case(largest=127.0)
    with torch.no_grad():
        expected = plain_linear(x, linear.weight, linear.bias)
        for largest in (127, 63):
            try:
                error = (QuantizedLinear(linear, largest=largest)(x) - expected).abs().max()
            except (AttributeError, RuntimeError, TypeError):
                return 0
            if error <= 0.02 * expected.abs().max():
                return largest
    return 0


def is_x86() -> bool:
    """Return whether oneDNN's kernels are worth it: they are made for x86 processors."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and torch.backends.mkldnn.is_available()


def _small_case(largest: float) -> tuple[nn.Linear, Tensor]:
    """Return a layer and its input (B, D), positive and as large as sums get: int8 overflows."""
    x = torch.linspace(0.9, 1.0, 32 * 128).view(32, 128)
    weight = torch.linspace(0.9 * largest, largest, 64 * 128).view(64, 128)
    linear = torch.nn.utils.skip_init(nn.Linear, 128, 64)
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(torch.linspace(-1.0, 1.0, 64))
    return linear, x


def _warn_plain(reason: str) -> bool:
    reason = reason.partition("\n")[0]
    warnings.warn(
        f"torch {torch.__version__}: oneDNN's linear layer is not used ({reason}); "
        "predictions use the slower plain one",
        stacklevel=3,
    )
    return False
