"""The HDF5 file of a measurement in ICOtronic's layout. For the child process: it needs h5py and numpy.

Source: storage.py of the icotronic library 4.1.0 and what ICOapi 0.2.1 adds, as read from their files. The
tables carry the attributes by which PyTables knows its own (PyTables user's guide, "file format").
"""

import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gateway.controls.sensor_nodes import StreamFrames
from gateway.measurements.metadata import POST, PRE, as_text, parted
from gateway.measurements.plan import Conversion, FrameCount, columns, conversions
from gateway.measurements.record import Measurement

TABLE = "acceleration"
_AXES = "xyz"
_CHUNK_ROWS = 16_384
_ZLIB_LEVEL = 4
_MOST_RATIO = 1100
"""zlib packs no better."""
_MOST_OBJECTS = 10_000
_TEXT_BYTES = 100
_UNIT_BYTES = 10
_SENSOR_TEXTS = ("name", "sensor_type", "sensor_id", "unit", "dimension")
_SENSOR_NUMBERS = (
    "phys_min", "phys_max", "volt_min", "volt_max", "scaling_factor", "offset",
)  # fmt: skip


class NotHdf5(ValueError):
    """A file is not what can be looked into, and why."""


@dataclass(slots=True)
class Written:
    """What is in a file: by this it is told whether it reads as it was written."""

    rows: int = 0
    crc: int = 0


class Writer:
    """Writes one file, as a context; memory is bounded by one chunk of rows."""

    def __init__(self, path: Path, m: Measurement) -> None:
        self._m = m
        self.written, self.count = Written(), FrameCount()
        self._first_us: int | None = None
        self._file = h5py.File(path, "w", libver=("v108", "v108"))
        axes = [axis for axis, channel in zip(_AXES, m.channels, strict=True) if channel]
        row = np.dtype([("counter", "u1"), ("timestamp", "<u8"), *((axis, "<f4") for axis in axes)])
        self._conversions: list[Conversion] = conversions(m.channels, m.adc)
        self._axes, self._row = axes, row
        self._waiting: list[Any] = []
        self._rows_waiting = 0
        text(self._file, "TITLE", "STH Measurement Data")
        _attributes(self._file, CLASS="GROUP", VERSION="1.0", PYTABLES_FORMAT_VERSION="2.1")
        self._table = _table(self._file, TABLE, row, "STH Acceleration Data")

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, frames: StreamFrames) -> None:
        """Write frames: a row for each sample of one channel alone, else for each frame."""
        if self._first_us is None:
            self._first_us = frames.ts[0]
        self.count.take(frames)
        by_channel = [np.asarray(column) for column in columns(frames.counts, len(self._axes))]
        each = len(by_channel[0]) // len(frames)
        rows = np.zeros(len(by_channel[0]), dtype=self._row)
        rows["counter"] = np.repeat(np.frombuffer(frames.counters, dtype="u1"), each)
        since = np.maximum(np.array(frames.ts, dtype="i8") - self._first_us, 0)
        rows["timestamp"] = np.repeat(since, each)
        for axis, counts, conversion in zip(self._axes, by_channel, self._conversions, strict=True):
            rows[axis] = counts.astype("f8") * conversion.k1 * conversion.k2 + conversion.d2
        self._waiting.append(rows)
        self._rows_waiting += len(rows)
        if self._rows_waiting >= _CHUNK_ROWS:
            self._flush()

    def _flush(self) -> None:
        rows = np.concatenate(self._waiting)
        start = self.written.rows
        self._table.resize((start + len(rows),))
        self._table[start:] = rows
        self.written.rows += len(rows)
        self.written.crc = zlib.crc32(rows.tobytes(), self.written.crc)
        self._waiting, self._rows_waiting = [], 0

    def finish(self) -> None:
        """Write what is known at the end: attributes, sensors, metadata."""
        if self._waiting:
            self._flush()
        m, table = self._m, self._table
        table.attrs["NROWS"] = np.int64(self.written.rows)
        for name, value in _about(m, self.count, self._first_us or m.started_us).items():
            text(table, name, value)
        _sensors(self._file, m)
        for prefix, metadata in ((PRE, m.metadata), (POST, m.post_metadata)):
            if metadata is not None:
                put_metadata(self._file, prefix, metadata)


def _about(m: Measurement, counted: FrameCount, first_us: int) -> dict[str, str]:
    adc = m.adc
    about = {
        "Start_Time": datetime.fromtimestamp(first_us / 1e6, UTC).isoformat(),
        "Sample_Rate": f"{adc.sample_rate_hz:.2f} Hz (Prescaler: {adc.prescaler}, Acquisition Time: "
        f"{adc.acquisition_time}, Oversampling Rate: {adc.oversampling_rate})",
        "conversion": "true",
        "adc_reference_voltage": f"{adc.reference_voltage_v}",
        "recording": identity(m),
        "gateway": m.gateway,
        "device": m.device,
        "node": m.node,
        "node_mac": m.mac,
        "frames_received": f"{counted.received}",
        "frames_lost": f"{counted.lost}",
    }
    if m.clock_set_us:
        about["clock_set"] = (
            f"by {m.clock_set_us / 1e6:.3f} s while it was recorded: all times are by the clock before"
        )
    if m.interrupted:
        about["interrupted"] = m.ending or "the measurement was interrupted"
    return about


def identity(m: Measurement) -> str:
    """Return what tells this recording from all others."""
    return f"{m.gateway}/{m.name}/{m.started_us}"


def _sensors(file: Any, m: Measurement) -> None:
    texts = [(name, f"S{_UNIT_BYTES if name == 'unit' else _TEXT_BYTES}") for name in _SENSOR_TEXTS]
    row = np.dtype([*texts, *((name, "<f4") for name in _SENSOR_NUMBERS)])
    rows = np.zeros(m.active, dtype=row)
    for place, channel in enumerate(filter(None, m.channels)):
        sensor = channel.sensor
        names = sensor.name, sensor.type, sensor.id, sensor.unit, sensor.dimension
        ends = sensor.phys_min, sensor.phys_max, sensor.volt_min, sensor.volt_max
        cut = [_cut(text, row[name].itemsize) for name, text in zip(_SENSOR_TEXTS, names, strict=True)]
        rows[place] = (*cut, *ends, sensor.scaling, sensor.offset)
    table = _table(file, "sensors", row, "Sensor Data")
    table.resize((len(rows),))
    table[:] = rows
    table.attrs["NROWS"] = np.int64(len(rows))


def _cut(text: str, most: int) -> bytes:
    """Return text as UTF-8 of a size, cut between characters."""
    return text.encode()[:most].decode("utf-8", "ignore").encode()


def _table(file: Any, name: str, row: Any, title: str) -> Any:
    table = file.create_dataset(
        name, (0,), dtype=row, maxshape=(None,), chunks=(_CHUNK_ROWS if name == TABLE else 16,),
        compression="gzip", compression_opts=_ZLIB_LEVEL, shuffle=True,
    )  # fmt: skip
    _attributes(table, CLASS="TABLE", VERSION="2.7")
    text(table, "TITLE", title)
    for place, column in enumerate(row.names):
        text(table, f"FIELD_{place}_NAME", column)
    return table


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file to change it. NotHdf5: it is not whole by itself."""
    with h5py.File(path, "r+", libver=("v108", "v108")) as file:
        _check_whole(file)
        yield file


@contextmanager
def looking(path: Path) -> Iterator[Any]:
    """Open a file to look into it. NotHdf5: it is not whole by itself."""
    with h5py.File(path, "r", locking=False) as file:
        _check_whole(file)
        yield file


def _check_whole(file: Any) -> None:
    """Raise NotHdf5 where anything in a file lies elsewhere: HDF5 would read and write there as we may.

    Source: HDF5 User Guide, external and soft links, external raw storage, virtual datasets. In native order
    HDF5 goes through the very index by which it finds names, whatever a file says of their number.
    """
    groups, count = [(h5py.h5g.open(file.id, b"/"), "")], 0
    while groups:
        group, path = groups.pop()
        names: list[bytes] = []
        group.links.iterate(names.append, order=h5py.h5.ITER_NATIVE)
        count += len(names)
        if count > _MOST_OBJECTS:
            raise NotHdf5(f"it is no measurement: it holds more than {_MOST_OBJECTS} objects")
        for name in names:
            where = f"{path}/{name.decode('utf-8', 'replace')}"
            there = _inside(group, name, where)
            if isinstance(there, h5py.h5g.GroupID):
                groups.append((there, where))


def _inside(group: Any, name: bytes, where: str) -> Any:
    """Return an object of a group. NotHdf5: it lies elsewhere, or cannot be opened."""
    try:
        hard = group.links.get_info(name).type == h5py.h5l.TYPE_HARD
        there = h5py.h5o.open(group, name) if hard else None
    except KeyError as error:
        raise NotHdf5(f"it cannot be read: {where}: {error.args[0]}") from None
    if not hard or (isinstance(there, h5py.h5d.DatasetID) and _lies_elsewhere(there)):
        raise NotHdf5(
            f"{where} points elsewhere: a file is taken with all its data inside, and without links"
        )
    return there


def _lies_elsewhere(dataset: Any) -> bool:
    made = dataset.get_create_plist()
    return bool(made.get_external_count()) or made.get_layout() == h5py.h5d.VIRTUAL


def check_size(file: Any, dataset: Any) -> None:
    """Raise NotHdf5 where a dataset says that it has more bytes than any file of this size can hold."""
    if dataset.size * dataset.dtype.itemsize > _MOST_RATIO * file.id.get_filesize():
        raise NotHdf5(f"it says that {dataset.name} has more values than a file of its size can hold")


def plain(value: Any) -> Any:
    """Return an attribute or a field as what JSON can hold."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return [plain(each) for each in value.ravel()[:1000].tolist()]
    if isinstance(value, np.generic) and not isinstance(value, np.void):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def put_metadata(file: Any, prefix: str, metadata: Mapping[str, Any]) -> None:
    """Write metadata over what was: text as an attribute, pictures as arrays of bytes."""
    rest, pictures = parted(metadata)
    for name in [name for name in file if name.startswith(f"{prefix}__")]:
        del file[name]
    for key, texts in pictures.items():
        there = np.array(texts, dtype=f"S{max(map(len, texts)) or 1}")
        picture = file.create_dataset(f"{prefix}__{key}", data=there)
        _attributes(picture, CLASS="ARRAY", VERSION="2.4", FLAVOR="numpy", TITLE="")
    text(file[TABLE], f"{prefix}_metadata", as_text(rest))


def _attributes(of: Any, **texts: str) -> None:
    for name, text in texts.items():
        of.attrs[name] = np.bytes_(text)


def text(of: Any, name: str, value: str) -> None:
    """Write an attribute as others read text."""
    raw = value.encode("utf-8", "replace")
    of.attrs.create(name, raw, dtype=h5py.string_dtype("utf-8", max(len(raw), 1)))


def read_back(path: Path) -> Written:
    """Read all of a file's rows. OSError: it cannot be read; NotHdf5: it is not whole by itself."""
    found = Written()
    with looking(path) as file:
        table = file[TABLE]
        for start in range(0, len(table), _CHUNK_ROWS):
            rows = table[start : start + _CHUNK_ROWS]
            found.rows += len(rows)
            found.crc = zlib.crc32(rows.tobytes(), found.crc)
        dict(table.attrs)  # HDF5 compares their checksums as it reads them
        for name in file:
            if name != TABLE and isinstance(file[name], h5py.Dataset):
                file[name][()]
    return found


def recording_of(path: Path) -> str:
    """Return the identity of the recording in a file; "" where it is none of ours."""
    try:
        with looking(path) as file:
            found = file[TABLE].attrs.get("recording", "")
    except (OSError, KeyError, RuntimeError, ValueError, TypeError):  # anybody may have put it there
        return ""
    return str(found, "utf-8") if isinstance(found, bytes) else str(found)
