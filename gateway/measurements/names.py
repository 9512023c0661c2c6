"""Names of measurements, which are those of their files: unique, and safe on any file system."""

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime

SUFFIX, DRAFT = ".hdf5", ".part"
"""Endings of a file, and of one that is not finished, whose name begins with a dot."""
LONGEST_BYTES = 200
"""Of the name of a file, so that its drafts' names fit a file system too."""
_SPELT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss"})
_MOST_CHARACTERS = 80


def cleaned(name: str) -> str:
    """Return a name with nothing in it that a file system, a URL or a shell could mind."""
    plain = unicodedata.normalize("NFKD", name.translate(_SPELT)).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9-]+", "_", plain)[:_MOST_CHARACTERS].strip("_-")


def unique(name: str, gateway: str, started_us: int, taken: Callable[[str], bool]) -> str:
    """Return `name__gateway__time`, the time in UTC, with a number behind it where that is taken.

    The gateway's id is in it because one dataspace takes the files of many.
    """
    time = datetime.fromtimestamp(started_us // 1_000_000, UTC).strftime("%Y-%m-%d_%H-%M-%SZ")
    stem = f"{name}__{gateway}__{time}"
    number, found = 1, stem
    while taken(found):
        number += 1
        found = f"{stem}_{number}"
    return found


def numbered(file: str, number: int) -> str:
    """Return the name of a file with a number behind it, cut where it becomes too long."""
    end = f"__{number}{SUFFIX}"
    stem = file.removesuffix(SUFFIX).encode()[: LONGEST_BYTES - len(end)].decode(errors="ignore")
    return stem + end
