"""TextDataset to token ids, through the `tokenizers` library; the only room that imports it.

A tokenizer is read from `tokenizer.json`, or built from `vocab.txt` alone as the first BERTs need
it (transformers' tokenization_bert.py is the reference for the ids).
"""

import json
import math
import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordPiece

from minibert.data.batches import TokenIds
from minibert.errors import InputError, printable
from minibert.files import model_file, read_json, write_atomic, write_json
from minibert.model.config import EncoderConfig

SURROGATE = re.compile("[\ud800-\udfff]")
FILE_LIMIT = 24 * 2**20  # bytes; the largest vocabularies, of 500,000 tokens, take 17 MB


class Tokenizer:
    """A checkpoint's tokenizer, without the truncation and padding its file may have baked in."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.folder = folder

    @classmethod
    def from_folder(cls, folder: Path, config: EncoderConfig) -> "Tokenizer":
        """Read a checkpoint's tokenizer. Raises InputError if it does not fit the config."""
        source = model_file(folder, "tokenizer.json") or model_file(folder, "vocab.txt")
        if source is None:
            raise InputError(f"{folder}: holds no tokenizer (no tokenizer.json, no vocab.txt)")
        if source.stat().st_size > FILE_LIMIT:
            raise InputError(f"{source}: is over {FILE_LIMIT >> 20} MB, which no tokenizer is")
        if source.name == "vocab.txt":
            backend = _from_vocabulary(source)
        else:
            try:
                backend = Backend.from_file(str(source))
            except Exception as error:  # the library raises nothing narrower
                raise InputError(f"{source}: is not a tokenizer ({error})") from None
        highest = max(backend.get_vocab().values(), default=0)
        if highest >= config.vocab_size:
            raise InputError(
                f"{source}: has {highest + 1} tokens, "
                f"config.json only {config.vocab_size}; the two are not of one model"
            )
        tokenizer = cls(backend, folder)
        _check_frame(tokenizer, source, config)
        return tokenizer

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[TokenIds]:
        """Encode texts (with `pairs`: as first and second segment) at their full lengths."""
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        try:
            encodings = self.backend.encode_batch_fast(inputs)
        except BaseException as error:
            # The library raises bare exceptions, and panics that are not even those.
            if type(error) is Exception or type(error).__name__ == "PanicException":
                raise InputError(
                    f"{self.folder}: its tokenizer fails on a text ({error})"
                ) from None
            raise
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
            frame = self.backend.num_special_tokens_to_add(pairs is not None)
            if frame > max_length:
                raise InputError(f"--max-length is {max_length}; {frame} are special tokens alone")
            self.backend.enable_truncation(max_length, strategy="longest_first")
            short = self.encode([texts[i] for i in long], pairs and [pairs[i] for i in long])
            self.backend.no_truncation()
            for number, row in zip(long, short, strict=True):
                rows[number] = row
        return len(long)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a model folder, so that transformers finds them too."""
        write_atomic(
            folder / "tokenizer.json",
            lambda temporary: self.backend.save(str(temporary), pretty=False),
        )
        for name in ("vocab.txt", "tokenizer_config.json"):
            if source := model_file(self.folder, name):
                write_atomic(folder / name, partial(shutil.copyfile, source))
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


def _check_frame(tokenizer: Tokenizer, source: Path, config: EncoderConfig) -> None:
    """Raise InputError where what a tokenizer puts around every text is not for this model."""
    backend = tokenizer.backend
    unknown = getattr(backend.model, "unk_token", None)
    if unknown is not None and backend.model.token_to_id(unknown) is None:
        raise InputError(f"{source}: lacks its own token for unknown words, {printable(unknown)}")
    if backend.normalizer is not None:
        growth = _growth(json.loads(backend.normalizer.__getstate__()))
        if growth > 100:
            raise InputError(f"{source}: makes up to {growth:,} characters of one; fetch it again")
    frame = backend.num_special_tokens_to_add(True)
    if not 0 < frame < config.positions:
        raise InputError(
            f"{source}: adds {frame:,} special tokens to two texts, and the model has "
            f"{config.positions} positions; the two are not of one model"
        )
    for pair in (None, ["a"]):
        row = tokenizer.encode(["a"], pair)[0]
        if row.ids.max() >= config.vocab_size or not 0 < row.segment_b_start <= len(row):
            raise InputError(
                f"{source}: adds special tokens that config.json's {config.vocab_size} tokens "
                "and two token types do not have; the two are not of one model"
            )


def _growth(normalizer: dict[str, Any]) -> int:
    """Return how many characters a normalizer and those in it may make of one."""
    own = max(len(normalizer.get("content", "")), len(normalizer.get("prepend", "")), 1)
    return own * math.prod(map(_growth, normalizer.get("normalizers", [])))


def _from_vocabulary(file: Path) -> Backend:
    """Build BERT's tokenizer from one token a line, and `tokenizer_config.json` if it is there."""
    settings_file = model_file(file.parent, "tokenizer_config.json")
    settings: dict[str, Any] = read_json(settings_file) if settings_file else {}
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
