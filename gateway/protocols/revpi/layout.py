"""What lies where in the process image: PiCtory's configuration, as revpimodio2 understands it."""

import json
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import revpimodio2
from revpimodio2.io import IntIO

from gateway.model import DeviceProblem

PLACES = (Path("/etc/revpi/config.rsc"), Path("/opt/KUNBUS/config.rsc"))
"""Where the driver looks for PiCtory's configuration (piControl.h)."""

Signature: TypeAlias = tuple[int, int, int]
"""Time, inode and size of a file."""

_ERRORS = (RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError)
# warnings.catch_warnings is the process's, not the thread's.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Point:
    """One input or output: `bit` of the byte at `offset`, or a little-endian number of `length` bytes."""

    name: str
    position: int
    """Of its module: what PiCtory and the driver call its address."""
    output: bool
    offset: int
    length: int
    bit: int | None = None
    signed: bool = False
    exported: bool = True
    comment: str = ""

    @property
    def type(self) -> str:
        """Return "bool", "int16", "uint8"..., or "bytes" where it is longer than a sample's integer."""
        if self.bit is not None:
            return "bool"
        return f"{'' if self.signed else 'u'}int{8 * self.length}" if self.length <= 8 else "bytes"


@dataclass(frozen=True, slots=True)
class Module:
    """One module on the PiBridge, or the box itself (position 0), or a virtual device."""

    position: int
    name: str
    kind: str
    """PiCtory's "BASE", "LEFT_RIGHT", "EDGE" (a gate), "VIRTUAL"."""


@dataclass(frozen=True)
class Layout:
    """The whole of a configuration."""

    path: Path
    points: Mapping[str, Point]
    modules: Mapping[int, Module]
    length: int
    """Bytes of the image that it uses."""
    status_at: int | None = None
    """Where RevPiStatus lies; a Compact and a Flat have none."""
    errors_at: int | None = None
    """Where the 16-bit count of transmission errors on the PiBridge lies."""
    notes: tuple[str, ...] = field(default=())
    """What revpimodio2 left out, and why."""


def configuration_file(given: str | None) -> Path:
    """Return the file that PiCtory saved. DeviceProblem: there is none."""
    places = (Path(given),) if given else PLACES
    for place in places:
        if place.exists():
            return place
    where = " and ".join(map(str, places))
    raise DeviceProblem(
        f"there is no configuration at {where}: save one in PiCtory as start configuration, "
        "or name the file under `configuration`"
    )


def signature(path: Path) -> Signature:
    """Return what changes whenever the file does; zeros where it is gone."""
    try:
        status = os.stat(path)  # noqa: PTH116  # ten times a second
    except FileNotFoundError:
        return 0, 0, 0
    return status.st_mtime_ns, status.st_ino, status.st_size


def read_layout(path: Path) -> Layout:
    """Read PiCtory's configuration. DeviceProblem: it cannot be used; the sentence says why."""
    _judge(path)
    with _one_at_a_time, warnings.catch_warnings(record=True) as told:
        try:
            # The image is opened for writing whatever `monitoring` says, so it gets none.
            loaded = revpimodio2.RevPiModIO(
                procimg=os.devnull, configrsc=str(path), monitoring=True, syncoutputs=False
            )
        except _ERRORS as error:
            raise DeviceProblem(
                f"{path} is no configuration of PiCtory that can be used ({type(error).__name__}: {error}): "
                "save it again in PiCtory"
            ) from error
        try:
            return _layout(path, loaded, tuple(str(warning.message) for warning in told))
        finally:
            loaded.cleanup()


def _judge(path: Path) -> None:
    try:
        content = json.loads(path.read_bytes())
    except PermissionError as error:
        raise DeviceProblem(f"{path} may not be read by the gateway's user: chmod o+r {path}") from error
    except OSError as error:
        raise DeviceProblem(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DeviceProblem(f"{path} is no JSON ({error}): save it again in PiCtory") from error
    if not isinstance(content, dict) or not isinstance(content.get("Devices"), list):
        raise DeviceProblem(f'{path} has no list of "Devices": save it again in PiCtory')


def _layout(path: Path, loaded: Any, notes: tuple[str, ...]) -> Layout:
    points: dict[str, Point] = {}
    modules: dict[int, Module] = {}
    for device in loaded.device:
        modules[device.position] = Module(device.position, device.name, device.type)
        for point in _points(device, loaded.io):
            points[point.name] = point
    length = max((point.offset + point.length for point in points.values()), default=0)
    core = loaded.core
    has_status = hasattr(core, "status")
    counts = has_status and core.ioerrorcount != -1
    return Layout(
        path=path,
        points=points,
        modules=modules,
        length=length,
        status_at=core.offset if has_status else None,
        errors_at=core.offset + 2 if counts else None,
        notes=notes,
    )


def _points(device: Any, by_byte: Any) -> Iterator[Point]:
    for output, found in ((False, device.get_inputs()), (True, device.get_outputs())):
        for io in found:
            number = isinstance(io, IntIO)
            if number and not io.length:
                continue
            yield Point(
                name=io.name,
                position=device.position,
                output=output,
                offset=io.address,
                length=io.length if number else 1,
                bit=None if number else next(b for b, other in enumerate(by_byte[io.address]) if other is io),
                signed=bool(number and io.signed),
                exported=io.export,
                comment=io.bmk,
            )
