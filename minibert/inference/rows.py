"""Rows in, one prediction or error per row out: what predict.py and BatchPredictor share."""

from collections.abc import Sequence
from typing import NamedTuple

from minibert.data.columns import Columns
from minibert.data.examples import text_of
from minibert.data.readers import Row
from minibert.inference.formats import Record, prediction_record
from minibert.inference.predictor import Predictor

NOT_FINITE = "the model's logits are not finite; its weights may be too large"


class Outcome(NamedTuple):
    """A row's prediction, as `Task.records` has it, or why it has none."""

    prediction: Record | None
    error: str | None


def predict_window(
    window: Sequence[Row], columns: Columns | None, predictor: Predictor
) -> list[Record]:
    """Return one record per row, in order; a row that cannot be used gets its error."""
    records = []
    for row, outcome in zip(window, predict_rows(window, columns, predictor), strict=True):
        prediction, error = outcome
        error = error and f"line {row.line}: {error}"
        records.append(prediction_record(row, columns, predictor.task, prediction, error=error))
    return records


def predict_rows(
    rows: Sequence[Row], columns: Columns | None, predictor: Predictor
) -> list[Outcome]:
    """Return the outcome of each row, in order. Without columns no row can be used."""
    texts: list[str] = []
    pairs: list[str] = []
    errors: list[str | None] = []
    for row in rows:
        try:
            if row.error or columns is None:
                raise ValueError(row.error or "has no fields")
            text = text_of(row, columns.text)
            pair = text_of(row, columns.pair) if columns.pair else ""
        except ValueError as error:
            errors.append(str(error))
            continue
        errors.append(None)
        texts.append(text)
        pairs.append(pair)
    paired = columns is not None and columns.pair is not None
    logits = predictor.logits(texts, pairs if paired else None)
    predicted = zip(predictor.task.records(logits), logits.isfinite().all(dim=1), strict=True)
    outcomes = []
    for problem in errors:
        prediction, finite = (None, True) if problem else next(predicted)
        outcomes.append(Outcome(prediction, problem) if finite else Outcome(None, NOT_FINITE))
    return outcomes
