"""The process image of the piControl driver, opened for reading only.

What the driver does stands in its man pages, piControl(4) and ioctl_picontrol(2).
"""

import errno
import fcntl
import grp
import os
import stat
import struct
from collections.abc import Iterable

from gateway.model import DeviceProblem
from gateway.protocols.revpi.layout import Point

_KB_GET_DEVICE_INFO_LIST = ord("K") << 8 | 13
_KB_FIND_VARIABLE = ord("K") << 8 | 17
_DEVICE_INFO = struct.Struct("<B38xB32x")
"""Address and i8uActive of a SDeviceInfo."""
_VARIABLE = struct.Struct("<32sHBxH")
"""Name, byte, bit and number of bits of a SPIVariable."""
_NAME_BYTES = 31
# The driver writes as many entries as it has without being told how many fit: 64 today.
_MOST_DEVICES = 256
_NO_DRIVER = (errno.ENOTTY, errno.EINVAL, errno.ENOSYS)
"""No driver answers: the image is a file."""


class NotRunning(DeviceProblem):
    """The driver exchanges no data with its modules just now."""


class ProcessImage:
    """The open image. Its methods may block: they are for a thread."""

    def __init__(self, path: str, device: str) -> None:
        self._path = path
        self._device = device
        self._fd = _open(path, device)

    def close(self) -> None:
        os.close(self._fd)

    def read(self, length: int) -> bytes:
        """Return the first bytes. NotRunning: ask again later, without opening it anew."""
        try:
            image = os.pread(self._fd, length, 0)
        except OSError as error:
            raise self._problem(error) from error
        if len(image) < length:
            raise DeviceProblem(
                f"device {self._device}: {self._path} has {len(image)} bytes, "
                f"but PiCtory's configuration names {length}"
            )
        return image

    def missing(self) -> frozenset[int] | None:
        """Return the positions of modules that the driver lists but does not reach; None: no driver.

        A module that is there but not as configured stands twice in the list, neither time as active.
        """
        answer = bytearray(_MOST_DEVICES * _DEVICE_INFO.size)
        try:
            count = fcntl.ioctl(self._fd, _KB_GET_DEVICE_INFO_LIST, answer)
        except OSError as error:
            if error.errno in _NO_DRIVER:
                return None
            raise self._problem(error) from error
        listed = list(_DEVICE_INFO.iter_unpack(answer))[:count]
        return frozenset(position for position, _ in listed) - {position for position, on in listed if on}

    def disagreement(self, points: Iterable[Point]) -> str:
        """Say where the driver knows an input or output to lie elsewhere than given, or return ""."""
        for point in points:
            name = point.name.encode()
            if len(name) > _NAME_BYTES:  # the driver knows only its beginning
                continue
            try:
                found = self._find(name)
            except OSError as error:
                if error.errno in _NO_DRIVER:
                    return ""
                raise self._problem(error) from error
            if found is None:
                return f"the driver knows no {point.name}"
            offset, bit, bits = found
            if offset != point.offset or (bits == 1 and bit != point.bit):
                return f"{point.name} lies at byte {offset} for the driver, at {point.offset} in the file"
        return ""

    def _find(self, name: bytes) -> tuple[int, int, int] | None:
        variable = bytearray(_VARIABLE.pack(name, 0, 0, 0))
        try:
            fcntl.ioctl(self._fd, _KB_FIND_VARIABLE, variable)
        except OSError as error:
            if error.errno in (errno.EFAULT, errno.ENOENT):  # older and newer drivers
                return None
            raise
        _name, offset, bit, bits = _VARIABLE.unpack(variable)
        return offset, bit, bits

    def _problem(self, error: OSError) -> DeviceProblem:
        if error.errno == errno.EAGAIN:
            return NotRunning(
                f"device {self._device}: the piControl driver exchanges no data with its modules "
                "(it is being reset, or the PiBridge does not start: see `piTest -d` and dmesg)"
            )
        return DeviceProblem(f"device {self._device}: {self._path} cannot be read: {error.strerror}")


def _open(path: str, device: str) -> int:
    try:
        # Without O_NONBLOCK a path that happens to be a FIFO would wait for a writer for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise DeviceProblem(f"device {device}: {path} {_why(path, error)}") from error
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISCHR(mode) or stat.S_ISREG(mode)):
        os.close(fd)
        raise DeviceProblem(f"device {device}: {path} is no process image: it is /dev/piControl0 on a RevPi")
    return fd


def _why(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return (
            "does not exist: the piControl driver is not loaded (is this a RevPi?), or the service may not "
            "see it, then write what it may with `edge-gateway systemd-dropin`"
        )
    if error.errno == errno.EPERM:
        return "is forbidden to the service: write what it may open with `edge-gateway systemd-dropin`"
    if error.errno == errno.EACCES:
        return f"may not be read by the gateway's user: it has to be in the group {_group(path)}"
    return f"cannot be opened: {error.strerror}"


def _group(path: str) -> str:
    try:
        return grp.getgrgid(os.stat(path).st_gid).gr_name  # noqa: PTH116
    except (OSError, KeyError):
        return "picontrol"
