"""What a database says of a tag beside its values."""

from itertools import islice

from gateway.controls.devices import TagAbout
from gateway.protocols.can.database import Signal
from gateway.protocols.can.generated import LONGEST_NUMBER

_MOST_TEXTS = 1000


def about(signal: Signal) -> TagAbout:
    """Return type, unit, range and texts; of the physical value, before any scaling of the tag."""
    told = signal.low is not None and signal.high is not None and signal.low < signal.high
    return TagAbout(
        type=type_of(signal),
        unit=signal.unit,
        range=(signal.low, signal.high) if told else None,  # type: ignore[arg-type]
        enum={str(physical(signal, raw)): text for raw, text in islice(signal.texts.items(), _MOST_TEXTS)},
    )


def physical(signal: Signal, raw: int) -> int | float:
    """Return what a raw value stands for."""
    return raw if (signal.scale, signal.offset) == (1, 0) else raw * signal.scale + signal.offset


def type_of(signal: Signal) -> str:
    """Return the type of the raw value: uint12, int16, float32, or bytes where no number holds it."""
    if signal.length > LONGEST_NUMBER:
        return "bytes"
    kind = "float" if signal.is_float else "int" if signal.signed else "uint"
    return f"{kind}{signal.length}"
