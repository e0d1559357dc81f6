"""A tokenizer of the `tokenizers` library: read from a checkpoint, and what is known about it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import normalizers, pre_tokenizers
from tokenizers.models import WordPiece

from minibert.data.limits import TOKENIZER_LIMIT
from minibert.data.vocabularies import add_tokens, byte_level_bpe, wordpiece
from minibert.errors import InputError
from minibert.files import model_file


def read_backend(folder: Path, settings: Mapping[str, Any]) -> tuple[Path, Backend]:
    """Read or build the tokenizer from the first file that the folder has; return both."""
    names = ("tokenizer.json", "vocab.txt", "vocab.json")
    source = next(filter(None, (model_file(folder, name) for name in names)), None)
    merges = model_file(folder, "merges.txt")
    if source is None or (source.name == "vocab.json" and merges is None):
        raise InputError(
            f"{folder}: holds no tokenizer (no tokenizer.json, no vocab.txt, no vocab.json with "
            "merges.txt)"
        )
    for file in filter(None, (source, merges)):
        if file.stat().st_size > TOKENIZER_LIMIT:
            raise InputError(f"{file}: is over {TOKENIZER_LIMIT >> 20} MB, which no tokenizer is")
    if source.name == "tokenizer.json":
        try:
            return source, Backend.from_file(str(source))
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"{source}: is not a tokenizer ({error})") from None
    if source.name == "vocab.json":
        assert merges is not None
        backend = byte_level_bpe(source, merges, settings)
    else:
        backend = wordpiece(source, settings)
    add_tokens(backend, folder, settings)
    return source, backend


def normalizer(backend: Backend) -> dict[str, Any]:
    """Return tokenizer.json's normalizer."""
    found = backend.normalizer
    return {} if found is None else dict(json.loads(found.__getstate__()))


def prefix_space(backend: Backend) -> bool | None:
    """Return whether byte-level BPE puts a space before each text; None for other tokenizers."""
    words = backend.pre_tokenizer
    return words.add_prefix_space if isinstance(words, pre_tokenizers.ByteLevel) else None


def is_bert(backend: Backend) -> bool:
    """Return whether transformers' BertTokenizer computes the same ids, with the same switches."""
    model, frame = backend.model, backend.encode("", "")
    return (
        isinstance(model, WordPiece)
        and model.continuing_subword_prefix == "##"
        and model.max_input_chars_per_word == 100
        and isinstance(backend.normalizer, normalizers.BertNormalizer)
        and backend.normalizer.clean_text
        and isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and frame.type_ids == [0, 0, 1]
        and frame.tokens[1] == frame.tokens[2]
    )
