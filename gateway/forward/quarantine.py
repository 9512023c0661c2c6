"""The samples that a target refused for good: listed, sent again one by one, or forgotten."""

import sqlite3
from collections.abc import Sequence

from gateway.forward.upload import Upload
from gateway.model import Batch, Quarantined, Unit, UnitRefused
from gateway.store import outbox
from gateway.store.outbox import QuarantineRow

_MOST_REPLAYED = 1000
"""The newest, where all are asked for: one request to us is one request each to the target."""


class Quarantine:
    """The dead letters of one upload."""

    def __init__(self, upload: Upload) -> None:
        self._upload, self._store = upload, upload.store

    async def list(self, before_id: int | None, limit: int) -> Sequence[Quarantined]:
        return [self._shown(row) for row in await self._page(before_id, limit)]

    async def discard(self, ids: Sequence[int] | None) -> int:
        upload = self._upload.upload
        return await self._store.ride(lambda tx: outbox.discard(tx, upload, ids))

    async def replay(self, ids: Sequence[int] | None) -> int:
        """Send letters again, each under a key of its own that stays the same, so that none arrives twice.

        What is refused again stays. UploadProblem: the target cannot be asked now; what it took before
        is counted and gone from here.
        """
        taken: list[int] = []
        try:
            for row in await self._chosen(ids):
                try:
                    if not await self._upload.send(await self._unit(row)):
                        taken.append(row.id)
                except UnitRefused:
                    continue
        finally:
            if taken:
                await self.discard(taken)
        return len(taken)

    async def _chosen(self, ids: Sequence[int] | None) -> Sequence[QuarantineRow]:
        upload = self._upload.upload
        if ids is not None:
            return await self._store.read(lambda conn: outbox.letters(conn, upload, ids))
        return (await self._page(None, _MOST_REPLAYED))[::-1]

    async def _page(self, before_id: int | None, limit: int) -> Sequence[QuarantineRow]:
        def read(conn: sqlite3.Connection) -> Sequence[QuarantineRow]:
            return outbox.quarantined(conn, self._upload.upload, before_id, limit)

        return await self._store.read(read)

    async def _unit(self, row: QuarantineRow) -> Unit:
        sample, owner = row.sample, self._upload
        newest = self._store.state().newest_seq
        return Unit(
            # An id alone may come again once its row is gone.
            key=f"{owner.origin}/quarantine/{row.id}-{row.at_us}-{sample.series}-{sample.ts}",
            gateway_id=owner.gateway_id,
            upload=owner.upload,
            lane="replay",
            from_seq=0,
            to_seq=0,
            encoding=owner.encoding,
            samples=Batch.of([sample]),
            series=await self._store.unit_infos([sample.series], newest),
            repeat=True,
        )

    def _shown(self, row: QuarantineRow) -> Quarantined:
        info = self._store.info(row.sample.series)
        return Quarantined(row.id, info.device, info.tag, row.sample, row.reason, row.at_us)
