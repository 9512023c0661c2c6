"""An uploader whose targets are in this process: they go away, fail, and keep a ledger."""

import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock
from gateway.model import Encoding, Outlet, Refusal, Unit, UploadProblem
from gateway.settings import Settings
from gateway.uploaders import columns


@dataclass(frozen=True, kw_only=True)
class TargetSettings(Settings):
    url: str = ""
    gather_bytes: int = 4_000
    gather_s: float = 5.0


class Target:
    """One receiver with its ledger, which recognises repeats by their key."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.up = True
        self.flaky = 0.1
        self.bodies: dict[str, bytes] = {}
        self.samples: Counter[tuple[str, str, int, Any]] = Counter()
        """(device, tag, ts, value as text) to how often it was kept."""
        self.own: dict[str, list[int]] = {"live": [], "backlog": []}
        """Numbers of the device with own stamps, as they were kept by lane."""
        self.gaps: list[str] = []
        self.problems: list[str] = []
        self.repeats = 0

    async def send(self, unit: Unit) -> Sequence[Refusal]:
        if not self.up:
            raise UploadProblem("it is away")
        if self._rng.random() < self.flaky:
            raise UploadProblem("it stumbled", self._rng.choice((None, None, 3.0)))
        self._keep(unit)
        if self._rng.random() < self.flaky:
            raise UploadProblem("its answer was lost")
        return ()

    def _keep(self, unit: Unit) -> None:
        digest = hashlib.sha256(columns.encode(unit)).digest()
        if unit.key in self.bodies:
            self.repeats += 1
            if self.bodies[unit.key] != digest:
                self.problems.append(f"{unit.key} came with another body")
            return
        self.bodies[unit.key] = digest
        self.gaps += [gap.reason for gap in unit.gaps]
        for sample in unit.samples:
            info = unit.series[sample.series]
            self.samples[info.device, info.tag, sample.ts, repr(sample.value)] += 1
            if info.device == "own":
                self.own[unit.lane].append(sample.value)  # type: ignore[arg-type]


TAKES_FILES = False
TARGETS: dict[str, Target] = {}


def encoding(_settings: TargetSettings) -> Encoding:
    return Encoding("columns", 1, {})


def insecure(_settings: TargetSettings) -> str:
    return ""


@asynccontextmanager
async def open(upload: str, _settings: TargetSettings, _clock: Clock) -> AsyncIterator[Outlet]:  # noqa: A001
    yield Outlet(TARGETS[upload].send)
