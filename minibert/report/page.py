"""A finished run's folder to report.html: one file, without scripts and without the network.

The page is a function of the folder. Its template escapes every text: texts are data, not markup.
Jinja2 comes with PyTorch.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from minibert.evaluation.figures import title
from minibert.files import write_text
from minibert.report.parts import Section
from minibert.report.pictures import has_matplotlib
from minibert.report.run_data import RunData, made_by_this_version, read_run
from minibert.report.sections import figure_cell, sections

REPORT = "report.html"


def write_report(folder: Path, *, command: str | None = None) -> Path:
    """Write the report of a finished run into its folder; return its path.

    `command` is the one that repeats the run, if it is known. Raises InputError for a folder that
    is not a finished run of this version.
    """
    run = read_run(folder)
    path = folder / REPORT
    with made_by_this_version(folder):
        html = page(run, sections(run, command=command))
    write_text(path, html)
    return path


def page(run: RunData, sections: Sequence[Section]) -> str:
    """Return the HTML of sections."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((files("minibert.report") / "page.html").read_text("utf-8"))
    return template.render(
        run=run,
        headline=figure_cell(run.figure, run.scores),
        headline_of=title(run.figure),
        sections=sections,
        has_matplotlib=has_matplotlib(),
    )
