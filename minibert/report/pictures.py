"""Numbers to pictures: SVG whose colours are the page's, in light and in dark.

matplotlib (extra: plots) draws them, when the functions that are returned here are called. Without
it there are none, and the page has the tables.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 5.0, 3.0  # inches; the page scales them
# matplotlib has no CSS variables: each colour stands for one and is replaced by it.
COLOURS = {
    "#010000": "var(--muted)",
    "#020000": "var(--line)",
    "#030000": "var(--accent)",
    "#040000": "var(--second)",
}
MUTED, LINE, ACCENT, SECOND = COLOURS
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # texts are texts, in the page's font
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "legend.frameon": False,
    "font.size": 11,
}


def has_matplotlib() -> bool:
    """Return whether pictures can be drawn."""
    return find_spec("matplotlib") is not None


def svg(draw: Callable[[Any], object], name: str, *, height: float = HEIGHT) -> Markup:
    """Let `draw` fill the axes of a figure; return it as SVG.

    The same numbers give the same bytes. `name` keeps the ids of a page's pictures apart.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    file = io.StringIO()
    style: Any = {**STYLE, "svg.hashsalt": name}
    with rc_context(style):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.subplots())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]  # without XML's declaration
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r" font-family: [^;\"]*;?", "", text)
    text = re.sub(r' id="[a-zA-Z]\w*(\.axis)?_\d+"', "", text)  # of groups, the same in each
    for colour, variable in COLOURS.items():
        text = text.replace(colour, variable)
    return Markup(text.strip())


def as_percent(*axes: Any) -> None:
    """Label axes from 0 to 1 in percent."""
    from matplotlib.ticker import PercentFormatter

    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1))


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float | None]]],
    *,
    x: str,
    y: str,
    marked: float | None = None,
    whole: bool = False,
    diagonal: bool = False,
    percent: str = "",
) -> Callable[[], Markup]:
    """Draw lines (x, y) by name, with a vertical line at `marked`.

    With `whole`, x is counted; the axes of `percent`, such as "xy", are from 0 to 1.
    """

    def draw(axes: Any) -> None:
        if diagonal:
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        for (name, (xs, ys)), colour in zip(series.items(), (ACCENT, SECOND), strict=False):
            values = [float("nan") if value is None else value for value in ys]
            marker = "o" if len(xs) < 30 else ""
            axes.plot(xs, values, color=colour, marker=marker, label=name)
        if marked is not None:
            axes.axvline(marked, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        if whole:
            axes.xaxis.get_major_locator().set_params(integer=True)
        as_percent(*(getattr(axes, f"{axis}axis") for axis in percent))
        if len(series) > 1:
            axes.legend()
        axes.set(xlabel=x, ylabel=y)

    return partial(svg, draw, f"{x} {y}")


def histogram(counts: Sequence[int], width: int, *, marked: float | None) -> Callable[[], Markup]:
    """Draw the texts of each `width` tokens, with a line at `marked` tokens if it is inside."""

    def draw(axes: Any) -> None:
        starts = [0.5 + width * k for k in range(len(counts))]
        axes.bar(starts, counts, width=0.9 * width, align="edge", color=ACCENT)
        if marked is not None and marked < width * len(counts):
            axes.axvline(marked + 0.5, color=SECOND, linewidth=1.5)
        axes.grid(False, axis="x")
        axes.set(xlabel="tokens of a training text", ylabel="texts")

    return partial(svg, draw, "lengths")


def whiskers(
    rows: Sequence[tuple[str, float, tuple[float, float] | None]],
    *,
    x: str,
    name: str,
    percent: bool,
) -> Callable[[], Markup]:
    """Draw a value and its interval in each row; the first row is on top and in another colour."""

    def draw(axes: Any) -> None:
        for row, (_, value, interval) in enumerate(rows):
            colour = ACCENT if row == 0 or name == "lengths" else MUTED
            if interval:
                axes.plot(interval, [row, row], color=colour, linewidth=2)
            axes.plot([value], [row], color=colour, marker="o", markersize=7)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(False, axis="y")
        axes.locator_params(axis="x", nbins=5)
        axes.set(xlabel=x)
        if percent:
            as_percent(axes.xaxis)

    return partial(svg, draw, name, height=0.7 + 0.45 * len(rows))


def scatter(xs: Sequence[float], ys: Sequence[float], *, x: str, y: str) -> Callable[[], Markup]:
    """Draw points, and the diagonal on which they are equal."""

    def draw(axes: Any) -> None:
        axes.plot(xs, ys, color=ACCENT, marker="o", markersize=3, alpha=0.5, linestyle="")
        ends = [min(*xs, *ys), max(*xs, *ys)]
        axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.set(xlabel=x, ylabel=y)

    return partial(svg, draw, "scatter")
