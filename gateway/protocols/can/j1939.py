"""SAE J1939: parameter groups, their numbers in 29-bit ids, and raw values that stand for no value."""

import re
from typing import Final

from gateway.canbus import EXTENDED
from gateway.protocols.can.database import Signal

GLOBAL: Final = 0xFF
"""The destination address of a broadcast."""
_PDU2 = 240
_SAYS_NONE = re.compile(
    r"not.?avail|n/?a\b|sna\b|not.?(supported|installed|defined|used)|error|fault|fail|invalid|"
    r"don'?t.?care|no.?action|reserved",
    re.IGNORECASE,
)


def pgn_of(can_id: int) -> int:
    """Return the parameter group number of a 29-bit id (J1939-21, 5.1.2): 18 bits."""
    pgn = can_id >> 8 & 0x3FFFF
    return pgn if pgn >> 8 & 0xFF >= _PDU2 else pgn & 0x3FF00


def source_of(can_id: int) -> int:
    return can_id & 0xFF


def destination_of(can_id: int) -> int:
    """Return the destination address: GLOBAL for what is broadcast by its format (PDU2)."""
    return can_id >> 8 & 0xFF if (can_id >> 16 & 0xFF) < _PDU2 else GLOBAL


def pgn_filter(pgn: int) -> tuple[int, int]:
    """Return (can_id, mask) of a parameter group for the kernel: any priority, source and destination."""
    mask = 0x3FFFF00 if pgn >> 8 & 0xFF >= _PDU2 else 0x3FF0000
    return EXTENDED | pgn << 8, mask


def indicators(signal: Signal) -> tuple[int, int] | None:
    """Return from which raw value on a parameter is "not available", and from which an error is indicated.

    J1939-71, 5.1.4 and table 1: of a byte and more the highest byte is 0xFF or 0xFE, of fewer bits all are
    set, or all but the last. None: every raw value is a value, as where the database has texts for them.
    """
    if signal.is_float or signal.signed or not 1 < signal.length <= 64:
        return None
    bits = signal.length
    found = (
        (0xFF << bits - 8, 0xFE << bits - 8)
        if bits >= 12 or bits == 8
        else ((1 << bits) - 1, (1 << bits) - 2)
    )
    for raw in found:
        text = signal.texts.get(raw)
        if text is not None and not _SAYS_NONE.search(text):
            return None
    return found
