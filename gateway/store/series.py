"""Which series there are: (device, tag) to a small integer and back, with the unit of measure."""

import sqlite3
from dataclasses import dataclass, field

from gateway.model import SeriesInfo
from gateway.store.columns import CorruptBlock
from gateway.store.records import SERIES, pack, row_crc, storable, unpack
from gateway.store.schema import read_epoch


@dataclass(slots=True)
class SeriesTable:
    """Event loop only, but for `rows`. New rows reach the file with the next commit."""

    _ids: dict[tuple[str, str], int] = field(default_factory=dict)
    _infos: dict[int, SeriesInfo] = field(default_factory=dict)
    _by_device: dict[str, dict[str, int]] = field(default_factory=dict)
    _next: int = 1
    used: set[int] = field(default_factory=set)
    """Series that were asked for in this life of the gateway."""
    unsaved: list[tuple[int, str, str, str, bool]] = field(default_factory=list)
    """id, device, tag, unit, and whether the series is new (else only its unit is)."""

    def keep(self, series: int, info: SeriesInfo) -> None:
        self._ids[info.device, info.tag] = series
        self._next = max(self._next, series + 1)
        self._infos[series] = info
        self._by_device.setdefault(info.device, {})[info.tag] = series

    def get(self, device: str, tag: str, unit: str | None) -> int:
        """Return the series, made on first use; a new unit counts from the next commit on."""
        series = self._ids.get((device, tag))
        if series is None or (unit is not None and unit != self._infos[series].unit):
            device, tag, unit = storable(device, tag, unit)
            series = self._ids.get((device, tag))
        new = series is None
        if series is None:
            series = self._next
        self.used.add(series)
        if new or (unit is not None and unit != self._infos[series].unit):
            self.keep(series, SeriesInfo(device, tag, unit or ""))
            self.unsaved.append((series, device, tag, unit or "", new))
        return series

    def begin_at(self, number: int) -> None:
        """Number new series from here on."""
        self._next = max(self._next, number)

    def adopt(self, found: dict[int, SeriesInfo]) -> dict[int, int]:
        """Take series of a damaged file over; return by which number each is known now, all others too."""
        mapping = {number: number for number in self._infos}
        for number, info in found.items():
            mine = self._ids.get(info[:2])
            if mine is None:  # its number is another's only where what counts lost files was lost too
                mine = self._next if number in self._infos else number
                self.keep(mine, info)
                self.unsaved.append((mine, *info, True))
            mapping[number] = mine
        return mapping

    def find(self, device: str, tag: str) -> int | None:
        return self._ids.get(storable(device, tag))

    def of(self, device: str) -> dict[str, int]:
        return dict(self._by_device.get(device, {}))

    def info(self, series: int) -> SeriesInfo:
        return self._infos[series]

    def __contains__(self, series: int) -> bool:
        return series in self._infos

    def __len__(self) -> int:
        return len(self._infos)

    def rows(self) -> list[tuple[int, str, str, str, bool]]:
        """Return all series as `unsaved` rows, for a file that begins anew."""
        infos = dict(self._infos)  # copied in one step: the event loop may add to it meanwhile
        return [(series, info.device, info.tag, info.unit, True) for series, info in infos.items()]


def load_series(conn: sqlite3.Connection) -> list[tuple[int, SeriesInfo]]:
    """Read the series of a file, each with its newest unit."""
    units = dict(conn.execute("SELECT series, unit FROM tag_unit ORDER BY series, since_seq").fetchall())
    rows = conn.execute("SELECT id, device, tag, record FROM series NOT INDEXED ORDER BY id").fetchall()
    return [(row[0], SeriesInfo(*named(row), units.get(row[0], ""))) for row in rows]


def renew_records(conn: sqlite3.Connection) -> None:
    """Write the records of all series again: the epoch that they name has changed."""
    epoch = read_epoch(conn)
    rows = conn.execute("SELECT id, device, tag FROM series").fetchall()
    conn.executemany(
        "UPDATE series SET record = ? WHERE id = ?", [(pack(SERIES, *row, epoch), row[0]) for row in rows]
    )


def named(row: tuple[int, str, str, bytes]) -> tuple[str, str]:
    """Return device and tag of a row; ValueError: its record says otherwise, or is damaged."""
    try:
        kind, fields = unpack(row[3])
    except CorruptBlock as error:
        raise ValueError(f"the name of series {row[0]}: {error}") from error
    if kind != SERIES or tuple(fields[:3]) != row[:3]:
        raise ValueError(f"the name of series {row[0]} and its record differ")
    return row[1], row[2]


def save_series(
    conn: sqlite3.Connection, rows: list[tuple[int, str, str, str, bool]], since_seq: int
) -> None:
    """Write unsaved rows; `since_seq` is the first block that a changed unit holds for."""
    epoch = read_epoch(conn)
    conn.executemany(
        "INSERT OR IGNORE INTO series(id, device, tag, record) VALUES (?, ?, ?, ?)",
        [
            (series, device, tag, pack(SERIES, series, device, tag, epoch))
            for series, device, tag, _, new in rows
            if new
        ],
    )
    units = [(series, 0 if new else since_seq, unit) for series, _, _, unit, new in rows]
    conn.executemany(
        "INSERT OR REPLACE INTO tag_unit(series, since_seq, unit, crc) VALUES (?, ?, ?, ?)",
        [(*row, row_crc(*row)) for row in units],
    )
