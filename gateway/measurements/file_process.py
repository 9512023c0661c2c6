"""The child process that writes the file of a measurement, so that HDF5's memory and crashes are its own.

It reads a job from stdin: a line of JSON, then for one that writes frames each block with its size before
it (u32), and a size of 0. It answers with a line of JSON. Under the final name there is never half a file: a
draft is written, synced, read again from the disk, renamed, and the folder is synced.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gateway.durable import sync
from gateway.measurements import hdf5
from gateway.measurements.metadata import POST, PRE
from gateway.measurements.names import SUFFIX
from gateway.measurements.record import BLOCK_SIZE, Measurement, from_row
from gateway.measurements.rewriting import drafted, rewriting, settle
from gateway.store.columns import CorruptBlock
from gateway.store.recording import Part, decode_part
from gateway.store.recordings import part_of

_NICENESS = 10
FAILURES = (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, MemoryError)
"""All that h5py and numpy raise, and a gateway that ended."""


def main() -> None:
    """Do one job."""
    with contextlib.suppress(OSError):  # the unit's sandbox does not allow it
        os.nice(_NICENESS)  # acquisition goes first
    jobs, answers = sys.stdin.buffer, sys.stdout
    job = json.loads(jobs.readline())
    m, folder = from_row(job["measurement"]), Path(job["folder"])
    try:
        answer = _write(m, folder, jobs) if job["do"] == "write" else _change(m, folder)
    except FAILURES as error:
        answer = {"error": str(error) or type(error).__name__}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _write(m: Measurement, folder: Path, source: BinaryIO) -> dict[str, Any]:
    parts = Parts(source)
    with drafted(folder, m.name) as draft:
        with hdf5.Writer(draft, m) as writer:
            for part in parts:
                writer.add(part.frames)
            writer.finish()
        answer = {
            "file": "", "received": writer.count.received, "lost": writer.count.lost,
            "last_us": parts.last_us, "missing": parts.missing,
        }  # fmt: skip
        if not writer.written.rows:
            return answer
        settle(draft, writer.written)
        final = _free(folder, m)
        draft.replace(final)
    sync(folder)
    return answer | {"file": final.name}


class Parts:
    """The blocks that come, sound ones only; `missing` counts the others, also those that did not come."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.missing = self.last_us = 0

    def __iter__(self) -> Iterator[Part]:
        following = damaged = 0
        while size := BLOCK_SIZE.unpack(self._exactly(BLOCK_SIZE.size))[0]:
            try:
                part = decode_part(self._exactly(size))
            except CorruptBlock:
                damaged += 1
                continue
            number = part_of(part.header.seq)
            self.missing += number - following
            following, damaged, self.last_us = number + 1, 0, part.frames.ts[-1]
            yield part
        self.missing += damaged  # behind the last sound one no number tells of them

    def _exactly(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            raise EOFError("the gateway ended before it had sent all frames")
        return data


def _change(m: Measurement, folder: Path) -> dict[str, Any]:
    """Put metadata into a file that exists: into a copy, which then takes its place."""
    final = folder / m.file
    if not final.exists():  # somebody deleted it
        return {"file": ""}
    with rewriting(final) as file:
        for prefix, metadata in ((PRE, m.metadata), (POST, m.post_metadata)):
            if metadata is not None:
                hdf5.put_metadata(file, prefix, metadata)
    return {"file": final.name}


def _free(folder: Path, m: Measurement) -> Path:
    """Return where the file belongs; one that is there of the same recording is replaced."""
    number, final = 1, folder / f"{m.name}{SUFFIX}"
    while final.exists() and hdf5.recording_of(final) != hdf5.identity(m):
        number += 1
        final = folder / f"{m.name}_{number}{SUFFIX}"
    return final


if __name__ == "__main__":
    main()
