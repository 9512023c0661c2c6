"""A fork server: everything imported once, then one writer after the other forked and killed."""

import asyncio
import json
import os
import random
import select
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import sqlite_utils  # noqa: F401  # imported before the forks: they would each take 0.14 s

from tests.chaos import writers
from tests.chaos.life import Life, hasten, judge_life
from tests.chaos.report import read_report

_LIVES_PER_STORE = 40
_OPENING_S = 0.03


def one_life(folder: Path, start: int, rng: random.Random) -> str:
    """Fork a writer, kill it at a random moment, and return all that it reported."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            asyncio.run(Life(folder, writing, start, rng).live(10**6, again=25))
        finally:
            os._exit(1)  # a writer never ends by itself
    os.close(writing)
    text = b""
    if rng.random() < 0.75:  # anywhere within a commit; else anywhere within opening
        select.select([reading], [], [], 10)
        time.sleep(rng.uniform(0, 0.06))
    else:
        time.sleep(rng.uniform(0, _OPENING_S))
    os.kill(child, signal.SIGKILL)
    while part := os.read(reading, 65536):
        text += part
    os.close(reading)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the writer ended by itself"
    return text.decode()


def main(folder: Path, kills: int, mutant: str, seed: int) -> None:
    """Kill `kills` writers; print what the oracle found, as JSON."""
    writers.use(mutant)
    hasten()
    rng, found = random.Random(seed), Counter[str]()
    while found["kills"] < kills:
        text = ""
        for _ in range(min(_LIVES_PER_STORE, kills - found["kills"])):
            life = one_life(folder, read_report(text).issued, rng)
            found["kills"] += 1
            found["kills while opening"] += not life
            text += life
        report = read_report(text)
        verdict = asyncio.run(judge_life(folder, report))
        for name in ("missing", "doubled", "wrong", "never_issued"):
            found[name] += len(getattr(verdict, name))
        found["acked"] += report.acked.bit_count()
        found["taken by retention"] += (report.doubtful & ~report.deleted).bit_count()
        found["deleted"] += report.deleted.bit_count()
        found["set aside"] += len([*folder.glob("*.corrupt-*"), *folder.glob("history/*.corrupt")])
        found["kept unacknowledged"] += verdict.stored > report.kept.bit_count()
        shutil.rmtree(folder)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
