"""Limits that keep a hostile or broken file from taking all memory, in one place."""

import base64
import math
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any

from minibert.errors import InputError, printable

# Characters of a line or field: some 20 books. A lost quote or a file without line ends stops here.
LINE_LIMIT = 2**24
FIELDS_LIMIT = 10_000  # columns of a header, fields of a JSON object
TOKENIZER_LIMIT = 24 * 2**20  # bytes; the largest vocabularies, of 500,000 tokens, take 17 MB
GROWTH_LIMIT = 100  # characters that a tokenizer's normalizer may make of one
SURROGATE = re.compile("[\ud800-\udfff]")
UTF16_MARKS = ("\udcff\udcfe", "\udcfe\udcff")  # the bytes FF FE and FE FF, which are not UTF-8


class LimitedLines:
    """A text's lines, at most LINE_LIMIT characters of each in memory.

    `number` counts the lines so far. A line over the limit comes out empty, with an error.
    """

    def __init__(self, text: IO[str], where: str) -> None:
        self.text, self.where = text, where
        self.number = 0
        self.error: str | None = None

    def __iter__(self) -> Iterator[str]:
        readline = self.text.readline
        while line := readline(LINE_LIMIT):
            if not self.number and line.startswith(UTF16_MARKS):
                raise InputError(f"{self.where}: begins as UTF-16 does; give --encoding utf-16")
            self.number += 1
            if len(line) == LINE_LIMIT:
                while line and not line.endswith(("\r", "\n")):
                    line = readline(LINE_LIMIT)
                self.error = f"is a line of over {LINE_LIMIT:,} characters"
                line = ""
            yield line

    def take_error(self) -> str | None:
        """Return the error of the lines since the last call, and forget it."""
        error, self.error = self.error, None
        return error


def check_column_count(count: int, where: str) -> None:
    """Raise InputError if a header has too many columns."""
    if count > FIELDS_LIMIT:
        raise InputError(
            f"{where}, line 1: has {count:,} columns; keep at most {FIELDS_LIMIT:,} of them"
        )


def field_count_problem(fields: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the number of a JSON object's fields."""
    return f"has {len(fields):,} fields" if len(fields) > FIELDS_LIMIT else None


def character_problem(fields: Mapping[str, Any], encoding: str) -> str | None:
    """Return where a text has bytes that do not decode, or half of a surrogate pair.

    Both are lone surrogates here: undecodable bytes were read with errors="surrogateescape".
    """
    for name, value in fields.items():
        bad = SURROGATE.search(value) if isinstance(value, str) else None
        if bad:
            byte = ord(bad[0]) - 0xDC00
            problem = (
                f"the byte 0x{byte:02x}, which is not {encoding}; name another --encoding"
                if 0x80 <= byte <= 0xFF
                else "half of a surrogate pair"
            )
            return f"column {printable(name)}, character {bad.start() + 1}: holds {problem}"
    return None


def normalizer_growth(normalizer: Mapping[str, Any]) -> int:
    """Return into how many characters a normalizer of tokenizer.json can turn one."""
    alone = max(len(normalizer.get("content", "")), len(normalizer.get("prepend", "")), 1)
    if normalizer.get("type") == "Precompiled":
        alone = max(alone, _longest_replacement(normalizer["precompiled_charsmap"]))
    return alone * math.prod(map(normalizer_growth, normalizer.get("normalizers", [])))


def _longest_replacement(charsmap: str) -> int:
    """Return the length of the longest text in sentencepiece's map of characters, in base64."""
    content = base64.b64decode(charsmap)
    keys = int.from_bytes(content[:4], "little")  # bytes of the tree of keys; then the values
    return max(len(value.decode(errors="ignore")) for value in content[4 + keys :].split(b"\0"))
