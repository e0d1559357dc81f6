"""What characters tell of a text: a wrong encoding, and the script of a word."""

import re
import unicodedata
from collections import Counter

# UTF-8 that was read as Windows-1252 or Latin-1 shows its lead bytes C2 and C3 (accented letters),
# E2 80 (quotes, dashes), F0 9F (emoji), D0 and D1 (Cyrillic) as letters, here with their followers.
# The characters from U+0080 to U+009F are Windows-1252 that was read as Latin-1.
FOLLOWER = "[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
WRONG_ENCODING = re.compile(
    f"[ÂÃ]{FOLLOWER}|â€|ðŸ|(?:[ÐÑ]{FOLLOWER}){{2}}|[\x80-\x9f]|\N{REPLACEMENT CHARACTER}"
)


def wrongly_encoded(text: str) -> str | None:
    """Return the first part of a text that looks like a wrong encoding, with its surroundings."""
    found = None if text.isascii() else WRONG_ENCODING.search(text)
    return None if found is None else text[max(0, found.start() - 10) : found.end() + 10]


def script(word: str) -> str:
    """Return the script of a word's first letter, such as Latin or CJK; "symbols" without one.

    It is the first word of the letter's name in Unicode.
    """
    letter = next(filter(str.isalpha, word), None)
    name = "symbols" if letter is None else unicodedata.name(letter, "other").partition(" ")[0]
    return name if name in ("CJK", "symbols") else name.capitalize()


def main_script(text: str) -> str:
    """Return the script of most letters of a text; of a long one, of its first 50 characters."""
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else "symbols"
    found = Counter(script(letter) for letter in text[:50] if letter.isalpha())
    return found.most_common(1)[0][0] if found else "symbols"
