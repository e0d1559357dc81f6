"""Texts to token ids. Only this file, backends.py and vocabularies.py use `tokenizers`."""

import shutil
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from minibert.data.backends import is_bert, normalizer, prefix_space, read_backend
from minibert.data.batches import TokenIds
from minibert.data.limits import GROWTH_LIMIT, normalizer_growth
from minibert.data.tokenizer_config import (
    disagreement,
    special_token,
    takes_token_types,
    transformers_config,
)
from minibert.errors import InputError, printable
from minibert.files import model_file, read_json, write_atomic, write_json, write_text
from minibert.model.config import EncoderConfig

CONFIG_FILE = "tokenizer_config.json"


class Tokenizer:
    """A checkpoint's tokenizer. Truncation and padding that tokenizer.json asks for are off.

    Several threads can use one tokenizer.

    Example:
        >>> import minibert
        >>> _, tokenizer = minibert.load_encoder("all-MiniLM-L6-v2")
        >>> tokenizer.encode(["good film"])[0].ids.tolist()  # [CLS] good film [SEP]
        [101, 2204, 2143, 102]

    Args:
        backend: the tokenizer of the library.
        folder: the checkpoint that it was read from.
        config: the numbers of the checkpoint's encoder.
        settings: the checkpoint's tokenizer_config.json, empty if it has none.
    """

    def __init__(
        self, backend: Backend, folder: Path, config: EncoderConfig, settings: Mapping[str, Any]
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.folder, self.config, self.settings = folder, config, settings
        self.token_types = config.token_types > 1 and takes_token_types(settings)

    @classmethod
    def from_folder(cls, folder: Path, config: EncoderConfig) -> "Tokenizer":
        """Read a checkpoint's tokenizer. Raises InputError if it does not fit the config.

        Warns if tokenizer.json and tokenizer_config.json disagree; tokenizer.json is used.
        """
        settings_file = model_file(folder, CONFIG_FILE)
        settings = read_json(settings_file) if settings_file else {}
        source, backend = read_backend(folder, settings)
        highest = max(backend.get_vocab().values(), default=0)
        if highest >= config.vocab_size:
            raise InputError(
                f"{source}: has {highest + 1} tokens, "
                f"config.json only {config.vocab_size}; the two are not of one model"
            )
        tokenizer = cls(backend, folder, config, settings)
        _check_frame(tokenizer, source, config)
        problem = disagreement(normalizer(backend), prefix_space(backend), settings)
        if settings_file and problem:
            warnings.warn(
                f"{folder}: its files disagree ({problem}); minibert uses tokenizer.json",
                stacklevel=2,
            )
        return tokenizer

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[TokenIds]:
        """Encode texts (with `pairs`: as first and second segment) at their full lengths."""
        typed = pairs is not None and self.token_types
        return [_token_ids(encoding, typed=typed) for encoding in self._encode(texts, pairs)]

    def owners(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[np.ndarray]:
        """Return which text each token is of: 0 or 1, or -1 for a special token; (T,) each."""
        return [
            np.array([-1 if text is None else text for text in encoding.sequence_ids])
            for encoding in self._encode(texts, pairs)
        ]

    def words(self, text: str, pair: str | None = None) -> list[tuple[int, int, int] | None]:
        """Return the word of each token of a text or pair; None for special tokens.

        A word is the number of its text, 0 or 1, and the characters from which to which it reaches.
        """
        encoding = self.backend.encode(text) if pair is None else self.backend.encode(text, pair)
        owners = list(zip(encoding.sequence_ids, encoding.word_ids, strict=True))
        spans: dict[Any, tuple[int, int]] = {}
        for owner, (start, end) in zip(owners, encoding.offsets, strict=True):
            first, last = spans.get(owner, (start, end))
            spans[owner] = (min(first, start), max(last, end))
        return [None if owner[0] is None else (owner[0], *spans[owner]) for owner in owners]

    @property
    def unknown_id(self) -> int | None:
        """The id of what the vocabulary lacks; None if there is no such id."""
        token = getattr(self.backend.model, "unk_token", None) or special_token(
            self.settings, "unk"
        )
        return None if token is None else self.backend.token_to_id(token)

    def unknown_parts(self, texts: Sequence[str]) -> list[str]:
        """Return the parts of texts, words or characters, that become the unknown token."""
        unknown = self.unknown_id
        encodings = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            text[start:end]
            for text, encoding in zip(texts, encodings, strict=True)
            for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if number == unknown
        ]

    def save(
        self,
        folder: Path,
        *,
        wordpiece_class: str | None = "BertTokenizer",
        max_length: int | None = None,
    ) -> None:
        """Write the tokenizer's files, with which transformers computes the same ids.

        `wordpiece_class` is the family's class in transformers for BERT's tokenizer. Without it,
        and for any other tokenizer, transformers opens its generic class. `max_length` is the
        number of tokens to which other readers truncate (default: what the checkpoint says).
        """
        write_text(folder / "tokenizer.json", self.backend.to_str())
        if vocabulary := model_file(self.folder, "vocab.txt"):
            write_atomic(folder / "vocab.txt", partial(shutil.copyfile, vocabulary))
        special = self._special_tokens()
        settings = transformers_config(
            self.settings,
            tokenizer_class=wordpiece_class if is_bert(self.backend) else None,
            normalizer=normalizer(self.backend),
            prefix_space=prefix_space(self.backend),
            special=special,
            token_types=self.token_types,
        )
        if max_length is not None:
            settings["model_max_length"] = max_length
        write_json(folder / CONFIG_FILE, settings)
        names = {f"{name}_token": token for name, token in special.items()}
        write_json(folder / "special_tokens_map.json", names)

    def _special_tokens(self) -> dict[str, str]:
        """Return the special tokens by name: those in use, and padding and mask by their names."""
        vocabulary, frame = self.backend.get_vocab(), self.backend.encode("", "").tokens

        def stored(name: str) -> str:
            bert, roberta = f"[{name.upper()}]", f"<{name}>"
            return special_token(self.settings, name) or (bert if bert in vocabulary else roberta)

        tokens = {
            "unk": getattr(self.backend.model, "unk_token", None),
            "sep": frame[-1],
            "pad": stored("pad"),
            "cls": frame[0],
            "mask": stored("mask"),
        }
        return {name: token for name, token in tokens.items() if token in vocabulary}

    def _encode(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[Encoding]:
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        try:
            return self.backend.encode_batch_fast(inputs)
        except BaseException as error:
            # The library raises bare exceptions, and panics that are not even those.
            if type(error) is Exception or type(error).__name__ == "PanicException":
                raise InputError(
                    f"{self.folder}: its tokenizer fails on a text ({error})"
                ) from None
            raise


def _token_ids(encoding: Encoding, *, typed: bool) -> TokenIds:
    ids = np.array(encoding.ids, dtype=np.int32)
    return TokenIds(ids, len(ids) - sum(encoding.type_ids) if typed else len(ids))


def _check_frame(tokenizer: Tokenizer, source: Path, config: EncoderConfig) -> None:
    """Raise InputError if the special tokens around a text do not fit the model."""
    backend = tokenizer.backend
    unknown = getattr(backend.model, "unk_token", None)
    if unknown is not None and backend.model.token_to_id(unknown) is None:
        raise InputError(f"{source}: lacks its token for unknown words, {printable(unknown)}")
    growth = normalizer_growth(normalizer(backend))
    if growth > GROWTH_LIMIT:
        raise InputError(f"{source}: makes up to {growth:,} characters of one; fetch it again")
    frame = backend.num_special_tokens_to_add(True)
    if not 0 < frame < config.max_tokens:
        raise InputError(
            f"{source}: adds {frame:,} special tokens to two texts, and the model has "
            f"{config.max_tokens} positions; the two are not of one model"
        )
    for pair in (None, ["a"]):
        row = tokenizer.encode(["a"], pair)[0]
        if row.ids.max() >= config.vocab_size or not 0 < row.segment_b_start <= len(row):
            raise InputError(
                f"{source}: adds special tokens that config.json's {config.vocab_size} tokens "
                "and two token types do not have; the two are not of one model"
            )
