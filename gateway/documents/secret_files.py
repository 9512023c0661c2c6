"""Passwords of documents, each in a file of its own that only the service can read (0600)."""

import contextlib
import re
import secrets
from collections.abc import Iterator, Set
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

    def texts(self) -> Iterator[str]:
        """Yield every secret, so that it can be taken out of what is shown."""
        with contextlib.suppress(FileNotFoundError):
            for file in sorted(self._folder.iterdir()):
                with contextlib.suppress(UnicodeDecodeError):
                    yield file.read_text(encoding="utf-8")
