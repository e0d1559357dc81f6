"""Texts to token ids, through the `tokenizers` library; the only room that imports it.

A tokenizer is read from `tokenizer.json`, or built from `vocab.txt` alone as the first BERTs need
it (transformers' tokenization_bert.py is the reference for the ids).
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordPiece

from minibert.config import EncoderConfig
from minibert.errors import InputError
from minibert.files import read_json, write_atomic, write_json


@dataclass(frozen=True)
class TokenIds:
    """One text's ids, int32, special tokens included; from `second` on they are of token type 1."""

    ids: np.ndarray
    second: int

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """A checkpoint's tokenizer, without the truncation and padding its file may have baked in."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.folder = folder

    @classmethod
    def from_folder(cls, folder: Path, config: EncoderConfig) -> "Tokenizer":
        """Read the tokenizer beside a checkpoint; InputError where it does not fit the config."""
        full, vocab = folder / "tokenizer.json", folder / "vocab.txt"
        if full.is_file():
            source = full
            try:
                backend = Backend.from_file(str(full))
            except Exception as error:  # the library raises nothing narrower
                raise InputError(f"{full}: is not a tokenizer ({error})") from None
        elif vocab.is_file():
            source = vocab
            backend = _from_vocabulary(vocab)
        else:
            raise InputError(f"{folder}: holds no tokenizer (no tokenizer.json, no vocab.txt)")
        highest = max(backend.get_vocab().values(), default=0)
        if highest >= config.vocab_size:
            raise InputError(
                f"{source}: has {highest + 1} tokens, "
                f"config.json only {config.vocab_size}; the two are not of one model"
            )
        return cls(backend, folder)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[TokenIds]:
        """Encode texts (with `pairs`: as first and second segment) at their full lengths."""
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        encodings = self.backend.encode_batch_fast(inputs)
        return [_token_ids(encoding, paired=pairs is not None) for encoding in encodings]

    def truncate(
        self,
        rows: list[TokenIds],
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_length: int,
    ) -> int:
        """Cut, in place, rows over `max_length` tokens, a pair's longer text first; count them."""
        long = [number for number, row in enumerate(rows) if len(row) > max_length]
        if long:
            self.backend.enable_truncation(max_length, strategy="longest_first")
            short = self.encode([texts[i] for i in long], pairs and [pairs[i] for i in long])
            self.backend.no_truncation()
            for number, row in zip(long, short, strict=True):
                rows[number] = row
        return len(long)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a model folder, so that transformers finds them too."""
        write_atomic(
            folder / "tokenizer.json", lambda beside: self.backend.save(str(beside), pretty=False)
        )
        for name in ("vocab.txt", "tokenizer_config.json"):
            if (self.folder / name).is_file():
                write_atomic(folder / name, partial(shutil.copyfile, self.folder / name))
        if not (folder / "tokenizer_config.json").exists():
            write_json(folder / "tokenizer_config.json", self._options())

    def _options(self) -> dict[str, Any]:
        """Return what transformers must be told: it reads no normalizer in tokenizer.json."""
        options: dict[str, Any] = {"tokenizer_class": "BertTokenizer"}
        normalizer = self.backend.normalizer
        if isinstance(normalizer, normalizers.BertNormalizer):
            options["do_lower_case"] = normalizer.lowercase
            options["strip_accents"] = normalizer.strip_accents
            options["tokenize_chinese_chars"] = normalizer.handle_chinese_chars
        return options


def _token_ids(encoding: Encoding, *, paired: bool) -> TokenIds:
    ids = np.array(encoding.ids, dtype=np.int32)
    return TokenIds(ids, len(ids) - sum(encoding.type_ids) if paired else len(ids))


def _from_vocabulary(file: Path) -> Backend:
    """Build BERT's tokenizer from one token a line, and `tokenizer_config.json` if it is there."""
    settings_file = file.parent / "tokenizer_config.json"
    settings: dict[str, Any] = read_json(settings_file) if settings_file.is_file() else {}
    special = {
        name: _special(settings.get(f"{name}_token"), f"[{name.upper()}]")
        for name in ("unk", "sep", "pad", "cls", "mask")
    }
    try:
        with open(file, encoding="utf-8", newline="\n") as lines:
            vocabulary = {line.rstrip("\r\n"): number for number, line in enumerate(lines)}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as UTF-8 ({error})") from None
    missing = [token for token in special.values() if token not in vocabulary]
    if missing:
        raise InputError(f"{file}: lacks the special tokens {', '.join(missing)}")

    backend = Backend(WordPiece(vocabulary, unk_token=special["unk"]))
    backend.add_special_tokens(list(special.values()))
    switches = {
        "lowercase": settings.get("do_lower_case", True),
        "strip_accents": settings.get("strip_accents"),  # null: as lowercase
        "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
    }
    try:
        backend.normalizer = normalizers.BertNormalizer(clean_text=True, **switches)
    except TypeError:
        raise InputError(
            f"{settings_file}: do_lower_case, strip_accents and tokenize_chinese_chars must be "
            "true or false"
        ) from None
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = special["cls"], special["sep"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    backend.decoder = decoders.WordPiece()
    return backend


def _special(value: Any, default: str) -> str:
    """Read a special token: a string, or an object with its `content` in older files."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default
