"""The work itself: a checkpoint that every peer opens, and texts with their lengths in tokens."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.task import LONGEST, ROOT
from minibert.checkpoint.config_file import read_encoder_config, write_config
from minibert.checkpoint.families import FAMILIES
from minibert.checkpoint.load import load_classifier
from minibert.checkpoint.save import save_weights
from minibert.data.classes import class_ids, class_names
from minibert.data.examples import load_examples
from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError
from minibert.hub import MINILM, find_model
from minibert.model.classifier import Classifier, Head
from minibert.model.config import EncoderConfig, HeadConfig
from minibert.model.encoder import Encoder, initialize

SST2 = ROOT.parent / "shared" / "data" / "sst2"
REVIEWS = ROOT / "examples" / "reviews.csv"

# https://huggingface.co/distilbert/distilbert-base-uncased/blob/main/config.json
DISTILBERT = EncoderConfig(
    "distilbert",
    vocab_size=30522,
    width=768,
    layers=6,
    heads=12,
    feed_forward=3072,
    **FAMILIES["distilbert"].config_defaults,
)
SIZES = {
    "distilbert": "DistilBERT-base's sizes, random weights (time does not depend on their values)",
    "minilm": "all-MiniLM-L6-v2 with a new head",
}


@dataclass(frozen=True)
class Labelled:
    """Texts, their class numbers, and their lengths in tokens."""

    texts: list[str]
    labels: list[int]
    lengths: list[int]

    def take(self, rows: Sequence[int]) -> "Labelled":
        """Return some of the rows, in the given order."""
        return Labelled(
            [self.texts[i] for i in rows],
            [self.labels[i] for i in rows],
            [self.lengths[i] for i in rows],
        )


@dataclass(frozen=True)
class Corpus:
    """Texts to train on and texts to answer."""

    source: str
    classes: tuple[str, ...]
    train: Labelled
    test: Labelled


def checkpoint(place: Path, size: str, classes: tuple[str, ...]) -> tuple[Path, EncoderConfig]:
    """Return a classifier's folder, written once, with the head that transformers opens too."""
    folder = place / size
    minilm = find_model(MINILM)  # its vocabulary is bert-base-uncased's, and DistilBERT's
    config = read_encoder_config(minilm) if size == "minilm" else DISTILBERT
    if folder.exists():
        return folder, config
    folder.mkdir()
    torch.manual_seed(0)
    head = HeadConfig("native", FAMILIES[config.family].native_pooling, classes, config.max_tokens)
    if size == "minilm":
        model = load_classifier(minilm, head).model
    else:
        encoder = Encoder(config)
        initialize(encoder, config.initializer_range)
        model = Classifier(encoder, Head(config, head), pooling=head.pooling)
    write_config(folder, config, head)
    save_weights(folder, model, config, head)
    Tokenizer.from_folder(minilm, config).save(folder)
    return folder, config


def read_corpus(data: Path | None, test: Path | None = None) -> Corpus:
    """Read the texts to train on, `data`, and those to answer, `test` (default: the same).

    Without a file: SST-2 where it lies beside the repository, else the reviews.
    """
    if data is None and SST2.is_dir():
        data, test = SST2 / "train.tsv", test or SST2 / "test.tsv"
    data = data or REVIEWS
    train = load_examples([data])
    answered = train if test is None else load_examples([test])
    classes = class_names(train)
    tokenizer = minilm_tokenizer()
    parts = []
    for part in (train, answered):
        lengths = [len(row) for row in tokenizer.encode(part.texts)]
        labels = class_ids(part, classes).tolist()
        rows = [i for i, length in enumerate(lengths) if length <= LONGEST]
        if not rows:
            raise InputError(f"{part.source}: has no text of at most {LONGEST} tokens")
        parts.append(Labelled(part.texts, labels, lengths).take(rows))
    return Corpus("SST-2" if data.parent == SST2 else data.name, classes, *parts)


def repeated(part: Labelled, count: int) -> Labelled:
    """Return `count` rows of a part, from its first on, again and again where it has fewer."""
    return part.take([i % len(part.texts) for i in range(count)])


def distinct(part: Labelled, count: int) -> Labelled:
    """Return the first `count` different texts: minibert computes equal ones once."""
    rows = {text: i for i, text in reversed(list(enumerate(part.texts)))}
    return part.take(sorted(rows.values())[:count])


def texts_of_length(texts: Sequence[str], length: int, count: int) -> Labelled:
    """Return `count` texts of exactly `length` tokens, made of the words of `texts`."""
    words = sorted({word for text in texts for word in text.lower().split() if word.isalpha()})
    rows = minilm_tokenizer().encode(words)
    # [CLS] and [SEP] are the two other tokens.
    known = [word for word, row in zip(words, rows, strict=True) if len(row) == 3]
    draw = random.Random(0)
    made = [" ".join(draw.choices(known, k=length - 2)) for _ in range(count)]
    return Labelled(made, [number % 2 for number in range(count)], [length] * count)


def minilm_tokenizer() -> Tokenizer:
    """Return the tokenizer of every size."""
    minilm = find_model(MINILM)
    return Tokenizer.from_folder(minilm, read_encoder_config(minilm))
