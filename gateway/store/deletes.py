"""Deletion on request: the part of `Store` that commits tombstones."""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from gateway.store.deletions import Deletion
from gateway.store.outbox import Transaction
from gateway.store.reads import Reads
from gateway.store.schema import StoreProblem
from gateway.store.series import SeriesTable
from gateway.store.survey import Survey
from gateway.store.tombstones import FIRST_US, LAST_US
from gateway.store.writer import Writer

T = TypeVar("T")

_UNHURRIED_S = 5.0
"""How long a deletion waits for a commit at its tick; where that is farther off, one is asked for then."""
MOST_DELETIONS = 10_000
"""That hold at a time: each reading of their series looks at all of them."""


class TooManyDeletions(StoreProblem):
    """A deletion is refused because of those that hold already."""


class Deletes(Reads):
    """The deleting part of `Store`."""

    _series: SeriesTable
    _writer: Writer

    def __init__(self) -> None:
        self._deleting: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def ride(self, job: Callable[[Transaction], T]) -> T:
        """Run a job inside the next group commit."""
        raise NotImplementedError

    async def delete(
        self, series: int, by: str, from_us: int = FIRST_US, to_us: int = LAST_US
    ) -> Deletion | None:
        """Delete what there is of a series between two times (ends included); returns after COMMIT.

        Covered is what was committed before, and with it. What is sent again afterwards is a new sample.
        None: there was nothing to delete. TooManyDeletions: so many hold already.
        """
        if len(self._history.deleted) >= MOST_DELETIONS:
            raise TooManyDeletions(
                f"{MOST_DELETIONS} deletions still wait until the history that they cover goes: delete "
                f"windows or whole series instead of single samples"
            )
        lock = self._deleting.setdefault(series, asyncio.Lock())
        names = self._series.info(series)[:2]
        async with lock:  # what another one deletes of the series is not counted twice
            survey = Survey(series, from_us, to_us, lambda: (self._writer.next_seq - 1, self._writer.newest))
            with self._history.held():
                await self._in_turns(survey.turn)
                hurry = asyncio.get_running_loop().call_later(_UNHURRIED_S, self._writer.hurry)
                try:
                    made = await self.ride(lambda tx: survey.commit(tx, by, names))
                finally:
                    hurry.cancel()
        if (from_us, to_us) == (FIRST_US, LAST_US):
            self._series.used.discard(series)
        return made
