"""What the store answers from its file: windows, buckets, runs, gaps, and the blocks of an upload's unit."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TypeVar

from gateway.model import Batch, Gap, RunRecord, SeriesInfo
from gateway.store import deletions, reader
from gateway.store.buckets import BUCKET_BYTES, Bucket, Folder
from gateway.store.deletions import Deletion
from gateway.store.past import Damage, Past, Segments
from gateway.store.reader import Readers
from gateway.store.taking import Key
from gateway.store.window import Window

T = TypeVar("T")

_ROWS = 8192
"""So many samples come at a time; a turn of a reader thread reads more."""
_TURN_ROWS = 16_384


class Reads:
    """The reading half of `Store`."""

    _readers: Readers
    _history: Segments

    def _damaged(self, seqs: list[int], damage: list[Damage]) -> None:
        """Take note of blocks and chunks that could not be read."""
        raise NotImplementedError

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a short query on a reader thread, on a connection that can only read."""
        return await self._readers.read(query)

    async def samples(
        self,
        series: Sequence[int],
        from_us: int,
        to_us: int,
        *,
        after: Key | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Batch]:
        """Yield the committed samples of a window (ends included) in (ts, series) order, in parts."""
        window = Window(self._readers.memo, series, from_us, to_us)
        left, done = limit if limit is not None else 2**62, False
        while not done and left > 0:
            bad: list[int] = []
            rows, cursor = min(left, _TURN_ROWS), after
            (batch, done), damage = await self._readers.read_all(
                lambda conn, past, cursor=cursor, rows=rows, bad=bad: window.turn(  # type: ignore[misc]
                    conn, past, cursor, rows, bad
                )
            )
            self._damaged(bad, damage)
            if len(batch) > left:
                batch = batch.part(0, left)
            left -= len(batch)
            for start in range(0, len(batch), _ROWS):
                yield batch.part(start, start + _ROWS)
            if len(batch):
                after = batch.ts[-1], batch.series[-1]

    async def buckets(self, series: Sequence[int], from_us: int, to_us: int, width_us: int) -> list[Bucket]:
        """Return min, max, avg, count per series and bucket, in (start, series) order.

        Buckets begin at multiples of `width_us`; those without numbers are left out.
        """
        size = BUCKET_BYTES * len(series) * ((to_us - from_us) // width_us + 1)
        await self._readers.room.take(size)
        try:
            folder = Folder(self._readers.memo, series, from_us, to_us, width_us)
            with self._history.held():
                await self._in_turns(folder.turn)
            return await self.read(lambda _: folder.buckets())
        finally:
            self._readers.room.give(size)

    async def _in_turns(self, turn: Callable[[sqlite3.Connection, Past, list[int]], bool]) -> None:
        """Let others read between the turns of a long reading."""
        done = False
        while not done:
            bad: list[int] = []
            done, damage = await self._readers.read_all(
                lambda conn, past, bad=bad: turn(conn, past, bad)  # type: ignore[misc]
            )
            self._damaged(bad, damage)

    async def deletions(
        self, *, device: str | None = None, before_id: int | None = None, limit: int = 100
    ) -> list[Deletion]:
        """Return what was deleted on request, newest first."""
        return await self.read(lambda conn: deletions.listed(conn, device, before_id, limit))

    async def runs(
        self,
        *,
        device: str | None = None,
        status: str | None = None,
        from_us: int | None = None,
        to_us: int | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Return runs that touch the window, newest first."""
        where = _conditions(
            {"device = ?": device, "status = ?": status, "start_us + duration_us >= ?": from_us,
             "start_us <= ?": to_us, "id < ?": before_id}
        )  # fmt: skip
        return await self.read(lambda conn: reader.runs(conn, where, limit))

    async def gaps(
        self,
        *,
        device: str | None = None,
        upload: str | None = None,
        from_us: int | None = None,
        to_us: int | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[tuple[int, Gap]]:
        """Return (id, gap) that touch the window, newest first."""
        where = _conditions(
            {"device = ?": device, "upload = ?": upload, "to_us >= ?": from_us,
             "from_us <= ?": to_us, "id < ?": before_id}
        )  # fmt: skip
        return await self.read(lambda conn: reader.gaps(conn, where, limit))

    async def last_run(self, device: str) -> RunRecord | None:
        found = await self.runs(device=device, limit=1)
        return found[0] if found else None

    async def last_collected(self, device: str) -> RunRecord | None:
        """Return the newest run in which the device was heard: a subscription, or a cycle that succeeded."""
        return await self.read(lambda conn: reader.last_collected(conn, device))

    # For the forwarder.

    async def unit_samples(self, from_seq: int, to_seq: int, deletion: int = 2**63) -> Batch:
        """Return the samples of these blocks in arrival order, but those that deletions up to one cover."""
        bad: list[int] = []
        deleted = self._history.deleted.up_to(deletion)
        batch = await self.read(lambda conn: reader.unit_samples(conn, from_seq, to_seq, bad, deleted))
        self._damaged(bad, [])
        return batch

    async def unit_gaps(self, from_seq: int, to_seq: int) -> list[Gap]:
        """Return the gaps recorded with these blocks."""
        return await self.read(lambda conn: reader.unit_gaps(conn, from_seq, to_seq))

    async def unit_infos(self, series: Iterable[int], at_seq: int) -> dict[int, SeriesInfo]:
        """Return names and units of measure as valid at a block."""
        numbers = list(series)
        return await self.read(lambda conn: reader.unit_infos(conn, numbers, at_seq))


def _conditions(wanted: dict[str, object]) -> dict[str, object]:
    return {condition: value for condition, value in wanted.items() if value is not None}
