"""Delivers a unit that the target refuses as a whole: in parts, down to the samples that it refuses.

The samples before `start` are settled. The first refused one is found by halving: where a left half is
accepted, the refused sample is in the right half, which need not be asked for; so one refused sample among n
costs log2(n) requests for finding it and one for the rest. Every verdict is remembered: a part that was
refused is not sent again, lest a target that changes its mind gets samples under two keys.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeAlias

from gateway.model import Batch, Refusal, Unit, UnitRefused, UploadProblem

Range: TypeAlias = tuple[int, int]
"""First place and end (exclusive) in the samples of a unit."""

GAPS = -1
"""The place in a Refusal that stands for the gap records of a unit."""
_PATIENCE = 16
_KEPT_VERDICTS = 64


class No(NamedTuple):
    """A part was refused: the target's words, and whether it was for the size."""

    words: str
    too_large: bool


@dataclass(slots=True)
class Verdicts:
    """What a target said of a unit and its parts. The refusals are kept with the unit in the store."""

    refused: dict[Range, No] = field(default_factory=dict)
    accepted: dict[Range, Sequence[Refusal]] = field(default_factory=dict)

    def dump(self) -> list[list[Any]]:
        return [[*part, *no] for part, no in list(self.refused.items())[:_KEPT_VERDICTS]]

    @classmethod
    def load(cls, rows: Sequence[Sequence[Any]]) -> "Verdicts":
        return cls({(row[0], row[1]): No(row[2], bool(row[3])) for row in rows})


class Note(Protocol):
    """Keeps the verdicts with the unit; returns at once, but the `first` time after COMMIT."""

    async def __call__(self, *, first: bool) -> None: ...


class Delivery:
    """One unit on its way."""

    def __init__(
        self,
        unit: Unit,
        verdicts: Verdicts,
        send: Callable[[Unit], Awaitable[Sequence[Refusal]]],
        note: "Note",
    ) -> None:
        self._unit, self._verdicts, self._send, self._note = unit, verdicts, send, note
        self._size = len(unit.samples)
        self._patience = _PATIENCE

    async def run(self) -> list[Refusal]:
        """Return what was refused for good. UploadProblem: nothing is settled, go on later."""
        whole = (0, self._size)
        if whole not in self._verdicts.refused:
            try:
                return list(await self._send(self._unit))
            except UnitRefused as refused:
                self._verdicts.refused[whole] = No(str(refused), refused.too_large)
                await self._note(first=True)
        return [*await self._gaps(), *await self._samples()]

    async def _gaps(self) -> list[Refusal]:
        if not self._unit.gaps:
            return []
        if self._size == 0:
            return [Refusal(GAPS, self._verdicts.refused[0, 0].words)]
        no = await self._ask((GAPS, 0), replace(self._unit, key=f"{self._unit.key}/gaps", samples=Batch()))
        return [Refusal(GAPS, no.words)] if isinstance(no, No) else []

    async def _samples(self) -> list[Refusal]:
        refusals: list[Refusal] = []
        start, most = 0, self._size
        while start < self._size:
            part = (start, min(start + most, self._size))
            answer = await self._try(part)
            if not isinstance(answer, No):
                refusals += answer
                start = part[1]
            elif not answer.too_large or part[1] - start == 1:
                start = await self._find(part, answer, refusals)
                if answer.too_large:  # that one sample was: the others may do together
                    most = self._size
            if start == part[0]:  # it was too large, or its first piece was
                most = (part[1] - start + 1) // 2
        return refusals

    async def _find(self, part: Range, no: No, refusals: list[Refusal]) -> int:
        """Find the first refused sample of a refused part; return the place from which to go on.

        That is where a piece begins that is too large: the beginning of the part, if it is the first piece.
        """
        low, high = part
        asked, near = True, True  # this part itself was refused; the one that it is the right half of was
        while high - low > 1:
            middle = low + (high - low + 1) // 2
            answer = await self._try((low, middle))
            if not isinstance(answer, No):
                refusals += answer
                low, near, asked = middle, asked, False
            elif answer.too_large:
                return low
            else:
                high, no, asked = middle, answer, True
        if not asked and not near:
            answer = await self._try((low, high))
            if not isinstance(answer, No):
                refusals += answer
                return high
            no = answer
        refusals.append(Refusal(low, no.words))
        return high

    async def _try(self, part: Range) -> Sequence[Refusal] | No:
        unit, (low, high) = self._unit, part
        if part == (0, self._size):  # sent before, as the unit itself
            return self._verdicts.refused[part]
        series, ts, values, statuses, flags = unit.samples.columns()
        samples = Batch(series[low:high], ts[low:high], values[low:high], statuses[low:high], flags[low:high])
        key = f"{unit.key}/{low}-{high}"
        answer = await self._ask(part, replace(unit, key=key, samples=samples, gaps=()))
        if isinstance(answer, No):
            return answer
        return [Refusal(low + place, reason) for place, reason in answer]

    async def _ask(self, part: Range, unit: Unit) -> Sequence[Refusal] | No:
        if part in self._verdicts.accepted:
            return self._verdicts.accepted[part]
        if part in self._verdicts.refused:
            return self._verdicts.refused[part]
        try:
            answer = await self._send(unit)
        except UnitRefused as refused:
            return await self._refused(part, No(str(refused), refused.too_large))
        self._verdicts.accepted[part] = answer
        self._patience = _PATIENCE
        return answer

    async def _refused(self, part: Range, no: No) -> No:
        self._verdicts.refused[part] = no
        if len(self._verdicts.refused) <= _KEPT_VERDICTS:
            await self._note(first=False)
        self._patience -= part[1] - part[0] == 1
        if self._patience <= 0:
            raise UploadProblem(
                f"the target refuses one sample after another, the last with {no.words}; "
                "the rest of the unit is tried later"
            )
        return no
