"""From a database file to plain data, through cantools. Only the child process imports this."""

import codecs
import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cantools.database
from cantools.database.can import Database
from cantools.database.can import Message as Theirs
from cantools.database.can import Signal as TheirSignal
from cantools.database.errors import Error, UnsupportedDatabaseFormatError

from gateway.canbus import EXTENDED
from gateway.protocols.can.checking import disagreeing
from gateway.protocols.can.database import Message, Signal, Unreadable
from gateway.protocols.can.generated import usable
from gateway.protocols.can.j1939 import pgn_of

_LONGEST_COMMENT = 200
_LONGEST_NAME = 128
_XML_ENCODING = re.compile(rb"""<\?xml[^>]*encoding=["']([\w.-]+)""")


def read(
    path: Path, data: bytes, encoding: str | None, *, j1939: bool | None
) -> tuple[list[Message], list[str]]:
    """Return the messages of a file and sentences on what of it is not used. Unreadable: nothing of it is."""
    kind = path.suffix.lower()[1:]
    text = _text(path, data, encoding, kind)
    try:
        # Not strict: what overlaps, or does not fit, is judged signal by signal.
        database = cantools.database.load_string(text, kind, strict=False)
    except UnsupportedDatabaseFormatError as error:
        raise Unreadable(_sentence(path, text, error.__cause__ or error)) from error
    assert isinstance(database, Database)  # a CDD is no format of ours
    found, notes = [], []
    for theirs in database.messages:
        if theirs.is_container:
            notes.append(f"{path.name}: {theirs.name} is a container of other messages and is not decoded")
            continue
        message, dropped = _message(theirs, path.name, j1939=j1939)
        found.append(message)
        notes += dropped
    return found, notes


def _text(path: Path, data: bytes, encoding: str | None, kind: str) -> str:
    if encoding is None and kind in ("kcd", "arxml"):
        declared = _XML_ENCODING.match(data)
        encoding = declared[1].decode() if declared else "utf-8-sig"
    try:
        if encoding is not None:
            return data.decode(encoding)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if encoding is None:  # what DBC editors write on Windows
            return data.decode("cp1252", errors="replace")
        line = data.count(b"\n", 0, error.start) + 1
        name = codecs.lookup(encoding).name
        raise Unreadable(
            f"{path}:{line}: its text is not {name}: give its `encoding`, or save it as UTF-8"
        ) from error
    except LookupError as error:
        raise Unreadable(f"{path}:1: {error}: give its `encoding`") from error


def _message(theirs: Theirs, file: str, *, j1939: bool | None) -> tuple[Message, list[str]]:
    extended = theirs.is_extended_frame
    grouped = extended and (theirs.protocol == "j1939" if j1939 is None else j1939)
    message = Message(
        name=theirs.name,
        can_id=theirs.frame_id | (EXTENDED if extended else 0),
        length=theirs.length,
        signals=tuple(map(_signal, theirs.signals)),
        pgn=pgn_of(theirs.frame_id) if grouped else None,
        cycle_ms=_cycle_ms(theirs),
        comment=_clean(theirs.comment or "")[:_LONGEST_COMMENT],
        file=file,
    )
    why = _unusable(message)
    kept = _with(message, (signal for signal in message.signals if not why[signal.name]))
    for name in disagreeing(theirs, kept):
        why[name] = "what is decoded of it differs from what cantools decodes"
    kept = _with(message, (signal for signal in message.signals if not why[signal.name]))
    return _renamed(kept), [
        _clean(f"{file}: signal {name} of message {message.name} is not decoded: {reason}")
        for name, reason in why.items()
        if reason
    ]


def _unusable(message: Message) -> dict[str, str]:
    """Return by each signal's name why it cannot be decoded, or ""."""
    why = {signal.name: usable(signal, message) for signal in message.signals}
    for name, count in Counter(signal.name for signal in message.signals).items():
        why[name] = why[name] or (f"there are {count} signals of that name" if count > 1 else "")
    found = any(why.values())
    while found:  # a multiplexer may be on a page itself
        orphans = [s for s in message.signals if not why[s.name] and why.get(s.multiplexed_by)]
        why |= {each.name: f"its multiplexer {each.multiplexed_by} is not" for each in orphans}
        found = bool(orphans)
    return why


def _cycle_ms(theirs: Theirs) -> int | None:
    """Return how often a message comes; None for one that comes when something happens, or while it does."""
    kind = re.sub(r"[\W_]", "", theirs.send_type or "cyclic").lower()
    cyclic = "cycl" in kind and "ifactive" not in kind
    return int(theirs.cycle_time) if theirs.cycle_time and cyclic else None


def _with(message: Message, signals: Iterable[Signal]) -> Message:
    kept = tuple(signals)
    return message if len(kept) == len(message.signals) else replace(message, signals=kept)


def _renamed(message: Message) -> Message:
    """Return a message whose names can be printed; most have such names."""
    signals = tuple(
        replace(each, name=_name(each.name), multiplexed_by=_name(each.multiplexed_by))
        for each in message.signals
    )
    return replace(message, name=_name(message.name), signals=signals)


def _name(text: str) -> str:
    return _clean(text)[:_LONGEST_NAME]


def _signal(theirs: TheirSignal) -> Signal:
    invalid = theirs.raw_invalid
    return Signal(
        name=theirs.name,
        start=theirs.start,
        length=theirs.length,
        big_endian=theirs.byte_order == "big_endian",
        signed=theirs.is_signed and not theirs.conversion.is_float,
        is_float=theirs.conversion.is_float,
        scale=_number(theirs.conversion.scale),
        offset=_number(theirs.conversion.offset),
        unit=_clean(theirs.unit or ""),
        low=_limit(theirs.minimum),
        high=_limit(theirs.maximum),
        texts={
            int(raw): _clean(str(text))[:_LONGEST_COMMENT]
            for raw, text in (theirs.conversion.choices or {}).items()
        },
        multiplexer=theirs.is_multiplexer,
        multiplexed_by=theirs.multiplexer_signal or "",
        pages=tuple(_ranges(theirs.multiplexer_ids or ())),
        invalid=int(invalid) if invalid is not None and float(invalid).is_integer() else None,
        comment=_clean(theirs.comment or "")[:_LONGEST_COMMENT],
    )


def _number(value: Any) -> int | float:
    """Return a factor in a type that a sample can be made with: integers keep 64 bits exact."""
    return value if type(value) is int and abs(value) < 1 << 64 else float(value)


def _limit(value: Any) -> float | None:
    return None if value is None else float(value)


def _ranges(values: Iterable[int]) -> Iterable[tuple[int, int]]:
    for _, run in itertools.groupby(enumerate(sorted(set(values))), lambda pair: pair[1] - pair[0]):
        members = [value for _, value in run]
        yield members[0], members[-1]


def _clean(text: str) -> str:
    """Return one line of what can be printed."""
    return " ".join(
        "".join(c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text).split()
    )


_SYNTAX = re.compile(r"(?:Invalid syntax at )?line (\d+), column (\d+)(?:: \"?(.*?)\"?)?$", re.DOTALL)


def _sentence(path: Path, text: str, error: BaseException) -> str:
    said = _clean(str(error)) or type(error).__name__
    place = _SYNTAX.search(said)
    if place is not None:
        near = f": {place[3][:120]}" if place[3] else f": {said}"
        return (
            f"{path}:{place[1]}:{place[2]}: this is not understood{near}; a `;` or a quotation mark is "
            "missing there or in the line before, or the file was cut off: open it in an editor for it"
        )
    if isinstance(error, MemoryError | RecursionError):
        return f"{path}: it cannot be read, it is too large or too deeply nested ({type(error).__name__})"
    line = _line(text, said)
    if not isinstance(error, Error):
        said = f"cantools cannot read it ({type(error).__name__}: {said}): is it a {path.suffix} file?"
    if "more than 11 bits" in said:
        said += " An id of 29 bits is written with 2147483648 added to it."
    return f"{path}:{line}: {said}" if line else f"{path}: {said}"


def _line(text: str, said: str) -> int:
    """Return the line of what an error names; 0: it is not found."""
    for name in re.findall(r"(?:message|signals?|and|multiplexer) [\"']?([\w.]+?)[\"']?(?=[\s.,]|$)", said):
        declared = re.search(rf"(?:BO_\s+\d+|SG_|name=|SHORT-NAME>|\[)\W*{re.escape(name)}\b", text)
        if declared is not None:
            return text.count("\n", 0, declared.start()) + 1
    return 0
