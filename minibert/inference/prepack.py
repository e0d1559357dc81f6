"""A classifier prepared for a CPU: its encoder's linear layers become those of cpu.py."""

import torch
from torch import nn

from minibert.errors import InputError
from minibert.inference.cpu import (
    InferenceLinear,
    PrepackedLinear,
    QuantizedLinear,
    int8_levels,
    prepacking_problem,
    prepacking_works,
)
from minibert.model.classifier import Classifier
from minibert.model.encoder import Block

PREPARED = (
    "this model was prepared for inference in place; load it again with TextClassifier.from_folder "
    "(a Predictor without keep=False leaves it unchanged)"
)


def prepack(model: Classifier, precision: str) -> bool:
    """Replace the encoder's linear layers, in place; inference only. Return whether it was done.

    Embeddings and norms become bf16 for bf16, and for int8 if the processor has bf16. Everything
    else, pooler and head included, is fp32. Raises InputError for int8 if it cannot be computed.
    """
    dtype = torch.float32
    if precision in ("bf16", "int8") and prepacking_problem("bf16") is None:
        dtype = torch.bfloat16
    levels = int8_levels(dtype) if precision == "int8" else None
    if precision == "int8" and not levels:
        raise InputError(
            "--precision int8 needs an x86 processor and a PyTorch whose oneDNN multiplies int8; "
            "use fp32 or auto"
        )
    if precision != "int8" and not prepacking_works(precision):
        return False
    encoder = model.eval().encoder
    for module in (encoder.embeddings, encoder.blocks):
        module.to(dtype)

    def layer(
        linear: nn.Linear, activation: nn.Module | None = None, lowest: float | None = None
    ) -> InferenceLinear:
        if levels:
            return QuantizedLinear(linear, activation, levels=levels, lowest=lowest)
        return PrepackedLinear(linear, activation)

    for block in encoder.blocks:
        assert isinstance(block, Block)
        attention, feed_forward = block.attention, block.feed_forward
        attention.qkv = layer(attention.qkv)  # type: ignore[assignment]
        attention.out = layer(attention.out)  # type: ignore[assignment]
        feed_forward.up = layer(feed_forward.up, feed_forward.activation)  # type: ignore[assignment]
        lowest = lowest_output(feed_forward.activation)
        feed_forward.activation = nn.Identity()
        feed_forward.down = layer(feed_forward.down, lowest=lowest)  # type: ignore[assignment]
    return True


def check_not_prepacked(model: Classifier) -> None:
    """Raise InputError for packed layers, which can be neither copied nor packed again."""
    if any(isinstance(module, InferenceLinear) for module in model.modules()):
        raise InputError(PREPARED)


def check_not_prepared(model: Classifier) -> None:
    """Raise InputError for a model prepared for inference: packed, or on a GPU rounded to bf16."""
    check_not_prepacked(model)
    if any(parameter.dtype == torch.bfloat16 for parameter in model.parameters()):
        raise InputError(PREPARED)


def lowest_output(activation: nn.Module) -> float:
    """Return the smallest value of an activation, rounded down."""
    return 0.0 if isinstance(activation, nn.ReLU) else -0.1701  # GELU(-0.75), exact or tanh
