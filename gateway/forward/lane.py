"""One lane of an upload: at most one persisted unit in flight, settled in one place, then the next."""

import functools
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import orjson

from gateway.forward.cuts import Limits, Span
from gateway.forward.gate import Gate
from gateway.forward.parts import GAPS, Delivery, Verdicts
from gateway.forward.status import LaneStatus
from gateway.forward.turning import turning
from gateway.forward.upload import Upload
from gateway.model import Encoding, Refusal, Unit, UploadProblem
from gateway.store import outbox
from gateway.store.outbox import RefusedRow, Transaction, UnitRow

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Cut(NamedTuple):
    """What a look at the store gave: the next unit, if any, and the newest block it looked at."""

    row: UnitRow | None
    newest_seq: int


class Lane:
    """What the live head and the backlog have in common."""

    name = ""

    def __init__(self, upload: Upload, limits: Limits, gate: Gate) -> None:
        self._upload, self._limits, self._gate = upload, limits, gate
        self._store, self._clock = upload.store, upload.clock
        self._row: UnitRow | None = None
        self._unit: Unit | None = None
        self._state = "idle"
        self._attempts = self._bytes = 0
        self.turned_ns = self._clock.mono_ns()

    def turn(self) -> None:
        """Tell the watchdog that the state machine moves."""
        self.turned_ns = self._clock.mono_ns()

    def status(self) -> LaneStatus:
        row, unit = self._row, self._unit
        if row is None:
            return LaneStatus(self.name, self._state)
        key = self._upload.key(row)
        size = len(unit.samples) if unit else 0
        return LaneStatus(self.name, self._state, key, row.from_seq, row.to_seq, size, self._attempts)

    async def run(self, resumed: UnitRow | None) -> None:
        """Deliver the unit that an earlier run left in flight, then for ever what is due."""
        row, repeat = resumed, resumed is not None
        while True:
            if row is None:
                self._state = "idle"
                self._gate.passed()
                await self._due()
                cut = await self.ride(self._cut)
            else:
                self._row, self._unit, self._attempts = row, None, 0
                refused = await self._delivered(row, repeat=repeat)
                self._state = "settling"
                self._rest()
                cut = await self.ride(functools.partial(self._settle, row, self._unit, refused))
                self._row = self._unit = None
                repeat = False
            self._looked(cut)
            row = cut.row

    async def _due(self) -> None:
        """Wait until the next unit should be cut."""
        raise NotImplementedError

    async def _may_send(self) -> None:
        """Wait until a request may be sent."""
        await self._gate.wait(self.turn)
        await self._upload.gate.wait(self.turn)

    def _next(self, conn: sqlite3.Connection, newest_seq: int) -> Span | None:
        raise NotImplementedError

    def _rest(self) -> None:
        """Nothing of this lane waits for the target now."""

    def _looked(self, cut: Cut) -> None:
        """Take note of what was cut, once it is committed."""

    def _cut(self, tx: Transaction) -> Cut:
        """Persist the next unit, if any. Runs on the writer's thread, again where its commit failed."""
        span = self._next(tx.conn, tx.newest_seq)
        if span is None:
            return Cut(None, tx.newest_seq)
        upload, encoding = self._upload.upload, _dumped(self._upload.encoding, Verdicts())
        if not span.blocks:  # they were gone before they could be cut: nothing to send
            outbox.acknowledge(tx.conn, upload, span.from_seq, span.to_seq)
            return Cut(None, tx.newest_seq)
        unit = outbox.cut(tx, upload, self.name, span.from_seq, span.to_seq, encoding)
        return Cut(unit, tx.newest_seq)

    def _settle(self, row: UnitRow, unit: Unit | None, refused: Sequence[Refusal], tx: Transaction) -> Cut:
        """Acknowledge a unit but its refused samples, and cut the next one in the same transaction."""
        samples = list(unit.samples) if unit and refused else []
        rows = [RefusedRow(samples[r.place], r.reason) for r in refused if r.place != GAPS]
        if (current := self._in_flight(tx.conn)) is not None and current.from_seq == row.from_seq:
            outbox.settle(tx, self._upload.upload, self.name, rows)
        return self._cut(tx)

    async def _delivered(self, row: UnitRow, *, repeat: bool) -> Sequence[Refusal]:
        """Send until the target has taken the unit; return what it refused. All three outcomes meet here."""
        encoding, verdicts = _loaded(row.encoding)
        while True:
            self._state = "waiting"
            await self._may_send()
            if self._unit is None:
                self._unit = await self._load(row, encoding)
            elif await self._store.read(self._in_flight) is None:
                self._unit = None
            if self._unit is None:
                self._upload.counters.closed += 1
                return ()
            self._state = "sending"
            self._unit = replace(self._unit, repeat=repeat)
            try:
                refused = await self._sent(self._unit, verdicts)
            except UploadProblem as problem:
                self._gate.failed(problem)
                self._upload.failed(problem)
                repeat = True
            else:
                self._gate.passed()
                self._upload.accepted(self._unit, refused, self._bytes)
                return refused

    async def _sent(self, unit: Unit, verdicts: Verdicts) -> Sequence[Refusal]:
        if not unit.samples.series and not unit.gaps:
            return ()
        self._attempts += 1
        self._upload.counters.repeats += unit.repeat

        async def send(part: Unit) -> Sequence[Refusal]:
            self.turn()
            answer = await self._upload.send(part)
            self.turn()
            return answer

        async def note(*, first: bool) -> None:
            dumped = _dumped(unit.encoding, verdicts)

            def job(tx: Transaction) -> None:
                outbox.amend(tx, unit.upload, self.name, unit.from_seq, dumped)

            if first:
                await self.ride(job)
            else:
                self._store.post(job)

        return await Delivery(unit, verdicts, send, note).run()

    async def _load(self, row: UnitRow, encoding: Encoding) -> Unit | None:
        """Read a unit from the store; None: the store has closed it by a gap."""
        samples = await self._store.unit_samples(row.from_seq, row.to_seq, row.deletion)
        gaps = await self._store.unit_gaps(row.from_seq, row.to_seq)
        series = await self._store.unit_infos(set(samples.series), row.to_seq)
        # Read after the samples: where the row still stands, none of its blocks was gone before.
        self._bytes, flying = await self._store.read(lambda conn: (_size(conn, row), self._in_flight(conn)))
        if flying is None:
            return None
        return Unit(
            key=self._upload.key(row),
            gateway_id=self._upload.gateway_id,
            upload=self._upload.upload,
            lane=self.name,
            from_seq=row.from_seq,
            to_seq=row.to_seq,
            encoding=encoding,
            samples=samples,
            series=series,
            gaps=gaps,
        )

    def _in_flight(self, conn: sqlite3.Connection) -> UnitRow | None:
        rows = outbox.units(conn, self._upload.upload)
        return next((row for row in rows if row.lane == self.name), None)

    async def ride(self, job: Callable[[Transaction], T]) -> T:
        """Wait for the group commit, turning over meanwhile: a disk that refuses is a turn."""
        return await turning(self._store.ride(job), self.turn)


def _size(conn: sqlite3.Connection, row: UnitRow) -> int:
    return sum(size for _, size, _ in outbox.sizes(conn, row.from_seq, row.to_seq, limit=10_000))


def _dumped(encoding: Encoding, verdicts: Verdicts) -> str:
    row: dict[str, Any] = {
        "name": encoding.name,
        "version": encoding.version,
        "options": dict(encoding.options),
    }
    if refused := verdicts.dump():
        row["refused"] = refused
    return orjson.dumps(row).decode()


def _loaded(text: str) -> tuple[Encoding, Verdicts]:
    row = orjson.loads(text)
    return Encoding(row["name"], row["version"], row["options"]), Verdicts.load(row.get("refused", ()))
