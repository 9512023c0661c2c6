"""Samples as a Parquet file. Imported only where it is asked for: pyarrow need not be installed."""

from collections.abc import Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from gateway.api.values import carry, dumps, flag_names
from gateway.export.cells import kind_of
from gateway.model import Batch, SeriesInfo, Value

_GROUP = 65_536
"""Samples held until they are written together."""
_NAME = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        ("device", _NAME),
        ("tag", _NAME),
        ("unit", _NAME),
        ("time", pa.timestamp("us", tz="UTC")),
        ("type", _NAME),
        ("float", pa.float64()),
        ("integer", pa.int64()),
        ("unsigned", pa.uint64()),
        ("boolean", pa.bool_()),
        ("text", pa.string()),
        ("bytes", pa.binary()),
        ("array", pa.string()),
        ("status", pa.uint32()),
        ("flags", _NAME),
    ]
)
_VALUES = ("float", "integer", "unsigned", "boolean", "text", "bytes", "array")


class ParquetSink:
    """A column for each type of value, so that each is exact: `type` says which one holds it.

    `unsigned` has the integers above 2^63-1, `array` is JSON.
    """

    def __init__(self, out: IO[bytes], series: Mapping[int, SeriesInfo]) -> None:
        self._series = {n: tuple(map(_utf8, info)) for n, info in series.items()}
        self._writer = pq.ParquetWriter(out, _SCHEMA, compression="zstd")
        self._held = Batch()

    def write(self, batch: Batch) -> None:
        self._held.extend(batch)
        if len(self._held) >= _GROUP:
            self._flush()

    def end(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        held, self._held = self._held, Batch()
        if not len(held):
            return
        columns: dict[str, list[Any]] = {
            name: [self._series[n][at] for n in held.series]
            for at, name in enumerate(("device", "tag", "unit"))
        }
        columns |= {name: [None] * len(held) for name in _VALUES}
        for place, value in enumerate(held.values):
            if value is not None:
                name, carried = _placed(value)
                columns[name][place] = carried
        columns |= {
            "time": held.ts,
            "type": [kind_of(value) for value in held.values],
            "status": held.statuses,
            "flags": [" ".join(flag_names(flags)) for flags in held.flags],
        }
        self._writer.write_table(pa.table(columns, schema=_SCHEMA), row_group_size=_GROUP)


def _placed(value: Value) -> tuple[str, Any]:
    """Return the column of a value, and the value as it holds it."""
    if isinstance(value, list):
        return "array", dumps(carry(value)[0]).decode()
    kind = kind_of(value)
    if isinstance(value, str):
        return kind, _utf8(value)
    return ("unsigned" if kind == "integer" and int(value) >= 2**63 else kind), value  # type: ignore[arg-type]


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
