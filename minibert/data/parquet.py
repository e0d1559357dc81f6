"""Parquet files, read a batch of rows at a time. Needs pyarrow, the extra `parquet`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minibert.errors import InputError


def read_parquet(path: Path) -> Iterator[list[Any]]:
    """Yield a file's column names, then the values of each row, as csv.reader does.

    A value that Python cannot hold comes out as the exception that says why. Raises InputError for
    a file that is not Parquet or has no rows.
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
                for values in zip(*map(_values, batch.columns), strict=True):
                    empty = False
                    yield list(values)
    except ArrowException as error:
        raise InputError(f"{path}: is not a complete Parquet file ({error})") from None
    if empty:
        raise InputError(f"{path}: has no rows")


def _values(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):  # some value, such as a date after the year 9999
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        return error
