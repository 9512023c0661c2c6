"""What a gateway keeps in its state directory and in its store's folder, and of what kind each is.

The one list of it: backup, restore, support bundle and the question before a purge go by it, and a test holds
the scripts of the package and install.sh to it.
"""

import contextlib
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

LINK: Final = ".store"
"""In the state directory: points to a store elsewhere."""
DELIVERED: Final = ".all-delivered"
"""Left by a removal of the package for a purge: every upload has all of the store."""


class Kind(Enum):
    """What becomes of a file in a backup and in a purge."""

    STORE = "samples; a purge keeps them where they were not delivered"
    MEASUREMENT = "files of measurements; a purge keeps them"
    IDENTITY = "who the gateway is; kept with its samples, and in a backup"
    CONFIGURATION = "what was set and whom it trusts; in a backup, removed by a purge"
    SECRET = "keys, tokens, passwords and hashes; never in a backup, removed by a purge"
    PASSING = "of this machine and this run; worth nothing elsewhere"


@dataclass(frozen=True, slots=True)
class Kept:
    """A file, or several of a pattern."""

    pattern: str
    """A glob in the folder; of a folder it means all in it."""
    kind: Kind
    backed_up: str = ""
    """Regular expression of the names that a backup has of it; "": it has none."""

    def has(self, name: str) -> bool:
        path = Path(name)
        return any(each.match(self.pattern) and len(each.parts) == self.pattern.count("/") + 1
                   for each in (path, *path.parents))  # fmt: skip


IN_STORE: Final = (
    Kept("hot.db", Kind.STORE, r"hot\.db"),
    Kept("history", Kind.STORE, r"history/[0-9]{6,12}\.db"),
    *(Kept(name, Kind.STORE) for name in ("hot.db-wal", "hot.db-shm", "hot.db-journal", "hot.db.*")),
    *(Kept(name, Kind.PASSING) for name in ("reserve", "store.lock")),
    *(Kept(name, Kind.STORE) for name in ("restoring", "replaced-[0-9]*")),
)
"""In the folder of the store, which is the state directory where `store.path` names no other.

`replaced-N` is what a restore moved aside: a store, and of the state directory what differed.
"""
IN_STATE: Final = (
    Kept("measurements", Kind.MEASUREMENT),
    Kept("gateway-id", Kind.IDENTITY, "gateway-id"),
    Kept("config", Kind.CONFIGURATION, r"config/[0-9a-f]{16}\.yaml"),
    Kept("pki/trusted", Kind.CONFIGURATION, r"pki/trusted/[^/\x00]+"),
    Kept("pki/secured", Kind.CONFIGURATION, r"pki/secured/[^/\x00]+"),
    Kept("pki", Kind.SECRET),
    Kept("timeseries-series.json", Kind.CONFIGURATION, r"timeseries-series\.json"),
    Kept("documents/secrets", Kind.SECRET),
    Kept(
        "documents", Kind.CONFIGURATION,
        r"documents/[a-z]+\.yaml|documents/backup/[a-z]+__[0-9]{8}T[0-9]{6}Z(_[0-9]+)?\.yaml",
    ),
    *(Kept(name, Kind.SECRET) for name in ("admin-token", "tokens.json", "tokens.lock", "tls")),
    Kept("timeseries-users.json", Kind.SECRET),
    *(Kept(name, Kind.PASSING) for name in ("control.sock", LINK, DELIVERED)),
)  # fmt: skip
"""In the state directory besides."""
BACKED_UP: Final = re.compile("|".join(each.backed_up for each in (*IN_STORE, *IN_STATE) if each.backed_up))


def kind_of(name: str) -> Kind | None:
    """Return what a file is by its path in the state directory; None: it is none of ours."""
    return next((each.kind for each in (*IN_STORE, *IN_STATE) if each.has(name)), None)


def store_folder(state: Path) -> Path:
    """Return where the store of a state directory lies, as the last start of the daemon left it. Blocks."""
    link = state / LINK
    return link.readlink() if link.is_symlink() else state


def remember_store(state: Path, folder: Path) -> None:
    """Point from the state directory to a store elsewhere, so that a stopped one is found. Blocks.

    What a removal of the package found out about it holds no longer: a start may bring samples.
    """
    state, folder = state.absolute(), folder.absolute()
    with contextlib.suppress(OSError):  # on a disk that refuses, a purge cannot delete anything either
        (state / DELIVERED).unlink()
    link = state / LINK
    if link.is_symlink() and (folder == state or link.readlink() != folder):
        link.unlink()
    if folder != state and not link.is_symlink():
        link.symlink_to(folder)
