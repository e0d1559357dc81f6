"""A trained classifier made ready to answer on a CPU: its weights in the order of the kernels.

The linear layers become calls of oneDNN's, which are told the activation too. int8 rounds the
weights once and each layer's input as it comes, so that it needs no calibration data.
"""

from typing import Any

import torch
from torch import Tensor, nn

from minibert.model import Block, Classifier

PLAIN = ("none", "")


def packable(precision: str) -> bool:
    """Say whether this processor and this PyTorch have the kernels for a precision.

    They are for x86: elsewhere PyTorch's own compiler leaves them aside (mkldnn_fusion.py).
    """
    x86 = torch.backends.mkldnn.is_available() and torch.cpu._is_avx2_supported()
    if not x86 or precision == "fp16":
        return False
    return precision != "bf16" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def pack(model: Classifier, precision: str) -> Classifier:
    """Turn the encoder's layers, in place, into those of fp32, bf16 or int8; it only answers then.

    Embeddings and norms follow in bf16 for bf16, and for int8 where the processor computes it;
    else, as pooler and head, they are in fp32.
    """
    half = precision == "bf16" or (precision == "int8" and torch.cpu._is_avx512_bf16_supported())
    layer: Any = QuantizedLinear if precision == "int8" else PackedLinear
    encoder = model.eval().encoder
    for module in (encoder.embeddings, encoder.blocks):
        module.to(torch.bfloat16 if half else torch.float32)
    for block in encoder.blocks:
        assert isinstance(block, Block)
        attention, feed_forward = block.attention, block.feed_forward
        attention.qkv = layer(attention.qkv, PLAIN)
        attention.out = layer(attention.out, PLAIN)
        feed_forward.up = layer(feed_forward.up, fused_name(feed_forward.activation))
        feed_forward.activation = nn.Identity()
        feed_forward.down = layer(feed_forward.down, PLAIN)
    return model


def fused_name(activation: nn.Module) -> tuple[str, str]:
    """Return what oneDNN calls an activation, and its variant."""
    if isinstance(activation, nn.GELU):
        return "gelu", activation.approximate
    assert isinstance(activation, nn.ReLU)
    return "relu", ""


class PackedLinear(nn.Module):
    """activation(x W^T + b) in one kernel, in the type of W."""

    def __init__(self, linear: nn.Linear, activation: tuple[str, str]) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = linear.bias.detach()
        self.activation, self.variant = activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, self.activation, [], self.variant
        )


class QuantizedLinear(nn.Module):
    """The same with W in int8, a scale for each output, and x in uint8, a scale for each call.

    A call is a batch, so what a text is answered depends a little on its neighbours.
    """

    def __init__(self, linear: nn.Linear, activation: tuple[str, str]) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        # Without AVX-512's VNNI, two products are added up in 16 bits: 2 x 255 x 63 still fits.
        largest = 127 if torch.cpu._is_vnni_supported() else 63
        self.scales = weight.abs().amax(dim=1).clamp(min=1e-12) / largest
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        rounded = (weight / self.scales[:, None]).round().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.bias = linear.bias.detach().float()
        self.activation, self.variant = activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        low, high = (float(value) for value in torch.aminmax(x))
        low, high = min(low, 0.0), max(high, 0.0)  # zero must have a number of its own
        scale = max(high - low, 1e-12) / 254  # one step to spare, for the rounding of zero
        zero = round(-low / scale)
        # Half a step more, as the conversion to whole numbers cuts off.
        offset = torch.tensor(zero + 0.5)
        numbers = torch.add(offset, x.float(), alpha=1 / scale).to(torch.uint8)
        return torch.ops.onednn.qlinear_pointwise(
            *(numbers, scale, zero, self.weight, self.scales, self.zeros, self.bias),
            *(1.0, 0, x.dtype, self.activation, [], self.variant),
        )
