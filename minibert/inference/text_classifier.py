"""A classifier with its tokenizer: from a checkpoint, to datasets, into a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minibert.checkpoint.config_file import read_encoder_config, write_config
from minibert.checkpoint.families import FAMILIES
from minibert.checkpoint.load import Checkpoint, load_classifier
from minibert.checkpoint.save import save_weights
from minibert.data.batches import TextDataset, TokenIds
from minibert.data.examples import Examples, class_ids
from minibert.data.limits import checked_texts
from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError
from minibert.hub import find_model
from minibert.model.classifier import Classifier
from minibert.model.config import HeadConfig


@dataclass(frozen=True)
class TextClassifier:
    """A checkpoint's classifier and its tokenizer.

    Example:
        >>> classifier = TextClassifier.pretrained("all-MiniLM-L6-v2", ["bad", "good"])
        >>> classifier.classes
        ('bad', 'good')
    """

    checkpoint: Checkpoint
    tokenizer: Tokenizer

    @classmethod
    def pretrained(
        cls,
        name: str,
        classes: Sequence[str],
        *,
        head: str = "mlp",
        pooling: str | None = None,
        max_length: int = 128,
        revision: str | None = None,
    ) -> "TextClassifier":
        """Load a pretrained encoder, by folder or hub id, under a new head for these classes.

        `head` is mlp, relu, linear or native; `pooling` is cls, pooler or mean (default: cls, or
        the native head's own). Texts are cut at `max_length` tokens. The head's weights are drawn
        from torch's random state. Raises InputError for a checkpoint that cannot be used.
        """
        folder = find_model(name, revision=revision)
        config = read_encoder_config(folder)
        native = FAMILIES[config.family].native_pooling if head == "native" else "cls"
        if not 3 <= max_length <= config.positions:
            raise InputError(
                f"max_length is {max_length}; this model takes 3 to {config.positions}"
            )
        requested = HeadConfig(head, pooling or native, tuple(classes), max_length)
        return cls(load_classifier(folder, requested), Tokenizer.from_folder(folder, config))

    @classmethod
    def from_folder(cls, folder: Path) -> "TextClassifier":
        """Load a classifier and its head as they are stored in a folder."""
        checkpoint = load_classifier(folder)
        return cls(checkpoint, Tokenizer.from_folder(folder, checkpoint.encoder))

    @property
    def model(self) -> Classifier:
        """The network."""
        return self.checkpoint.model

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the logits' columns."""
        return self.checkpoint.head.labels

    def dataset(
        self,
        texts: Sequence[str],
        labels: Sequence[str] | None = None,
        pairs: Sequence[str] | None = None,
    ) -> TextDataset:
        """Tokenize texts, or pairs of texts, and number their labels, to be trained or scored on.

        Longer texts are cut at the head's `max_length`. Raises InputError for a text that is not a
        string, or a label that is not a class.
        """
        rows, _ = self.tokenize(texts, pairs)
        numbers = None
        if labels is not None:
            examples = Examples("labels", list(texts), labels=[str(label) for label in labels])
            examples.places = [f"label {number}" for number in range(1, len(examples.labels) + 1)]
            numbers = class_ids(examples, self.classes)
            if len(numbers) != len(rows):
                raise InputError(f"{len(rows)} texts have {len(numbers)} labels")
        return self.dataset_of(rows, numbers)

    def tokenize(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
    ) -> tuple[list[TokenIds], int]:
        """Return the token ids of each text and the number of texts that were cut."""
        texts = checked_texts(texts)
        pairs = None if pairs is None else checked_texts(pairs)
        if pairs is not None and len(pairs) != len(texts):
            raise InputError(f"{len(texts)} texts have {len(pairs)} second texts")
        rows = self.tokenizer.encode(texts, pairs)
        max_length = max_length or self.checkpoint.head.max_length
        return rows, self.tokenizer.truncate(rows, texts, pairs, max_length=max_length)

    def dataset_of(self, rows: Sequence[TokenIds], labels: np.ndarray | None = None) -> TextDataset:
        """Return a dataset of token ids and class numbers (N,)."""
        config = self.checkpoint.encoder
        return TextDataset(
            rows, labels, pad_token_id=config.pad_token_id, token_types=config.token_types > 1
        )

    def save(self, folder: Path | str) -> None:
        """Write a Hugging Face folder: config.json, model.safetensors, the tokenizer's files."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        prefix = FAMILIES[self.checkpoint.encoder.family].class_prefix
        self.tokenizer.save(folder, class_prefix=prefix)
        write_config(folder, self.checkpoint.encoder, self.checkpoint.head)
        save_weights(folder, self.model, self.checkpoint.encoder, self.checkpoint.head)
