"""Reads frames off a datagram socket in batches: a raw CAN socket, or another one with the same records.

A record is a struct can_frame (16 bytes) or canfd_frame (72 bytes) of linux/can.h; both have the id at 0, the
length at 4 and the data at 8. One call of recvmmsg(2) fetches hundreds of them, with the kernel's times.
"""

import ctypes
import errno
import os
import socket
import struct
from itertools import starmap

from gateway.canbus.frames import ERROR, Frames

_MOST = 512
_RECORD = struct.Struct("=IB3x8s56x")
_RECORD_FD = struct.Struct("=IB3x64s")
_STAMP = struct.Struct("=16xqq")  # struct cmsghdr, then struct timespec
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_SO_MEMINFO = 55
_DROPS = 8  # SK_MEMINFO_DROPS of linux/sock_diag.h: frames that found no room since the socket was made


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("hdr", _Msghdr), ("len", ctypes.c_uint))


class Records:
    """Reads a socket, which is the caller's to close."""

    MOST = _MOST
    """So many records are fetched by one call."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket = sock
        self._recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._data = ctypes.create_string_buffer(_MOST * _RECORD.size)
        self._stamps = ctypes.create_string_buffer(_MOST * _STAMP.size)
        self._iovecs = (_Iovec * _MOST)()
        self._headers = (_Mmsghdr * _MOST)()
        data, stamps = ctypes.addressof(self._data), ctypes.addressof(self._stamps)
        for i, (iovec, header) in enumerate(zip(self._iovecs, self._headers, strict=True)):
            iovec.base, iovec.len = data + i * _RECORD.size, _RECORD.size
            header.hdr.iov, header.hdr.iovlen = ctypes.pointer(iovec), 1
            header.hdr.control, header.hdr.controllen = stamps + i * _STAMP.size, _STAMP.size

    def read(self) -> tuple[Frames, list[tuple[int, bytes]]]:
        """Return what is there, at most 512 frames: the frames, and apart the (id, data) of error frames.

        OSError: the socket's interface went down or away.
        """
        count = self._recvmmsg(self._socket.fileno(), self._headers, _MOST, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return Frames(), []
            raise OSError(number, os.strerror(number))
        return self._parsed(count)

    @property
    def drops(self) -> int:
        """How many frames found no room in the socket's buffer so far; a u32 that wraps."""
        info = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_DROPS + 1))
        return int.from_bytes(info[4 * _DROPS :], "little")

    def _parsed(self, count: int) -> tuple[Frames, list[tuple[int, bytes]]]:
        records = memoryview(self._data)[: count * _RECORD.size]
        ids, lengths, data = (list(column) for column in zip(*_RECORD.iter_unpack(records), strict=True))
        longest = max(lengths)
        if longest > 8:
            data = [record[2] for record in _RECORD_FD.iter_unpack(records)]
        if longest != min(lengths) or longest not in (8, 64):
            data = [each[:length] for each, length in zip(data, lengths, strict=True)]
        stamps = memoryview(self._stamps)[: count * _STAMP.size]
        frames = Frames(list(starmap(_microseconds, _STAMP.iter_unpack(stamps))), ids, data)
        places = [i for i, can_id in enumerate(ids) if can_id & ERROR]
        errors = [(ids[i], data[i]) for i in places]
        for place in reversed(places):
            del frames.ts[place], frames.ids[place], frames.data[place]
        return frames, errors


def _microseconds(seconds: int, nanoseconds: int) -> int:
    return seconds * 1_000_000 + nanoseconds // 1000
