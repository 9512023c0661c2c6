r"""InfluxDB line protocol as samples.

    measurement[,tag=value...] field=value[,field=value...] [timestamp]

Each field becomes a sample of the tag `measurement/tag=value/.../field`, the tags in the order of their names
(so that the same set is the same series, however it was written). Values: `1.5` and `1e3` a double, `1i` and
`1u` integers, `"text"`, `t T true True TRUE` and `f F false False FALSE`. In names a backslash takes its
meaning from a comma, an equals sign or a space, in a text from `"` and a backslash; else it is itself. A text
may hold line ends. A line that begins with `#` is a comment.
Source: https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/
"""

import math
import re
from collections.abc import Iterator
from typing import Final

from gateway.controls.devices import PushedSample
from gateway.model import Value
from gateway.store.values import FIRST_TS, LAST_TS, Unfit, value_bytes

PRECISIONS: Final = {
    "ns": (1, 1000),
    "n": (1, 1000),
    "us": (1, 1),
    "u": (1, 1),
    "ms": (1000, 1),
    "s": (1_000_000, 1),
}
"""What a timestamp counts, as factor and divisor to microseconds. A nanosecond is rounded down."""
_NAME: Final = re.compile(r"(?:[^\\, =\n]|\\.)+", re.DOTALL)
_MEASUREMENT: Final = re.compile(r"(?:[^\\, \n]|\\.)+", re.DOTALL)
_TEXT: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_BARE: Final = re.compile(r"[^, \n]+")
_INTEGER: Final = re.compile(r"([+-]?[0-9]{1,20})([iu])", re.ASCII)
_FLOAT: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_TIME: Final = re.compile(r"-?[0-9]{1,25}", re.ASCII)
_WORDS: Final = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(
    ("f", "F", "false", "False", "FALSE"), False
)
_BLANK: Final = re.compile(r"(?:[ \t\r]*(?:#[^\n]*)?\n)*[ \t\r]*(?:#[^\n]*)?")


class WrongLine(ValueError):
    """A line is not line protocol; `line` counts from 1 and is where the faulty one begins."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line} {message}")
        self.line = line


def samples(text: str, precision: str, own: tuple[int, int]) -> Iterator[PushedSample]:
    """Yield a sample for each field; `own` are the time and flags of those without a timestamp. WrongLine."""
    at, line = 0, 1
    while True:
        begin = at
        at = _BLANK.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing too
        line += text.count("\n", begin, at)
        if at >= len(text):
            return
        reader = _Line(text, at, line, precision)
        yield from reader.samples(own)
        line += text.count("\n", at, reader.at)
        at = reader.at


class _Line:
    """One line, read from left to right."""

    def __init__(self, text: str, at: int, number: int, precision: str) -> None:
        self._text, self.at, self._number, self._precision = text, at, number, precision

    def samples(self, own: tuple[int, int]) -> list[PushedSample]:
        series = self._series()
        self._spaces()
        fields = [(self._name("field"), self._value())]
        while self._take(","):
            fields.append((self._name("field"), self._value()))
        self._spaces()
        given = self._time()
        ts, flags = own if given is None else (given, 0)
        return [PushedSample(f"{series}/{name}", value, ts, 0, flags) for name, value in fields]

    def _series(self) -> str:
        measurement = self._match(_MEASUREMENT, "has no measurement")
        tags = []
        while self._take(","):
            name = self._name("tag")
            tags.append(f"{name}={_plain(self._match(_NAME, f'has no value of the tag {name!r}'))}")
        return "/".join([_plain(measurement), *sorted(tags)])

    def _name(self, what: str) -> str:
        name = _plain(self._match(_NAME, f"has no {what} where one is wanted: NAME=VALUE"))
        if not self._take("="):
            raise self._wrong(f"has no = after the {what} {name[:40]!r}")
        return name

    def _value(self) -> Value:
        if found := _TEXT.match(self._text, self.at):
            self.at = found.end()
            return self._stored(re.sub(r'\\(["\\])', r"\1", found[1]))
        word = self._match(_BARE, "has no value after =").rstrip("\r")
        if word in _WORDS:
            return _WORDS[word]
        if found := _INTEGER.fullmatch(word):
            value = int(found[1])
            low, high = (-(2**63), 2**63 - 1) if found[2] == "i" else (0, 2**64 - 1)
            if low <= value <= high:
                return value
            raise self._wrong(f"has an integer beyond 64 bits: {word[:40]}")
        if _FLOAT.fullmatch(word) and math.isfinite(number := float(word)):
            return number
        raise self._wrong(f"has a value that is none: {word[:40]!r}; a text stands in quotes")

    def _stored(self, text: str) -> str:
        try:
            value_bytes(text)
        except Unfit as unfit:
            raise self._wrong(f"cannot be stored: {unfit}") from None
        return text

    def _time(self) -> int | None:
        ts = None
        if found := _TIME.match(self._text, self.at):
            self.at = found.end()
            factor, divisor = PRECISIONS[self._precision]
            ts = int(found[0]) * factor // divisor
            if not FIRST_TS <= ts <= LAST_TS:
                raise self._wrong(
                    f"has a timestamp more than 140 000 years from 1970: {found[0]}, with precision "
                    f"{self._precision}"
                )
        self._spaces()
        self._take("\r")
        if self.at < len(self._text) and not self._take("\n"):
            raise self._wrong(f"goes on where it should end: {self._text[self.at : self.at + 20]!r}")
        return ts

    def _match(self, pattern: re.Pattern[str], problem: str) -> str:
        found = pattern.match(self._text, self.at)
        if found is None:
            raise self._wrong(problem)
        self.at = found.end()
        return found[0]

    def _take(self, character: str) -> bool:
        if self._text.startswith(character, self.at):
            self.at += 1
            return True
        return False

    def _spaces(self) -> None:
        while self._take(" "):
            pass

    def _wrong(self, message: str) -> WrongLine:
        return WrongLine(self._number, message)


def _plain(name: str) -> str:
    return re.sub(r"\\([, =])", r"\1", name)
