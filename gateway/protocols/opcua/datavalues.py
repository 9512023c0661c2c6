"""DataValues as they lie on the wire (Part 6, 5.2.2.17) to columns: a run of one shape by one cached struct.

Scalars of a fixed size, their arrays, text and bytes are decoded here. Everything else goes to asyncua, for
that value only. The values are those that asyncua gives. The one difference: asyncua expects picoseconds
after both times, the standard and other servers give them after each.
"""

import asyncio
import struct
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any, NamedTuple

from gateway.model import Flag, Value
from gateway.protocols.opcua.bounded import AT_MOST, AT_ONCE, BROKEN, why
from gateway.protocols.opcua.columns import Columns
from gateway.protocols.opcua.extents import data_value_end
from gateway.protocols.opcua.values import Reading, text_of
from gateway.protocols.opcua.variants import FIXED, INT32, STRING, UINT32, VariantReader

_VALUE, _STATUS, _SOURCE, _SERVER, _SOURCE_PICO, _SERVER_PICO = 1, 2, 4, 8, 16, 32
_STRIDES = (64, 8, 1)
_LEAST_RUN = 8
"""Of values of one shape, so that they are decoded together."""
_SLICE = 1000
"""Values that are decoded before the event loop gets a turn: under a millisecond."""
_MOST_PASSED = 100
"""Values of one message that are passed over: each is looked at on a thread."""
_BEFORE_1970_US = 11_644_473_600_000_000
_END_OF_TIME = (datetime(9999, 12, 31, 23, 59, 59) - datetime(1601, 1, 1)) // timedelta(seconds=1) * 10**7  # noqa: DTZ001
"""FILETIME of 9999-12-31T23:59:59: what is later counts as that (Part 6, 5.2.2.5)."""
_FIRST_MOMENT = 10
"""Below, a FILETIME is 1601 in microseconds, which says that no time is known."""


class Broken(NamedTuple):
    """A value that cannot be decoded; where its end is not known, all after it are lost too."""

    key: int
    lost: int
    why: str


class Decoded(NamedTuple):
    """What came of so many DataValues: slices of at most a thousand, and what could not be decoded.

    The keys of a slice that has places as keys are in a row.
    """

    slices: list[Columns]
    broken: Sequence[Broken] = ()


async def decode(data: bytes, at: int, end: int, count: int, *, keyed: bool) -> Decoded:
    """Decode `count` DataValues in data[at:end]; `keyed`: a client handle stands before each.

    The event loop gets a turn after each slice, and a value that takes long goes to a thread.
    """
    decoder = _Decoder(data, at, end, count, keyed=keyed)
    slices: list[Columns] = []
    while decoder.left:
        if slices:
            await asyncio.sleep(0)
        slices.append(decoder.slice())
        if decoder.heavy:
            slices.append(await asyncio.to_thread(decoder.heavy_one))
    slices = [columns for columns in slices if len(columns)]
    return Decoded(slices, decoder.broken)


def decode_at_once(data: bytes, at: int, end: int, count: int, *, keyed: bool) -> Decoded:
    """Decode without a turn for anybody else, however long it takes."""
    decoder = _Decoder(data, at, end, count, keyed=keyed)
    slices: list[Columns] = []
    while decoder.left:
        slices.append(decoder.heavy_one() if decoder.heavy else decoder.slice())
    return Decoded(slices, decoder.broken)


class _Shape(NamedTuple):
    """Where the fields lie in a DataValue of one encoding mask and, with a value, one type of fixed size."""

    typed: bool
    status: bool
    time: int
    """_SOURCE or _SERVER: which is taken; 0: there is none."""
    one: struct.Struct
    """Key, value, status and time, where there."""


class _Mask(NamedTuple):
    """What DataValues of one encoding mask, all with a value, have in common."""

    shape: _Shape
    ones: tuple[struct.Struct | None, ...]
    """By the byte of the type what decodes one of fixed size."""
    rest: struct.Struct
    """Status and time after a text."""


def _shape(mask: int, kind: int, *, keyed: bool) -> _Shape | None:
    if not mask & _VALUE:
        return _fixed(mask, None, keyed)
    return _fixed(mask, FIXED[kind], keyed) if kind in FIXED else None


@cache  # 800 at most: what no device sends is not asked for
def _fixed(mask: int, form: str | None, keyed: bool) -> _Shape:  # in the key of the cache
    one = "I" * keyed + "x" + (f"x{form}" if form else "") + _rest(mask)
    time = mask & _SOURCE or mask & _SERVER
    return _Shape(form is not None, bool(mask & _STATUS), time, struct.Struct("<" + one))


@lru_cache(maxsize=32)
def _many(one: str) -> tuple[struct.Struct, ...]:
    """Return what decodes as many in a row as `_STRIDES` says; some ten kB each."""
    return tuple(struct.Struct("<" + one[1:] * stride) for stride in _STRIDES)


@cache
def _mask(mask: int, *, keyed: bool) -> _Mask | None:
    if not mask & _VALUE:
        return None
    shapes = {kind: _fixed(mask, form, keyed) for kind, form in FIXED.items()}
    ones = tuple(shapes[kind].one if kind in shapes else None for kind in range(256))
    return _Mask(shapes[1], ones, struct.Struct("<" + _rest(mask)))


def _rest(mask: int) -> str:
    """Return what is taken of the part after the value: status, and source's or else server's time."""
    return "".join((
        "I" * bool(mask & _STATUS),
        "q" * bool(mask & _SOURCE), "2x" * bool(mask & _SOURCE_PICO),
        ("8x" if mask & _SOURCE else "q") * bool(mask & _SERVER), "2x" * bool(mask & _SERVER_PICO),
    ))  # fmt: skip


@cache
def _tail(mask: int) -> struct.Struct:
    """Return the part after the value: status, source's time, server's time, where there."""
    return struct.Struct("".join((
        "<", "I" * bool(mask & _STATUS), "q" * bool(mask & _SOURCE), "2x" * bool(mask & _SOURCE_PICO),
        "q" * bool(mask & _SERVER), "2x" * bool(mask & _SERVER_PICO),
    )))  # fmt: skip


class _Decoder(VariantReader):
    """Goes through DataValues, slice by slice."""

    def __init__(self, data: bytes, at: int, end: int, count: int, *, keyed: bool) -> None:
        super().__init__(data, end)
        self._at = at
        self._keyed = keyed
        self._lead = 4 if keyed else 0
        self._place = 0
        self._one_by_one = 0
        """So many are to be decoded each on its own."""
        self.left = count
        self.heavy = False
        """The next value takes long, or cannot be decoded."""
        self.broken: list[Broken] = []

    def slice(self) -> Columns:
        """Decode some, until they are many, took long or one is broken."""
        columns = Columns()
        self.reads = AT_ONCE
        while self.left and len(columns) < _SLICE and self.reads > 0:
            if not self._one_by_one and (self._run(columns) or self._mixed(columns)):
                continue
            try:
                self._single(columns)
            except BROKEN:
                # What came before it may have taken the most: alone it may do.
                self.heavy = not len(columns)
                break
        return columns

    def heavy_one(self) -> Columns:
        """Decode one value that may take long, or else pass over it."""
        columns = Columns()
        self.heavy = False
        self.reads = AT_MOST
        try:
            self._single(columns)
        except BROKEN as error:
            self._pass_over(why(error))
        return columns

    def _pass_over(self, reason: str) -> None:
        """Go on after the next value, which cannot be decoded, or give up all that is left."""
        key, before = self._place, self.left
        if self._keyed:
            key = 2**32  # nobody's, unless it can be read
            with suppress(ValueError):
                key = int(self.unpack(UINT32, self._at)[0])
        stop = None
        if len(self.broken) < _MOST_PASSED:
            with suppress(ValueError):
                stop = data_value_end(self.data, self._at + self._lead, self.end)
        if stop is None:
            self.left = 0
        else:
            self._pass(1, stop)
        self.broken.append(Broken(key, before - self.left, reason))

    def _run(self, columns: Columns) -> bool:
        """Decode as many as have the shape of the first, where they are some."""
        start = self._at + self._lead
        if start + 1 >= self.end:
            return False
        mask = self.data[start]
        shape = _shape(mask & 0x3F, self.data[start + 1] if mask & _VALUE else 0, keyed=self._keyed)
        if shape is None:
            return False
        run = self._length(shape, min(self.left, _SLICE - len(columns)))
        if run < _LEAST_RUN:
            return False
        return self._extend(columns, shape, self._fields(shape, run), self._at + run * shape.one.size)

    def _length(self, shape: _Shape, most: int) -> int:
        """Return how many of the next values have that shape."""
        data, size, start = self.data, shape.one.size, self._at + self._lead
        most = min(most, (self.end - self._at) // size)
        if not most:
            return 0
        masks = data[start : start + (most - 1) * size + 1 : size]
        run = len(masks) - len(masks.lstrip(masks[:1]))
        if shape.typed:
            kinds = data[start + 1 : start + 1 + (run - 1) * size + 1 : size]
            run = len(kinds) - len(kinds.lstrip(kinds[:1]))
        return run

    def _fields(self, shape: _Shape, run: int) -> list[list[Any]]:
        width = self._keyed + shape.typed + shape.status + bool(shape.time)
        fields: list[list[Any]] = [[] for _ in range(width)]
        at, done = self._at, 0
        for stride, many in zip(_STRIDES, _many(shape.one.format), strict=True):
            while done + stride <= run:
                flat = many.unpack_from(self.data, at)
                for place, field in enumerate(fields):
                    field.extend(flat[place::width])
                at += many.size
                done += stride
        return fields

    def _mixed(self, columns: Columns) -> bool:
        """Decode as many as have the mask of the first and are of fixed size or text; False: none."""
        data, at, lead, end = self.data, self._at, self._lead, self.end
        if at + lead + 1 >= end or (common := _mask(data[at + lead] & 0x3F, keyed=self._keyed)) is None:
            return False
        mask, ones = data[at + lead], common.ones
        most = min(self.left, _SLICE - len(columns))
        rows: list[tuple[Any, ...]] = []
        before, same = None, 0
        while len(rows) < most and at + lead + 1 < end and data[at + lead] == mask:
            kind = data[at + lead + 1]
            one = ones[kind]
            same = same + 1 if one is before else 0
            before = one
            if one is not None:
                if at + one.size > end or same >= _LEAST_RUN:
                    break
                rows.append(one.unpack_from(data, at))
                at += one.size
            elif kind != STRING or (found := self._text_row(at, common.rest)) is None:
                break
            else:
                rows.append(found[0])
                at = found[1]
        return bool(rows) and self._extend(
            columns, common.shape, list(map(list, zip(*rows, strict=True))), at
        )

    def _text_row(self, at: int, rest: struct.Struct) -> tuple[tuple[Any, ...], int] | None:
        """Decode a DataValue with a text; None: it takes a closer look."""
        start = at + self._lead + 6
        if start > self.end:
            return None
        (size,) = INT32.unpack_from(self.data, start - 4)
        stop = start + size
        if size < 0 or stop + rest.size > self.end:
            return None
        key = UINT32.unpack_from(self.data, at) if self._keyed else ()
        row = (*key, text_of(self.data[start:stop]), *rest.unpack_from(self.data, stop))
        return row, stop + rest.size

    def _extend(self, columns: Columns, shape: _Shape, fields: list[list[Any]], at: int) -> bool:
        """Add the fields of values that end at `at`; False: a time among them takes a closer look."""
        run = len(fields[0]) if fields else (at - self._at) // shape.one.size
        if shape.time:
            times = fields.pop()
            if min(times) < _FIRST_MOMENT or max(times) >= _END_OF_TIME:
                self._one_by_one = run
                return False
            if times[0] == times[-1] and times.count(times[0]) == run:  # of one scan of a PLC
                columns.ts += [times[0] // 10 - _BEFORE_1970_US] * run
            else:
                columns.ts += [time // 10 - _BEFORE_1970_US for time in times]
        else:
            columns.ts += [None] * run
            columns.timed = False
        columns.flags += [0 if shape.time == _SOURCE else int(Flag.SERVER_TIME)] * run
        columns.statuses += fields.pop() if shape.status else [0] * run
        columns.values += fields.pop() if shape.typed else [None] * run
        columns.keys += fields.pop() if self._keyed else range(self._place, self._place + run)
        self._pass(run, at)
        return True

    def _single(self, columns: Columns) -> None:
        """Decode one value of any kind. Spent: it takes more than is left for this slice."""
        key, at = self._place, self._at
        if self._keyed:
            key = int(self.unpack(UINT32, at)[0])
            at += 4
        reading, at = self._data_value(at)
        columns.add(key, reading)
        self._pass(1, at)

    def _pass(self, count: int, at: int) -> None:
        self._one_by_one = max(0, self._one_by_one - count)
        self._place += count
        self.left -= count
        self._at = at

    def _data_value(self, at: int) -> tuple[Reading, int]:
        (mask,) = self.take(at, 1)
        at += 1
        value: Value = None
        if mask & _VALUE:
            value, at = self.variant(at)
        tail = _tail(mask & 0x3E)
        fields = iter(self.unpack(tail, at))
        status = next(fields) if mask & _STATUS else 0
        source = _moment(next(fields)) if mask & _SOURCE else None
        server = _moment(next(fields)) if mask & _SERVER else None
        at += tail.size
        if source is not None:
            return Reading(value, source, status, 0), at
        return Reading(value, server, status, Flag.SERVER_TIME), at


def _moment(filetime: int) -> int | None:
    """Return microseconds since 1970, or None where a FILETIME says that there is no time."""
    if filetime < _FIRST_MOMENT:
        return None
    return min(filetime, _END_OF_TIME) // 10 - _BEFORE_1970_US
