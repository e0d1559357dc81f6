"""A text's walk as a picture: a column for each token, a row for each layer."""

import itertools
import re
from collections.abc import Sequence
from html import escape

from torch import Tensor

from minibert.errors import printable
from minibert.inference.walk import Walk

COLUMN, ROW, LEFT = 92, 34, 110  # pixels
GAP = 60  # for the lines of attention
CELLS = 6  # first values of a vector
LEAST = 0.05  # weights of attention that are drawn


def draw(steps: Walk, classes: Sequence[str]) -> str:
    """Return an SVG: vectors as strips of their first values, and the last layer's attention."""
    parts = [
        text(LEFT + column * COLUMN, 20, printable(piece, 12))
        for column, piece in enumerate(steps.pieces)
    ]
    *lower, last = [name for name in steps.stages if re.fullmatch(r"embeddings|layer \d+", name)]
    y = ROW
    for name in lower:
        parts += layer(steps, name, y)
        y += ROW
    parts += attention_lines(steps, top=y - 8, bottom=y + GAP + 6)
    y += GAP
    parts += layer(steps, last, y)
    y += ROW
    parts += [text(8, y + 20, "features"), *strip(LEFT, y + 6, steps.stages["features"][0])]
    y += ROW
    logits = zip(classes, steps.logits[0].tolist(), strict=True)
    line = ", ".join(f"{printable(name, 20)} {value:.2f}" for name, value in logits)
    parts += [text(8, y + 20, "logits"), text(LEFT, y + 20, line)]
    width, height = LEFT + len(steps.pieces) * COLUMN, y + ROW
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
    style = 'font-family="sans-serif" font-size="13"'
    background = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([f"{head} {style}>", background, *parts, "</svg>\n"])


def layer(steps: Walk, name: str, y: int) -> list[str]:
    """Return a row: a layer's name and a strip for each token that it computed."""
    vectors = enumerate(steps.stages[name][0])
    strips = [strip(LEFT + column * COLUMN, y + 6, vector) for column, vector in vectors]
    return [text(8, y + 20, name), *itertools.chain(*strips)]


def text(x: int, y: int, content: str) -> str:
    """Return text at a place."""
    return f'<text x="{x}" y="{y}">{escape(content)}</text>'


def strip(x: int, y: int, vector: Tensor) -> list[str]:
    """Return a cell for each of a vector's first values: blue below 0, red above, white at 0."""
    cells = []
    for number, value in enumerate(vector[:CELLS].tolist()):
        pale = round(255 * (1 - min(abs(value), 1.0)))
        color = f"{pale},{pale},255" if value < 0 else f"255,{pale},{pale}"
        place = f'x="{x + 10 * number}" y="{y}" width="10" height="20"'
        cells.append(f'<rect {place} fill="rgb({color})" stroke="silver"/>')
    return cells


def attention_lines(steps: Walk, *, top: int, bottom: int) -> list[str]:
    """Return lines from the last layer's first token to tokens below it; the wider, the more."""
    lines, middle = [], LEFT + 5 * CELLS
    for column, weight in enumerate(steps.attention.mean(dim=0).tolist()):
        if weight >= LEAST:
            ends = f'x1="{middle}" y1="{bottom}" x2="{middle + column * COLUMN}" y2="{top}"'
            lines.append(f'<line {ends} stroke="black" stroke-width="{20 * weight:.1f}"/>')
    return lines
