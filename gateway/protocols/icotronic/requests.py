"""Asks one request after the other and finds its acknowledgement among what comes from the bus."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.controls.sensor_nodes import NoAnswer, NodeProblem, Refused
from gateway.protocols.icotronic.messages import STU, Request, error_text

WAITS_S = (0.3, 0.4, 0.5, 0.6, 0.8)
"""For an answer to each attempt."""
_QUIET_S = (0.1, 1.0)
"""At least and at most: see `_Asked.quiet`."""
_TWICE_S = 0.05
"""An acknowledgement that comes twice, as after an error on the bus, does so within this."""


@dataclass(slots=True)
class _Asked:
    """The request that is under way; times are the loop's."""

    request: Request
    answer: asyncio.Future[bytes]
    first_s: float
    last_s: float = 0.0
    attempts: int = 0

    def quiet(self, now_s: float) -> tuple[object, float]:
        """Return which requests have to wait, and until when, so that no answer to this is taken for theirs.

        What took so long to answer the first attempt may take as long for the last one; an error does not
        even tell the subcommand.
        """
        if self.attempts == 1 and self.answer.done():
            return _kind(self.request), now_s + _TWICE_S if None in self.request.expected else 0.0
        least, most = _QUIET_S
        return self.request.ack_id, self.last_s + min(most, least + now_s - self.first_s)


class Requester:
    """Requests wait for each other: acknowledgements say neither whom nor which request they answer."""

    def __init__(self, device: str, send: Callable[[int, bytes], Awaitable[None]]) -> None:
        self._device = device
        self._send = send
        self.turn = asyncio.Lock()
        self._asked: _Asked | None = None
        self._quiet_until: dict[object, float] = {}
        """By the id of the acknowledgement, or the kind of request; in time of the loop."""
        self._ended: NodeProblem | None = None

    @property
    def waits_for(self) -> int | None:
        """The id of the acknowledgement that is waited for."""
        return self._asked.request.ack_id if self._asked is not None else None

    def end(self, error: NodeProblem) -> None:
        """Let all requests fail, but those that are `last`."""
        self._ended = error
        if self._asked is not None and not self._asked.answer.done():
            self._asked.answer.set_exception(error)

    async def ask(
        self, request: Request, *, waits_s: tuple[float, ...] = WAITS_S, last: bool = False
    ) -> bytes:
        """Return the payload of the acknowledgement. Refused: it is an error; NoAnswer: there is none.

        `last`: it is asked also after the end.
        """
        async with self.turn:
            return await self.ask_in_turn(request, waits_s=waits_s, last=last)

    async def ask_in_turn(
        self, request: Request, *, waits_s: tuple[float, ...] = WAITS_S, last: bool = False
    ) -> bytes:
        """Ask as `ask` does, by who holds the turn: before all that wait for it."""
        if not last:
            await self._settle(request)
            if self._ended is not None:
                raise self._ended
        loop = asyncio.get_running_loop()
        asked = self._asked = _Asked(request, loop.create_future(), loop.time())
        try:
            for wait_s in waits_s:
                asked.attempts, asked.last_s = asked.attempts + 1, loop.time()
                await self._send(request.can_id, request.data)
                await asyncio.wait([asked.answer], timeout=request.takes_s + wait_s)
                if asked.answer.done():
                    return asked.answer.result()
        finally:
            self._asked = None
            which, until = asked.quiet(loop.time())
            self._quiet_until[which] = until
            asked.answer.cancel()
        raise NoAnswer(
            f"device {self._device}: {self._whom(request)} was asked to {request.what} and has not answered "
            f"({len(waits_s)} attempts in {sum(waits_s) + len(waits_s) * request.takes_s:.1f} s)"
        )

    def take(self, can_id: int, data: bytes) -> None:
        """Look whether a frame from the bus is the acknowledgement that is waited for."""
        if self._asked is None:
            return
        request, answer = self._asked.request, self._asked.answer
        if answer.done():
            return
        if can_id == request.ack_id and request.answered_by(data):
            answer.set_result(data)
        elif can_id == request.error_id:
            answer.set_exception(
                Refused(
                    f"device {self._device}: {self._whom(request)} was asked to {request.what} "
                    f"and refuses: {error_text(data)}"
                )
            )

    async def _settle(self, request: Request) -> None:
        until = max(self._quiet_until.pop(which, 0.0) for which in (request.ack_id, _kind(request)))
        await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))

    @staticmethod
    def _whom(request: Request) -> str:
        return "the STU" if request.receiver == STU else "the sensor node"


def _kind(request: Request) -> object:
    """Return what requests have in common whose acknowledgements could be taken for each other."""
    return request.ack_id, request.expected[:1]
