"""The table of scores: one row for each image, in Parquet, with the same bytes for the same rows.

=============  =====================================================================================
``key``        the sample's key
``shard``      the shard, without the folders that all shards have in common; null for a folder's files
``path``       the image's member of the shard, or its file below the folder
``source``     first folder of the path that the image came from, "" where it lay in none
``width``, ``height``  pixels, upright; null where the image cannot be decoded
``bytes``, ``sha256``  of the image file as stored; null where it cannot be read
the scorer's columns, ``degraded_logit_q10``, ``degraded_logit_q90``
               numbers of :func:`synthpipe.transforms.density.score_image`; null where there are none
``reason``     of a scorer by kinds: the likeliest kind of degradation; null where none is as likely as not
``tiles``      how many tiles were looked at
``error``      why there is no score, one word; null where there is one
``given_up``   what the image held and was not looked at, reasons of :data:`synthpipe.files.decode.GIVEN_UP` apart by
               spaces; null where nothing, and where there is no score
=============  =====================================================================================

The metadata ``synthpipe`` of the file is JSON: what scored, with which settings, and how many images.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthpipe.errors import OptionError, ShardError, excerpt, shortened
from synthpipe.files.storage import open_url
from synthpipe.json_text import parse_json

__all__ = ["ScoreRow", "ScoreTable", "merge_parts", "open_scores", "read_part", "require_pyarrow", "write_part"]

_FORMAT = "synthpipe-scores"
_VERSION = 1
_METADATA_KEY = b"synthpipe"
#: Of the note in a table's metadata.
MAX_METADATA_BYTES = 1 << 20
_ROW_GROUP = 1 << 16
_NAMES = ("key", "shard", "path", "source", "sha256", "error", "given_up", "reason")
_COUNTS = ("width", "height", "tiles")


@dataclass(slots=True)
class ScoreRow:
    """One image; ``numbers`` are the scorer's columns in their order, or None with an ``error``."""

    key: str
    path: str
    source: str
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    numbers: tuple[float, ...] | None = None
    tiles: int | None = None
    error: str | None = None
    given_up: str | None = None
    reason: str | None = None


def require_pyarrow() -> None:
    """Say what is missing before any work is done.

    Raises:
        OptionError: the package that reads and writes Parquet is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise OptionError("tables of scores need pyarrow, which is not installed; pip install 'synthpipe[score]'")


def write_part(path: Path, rows: Sequence[ScoreRow], columns: Sequence[str], about: dict[str, Any]) -> None:
    """The table of one shard.

    Args:
        path: the file to write.
        rows: in the shard's order.
        columns: names of ``numbers``.
        about: kept in the file's metadata.
    """
    import pyarrow as pa

    fields: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in _fixed()}
    for place, name in enumerate(columns):
        fields[name] = [None if row.numbers is None else row.numbers[place] for row in rows]
    fields["shard"] = [None] * len(rows)
    fields["tiles"] = [row.tiles for row in rows]
    fields["error"] = [row.error for row in rows]
    fields["given_up"] = [row.given_up for row in rows]
    fields["reason"] = [row.reason for row in rows]
    schema = _schema(columns, about)
    with _writer(path, schema) as writer:
        writer.write_table(pa.table({name: fields[name] for name in schema.names}, schema=schema))


def read_part(data: bytes) -> tuple[dict[str, Any], Any] | None:
    """``about`` and the Arrow table of a part, or None where the file is damaged or no such part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
        about = parse_json(table.schema.metadata[_METADATA_KEY], MAX_METADATA_BYTES)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None
    return (about, table) if isinstance(about, dict) else None


def merge_parts(
    path: Path, parts: Iterator[tuple[str | None, Any]], columns: Sequence[str], about: dict[str, Any]
) -> None:
    """One table of many, part by part.

    Args:
        path: the file to write.
        parts: the shard's label (None for files of a folder) and the table of each, in order.
        columns: names of the scorer's columns.
        about: kept in the file's metadata.
    """
    import pyarrow as pa

    schema = _schema(columns, {"format": _FORMAT, "version": _VERSION, **about})
    waiting: list[Any] = []
    with _writer(path, schema) as writer:
        for label, table in parts:
            place = table.schema.get_field_index("shard")
            table = table.set_column(place, "shard", pa.array([label] * len(table), pa.string()))
            waiting.append(table.replace_schema_metadata(None).cast(schema.remove_metadata()))
            # Groups of one size, however the corpus is cut into shards.
            while sum(map(len, waiting)) >= _ROW_GROUP:
                whole = pa.concat_tables(waiting)
                writer.write_table(whole.slice(0, _ROW_GROUP).replace_schema_metadata(schema.metadata), _ROW_GROUP)
                waiting = [whole.slice(_ROW_GROUP)]
        if waiting:
            writer.write_table(pa.concat_tables(waiting).replace_schema_metadata(schema.metadata), _ROW_GROUP)


@contextmanager
def open_scores(url: str) -> Iterator[ScoreTable]:
    """Open a table that ``synthpipe score`` wrote.

    Raises:
        ShardError: there is none, it is damaged, or another program or a newer synthpipe wrote it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_url(url) as handle:
        try:
            file = pq.ParquetFile(handle)
            about = parse_json((file.schema_arrow.metadata or {}).get(_METADATA_KEY, b"{}"), MAX_METADATA_BYTES)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ShardError(
                f"{url}: not a readable Parquet file ({error}); write it with `synthpipe score`"
            ) from error
        if not isinstance(about, dict) or about.get("format") != _FORMAT:
            raise ShardError(f"{url}: not a table of scores; write one with `synthpipe score`")
        version = about.get("version")
        if type(version) is not int or version < 1:
            raise ShardError(f"{url}: damaged table of scores: expected a version from 1, got {excerpt(version)}")
        if version > _VERSION:
            raise ShardError(f"{url}: table version {version}, this synthpipe reads up to {_VERSION}; update synthpipe")
        _require_whole(url, file, about)
        yield ScoreTable(url, file, about)


class ScoreTable:
    """An open table of scores; columns are read one at a time, rows in batches."""

    def __init__(self, url: str, file: Any, about: dict[str, Any]) -> None:
        self.url = url
        #: What is in the metadata.
        self.about = about
        self._file = file

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def require_facts(self, *names: str) -> None:
        """Refuse a table whose metadata lack a name; raises :class:`ShardError`."""
        lacking = [name for name in names if name not in self.about]
        if lacking:
            raise ShardError(f"{self.url}: damaged table of scores: its metadata lack {lacking}; score again")

    @property
    def columns(self) -> list[str]:
        """Names of the columns of numbers."""
        return list(self.about["columns"])

    @property
    def kinds(self) -> list[str]:
        """Kinds of degradation that have a column of probabilities; empty where the scorer gave one number."""
        return list(self.about.get("kinds", []))

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column of numbers, ``(N,)``, NaN where there is none.

        Raises:
            OptionError: no such column.
        """
        if name not in self.columns:
            raise OptionError(f"{self.url}: no column {name!r} of numbers; there are {', '.join(self.columns)}")
        out = np.full(len(self), np.nan)
        begin = 0
        for batch in self._batches([name], _ROW_GROUP):
            out[begin : begin + len(batch)] = batch.column(0).to_numpy(zero_copy_only=False)
            begin += len(batch)
        return out

    def codes(self, name: str) -> tuple[NDArray[np.int32], list[str | None]]:
        """A column of texts as the number of each row's text, ``(N,)``, and the texts in order of appearance."""
        out = np.empty(len(self), np.int32)
        known: dict[str | None, int] = {}
        begin = 0
        for batch in self._batches([name], _ROW_GROUP):
            encoded = batch.column(0).dictionary_encode(null_encoding="encode")
            table = [known.setdefault(text, len(known)) for text in encoded.dictionary.to_pylist()]
            out[begin : begin + len(batch)] = np.asarray(table, np.int32)[encoded.indices.to_numpy()]
            begin += len(batch)
        return out, list(known)

    def rows(self, names: Sequence[str], sizes: Sequence[int]) -> Iterator[dict[str, list[Any]]]:
        """Consecutive groups of rows of the given sizes; of each group the named columns."""
        batches = self._batches(names, _ROW_GROUP >> 4)
        held: dict[str, list[Any]] = {name: [] for name in names}
        for size in sizes:
            while len(held[names[0]]) < size:
                batch = next(batches)
                for name in names:
                    held[name] += batch.column(name).to_pylist()
            yield {name: held[name][:size] for name in names}
            held = {name: held[name][size:] for name in names}

    def _batches(self, names: Sequence[str], rows: int) -> Iterator[Any]:
        import pyarrow as pa

        missing = [name for name in names if name not in self._file.schema_arrow.names]
        if missing:
            raise ShardError(f"{self.url}: damaged table of scores: no column {missing[0]!r}; score again")
        try:
            yield from self._file.iter_batches(rows, columns=list(names))
        except (pa.ArrowException, OSError) as error:
            raise ShardError(
                f"{self.url}: damaged table of scores, columns {', '.join(names)} cannot be read "
                f"({shortened(str(error))}); score again with `synthpipe score`"
            ) from error


def _require_whole(url: str, file: Any, about: dict[str, Any]) -> None:
    """Columns that are there have their types; which ones must be there, their readers know."""
    columns = about.get("columns")
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise ShardError(f"{url}: damaged table of scores: expected the names of its 'columns', got {excerpt(columns)}")
    kinds = about.get("kinds", [])
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise ShardError(f"{url}: damaged table of scores: expected the names of its 'kinds', got {excerpt(kinds)}")
    expected = {field.name: field.type for field in _schema(columns, about)}
    wrong = [
        f"{field.name} of {field.type}, expected {expected[field.name]}"
        for field in file.schema_arrow
        if field.type != expected.get(field.name, field.type)
    ]
    if wrong:
        raise ShardError(f"{url}: damaged table of scores: {shortened('; '.join(wrong))}; score again")


def _fixed() -> tuple[str, ...]:
    return ("key", "path", "source", "width", "height", "bytes", "sha256")


def _schema(columns: Sequence[str], about: dict[str, Any]) -> Any:
    import pyarrow as pa

    facts = ("key", "shard", "path", "source", "width", "height", "bytes", "sha256")
    reason = ("reason",) if about.get("kinds") else ()
    order = (*facts, *columns, *reason, "tiles", "error", "given_up")
    types = {name: pa.string() for name in _NAMES} | {name: pa.int32() for name in _COUNTS} | {"bytes": pa.int64()}
    clash = sorted(set(columns) & types.keys())
    if clash or len(set(columns)) < len(columns):
        raise ShardError(f"the scorer's columns {list(columns)} cannot be told apart from the table's own {clash}")
    fields = [pa.field(name, types.get(name, pa.float64())) for name in order]
    return pa.schema(fields, metadata={_METADATA_KEY: json.dumps(about, sort_keys=True).encode()})


@contextmanager
def _writer(path: Path, schema: Any) -> Iterator[Any]:
    """Every setting that decides a byte, whatever the library's defaults become."""
    import pyarrow.parquet as pq

    # Arrow opens no path that is not UTF-8.
    with (
        path.open("wb") as file,
        pq.ParquetWriter(
            file,
            schema,
            version="2.6",
            compression="zstd",
            compression_level=3,
            data_page_version="1.0",
            data_page_size=1 << 20,
            use_dictionary=[
                name for name in ("shard", "source", "error", "given_up", "reason") if name in schema.names
            ],
            write_statistics=True,
            store_schema=True,
        ) as writer,
    ):
        yield writer
