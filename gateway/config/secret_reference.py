"""{env: NAME}, {file: PATH} or {credential: NAME} -> the secret's text; no sentence here ever shows it."""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway import places
from gateway.settings import Secret

HOW: Final = "write {env: NAME}, {file: PATH} or {credential: NAME}"
_MOST_BYTES: Final = 64 * 1024
_OTHERS: Final = stat.S_IROTH | stat.S_IWOTH
_CREDENTIAL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,127}")


def resolve(form: str, name: str, environ: Mapping[str, str], folder: Path) -> Secret:
    """Return the secret. ValueError: why it cannot be had, as a sentence."""
    if form == "env":
        text = environ.get(name)
        if text is None:
            raise ValueError(f"the environment variable {name} is not set")
        where = f"the environment variable {name}"
    elif form == "file":
        file = folder / name
        where = f"the file {file}"
        text = _read(file, where, private=True)
    else:
        file = _credential(name, environ)
        where = f"the credential {name}"
        text = _read(file, where, private=False)
    text = text.rstrip("\r\n")
    if not text:
        raise ValueError(f"{where} is empty")
    return Secret(f"{form} {name}", text)


def _credential(name: str, environ: Mapping[str, str]) -> Path:
    if not _CREDENTIAL.fullmatch(name):
        raise ValueError("a credential's name has letters, digits, - _ . @ only")
    given = environ.get("CREDENTIALS_DIRECTORY")
    if not given:
        raise ValueError(
            "there are no credentials: $CREDENTIALS_DIRECTORY is not set; the packaged service, "
            "and a command run with sudo, gets the files of /etc/edge-gateway/secrets"
        )
    folder = Path(given)
    # LoadCredential=secrets:FOLDER names each file of a folder with its prefix (systemd.exec(5)).
    for file in (folder / name, folder / f"secrets_{name}"):
        if os.access(file, os.F_OK):
            if folder == places.SECRETS and file.is_symlink() and places.unit_installed():
                raise ValueError(f"{file} is a link, which systemd passes over: put the secret itself there")
            return file
    raise ValueError(
        f"there is no credential {name}: put the secret alone into /etc/edge-gateway/secrets/{name} "
        "(no link), then restart the service, which reads credentials at its start only"
    )


def _read(file: Path, where: str, *, private: bool) -> str:
    if "\0" in str(file):
        raise ValueError(f"{where} cannot be read: its name holds a NUL character")
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as handle:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ValueError(f"{where} is not a regular file")
            if private and mode & _OTHERS:
                raise ValueError(f"{where} can be read by every user of this machine; run: chmod 600 {file}")
            data = handle.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{where} cannot be read: {error.strerror or error}") from error
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{where} is larger than {_MOST_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{where} is not UTF-8 text") from None  # its bytes are not to be shown
