"""The child process that looks into an HDF5 file, or puts something into it: whatever it holds, its own harm.

It reads a job, a line of JSON, from stdin. It answers with a line of JSON: {"error": ..., "kind": ...}, or
what is to be known of the bytes that follow until its end.
"""

import contextlib
import json
import os
import resource
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import orjson

from gateway.measurements import analysis, embedded, hdf5
from gateway.measurements.metadata import POST, PRE
from gateway.measurements.rewriting import rewriting

_NICENESS = 10
_MEMORY_BYTES = 2 << 30
_CPU_S = 1800
DAMAGE = (OSError, RuntimeError, ValueError, TypeError, MemoryError, AttributeError)
"""All that h5py and numpy raise where a file is damaged, or made to harm."""
Answer = tuple[Mapping[str, Any], Iterator[bytes]]


def main() -> None:
    """Do one job."""
    with contextlib.suppress(OSError):  # the unit's sandbox does not allow it
        os.nice(_NICENESS)
    # A file of some KB can say that it holds terabytes.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    job = json.loads(sys.stdin.buffer.readline())
    out = sys.stdout.buffer
    try:
        head, pieces = _JOBS[job["do"]](_checked(Path(job["path"])), job)
        first = next(pieces, b"")
    except FileNotFoundError:
        _tell(out, {"kind": "missing", "error": "it is not there any more"})
    except hdf5.NotHdf5 as error:
        _tell(out, {"kind": "unfit", "error": str(error)})
    except LookupError as error:
        _tell(out, {"kind": "missing", "error": str(error.args[0])})
    except DAMAGE as error:
        kind = "failed" if isinstance(error, OSError) and error.errno else "unfit"
        _tell(out, {"kind": kind, "error": f"it cannot be read: {str(error) or type(error).__name__}"})
    else:
        _tell(out, head)
        try:
            for piece in chain((first,), pieces):
                out.write(piece)
        except DAMAGE as error:
            out.flush()
            sys.exit(f"{job['path']} cannot be read on: {error}")
    out.flush()


def _tell(out: BinaryIO, head: Mapping[str, Any]) -> None:
    out.write(json.dumps(head).encode() + b"\n")


def _checked(path: Path) -> Path:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise FileNotFoundError(path)
    if not h5py.is_hdf5(path):
        raise hdf5.NotHdf5("it is no HDF5 file, or a damaged one")
    return path


def _document(value: Any) -> Iterator[bytes]:
    yield orjson.dumps(value)


def _about(path: Path, _job: Mapping[str, Any]) -> Answer:
    with hdf5.looking(path) as file:
        return {}, _document(analysis.about(file))


def _analyze(path: Path, job: Mapping[str, Any]) -> Answer:
    return {}, analysis.lines(path, job["every"], pictures=job["pictures"])


def _metadata(path: Path, _job: Mapping[str, Any]) -> Answer:
    with hdf5.looking(path) as file:
        return {}, _document({prefix: analysis.metadata(file, prefix) for prefix in (PRE, POST)})


def _put_metadata(path: Path, job: Mapping[str, Any]) -> Answer:
    with rewriting(path) as file:
        for prefix in (PRE, POST):
            if job.get(prefix) is not None:
                hdf5.put_metadata(file, prefix, job[prefix])
    return {}, iter(())


def _embedded(path: Path, _job: Mapping[str, Any]) -> Answer:
    with hdf5.looking(path) as file:
        return {}, _document(embedded.listed(file))


def _extract(path: Path, job: Mapping[str, Any]) -> Answer:
    return embedded.extracted(path, job["dataset"])


def _embed(path: Path, job: Mapping[str, Any]) -> Answer:
    with rewriting(path) as file:
        added = embedded.add(file, Path(job["source"]), job["name"], job["mime"])
    return {}, _document(added)


def _remove(path: Path, job: Mapping[str, Any]) -> Answer:
    with hdf5.looking(path) as file:
        embedded.found(file, job["dataset"])
    with rewriting(path) as file:
        del file[embedded.GROUP][job["dataset"]]
    return {}, iter(())


_JOBS: Mapping[str, Callable[[Path, Mapping[str, Any]], Answer]] = {
    "about": _about,
    "analyze": _analyze,
    "metadata": _metadata,
    "put_metadata": _put_metadata,
    "embedded": _embedded,
    "extract": _extract,
    "embed": _embed,
    "remove": _remove,
}

if __name__ == "__main__":
    np.seterr(all="ignore")  # what a file holds may be anything
    main()
