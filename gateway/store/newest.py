"""The newest sample of each series, held in RAM, changed only after COMMIT, and its snapshot in the file."""

import sqlite3
from dataclasses import dataclass, field

from gateway.model import Batch, Flag, Sample
from gateway.store.codec import BlockHeader, CorruptBlock, Kind, decode, encode


@dataclass(slots=True)
class Newest:
    """What the key rule needs to know without looking at blocks."""

    last: dict[int, Sample] = field(default_factory=dict)
    """Newest plausible sample per series: a sample after it is new."""
    far: dict[int, tuple[int, Sample]] = field(default_factory=dict)
    """Lowest and highest sample in the implausible future, per series that has any."""
    own_us: int = 0
    """Newest stamp that the gateway made itself."""

    def get(self, series: int) -> Sample | None:
        """Return the newest plausible sample of a series, else its newest."""
        if (sample := self.last.get(series)) is not None:
            return sample
        far = self.far.get(series)
        return far[1] if far else None

    def add(self, batch: Batch, future_us: int) -> None:
        """Take in stored samples; implausible ones after `future_us` do not raise what is newest."""
        last = self.last
        for sample in batch:
            series, ts = sample.series, sample.ts
            if ts > future_us and sample.flags & Flag.IMPLAUSIBLE:
                low, high = self.far.get(series, (ts, sample))
                self.far[series] = min(low, ts), max(high, sample, key=_ts)
                continue
            if (known := last.get(series)) is None or known.ts < ts:
                last[series] = sample
                if series in self.far and self.far[series][1].ts < ts:
                    del self.far[series]
            if sample.flags & Flag.OWN_TIME and ts > self.own_us:
                self.own_us = ts

    def after(self, change: "Newest") -> "Newest":
        """Return a copy with a change merged in."""
        copy = Newest(dict(self.last), dict(self.far), self.own_us)
        copy.merge(change)
        return copy

    def merge(self, change: "Newest") -> None:
        """Take in what one commit changed."""
        self.last.update(change.last)
        self.far.update(change.far)
        for series, sample in change.last.items():
            if series in self.far and self.far[series][1].ts < sample.ts:
                del self.far[series]
        self.own_us = max(self.own_us, change.own_us)


def save_snapshot(conn: sqlite3.Connection, newest: Newest, header: BlockHeader) -> None:
    """Write the snapshot as of block `header.seq`."""
    far = Batch()
    for series, (low, high) in newest.far.items():
        far.add(series, low, None)
        far.add(*high)
    conn.execute(
        "INSERT OR REPLACE INTO snapshot(id, seq, own_us, newest, far) VALUES (1, ?, ?, ?, ?)",
        (header.seq, newest.own_us, encode(header, Batch.of(newest.last.values())), encode(header, far)),
    )


def load_newest(conn: sqlite3.Connection, bad: list[int]) -> Newest:
    """Rebuild from the snapshot and the blocks after it; seqs of blocks that cannot be read go to `bad`."""
    newest, after = _load_snapshot(conn)
    rows = conn.execute(
        "SELECT seq, data FROM block WHERE seq > ? AND kind = ? ORDER BY seq", (after, Kind.SAMPLES)
    )
    for seq, data in rows:
        try:
            header, batch = decode(data)
        except CorruptBlock:
            bad.append(seq)
            continue
        newest.add(batch, header.wall_us)
    return newest


def _load_snapshot(conn: sqlite3.Connection) -> tuple[Newest, int]:
    row = conn.execute("SELECT seq, own_us, newest, far FROM snapshot WHERE id = 1").fetchone()
    if row is None:
        return Newest(), 0
    seq, own_us, last, far = row
    newest = Newest(own_us=own_us)
    try:
        newest.last = {sample.series: sample for sample in decode(last)[1]}
        pairs = list(decode(far)[1])
    except CorruptBlock:
        return Newest(own_us=own_us), 0
    for low, high in zip(pairs[::2], pairs[1::2], strict=True):
        newest.far[low.series] = low.ts, high
    return newest, seq


def _ts(sample: Sample) -> int:
    return sample.ts
