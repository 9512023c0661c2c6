"""Print what the store costs: CPU, bytes kept and written, each beside the stock way in the same run."""

import asyncio
import sys

from tests.bench import cost, device
from tests.bench.plant import seconds

SERIES, COMMITS = 1000, 300
FOLD_COMMITS = 1100


def main() -> None:
    batches = list(seconds(SERIES, COMMITS))
    emit, seed = asyncio.run(cost.emit(batches)), cost.seed(batches)
    _say(
        f"emit to commit, {SERIES} samples a commit: {emit.cpu_us:.2f} us CPU a sample, "
        f"{emit.file_bytes:.1f} bytes of file"
    )
    _say(
        f"executemany into the seed's table: {seed.cpu_us:.2f} us, {seed.file_bytes:.1f} bytes: the store "
        f"takes {emit.cpu_us / seed.cpu_us:.2f} of the CPU "
        f"and {emit.file_bytes / seed.file_bytes:.2f} of the bytes"
    )
    fold = asyncio.run(cost.fold(seconds(SERIES, FOLD_COMMITS)))
    both = emit.cpu_us + fold.cpu_us
    _say(
        f"fold and deletion of the block: {fold.cpu_us:.2f} us CPU a sample ({both:.2f} with its commit: "
        f"{both / seed.cpu_us:.2f} of the seed's), {fold.file_bytes:.2f} bytes kept, {fold.grown_mb:.0f} MB "
        f"of memory; the event loop is late by {fold.late_p99_ms:.1f} ms (p99), {fold.late_ms:.1f} ms at most"
    )
    if not device.available():
        _say("bytes written to the device: not measured, that takes root and loop devices")
        return
    for series, folds in ((1000, 2), (100, 1)):
        with device.disk() as where:
            ours = asyncio.run(device.store_life(where, series, folds))
        with device.disk() as where:
            theirs = device.seed_life(where, seconds(series, 900))
        _say(
            f"device, {series} samples a commit, {ours.commits} s: {ours.a_sample:.1f} bytes a sample "
            f"({ours.a_commit / 1000:.1f} KB a commit) for block, chunk and deletion; the seed's table "
            f"{theirs.a_sample:.1f} ({theirs.a_commit / 1000:.1f} KB): {ours.a_sample / theirs.a_sample:.2f}"
        )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
