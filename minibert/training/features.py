"""Features of a frozen encoder, computed once for all splits and all runs of a series."""

import time
from collections.abc import Mapping

import torch

from minibert.data.batches import Dataset, FeatureDataset, TokenIds
from minibert.data.datasets import TokenizedSplits
from minibert.data.long_texts import Key, join_rows
from minibert.device import Compute
from minibert.inference.batched import prepare_for_inference
from minibert.inference.text_classifier import TextClassifier
from minibert.training.callback import Callback
from minibert.training.frozen import Encoding
from minibert.training.options import TrainingOptions


class SharedFeatures:
    """The features of distinct texts. Each run must have the same encoder and precision."""

    def __init__(self) -> None:
        self.numbers: dict[Key, int] = {}
        self.values = torch.empty(0)  # (texts, D)
        self.seconds: float | None = None  # that the last run took; None: its encoder is trained

    def encode(
        self,
        classifier: TextClassifier,
        tokenized: TokenizedSplits,
        datasets: Mapping[str, Dataset],
        options: TrainingOptions,
        compute: Compute,
        callback: Callback,
    ) -> dict[str, Dataset]:
        """Return each split's features in place of its texts; tell the callback their cost.

        The batches depend on nothing but the texts of all splits together. So a run's features are
        the same bits whether an earlier run of the series had these texts or none did.
        """
        started = time.perf_counter()
        keys: dict[str, list[Key]] = {}
        rows: dict[Key, list[TokenIds]] = {}
        for name, split in tokenized.texts.items():
            keys[name], distinct = split.by_ids()
            rows |= distinct
        missing = rows.keys() != self.numbers.keys()
        if missing:
            ordered = sorted(rows)
            dataset = classifier.dataset_of(join_rows(rows[key] for key in ordered))
            frozen = prepare_for_inference(classifier.model, compute, keep=True)
            self.values = frozen.features(dataset, batch_size=options.batch_size).values
            self.numbers = {key: number for number, key in enumerate(ordered)}
        found: dict[str, Dataset] = {}
        for name, dataset in datasets.items():
            numbers = torch.tensor([self.numbers[key] for key in keys[name]])
            values = self.values[numbers.to(self.values.device)]
            found[name] = FeatureDataset(values, dataset.labels, places=dataset.places)
        self.seconds = time.perf_counter() - started
        layers, texts = len(classifier.model.encoder.blocks), len(rows) if missing else 0
        bytes = self.values.nbytes
        callback.on_encoded(Encoding(layers, texts, self.seconds, bytes, in_file=False))
        return found

    def cost(self) -> dict[str, float]:
        """Return the seconds of the last run as metrics.json has them; none if it has none."""
        return {} if self.seconds is None else {"encoding_seconds": round(self.seconds, 3)}
