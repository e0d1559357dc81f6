"""Parquet files, read a batch of rows at a time. Needs pyarrow, the extra `parquet`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minibert.errors import InputError


def read_parquet(path: Path) -> Iterator[list[Any]]:
    """Yield a file's column names, then the values of each row, as csv.reader does.

    A time or duration that Python cannot hold comes out as text, any other such value as the
    exception that says why. Raises InputError for a file that is not Parquet or has no rows.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InputError(
            f'{path}: Parquet needs the extra parquet: pip install -e ".[parquet]"'
        ) from None
    empty = True
    try:
        with ParquetFile(path) as file:
            yield list(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=1024):
                for values in zip(*map(python_values, batch.columns), strict=True):
                    empty = False
                    yield list(values)
    except ArrowException as error:
        raise InputError(f"{path}: is not a complete Parquet file ({error})") from None
    if empty:
        raise InputError(f"{path}: has no rows")


def python_values(column: Any) -> list[Any]:
    """Return the values of an Arrow column as `read_parquet` yields them."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):  # some value, such as a date after the year 9999
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    """Return a scalar as Python has it; what Python cannot hold as text, or as an exception."""
    from pyarrow import ArrowException, types

    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        problem, kind = error, scalar.type
    if types.is_list(kind) or types.is_large_list(kind):
        return [_value(x) for x in scalar.values]
    if types.is_struct(kind) and len({field.name for field in kind}) == kind.num_fields:
        return {name: _value(x) for name, x in scalar.items()}
    if types.is_duration(kind):
        return f"{scalar.value} {kind.unit}"
    try:
        return scalar.cast("string").as_py()
    except (ArrowException, ValueError):
        return problem
