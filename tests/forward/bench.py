"""What the encoding "columns" costs: `python -m tests.forward.bench`."""

import random
import sys
import time

from gateway.model import Batch, Encoding, SeriesInfo, Unit
from gateway.uploaders import columns
from gateway.uploaders.encoders import compressed


def unit(samples: int = 10_000, series: int = 50) -> Unit:
    """Return jittered samples: two decimals, counters, booleans, noisy doubles."""
    made = random.Random(7)
    batch = Batch()
    for n in range(samples):
        s = n % series
        ts = 1_763_690_000_000_000 + (n // series) * 1_000_000 + made.randrange(2000)
        kind = s % 10
        if kind < 6:
            value: object = round(20 + s + made.gauss(0, 0.5), 2)
        elif kind < 8:
            value = n // series
        else:
            value = made.gauss(0, 1) if kind == 8 else made.random() < 0.5
        batch.add(s, ts, value)  # type: ignore[arg-type]
    names = {s: SeriesInfo("press-07", f"Line1.Tag{s}", "mm") for s in range(series)}
    return Unit("k", "gw", "up", "live", 1, 2, Encoding("columns", 1), batch, names)


def main() -> None:
    made = unit()
    body = columns.encode(made)
    packed = compressed(body)
    for name, job in (("encode", lambda: columns.encode(made)), ("gzip", lambda: compressed(body))):
        best = min(_timed(job) for _ in range(5))
        sys.stdout.write(f"columns {name}: {best * 1e6 / 10_000:.2f} us/sample\n")
    sys.stdout.write(
        f"columns: {len(body) / 10_000:.1f} B/sample, {len(packed) / 10_000:.2f} B/sample gzipped\n"
    )


def _timed(job: object) -> float:
    began = time.process_time()
    job()  # type: ignore[operator]
    return time.process_time() - began


if __name__ == "__main__":
    main()
