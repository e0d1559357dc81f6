"""The steps between the rooms that train.py and the benchmarks share: settings to parts, rows, figures."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minibert.batches import Features, Part, Texts
from minibert.config import EncoderConfig, HeadConfig, native_pooling, read_head
from minibert.data import (
    Examples,
    class_ids,
    class_names,
    load_examples,
    repeated_texts,
    split_examples,
)
from minibert.errors import InputError
from minibert.files import read_json
from minibert.hub import DataFiles, find_data
from minibert.metrics import Scores, probabilities, report, score
from minibert.model import Classifier
from minibert.predictor import in_length_order
from minibert.runs import Progress
from minibert.settings import RunSettings
from minibert.tokenizer import TokenIds, Tokenizer

AUTO_CUT = 0.01  # --max-length auto: at most this share of the training texts is cut


@dataclass(frozen=True)
class Parts:
    """The parts of a run's data; `test` is none where the data has no labelled test part."""

    train: Examples
    validation: Examples
    test: Examples | None

    def named(self) -> dict[str, Examples]:
        """Return the parts that are there, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}


class Stopwatch:
    """Adds up the seconds spent inside its `with` blocks."""

    seconds = 0.0

    def __enter__(self) -> None:
        self.started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic() - self.started


def read_parts(settings: RunSettings) -> Parts:
    """Read or split the parts: a single file in three; a missing validation part off the training part."""
    files = find_data(settings.data)
    given = DataFiles(
        files.train,
        (Path(settings.validation),) if settings.validation else files.validation,
        (Path(settings.test),) if settings.test else files.test,
    )

    def load(paths: Sequence[Path]) -> Examples:
        return load_examples(
            paths,
            text=settings.text_column,
            pair=settings.pair_column,
            label=settings.label_column,
            encoding=settings.encoding,
            bad_rows=settings.bad_rows,
        )

    train = load(given.train)
    class_names(train)  # one class only is an error before it is a split that cannot be made
    test = load(given.test) if given.test else None
    if given.validation:
        return _same_form(Parts(train, load(given.validation), test))
    if test is not None:
        train, validation = split_examples(train, settings.split[:2], seed=settings.split_seed)
        return _same_form(Parts(train, validation, test))
    return Parts(*split_examples(train, settings.split, seed=settings.split_seed))


def _same_form(parts: Parts) -> Parts:
    for name, part in parts.named().items():
        if (part.pairs is None) != (parts.train.pairs is None):
            raise InputError(
                f"{part.source}: the {name} part and the training part differ in their second text; "
                "choose with --text-column and --pair-column"
            )
    return parts


def describe_parts(parts: Parts) -> None:
    """Print what was read, left out, and repeated between training and the other parts."""
    for name, part in parts.named().items():
        counts = np.unique(part.labels, return_counts=True)
        shares = ", ".join(f"{label} {count:,}" for label, count in list(zip(*counts))[:8])
        more = ", ..." if len(counts[0]) > 8 else ""
        print(f"{name}: {len(part):,} texts ({shares}{more}) from {part.source}")
        if part.dropped:
            listed = "; ".join(part.dropped[:5])
            print(f"  left out {len(part.dropped)} bad rows: {listed}")
        if name != "train" and (repeated := repeated_texts(part, parts.train)):
            print(
                f"  {repeated:,} of them also stand in the training part: their score is no proof"
            )
    if parts.test is None:
        print("test: none given, and none split off since a validation part is given")


def run_facts(parts: Parts) -> dict[str, Any]:
    """Return what settings.json keeps of the data: the columns, and digests to tell a change by."""
    return {
        "columns": asdict(parts.train.columns) if parts.train.columns else None,
        "digests": {name: part.fingerprint() for name, part in parts.named().items()},
    }


def check_unchanged(parts: Parts, digests: dict[str, Any] | None, folder: Path) -> None:
    """Raise InputError where a resumed run's data is not what it began with."""
    if digests is not None:
        for name, part in parts.named().items():
            if digests.get(name) != part.fingerprint():
                raise InputError(
                    f"--resume {folder}: the {name} part ({part.source}) has changed since the run began"
                )


def tokenize(
    parts: Parts, tokenizer: Tokenizer, settings: RunSettings, config: EncoderConfig
) -> tuple[int, dict[str, list[TokenIds]]]:
    """Tokenize all parts, print the histogram of lengths, and cut what is over the length chosen."""
    longest = settings.max_length
    if longest is not None and longest > config.positions:
        raise InputError(f"--max-length is {longest}; this model has {config.positions} positions")
    rows = {name: tokenizer.encode(part.texts, part.pairs) for name, part in parts.named().items()}
    lengths = np.array([len(row) for row in rows["train"]])
    if longest is None:
        longest = min(shortest_length(lengths), config.positions)
    print(length_histogram(lengths, longest))
    for name, part in parts.named().items():
        cut = tokenizer.truncate(rows[name], part.texts, part.pairs, max_length=longest)
        share = 100 * cut / len(part)
        print(f"  {name}: {cut:,} of {len(part):,} texts cut at {longest} tokens ({share:.1f}%)")
    return longest, rows


def shortest_length(lengths: np.ndarray) -> int:
    """Return the shortest length that cuts at most AUTO_CUT of the texts."""
    ordered = np.sort(lengths)
    return int(max(3, ordered[len(ordered) - 1 - int(AUTO_CUT * len(ordered))]))


def length_histogram(
    lengths: np.ndarray, max_length: int, *, bars: int = 10, width: int = 40
) -> str:
    """Draw token lengths as text, the bars that --max-length cuts marked."""
    step = max(1, -(-int(lengths.max()) // bars))
    counts = np.bincount((lengths - 1) // step, minlength=1)
    lines = [f"token lengths of the training texts (median {int(np.median(lengths))}):"]
    for number, count in enumerate(counts):
        first, last = number * step + 1, (number + 1) * step
        bar = "#" * int(np.ceil(width * count / counts.max()))
        over = "  cut" if last > max_length and count else ""
        lines.append(f"  {first:5d}-{last:<5d} {bar:{width}} {count:,}{over}")
    return "\n".join(lines)


def head_of(
    folder: Path, config: EncoderConfig, train: Examples, settings: RunSettings, max_length: int
) -> HeadConfig:
    """Return the head that the settings ask for, its classes in the order of the checkpoint's own if equal."""
    own = native_pooling(config.family) if settings.head == "native" else "cls"
    classes = class_names(train)
    stored = read_head(read_json(folder / "config.json"), config, where=str(folder))
    if stored is not None and set(stored.labels) == set(classes):
        classes = stored.labels
    return HeadConfig(settings.head, settings.pooling or own, classes, max_length)


def label(
    rows: dict[str, list[TokenIds]], parts: Parts, classes: Sequence[str], config: EncoderConfig
) -> dict[str, Texts]:
    """Join each part's token ids and class numbers."""
    return {
        name: Texts(
            rows[name],
            class_ids(part, classes),
            pad_token_id=config.pad_token_id,
            types=config.token_types > 1,
        )
        for name, part in parts.named().items()
    }


def freeze_layers(model: Classifier, settings: RunSettings) -> None:
    """Take --freeze-layers and --freeze-embeddings out of the training."""
    blocks = model.encoder.blocks
    if settings.freeze_layers > len(blocks):
        raise InputError(
            f"--freeze-layers is {settings.freeze_layers}; this model has {len(blocks)} layers"
        )
    frozen = [blocks[number] for number in range(settings.freeze_layers)]
    if settings.freeze_embeddings:
        frozen.append(model.encoder.embeddings)
    for module in frozen:
        module.requires_grad_(False)


def encode(
    model: Classifier, part: Part, settings: RunSettings, device: torch.device, dtype: torch.dtype
) -> Features:
    """Let the frozen encoder, its dropout off, make each text's features once."""
    model.eval()
    values = in_length_order(
        model.features, part, batch_size=settings.batch_size, device=device, dtype=dtype
    )
    return Features(values, part.labels)


@dataclass(frozen=True)
class Evaluation:
    """The figures of validation and test, the test part's predictions, and both as text."""

    figures: dict[str, Any]
    predictions: list[dict[str, Any]]
    summary: str


def evaluate(
    model: Classifier,
    texts: dict[str, Texts],
    parts: Parts,
    settings: RunSettings,
    classes: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
) -> Evaluation:
    """Score the best epoch's model; the test part is read here, once."""
    scores: dict[str, Scores] = {}
    lines, predictions = [], []
    for name in ("validation", "test"):
        if name not in texts:
            continue
        logits = in_length_order(
            model, texts[name], batch_size=settings.batch_size, device=device, dtype=dtype
        )
        scores[name] = score(logits, texts[name].labels, classes)
        if name == "test" and parts.test is not None:
            lines.append(report(logits, texts[name].labels, classes))
            predictions = prediction_rows(parts.test, logits, texts[name].labels, classes)
    lines += [f"{name}: {figures}" for name, figures in scores.items()]
    figures = {name: value.to_json() for name, value in scores.items()}
    return Evaluation(figures, predictions, "\n".join(lines))


def prediction_rows(
    part: Examples, logits: torch.Tensor, labels: torch.Tensor, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row a text: the text, its label, and what the model says."""
    best, numbers = probabilities(logits).max(dim=1)
    rows = []
    for i, text in enumerate(part.texts):
        pair = {} if part.pairs is None else {"pair": part.pairs[i]}
        answer = {"prediction": classes[numbers[i]], "probability": round(best[i].item(), 6)}
        rows.append({"text": text, **pair, "label": classes[labels[i]], **answer})
    return rows


def training_figures(
    progress: Progress, parts: Parts, settings: RunSettings, encoding: float
) -> dict[str, Any]:
    """Return what metrics.json says of the training itself; seconds without evaluation."""
    return {
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "seconds": round(progress.seconds, 3),
        "encoding_seconds": round(encoding, 3) if settings.freeze else None,
        "texts_per_second": round(progress.epoch * len(parts.train) / progress.seconds, 1),
    }
