"""Batches of rows in, the same rows with predictions out: for Ray Data, Spark and process pools."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from minibert.checkpoint.config_file import parse_encoder, read_config
from minibert.checkpoint.load import stored_head
from minibert.data.columns import Columns, RequestedColumns, choose_columns
from minibert.data.parquet import python_values
from minibert.data.readers import Row, check_characters
from minibert.errors import InputError
from minibert.hub import find_model
from minibert.inference.formats import as_json, kept_names, prediction_columns
from minibert.inference.predictor import Predictor, load
from minibert.inference.rows import Outcome, predict_rows
from minibert.runs import NO_MODEL, RunFolder
from minibert.tasks.calibrated import with_temperature
from minibert.tasks.choice import task_of
from minibert.tasks.task import Task

if TYPE_CHECKING:
    import pyarrow as pa

Batch = TypeVar("Batch", "pa.Table", "pa.RecordBatch", dict[str, Any])


MOST = 1024  # threads, and texts per forward pass


class BatchPredictor:
    """Predicts batches of rows in the workers of Ray Data, Spark or a process pool.

    A batch is an Arrow table, a record batch, or a dict of columns (lists or numpy arrays). The
    same rows come back in the same order, as the same type, with the columns of predict.py's CSV:
    text, pair, the prediction (`labels` is a list), error, and the other columns as they were. A
    row that cannot be used gets nulls and an error.

    Pickling copies the arguments; each copy loads the model when it predicts its first batch.

    Args:
        model: finished run, model folder or hub id.
        text_column, pair_column: columns of the texts (default: as predict.py finds them).
        threads: PyTorch's threads during a call (default: as many as it has). The number is the
            process's; it is restored after the call.
        options: revision, batch_size, device, precision, max_length and raw, as in `load`.

    Raises InputError for a model that cannot be used, and for columns that a batch does not have.

    Example:
        >>> import tempfile, minibert
        >>> classifier = minibert.TextClassifier.pretrained("all-MiniLM-L6-v2", ["bad", "good"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     classifier.save(folder)
        ...     predictor = minibert.BatchPredictor(folder)
        ...     rows = predictor({"text": ["good film", None], "id": [7, 8]})
        >>> list(rows)
        ['text', 'label', 'probability', 'probability_bad', 'probability_good', 'error', 'id']
        >>> rows["error"]
        [None, 'column text: is null']
    """

    def __init__(
        self,
        model: str,
        text_column: str | None = None,
        pair_column: str | None = None,
        *,
        threads: int | None = None,
        **options: Any,
    ) -> None:
        signature(load).bind(model, **options)  # an unknown option raises here, not in a worker
        counts = {"threads": threads, "batch_size": options.get("batch_size")}
        for name, count in counts.items():
            if count is not None and not (type(count) is int and 1 <= count <= MOST):
                raise InputError(f"{name} is {count!r}; give a number from 1 to {MOST:,}")
        self.model = str(Path(model).resolve()) if Path(model).exists() else model
        self.requested = RequestedColumns(text_column, pair_column)
        self.threads, self.options = threads, options

    def __getstate__(self) -> dict[str, Any]:
        # The cached properties, whose names begin with _, stay in their process.
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __call__(self, batch: Batch) -> Batch:
        """Return the rows of a batch with their predictions."""
        if not isinstance(batch, dict) and not hasattr(batch, "schema"):
            kind = type(batch).__name__
            raise InputError(f"a batch is a {kind}; give an Arrow table or a dict of columns")
        names = list(batch) if isinstance(batch, dict) else batch.schema.names
        check_columns(names, batch)
        texts = self._text_columns(names)
        with _threads(self.threads):
            outcomes = predict_rows(_rows(batch, texts), texts, self._predictor)
        predicted = [self._as_columns(outcome) for outcome in outcomes]
        columns = {
            name: [row[name] for row in predicted] if source is None else batch[source]
            for name, source in self._layout(names, texts).items()
        }
        if isinstance(batch, dict):
            return columns
        schema = self.output_schema(batch.schema)
        return type(batch).from_arrays(list(columns.values()), schema=schema)

    def output_schema(self, schema: "pa.Schema") -> "pa.Schema":
        """Return the schema of the output for every batch with this schema.

        Reads the model's config.json and not its weights. Raises InputError as a call does.
        """
        import pyarrow as pa

        string, strings = pa.string(), pa.list_(pa.string())
        types = {"label": string, "labels": strings, "rejected": pa.bool_(), "error": string}
        fields = []
        for name, source in self._layout(schema.names, self._text_columns(schema.names)).items():
            predicted = pa.field(name, types.get(name, pa.float64()))
            fields.append(predicted if source is None else schema.field(source).with_name(name))
        return pa.schema(fields)

    def _text_columns(self, names: Sequence[str]) -> Columns:
        default = RunFolder(self._folder).columns()
        return choose_columns(names, "the batch", self.requested, labelled=False, default=default)

    def _layout(self, names: Sequence[str], texts: Columns) -> dict[str, str | None]:
        """Return the output's columns, each with the batch's column that it is, if any."""
        others = [name for name in names if name not in texts.texts()]
        return {
            "text": texts.text,
            **({"pair": texts.pair} if texts.pair else {}),
            **dict.fromkeys(self._as_columns(Outcome(None, None))),
            **dict(zip(kept_names(others, self._task), others, strict=True)),
        }

    def _as_columns(self, outcome: Outcome) -> dict[str, Any]:
        prediction = outcome.prediction or dict.fromkeys(self._task.keys)
        return {**prediction_columns(prediction, self._task), "error": as_json(outcome.error)}

    @cached_property
    def _folder(self) -> Path:
        folder = find_model(self.model, revision=self.options.get("revision"))
        if RunFolder(folder).is_cross_validation:
            raise InputError(f"{folder}: {NO_MODEL}")
        return folder

    @cached_property
    def _task(self) -> Task:
        data, where = read_config(self._folder)
        head = stored_head(self._folder, data, parse_encoder(data, where=where), where)
        return task_of(with_temperature(head, 1.0) if self.options.get("raw") else head)

    @cached_property
    def _predictor(self) -> Predictor:
        return load(self.model, **self.options)


def check_columns(names: Sequence[Any], batch: Any) -> None:
    """Raise InputError for columns without a name of their own, or of different lengths."""
    for name, count in Counter(names).items():
        if count > 1 or not isinstance(name, str):
            raise InputError(f"the batch's column {name!r}: columns need names that differ")
        if isinstance(batch[name], str) or not hasattr(batch[name], "__len__"):
            raise InputError(f"the batch's column {name!r} is no list and no array; give one")
    lengths = {name: len(batch[name]) for name in names}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the batch's columns have different lengths ({lengths})")


def _rows(batch: Any, columns: Columns) -> list[Row]:
    """Return the rows of a batch with the columns of the texts alone."""
    names = [name for name in (columns.text, columns.pair) if name]
    values = zip(*(_values(batch[name]) for name in names), strict=True)
    rows = (Row(number, dict(zip(names, row, strict=True))) for number, row in enumerate(values))
    return [check_characters(row, "utf-8") for row in rows]


def _values(column: Any) -> list[Any]:
    """Return the values of an Arrow column, a numpy array or a list."""
    if hasattr(column, "to_pylist"):
        return python_values(column)
    return column.tolist() if hasattr(column, "tolist") else list(column)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Give PyTorch a number of threads, and restore the number."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)
