"""Passwords of documents, each in a file of its own that only the service can read (0600)."""

import re
import secrets
from collections.abc import Set
from pathlib import Path
from typing import Final

from gateway.durable import write

FOLDER: Final = "secrets"
REFERENCE: Final = re.compile(rf"{FOLDER}/dataspace-[0-9a-f]{{16}}")
"""How a document names one, relative to its own folder."""


class SecretFiles:
    """The folder `secrets` beside the documents. Every method blocks and may raise OSError."""

    def __init__(self, documents: Path) -> None:
        self._documents, self._folder = documents, documents / FOLDER

    def open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def keep(self, text: str) -> str:
        """Keep a secret; return its reference."""
        name = f"dataspace-{secrets.token_hex(8)}"
        write(self._folder / name, text.encode())
        return f"{FOLDER}/{name}"

    def forget(self, used: Set[str]) -> None:
        """Remove the secrets that no document names by these references."""
        for file in self._folder.iterdir():
            if f"{FOLDER}/{file.name}" not in used:
                file.unlink(missing_ok=True)
