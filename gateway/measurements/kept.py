"""A measurement as the store has it: by its row, or where that is lost, by what its blocks say."""

import logging

from gateway.measurements.record import Measurement, from_text
from gateway.store import Store
from gateway.store.columns import CorruptBlock
from gateway.store.recording import decode_part
from gateway.store.recordings import MeasurementRow

_log = logging.getLogger(__name__)


async def understood(store: Store, row: MeasurementRow) -> Measurement | None:
    """Return the measurement of a row; None: neither the row nor any of its blocks can be understood."""
    text: str | bytes = row.text or await _head(store, row.name)
    try:
        return from_text(text)
    except ValueError as error:
        _log.error("measurement %s is not understood, and left in the store: %s", row.name, error)
        return None


async def _head(store: Store, name: str) -> bytes:
    async for data in store.recording(name):
        try:
            return decode_part(data).head
        except CorruptBlock:
            continue
    return b""
