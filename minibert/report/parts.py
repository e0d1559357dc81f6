"""What a report is made of: sections of pictures, tables and notes. All are plain text but SVG."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

SHOWN = 20  # rows of a table, which keeps the page small
TEXT = 300  # characters of a text


@dataclass(frozen=True)
class Cell:
    """A table's cell. `shade` and `bar` are from 0 to 1: the strength of its colour, its length."""

    text: str
    small: str = ""  # after the text, such as its interval
    shade: float = 0.0
    bar: float | None = None


Row = Sequence[Cell | str]


@dataclass(frozen=True)
class Table:
    """Rows of cells, each with a head. The first `words` columns are text, the others numbers.

    A `folded` table has the numbers of a picture, which is shown in its place if it can be drawn.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Row]
    words: int = 1
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A title, and a function that draws the picture with matplotlib."""

    title: str
    draw: Callable[[], Markup]


@dataclass(frozen=True)
class Section:
    """A part of the page. `code` is shown as it is."""

    title: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    code: str = ""
