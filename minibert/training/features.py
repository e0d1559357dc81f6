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
from minibert.training.frozen import Encoding


class SharedFeatures:
    """The features of distinct texts. Each run must have the same encoder and precision."""

    def __init__(self) -> None:
        self.numbers: dict[Key, int] = {}
        self.values = torch.empty(0)  # (texts, D)

    def encode(
        self,
        classifier: TextClassifier,
        tokenized: TokenizedSplits,
        datasets: Mapping[str, Dataset],
        compute: Compute,
        *,
        batch_size: int,
    ) -> tuple[dict[str, Dataset], Encoding]:
        """Return each split's features in place of its texts, and the cost of computing them.

        The batches depend only on which texts all splits have together. So the features of a run
        are the same bits whether an earlier run of the series computed them or not.
        """
        started = time.perf_counter()
        keys: dict[str, list[Key]] = {}
        rows: dict[Key, list[TokenIds]] = {}
        for name, split in tokenized.texts.items():
            keys[name], distinct = split.by_ids()
            rows |= distinct
        missing = len(rows.keys() - self.numbers.keys())
        if missing:
            ordered = sorted(rows)
            dataset = classifier.dataset_of(join_rows(rows[key] for key in ordered))
            frozen = prepare_for_inference(classifier.model, compute, keep=True)
            self.values = frozen.features(dataset, batch_size=batch_size).values
            self.numbers = {key: number for number, key in enumerate(ordered)}
        found: dict[str, Dataset] = {}
        for name, dataset in datasets.items():
            numbers = torch.tensor([self.numbers[key] for key in keys[name]])
            values = self.values[numbers.to(self.values.device)]
            found[name] = FeatureDataset(values, dataset.labels, places=dataset.places)
        cost = Encoding(
            layers=len(classifier.model.encoder.blocks),
            texts=len(rows) if missing else 0,
            seconds=time.perf_counter() - started,
            bytes=self.values.nbytes,
            in_file=False,
        )
        return found, cost
