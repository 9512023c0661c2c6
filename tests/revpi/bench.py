"""Print CPU per image and value beside revpimodio2's own access, in the same run."""

import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import revpimodio2

from gateway.protocols.revpi.bridge import judge
from gateway.protocols.revpi.decoding import Decoder
from gateway.protocols.revpi.layout import read_layout
from gateway.protocols.revpi.watch import Stamp, Tag, Watch
from gateway.scaling import Scaling
from tests.revpi import plant

IMAGES = 2000


def cpu_us(work: Callable[[], None]) -> float:
    """Return the best of five, per image."""
    taken = []
    for _ in range(5):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken) / IMAGES * 1e6


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        box = plant.Box(
            Path(folder), plant.core(105, "Connect"), plant.dio(32), plant.aio(33), plant.mio(34)
        )  # fmt: skip
        layout = read_layout(box.rsc)
        points = list(layout.points.values())
        decode, fd = Decoder(points), os.open(box.image, os.O_RDONLY)
        moving, memory = random.Random(1), bytearray(box.image.read_bytes())
        images = []
        for _ in range(IMAGES):
            for n in range(8):
                offset = layout.points[f"AnalogInput_{n + 1}"].offset
                memory[offset : offset + 2] = moving.randbytes(2)
            images.append(bytes(memory[: layout.length]))
        own = revpimodio2.RevPiModIO(procimg=str(box.image), configrsc=str(box.rsc), monitoring=True)
        ios = [own.io[point.name] for point in points]

        def theirs() -> None:
            for _ in images:
                own.readprocimg()
                for io in ios:
                    _ = io.value

        def decoded() -> None:
            for image in images:
                os.pread(fd, layout.length, 0)
                decode(image)

        def kept() -> None:
            watch = Watch([Tag(n, point, Scaling(), 0.0, 10**9) for n, point in enumerate(points)])
            for n, image in enumerate(images):
                os.pread(fd, layout.length, 0)
                watch.look(image, judge(layout, image, frozenset()), Stamp(n * 100_000, 2, n * 10**8))

        stock = cpu_us(theirs)
        for name, work in (("read and decode", decoded), ("and what to keep, 8 values move", kept)):
            ours = cpu_us(work)
            per_value = ours / len(points) * 1000
            sys.stdout.write(
                f"revpi: {name}: {ours:.1f} us per image of {len(points)} values ({per_value:.0f} ns each), "
                f"revpimodio2 {stock:.1f} us: ratio {stock / ours:.1f}\n"
            )
        own.cleanup()
        os.close(fd)


if __name__ == "__main__":
    main()
