"""predict.py --explain: what each word adds to a prediction, as JSON lines or as an HTML page."""

import sys
from html import escape
from pathlib import Path

from minibert.errors import InputError, printable
from minibert.files import write_text
from minibert.inference.attribution import Attribution, WordScore, attribute
from minibert.inference.formats import Record, json_lines
from minibert.inference.predictor import Predictor
from minibert.inference.text_classifier import TextClassifier

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Which words the predictions rest on</title>
<style>
body {{ font: 16px/1.9 sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em; }}
section {{ border-top: 1px solid silver; padding: 0.5em 0; }}
p {{ margin: 0.2em 0; white-space: pre-wrap; overflow-wrap: anywhere; }}
small {{ color: dimgray; }}
mark {{ color: black; border-radius: 3px; padding: 2px 0; }}
</style>
<h1>Which words the predictions rest on</h1>
<p>Green words speak for the prediction, orange words against it, the deeper the colour the more.
Scores are integrated gradients of the log-odds of a class, or of a predicted number.</p>
{sections}
</html>
"""
COPIED = ("text", "pair", "label", "labels", "probability", "rejected")
SECTION = """<section>
<p><b>{output}</b>
<small>{base:.2f} without the words {change:+.2f} from them = {value:.2f}</small></p>
<p>{text}</p>{pair}
</section>"""


class Explanations:
    """Explains records of predictions, and writes them when all are there.

    They are kept in memory: a text takes a second, so that there are not many.

    Args:
        file: a name that ends in .html, any other for JSON lines.
        folder: the model's.
        predictor: what made the predictions; its model cannot compute gradients.
    """

    def __init__(self, file: Path, folder: Path, predictor: Predictor) -> None:
        self.file, self.task, self.max_length = file, predictor.task, predictor.max_length
        self.classifier = TextClassifier.from_folder(folder)
        self.found: list[tuple[Record, Attribution | str]] = []

    def add(self, records: list[Record]) -> None:
        """Explain records that have a prediction."""
        for record in records:
            if "error" in record:
                continue
            text, pair = record["text"], record.get("pair")
            try:
                found: Attribution | str = attribute(
                    self.classifier,
                    text,
                    pair,
                    task=self.task,
                    output=record.get("label"),
                    max_length=self.max_length,
                )
            except InputError as error:
                found = str(error)
            self.found.append((record, found))

    def write(self) -> None:
        """Write the file, and print how exact the sums are."""
        render = html_page if self.file.suffix.lower() == ".html" else explanation_lines
        write_text(self.file, render(self.found))
        errors = [found.error for _, found in self.found if isinstance(found, Attribution)]
        line = f"{self.file}: {len(errors):,} texts explained"
        if errors:
            line += f"; the sum of a text's words is within {max(errors):.2g} of what they change"
        print(line, file=sys.stderr)
        if skipped := len(self.found) - len(errors):
            print(f"{skipped:,} texts could not be explained; the file says why", file=sys.stderr)


def explanation_lines(explanations: list[tuple[Record, Attribution | str]]) -> str:
    """Return a JSON object per line."""
    lines = []
    for record, found in explanations:
        line: Record = {key: record[key] for key in COPIED if key in record}
        if isinstance(found, Attribution):
            line |= {
                "output": found.output,
                "base": round(found.base, 4),
                "value": round(found.value, 4),
                "error": round(found.error, 4),
                "words": [{**vars(x), "score": round(x.score, 4)} for x in found.words],
            }
        else:
            line["error"] = found
        lines.append(line)
    return json_lines(lines)


def html_page(explanations: list[tuple[Record, Attribution | str]]) -> str:
    """Return one HTML file that needs no other."""
    return PAGE.format(sections="\n".join(section(*found) for found in explanations))


def section(record: Record, found: Attribution | str) -> str:
    """Return the part of a page for one text."""
    if isinstance(found, str):
        return f"<section><p>{escape(record['text'])}</p><p><i>{escape(found)}</i></p></section>"
    strongest = max((abs(word.score) for word in found.words), default=0.0)
    pair = record.get("pair")
    second = "" if pair is None else f"\n<p>{coloured(pair, found, strongest, in_pair=True)}</p>"
    return SECTION.format(
        output=escape(printable(found.output)),
        base=found.base,
        change=found.value - found.base,
        value=found.value,
        text=coloured(record["text"], found, strongest),
        pair=second,
    )


def coloured(text: str, found: Attribution, strongest: float, *, in_pair: bool = False) -> str:
    """Return a text as HTML with its words marked; what is between them stays as it is."""
    parts, done = [], 0
    for word in found.words:
        if word.in_pair == in_pair and word.start >= done:
            parts += [escape(text[done : word.start]), marked(word, strongest)]
            done = word.end
    return "".join([*parts, escape(text[done:])])


def marked(word: WordScore, strongest: float) -> str:
    """Return a word with the colour of its score; its score is shown below the pointer."""
    depth = abs(word.score) / strongest if strongest else 0.0
    color = f"rgba({'0,150,80' if word.score > 0 else '230,110,0'},{0.7 * depth:.2f})"
    title = f"{word.score:+.3f}"
    return f'<mark style="background:{color}" title="{title}">{escape(word.word)}</mark>'
