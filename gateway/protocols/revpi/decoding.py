"""Bytes of the process image to values, all of them with one struct."""

import struct
from collections.abc import Callable, Sequence

from gateway.model import Value
from gateway.protocols.revpi.layout import Point

_LETTERS = {1: "b", 2: "h", 4: "i", 8: "q"}


class Decoder:
    """Takes the values of some points out of an image, in their order."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._count = len(points)
        self._bits = [(i, p.offset, 1 << p.bit) for i, p in enumerate(points) if p.bit is not None]
        self._order: list[int] = []
        self._others: list[tuple[int, Callable[[bytes], Value]]] = []
        numbers = [(p.offset, i, p) for i, p in enumerate(points) if p.bit is None]
        code, end = "<", 0
        for offset, i, point in sorted(numbers, key=lambda number: number[:2]):
            letter = _LETTERS.get(point.length)
            if letter is None or offset < end:  # an odd length, or a second tag of the same bytes
                self._others.append((i, _single(point)))
                continue
            code += f"{offset - end}x{letter if point.signed else letter.upper()}"
            end = offset + point.length
            self._order.append(i)
        self._struct = struct.Struct(code)

    def __call__(self, image: bytes) -> list[Value]:
        values: list[Value] = [None] * self._count
        for i, value in zip(self._order, self._struct.unpack_from(image), strict=True):
            values[i] = value
        for i, offset, mask in self._bits:
            values[i] = image[offset] & mask != 0
        for i, decode in self._others:
            values[i] = decode(image)
        return values


def _single(point: Point) -> Callable[[bytes], Value]:
    place, signed = slice(point.offset, point.offset + point.length), point.signed
    if point.length > 8:
        return lambda image: image[place]
    return lambda image: int.from_bytes(image[place], "little", signed=signed)
