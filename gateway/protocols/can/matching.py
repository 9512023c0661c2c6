"""Which message of a database a frame is: by its id, or by its parameter group whoever sends it."""

from typing import Final

from gateway.canbus import EXTENDED, REMOTE
from gateway.protocols.can.database import Database, Message
from gateway.protocols.can.j1939 import pgn_of, source_of

_PLACEHOLDERS: Final = (0xFE, 0xFF)
"""Source addresses that stand for any in a database: null and global."""


class Matching:
    """The messages of a database by what their frames are known by."""

    def __init__(self, database: Database) -> None:
        self.by_id = {message.can_id: message for message in database.messages if message.pgn is None}
        self.groups: dict[int, list[Message]] = {}
        """J1939 messages by parameter group number; several where they differ by source address."""
        for message in database.messages:
            if message.pgn is not None:
                self.groups.setdefault(message.pgn, []).append(message)

    def message(self, can_id: int) -> tuple[Message | None, int | None]:
        """Return the message of a frame, None where none is known, and the source address of a J1939 one.

        A remote frame asks for a message, and is none.
        """
        found = self.by_id.get(can_id)
        if found is not None or not can_id & EXTENDED or can_id & REMOTE:
            return found, None
        group = self.groups.get(pgn_of(can_id))
        source = source_of(can_id)
        return (_of_source(group, source), source) if group else (None, None)


def _of_source(group: list[Message], source: int) -> Message:
    """Return the message of a parameter group for a sender: that with its address, else that for any."""
    for message in group:
        if source_of(message.can_id) == source:
            return message
    return next((each for each in group if source_of(each.can_id) in _PLACEHOLDERS), group[0])
