"""What is in the file of a measurement: what it says of itself, its values, their statistics.

For the child process. Memory is bounded by a slice of rows, whatever the file's size.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import orjson

from gateway.measurements import embedded, hdf5
from gateway.measurements.hdf5 import TABLE
from gateway.measurements.metadata import MOST_PICTURES_BYTES, POST, PRE

_LINE_ROWS = 1000
_SLICE_ROWS = 16 * _LINE_ROWS
_ROW_BYTES = 1024


def about(file: Any) -> dict[str, Any]:
    """Return what a target may list the file with: its attributes, its metadata with pictures counted."""
    attributes = _attributes(_table(file))
    for prefix in (PRE, POST):
        given = metadata(file, prefix, pictures=False)
        if given is not None:
            attributes[f"{prefix}_metadata"] = given
    return attributes


def _table(file: Any) -> Any:
    table = file.get(TABLE)
    if not isinstance(table, h5py.Dataset) or table.ndim != 1 or not table.dtype.names:
        raise hdf5.NotHdf5(f"it is no measurement: it has no table {TABLE}")
    if table.dtype.itemsize > _ROW_BYTES:
        raise hdf5.NotHdf5(f"it is no measurement: its rows have {table.dtype.itemsize} bytes")
    hdf5.check_size(file, table)
    return table


def _attributes(of: Any) -> dict[str, Any]:
    return {name: _parsed(hdf5.plain(value)) for name, value in of.attrs.items()}


def _parsed(value: Any) -> Any:
    """Return the JSON object that a text is, where it is one."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def metadata(file: Any, prefix: str, *, pictures: bool = True) -> Any:
    """Return metadata as it was given, None where there is none; pictures as texts, or counted."""
    found = _parsed(hdf5.plain(_table(file).attrs.get(f"{prefix}_metadata")))
    if not isinstance(found, dict):
        return found
    kept = _pictures(file, prefix) if pictures else _counted(file, prefix)
    if kept:
        parameters = found.get("parameters")
        found["parameters"] = {**(parameters if isinstance(parameters, dict) else {}), **kept}
    return found


def _counted(file: Any, prefix: str) -> dict[str, int]:
    start = f"{prefix}__"
    return {name.removeprefix(start): len(file[name]) for name in file if _is_picture(file, name, start)}


def _pictures(file: Any, prefix: str) -> dict[str, dict[str, str]]:
    start, found, size = f"{prefix}__", dict[str, dict[str, str]](), 0
    for name in file:
        if _is_picture(file, name, start):
            size += file[name].nbytes
            if size > MOST_PICTURES_BYTES:
                raise hdf5.NotHdf5(f"its pictures have more than {MOST_PICTURES_BYTES >> 20} MB")
            texts = [hdf5.plain(each) for each in file[name][()]]
            found[name.removeprefix(start)] = {str(number): text for number, text in enumerate(texts)}
    return found


def _is_picture(file: Any, name: str, start: str) -> bool:
    dataset = file[name] if name.startswith(start) else None
    return isinstance(dataset, h5py.Dataset) and dataset.ndim == 1 and dataset.dtype.kind == "S"


@dataclass(slots=True)
class Statistics:
    """Of the finite values of one column, slice by slice (Chan, Golub, LeVeque 1979)."""

    count: int = 0
    invalid: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def take(self, column: Any) -> None:
        values = column.astype("f8")
        values = values[np.isfinite(values)]
        self.invalid += len(column) - len(values)
        if not len(values):
            return
        n, mean = len(values), float(values.mean())
        between, whole = mean - self.mean, self.count + n
        self.squares += float(((values - mean) ** 2).sum()) + between**2 * self.count * n / whole
        self.mean += between * n / whole
        self.count = whole
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def row(self) -> dict[str, Any]:
        if not self.count:
            return {"count": 0, "invalid": self.invalid, "min": None, "max": None, "mean": None, "std": None}
        std = math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0
        return {
            "count": self.count, "invalid": self.invalid, "min": self.low, "max": self.high,
            "mean": self.mean, "std": std,
        }  # fmt: skip


@dataclass(slots=True)
class Frames:
    """Frames by their counters; the rows of one frame have the same one."""

    received: int = 0
    lost: int = 0
    last: int | None = None

    def take(self, counters: Any) -> None:
        whole = counters.astype("i8")
        if self.last is not None:
            whole = np.concatenate(([self.last], whole))
        steps = np.diff(whole) & 255
        steps = steps[steps > 0]
        self.received += len(steps) + (self.last is None and len(whole) > 0)
        self.lost += int((steps - 1).sum())
        if len(whole):
            self.last = int(whole[-1])


def lines(path: Path, every: int, *, pictures: bool) -> Iterator[bytes]:
    """Yield NDJSON: what it says of itself, one row in `every`, the progress, statistics of all rows."""
    with hdf5.looking(path) as file:
        table = _table(file)
        names = [name for name in table.dtype.names if table.dtype[name].kind in "iuf"]
        yield _line({"about": _parts(file, table, names, pictures=pictures)})
        columns = {name: Statistics() for name in names if name not in ("counter", "timestamp")}
        frames, rows = Frames(), int(table.shape[0])
        first = last = 0
        for start in range(0, rows, _SLICE_ROWS):
            part = table[start : start + _SLICE_ROWS]
            for name, statistics in columns.items():
                statistics.take(part[name])
            if "counter" in names:
                frames.take(part["counter"])
            if "timestamp" in names:
                first, last = int(part["timestamp"][0]) if not start else first, int(part["timestamp"][-1])
            for at in range(0, len(part), _LINE_ROWS):
                yield _line({"rows": _rows(part[at : at + _LINE_ROWS : every], names)})
                yield _line({"progress": round(min(start + at + _LINE_ROWS, rows) / rows, 4)})
        yield _line({"statistics": _statistics(columns, frames, rows, last - first)})
        yield _line({"progress": 1.0})


def _parts(file: Any, table: Any, names: list[str], *, pictures: bool) -> dict[str, Any]:
    pre, post = ((_pictures if pictures else _counted)(file, prefix) for prefix in (PRE, POST))
    kept = [*((f"{PRE}__{key}", each) for key, each in pre.items()),
            *((f"{POST}__{key}", each) for key, each in post.items())]  # fmt: skip
    return {
        "acceleration": {
            "name": TABLE, "type": "Dataset", "path": f"/{TABLE}", "attributes": _attributes(table),
        },
        "pictures": {key: list(each.values()) if isinstance(each, dict) else each for key, each in kept},
        "sensors": _sensors(file),
        "embedded_files": embedded.listed(file),
        "columns": names,
        "rows": int(table.shape[0]),
    }  # fmt: skip


def _sensors(file: Any) -> list[dict[str, Any]]:
    table = file.get("sensors")
    if not isinstance(table, h5py.Dataset) or table.ndim != 1 or not table.dtype.names:
        return []
    return [
        {name: hdf5.plain(row[name]) for name in table.dtype.names} for row in table[: min(len(table), 100)]
    ]


def _rows(part: Any, names: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": TABLE}
    for name in ("counter", "timestamp"):
        row[name] = np.ascontiguousarray(part[name]) if name in names else []
    row["datasets"] = [
        {"name": name, "data": np.ascontiguousarray(part[name])}
        for name in names
        if name not in ("counter", "timestamp")
    ]
    return row


def _statistics(
    columns: Mapping[str, Statistics], frames: Frames, rows: int, duration_us: int
) -> dict[str, Any]:
    lost, received = frames.lost, frames.received
    return {
        "rows": rows,
        "duration_s": duration_us / 1e6,
        "frames_received": received,
        "frames_lost": lost,
        "loss": lost / (lost + received) if lost else 0.0,
        "columns": {name: statistics.row() for name, statistics in columns.items()},
    }


def _line(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
