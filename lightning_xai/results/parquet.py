"""Tables in Parquet files, with checksums and notes; pyarrow is imported with the first of them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from lightning_xai.results.files import replacing

_NOTES = b"lightning_xai"


def write_parquet(path: Path, table: pd.DataFrame, columns: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Write the columns, `str` or the name of a type each, as a whole; the notes are JSON beside them.

    Raises:
        OSError: if the folder cannot be written to, or the disk is full.
    """
    import pyarrow as pa
    from pyarrow import parquet

    types = {name: pa.type_for_alias("string" if kind is str else kind) for name, kind in columns.items()}
    arrays = {
        name: pa.array(table[name].to_numpy(object if kind == pa.string() else None), kind, from_pandas=False)
        for name, kind in types.items()
    }
    arrow = pa.table(arrays)
    with replacing(path) as temporary, temporary.open("wb") as file:
        options: Any = {"compression": "zstd", "write_page_checksum": True}
        with parquet.ParquetWriter(file, arrow.schema, **options) as writer:
            writer.write_table(arrow)
            writer.add_key_value_metadata({_NOTES: json.dumps(notes)})  # in the schema they would be there twice


def read_parquet(
    path: Path,
    columns: Mapping[str, Any],
    wanted: Mapping[str, Any] | None = None,
    later: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Table and notes; columns of text are categorical.

    Groups of rows without any row that has the wanted values, by column, are left out: their other columns are not
    read. (By the columns themselves, which have checksums; the least and greatest value that a file notes have none.)
    Files of earlier versions may lack the `later` columns, whose values are then these.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it is damaged, or lacks a column.
    """
    import pyarrow as pa
    from pyarrow import parquet

    source = pa.BufferReader(path.read_bytes())
    texts = [name for name, kind in columns.items() if kind is str]
    options: Any = {"read_dictionary": texts, "page_checksum_verification": True}
    with _named(path), parquet.ParquetFile(source, **options) as file:
        absent = {name: value for name, value in later.items() if name not in file.schema_arrow.names}
        asked = {name: value for name, value in (wanted or {}).items() if name not in absent}
        groups = [number for number in range(file.num_row_groups) if not asked or _has(file, number, asked)]
        there = [name for name in columns if name not in absent]
        arrow = file.read_row_groups(groups, there, use_threads=False).select(there)
        table = arrow.to_pandas(split_blocks=True, self_destruct=True)
        return table.assign(**absent) if absent else table, _notes(file.metadata)


def read_notes(path: Path) -> dict[str, Any]:
    """The notes alone, from the end of the file.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it is cut short.
    """
    from pyarrow import parquet

    with path.open("rb") as source, _named(path):
        return _notes(parquet.read_metadata(source))


def _notes(metadata: Any) -> dict[str, Any]:
    return json.loads((metadata.metadata or {}).get(_NOTES, b"{}"))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        what = " ".join(str(error).split())
        raise ValueError(
            f"{path} is damaged, or no table of scores ({what}). Put a copy in its place, or remove it: the scores of "
            "its evaluation are lost, those in other files are not."
        ) from error


def _has(file: Any, group: int, wanted: Mapping[str, Any]) -> bool:
    """Whether a row of the group has the values."""
    keys = file.read_row_group(group, list(wanted), use_threads=False).to_pandas()
    return bool(np.logical_and.reduce([(keys[name] == value).to_numpy(bool) for name, value in wanted.items()]).any())
