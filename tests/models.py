"""What the tests of model/ share: transformers' models with minibert's reading of them, batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_config
from torch import Tensor, nn

from minibert.checkpoint.config_file import encoder_entries
from minibert.checkpoint.load import Checkpoint, load_classifier

LABELS = ("a", "b", "c")
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def randomize(model: nn.Module, seed: int = 1) -> None:
    """Draw every parameter: zero biases and norms of one would hide a mistake."""
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.4, generator=random)


def original(family: str, folder: Path, **changes: Any) -> tuple[nn.Module, Checkpoint]:
    """Return a random classifier of transformers, and minibert's reading of the folder it wrote."""
    transformers = pytest.importorskip("transformers")
    numbers = encoder_entries(tiny_config(family, **changes))
    config = transformers.AutoConfig.for_model(**numbers, num_labels=len(LABELS))
    theirs = transformers.AutoModelForSequenceClassification.from_config(config)
    randomize(theirs)
    theirs.save_pretrained(folder)
    return theirs.eval(), load_classifier(folder)


def make_batch(
    family: str, lengths: tuple[int, ...] = (9, 1, 6, 4), seed: int = 2
) -> dict[str, Tensor]:
    """Return random texts of these lengths, padded with 0, with two segments if there are types."""
    random = torch.Generator().manual_seed(seed)
    columns = torch.arange(max(lengths))
    mask = columns < torch.tensor(lengths)[:, None]
    ids = torch.randint(1, 50, mask.shape, generator=random) * mask
    batch = {"input_ids": ids, "attention_mask": mask.long()}
    if tiny_config(family).token_types > 1:
        batch["token_type_ids"] = ((columns >= 3) & mask).long()
    return batch


def modules_dropped(model: nn.Module, batch: dict[str, Tensor]) -> list[tuple[float, Tensor]]:
    """Run the model without dropout; return the probability and the input of each active module."""
    seen: list[tuple[float, Tensor]] = []

    def look(module: nn.Dropout, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        if module.p and module.training:
            seen.append((module.p, inputs[0].detach()))
        return inputs[0]

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(look)
    model(**batch)
    return seen
