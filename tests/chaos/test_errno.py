"""Refused system calls: strace makes the n-th call on the store's files fail, once or until it is lifted.

Each n of each call of a run of a thousand, with CHAOS_ERRNO=all (`make chaos`); a sample of 40 otherwise.
"""

import asyncio
import os
import random
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.store import compact
from tests.chaos import writers
from tests.chaos.life import PER_COMMIT, Life, hasten, judge_life
from tests.chaos.report import Report, read_report, span

SAMPLED = os.environ.get("CHAOS_ERRNO", "40")
SEED = int(os.environ.get("CHAOS_SEED", "1"))
_COMMITS = 38
_LANES = 64 if SAMPLED == "all" else 4
_STALLED_S = 0.5
_RESUMES_S = 5.0
_REACHES_S = 60.0
_CALLS = {
    "ENOSPC": ("pwrite64", "openat", "ftruncate", "fallocate"),
    "EIO": ("pwrite64", "pread64", "fdatasync", "fsync", "openat", "ftruncate", "unlink"),
    "EROFS": ("openat",),
}
_SEGMENTS = tuple(f"history/{n:06}.db{rest}" for n in range(1, 9) for rest in ("", "-journal", ".renewing"))
_FILES = ("hot.db", "hot.db-wal", "hot.db-shm", "hot.db.renewing", "reserve", *_SEGMENTS)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800 if SAMPLED == "all" else 240),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt install strace"),
]


@dataclass(slots=True)
class Outcome:
    """How a writer fared under one injection."""

    report: Report = field(default_factory=Report)
    stalled: bool = False
    resumed_s: float = 0.0
    status: int = 0
    injected: int = 0
    problem: str = ""


class Injected:
    """A forked writer under strace; `run` gives what came of it."""

    def __init__(self, folder: Path, log: Path, inject: str) -> None:
        self._folder, self._log, self._inject = folder, log, inject
        self._text = b""

    def run(self) -> Outcome:
        report, told = os.pipe()
        go, start = os.pipe()
        child = os.fork()
        if child == 0:
            self._child(go, told)
        os.close(told)
        os.close(go)
        strace = self._attach(child)
        os.write(start, b"x")
        os.close(start)
        try:
            return self._watch(child, report, strace)
        finally:
            os.close(report)
            strace.kill()
            strace.wait()

    def _child(self, go: int, told: int) -> None:
        try:
            os.read(go, 1)
            writers.use("")
            hasten()
            compact.LOOK_NS = 0  # the same calls in each run, or nearly so
            asyncio.run(Life(self._folder, told, 0, random.Random(0)).live(_COMMITS))
            os._exit(0)
        except BaseException as error:  # noqa: BLE001  # a forked child must end here
            os.write(told, f"died: {type(error).__name__}: {error}\n".encode())
            os._exit(1)

    def _attach(self, child: int) -> "subprocess.Popen[bytes]":
        paths = [part for name in _FILES for part in ("-P", str(self._folder / name))]
        calls = ",".join(sorted({call for calls in _CALLS.values() for call in calls}))
        command = ["strace", "-f", *paths, "-e", f"trace={calls}", "-o", str(self._log), "-p", str(child)]
        command += ["-e", f"inject={self._inject}"] if self._inject else []
        strace = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while "TracerPid:\t0\n" in Path(f"/proc/{child}/status").read_text():
            time.sleep(0.002)
        return strace

    def _watch(self, child: int, report: int, strace: "subprocess.Popen[bytes]") -> Outcome:
        outcome, lifted = Outcome(), 0.0
        persistent = "+" in self._inject
        until = time.monotonic() + _REACHES_S
        while True:
            patience = _STALLED_S if persistent and not lifted else _RESUMES_S + 5
            if not select.select([report], [], [], patience)[0]:
                if not lifted and not self._injections() and time.monotonic() < until:
                    continue  # a loaded machine: it has not come to its n-th call yet
                if lifted or not persistent:
                    os.kill(child, signal.SIGKILL)
                    outcome.problem = "it never went on"
                    break
                outcome.stalled = True
                outcome.problem = self._judge_while_refused(child)
                strace.send_signal(signal.SIGINT)  # detaches: the calls succeed again
                strace.wait()
                lifted = time.monotonic()
                continue
            part = os.read(report, 65536)
            self._text += part
            if lifted and not outcome.resumed_s and b"a " in part:
                outcome.resumed_s = time.monotonic() - lifted
            if not part:
                break
        if lifted and not outcome.resumed_s:
            outcome.resumed_s = time.monotonic() - lifted
        outcome.status = os.waitpid(child, 0)[1]
        strace.wait()
        outcome.injected = self._injections()
        if b"died" in self._text:
            outcome.problem = self._text[self._text.index(b"died") :].decode()
        outcome.report = read_report(self._text.decode())
        return outcome

    def _injections(self) -> int:
        return self._log.read_text().count("(INJECTED)")

    def _judge_while_refused(self, child: int) -> str:
        """What is acknowledged now must be in the files as they are now."""
        report = read_report(self._text.decode())
        copy = self._folder.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        os.kill(child, signal.SIGSTOP)  # it tries again all the time
        while not re.search(r"^State:\t[Tt]", Path(f"/proc/{child}/status").read_text(), re.M):
            time.sleep(0.002)
        shutil.copytree(self._folder, copy, ignore=shutil.ignore_patterns("*-shm"))
        os.kill(child, signal.SIGCONT)
        verdict = asyncio.run(judge_life(copy, report)) if report.acked else True
        return "" if verdict else f"while refused: {verdict}"


def injected(folder: Path, inject: str) -> Outcome:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return Injected(folder / "store", folder / "trace", inject).run()


def counted(folder: Path) -> dict[str, int]:
    """Return how often the busiest thread makes each call at least: no run makes quite as many as another."""
    runs = [_counted(folder) for _ in range(3)]
    return {name: min(run.get(name, 0) for run in runs) for name in runs[0]}


def _counted(folder: Path) -> dict[str, int]:
    """Count the calls of one run by thread, as strace does."""
    outcome = injected(folder, "")
    assert outcome.status == 0 and not outcome.problem, outcome
    calls: dict[tuple[str, str], int] = {}
    for line in (folder / "trace").read_text().splitlines():
        if match := re.match(r"(\d+) +(\w+)\(", line):
            calls[match[1], match[2]] = calls.get((match[1], match[2]), 0) + 1
    names = {name for _, name in calls}
    return {name: max(count for (_, call), count in calls.items() if call == name) for name in names}


def cases(counts: dict[str, int], lane: int, lanes: int) -> Iterator[str]:
    """Give the lane's share: by n, for each lane counts for itself."""
    for error, calls in _CALLS.items():
        for call in calls:
            for n in range(1 + lane, counts.get(call, 0) + 1, lanes):
                yield f"{call}:error={error}:when={n}"
                yield f"{call}:error={error}:when={n}+"


def earlier(inject: str, tenths: int) -> str:
    """Aim at an earlier call: a loaded machine's run may make fewer of them than the counted ones did."""
    return re.sub(r"(?<=when=)\d+", lambda n: str(max(1, int(n[0]) * tenths // 10)), inject)


@pytest.mark.parametrize("lane", range(_LANES))
def test_no_refused_call_is_acknowledged_or_ends_the_writer(lane: int, tmp_path: Path) -> None:
    counts = counted(tmp_path / "run")
    assert sum(counts.values()) >= 1000 and counts["fdatasync"] > _COMMITS, counts
    every = list(cases(counts, lane, _LANES))
    random.Random(SEED).shuffle(every)
    stays = next(case for case in every if case.startswith("fdatasync") and case.endswith("+"))
    chosen = [stays, *(case for case in every if case != stays)]  # one stalls in any sample
    sampled = len(chosen) if SAMPLED == "all" else int(SAMPLED) // _LANES
    chosen, spare = chosen[:sampled], chosen[sampled:]
    failures, stalled, hits, slowest, wanted = [], 0, 0, 0.0, len(chosen)
    for inject in chosen:
        outcome = injected(tmp_path / "run", inject)
        for tenths in (10, 8, 6, 4, 2, 1):
            if not (outcome.injected or outcome.problem):
                outcome = injected(tmp_path / "run", earlier(inject, tenths))
        if not outcome.injected and spare and len(chosen) < 2 * wanted:
            chosen.append(spare.pop())  # a call that this run did not make at all
        stalled += outcome.stalled
        hits += outcome.injected > 0
        slowest = max(slowest, outcome.resumed_s)
        verdict = asyncio.run(judge_life(tmp_path / "run" / "store", outcome.report))
        whole = outcome.report.acked == span(0, _COMMITS * PER_COMMIT)
        if outcome.status or outcome.problem or not verdict or not whole or outcome.resumed_s > _RESUMES_S:
            failures.append(
                f"{inject}: {outcome.problem or outcome.status} {outcome.resumed_s} {verdict}"[:500]
            )
    summary = f"{len(chosen)} injections, {hits} hit, {stalled} stalled, slowest to go on {slowest:.2f} s"
    print(summary)  # noqa: T201  # for -s
    assert not failures, "\n".join(failures)
    assert hits > wanted * 0.9 and stalled
