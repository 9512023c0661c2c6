"""`edge-gateway export`: samples of a store or of a backup as CSV, NDJSON or Parquet, in order of time."""

import asyncio
import csv
import io
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol

from gateway.api.values import dumps, flag_names, row
from gateway.api.windows import MAX_US, MIN_US
from gateway.export.cells import Times, cell, harmless
from gateway.model import Batch, GatewayError, SeriesInfo
from gateway.store.read_only import ReadOnlyStore

COLUMNS: Final = ("device", "tag", "unit", "time", "value", "type", "status", "flags")


class ExportProblem(GatewayError):
    """An export cannot be made as asked, and why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to export: all where nothing is said; both ends are included."""

    device: str | None = None
    tags: list[str] = field(default_factory=list)
    from_us: int = MIN_US
    to_us: int = MAX_US


class Sink(Protocol):
    """Writes samples in one format."""

    def write(self, batch: Batch) -> None: ...

    def end(self) -> None: ...


Opener = Callable[[IO[bytes], Mapping[int, SeriesInfo]], Sink]


def export(folder: Path, wanted: Wanted, kind: str, output: Path | None) -> tuple[int, list[str]]:
    """Write samples to a file (or stdout); return how many, and sentences on what could not be read.

    ExportProblem, StoreProblem: nothing was written. BrokenPipeError: nobody reads stdout any more.
    """
    opener = _opener(kind)
    with closing(ReadOnlyStore(folder)) as store:
        series = store.chosen(wanted.device, wanted.tags)
        with _output(output) as out:
            sink = opener(out, series)
            count = asyncio.run(_pump(store, list(series), wanted, sink))
            sink.end()
            out.flush()
        return count, list(store.problems)


async def _pump(store: ReadOnlyStore, series: list[int], wanted: Wanted, sink: Sink) -> int:
    count = 0
    batches: AsyncIterator[Batch] = store.samples(series, wanted.from_us, wanted.to_us)
    async for batch in batches:
        await asyncio.to_thread(sink.write, batch)
        count += len(batch)
    return count


@contextmanager
def _output(output: Path | None) -> Iterator[IO[bytes]]:
    if output is None:
        # Of an unbuffered stdout a reader that goes away would take a part, and nothing would be said.
        with open(sys.stdout.fileno(), "wb", closefd=False) as out:
            yield out
        return
    if output.exists():
        raise ExportProblem(f"{output} is there already: an export overwrites nothing, name another file")
    draft = output.with_name(f"{output.name}.partial")
    try:
        with draft.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        draft.rename(output)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ExportProblem(f"{output} cannot be written: {error.strerror}") from error
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _opener(kind: str) -> Opener:
    if kind == "csv":
        return CsvSink
    if kind == "ndjson":
        return NdjsonSink
    try:
        from gateway.export.parquet import ParquetSink
    except ImportError:
        # The package's launcher (-S) imports nothing that is installed beside it.
        remedy = (
            "which the package does not have: export a backup by an edge-gateway that pip installed"
            if sys.flags.no_site
            else "which is not installed here: `pip install pyarrow`"
        )
        raise ExportProblem(
            f"Parquet needs the library pyarrow, {remedy}; or choose --format csv or ndjson"
        ) from None
    return ParquetSink


class CsvSink:
    """For people and their spreadsheets: a text that could be taken for a formula has one ' before it."""

    def __init__(self, out: IO[bytes], series: Mapping[int, SeriesInfo]) -> None:
        self._out, self._times = out, Times()
        self._names = {n: [harmless(text) for text in (i.device, i.tag, i.unit)] for n, i in series.items()}
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text)
        self._writer.writerow(COLUMNS)

    def write(self, batch: Batch) -> None:
        for series, ts, value, status, flags in zip(*batch.columns(), strict=True):
            self._writer.writerow(
                [
                    *self._names[series],
                    self._times.text(ts),
                    *cell(value),
                    status,
                    " ".join(flag_names(flags)),
                ]
            )
        self.end()

    def end(self) -> None:
        self._out.write(self._text.getvalue().encode("utf-8", "backslashreplace"))
        self._text.seek(0)
        self._text.truncate()


class NdjsonSink:
    """A line of JSON a sample, as `/v1` writes it, with the device and the time in words."""

    def __init__(self, out: IO[bytes], series: Mapping[int, SeriesInfo]) -> None:
        self._out, self._times, self._series = out, Times(), series

    def write(self, batch: Batch) -> None:
        lines = []
        for series, ts, value, status, flags in zip(*batch.columns(), strict=True):
            device, tag, unit = self._series[series]
            rest = row(tag, ts, value, status, flags)
            del rest["ts"]
            named = {"device": device, "tag": rest.pop("tag"), **({"unit": unit} if unit else {})}
            lines.append(dumps({**named, "time": self._times.text(ts), **rest}))
        self._out.write(b"\n".join([*lines, b""]))

    def end(self) -> None:
        """Nothing is left to write."""
