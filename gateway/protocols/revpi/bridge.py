"""How the modules are: what the driver says of them, as a status for their values and in sentences."""

from collections import deque
from dataclasses import dataclass, field

from gateway.model import GOOD
from gateway.protocols.revpi.layout import Layout, Module

BAD_NO_COMMUNICATION = 0x80310000
BAD_COMMUNICATION_ERROR = 0x80050000
UNCERTAIN_NO_COMMUNICATION = 0x408F0000
"""OPC UA StatusCodes (Part 4, 7.39; Part 8, 6.3): BadNoCommunication, BadCommunicationError and
UncertainNoCommunicationLastUsableValue."""

# RevPiStatus (piControl.h)
_RUNNING = 0x01
_EXTRA = 0x02
_MISSING = 0x04
_MISMATCH = 0x08

_WINDOW_NS = 60_000_000_000


@dataclass(frozen=True)
class Verdict:
    """Statuses by position where they are not Good, and what is to be said."""

    statuses: dict[int, int] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()

    def status(self, position: int) -> int:
        return self.statuses.get(position, GOOD)


def judge(layout: Layout, image: bytes, missing: frozenset[int] | None) -> Verdict:
    """Judge the modules. `missing`: the positions that the driver names, None where it names none."""
    status = _RUNNING if layout.status_at is None else image[layout.status_at]
    if not status & _RUNNING:
        everything = dict.fromkeys(layout.modules, BAD_COMMUNICATION_ERROR)
        return Verdict(everything, ("the piControl driver does not run (RevPiStatus): see `piTest -d`",))
    sentences = []
    gone, code = _gone(layout, status, missing)
    if gone:
        names = ", ".join(f"{module.name} (position {module.position})" for module in gone)
        one_of = "one of " if code == UNCERTAIN_NO_COMMUNICATION else ""
        mismatch = status & _MISMATCH
        why = "not as configured in PiCtory" if mismatch else "configured in PiCtory but not connected"
        sentences.append(f"{one_of}{names}: {why}; see `piTest -d`, then restart the driver with `piTest -x`")
    if status & _EXTRA:
        sentences.append("a module is connected that PiCtory does not know (RevPiStatus)")
    return Verdict({module.position: code for module in gone}, tuple(sentences))


def _gone(layout: Layout, status: int, missing: frozenset[int] | None) -> tuple[list[Module], int]:
    modules = [module for module in layout.modules.values() if module.kind != "BASE"]
    if missing is not None:
        return [module for module in modules if module.position in missing], BAD_NO_COMMUNICATION
    # The driver sets the bits also where a gate or a virtual device is configured, though nothing is amiss.
    if not status & (_MISSING | _MISMATCH) or any(module.kind != "LEFT_RIGHT" for module in modules):
        return [], GOOD
    return modules, BAD_NO_COMMUNICATION if len(modules) == 1 else UNCERTAIN_NO_COMMUNICATION


class Errors:
    """Counts the transmission errors of the last minute."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._seen: deque[tuple[int, int]] = deque()

    def sentence(self, layout: Layout, image: bytes, now_ns: int) -> str:
        """Take the count of an image; return what is to be said of the last minute, or ""."""
        if layout.errors_at is None:
            return ""
        count = int.from_bytes(image[layout.errors_at : layout.errors_at + 2], "little")
        more = 0 if self._last is None or count < self._last else count - self._last
        self._last = count
        if more:
            self._seen.append((now_ns, more))
        while self._seen and now_ns - self._seen[0][0] >= _WINDOW_NS:
            self._seen.popleft()
        total = sum(number for _, number in self._seen)
        many = f"{total} transmission error{'' if total == 1 else 's'}"
        return f"{many} on the PiBridge in the last minute (RS485ErrorCnt)" if total else ""
