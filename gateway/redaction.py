"""Text without secrets: what is known to be one, in each of its encodings, and what looks like one."""

import base64
import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

from gateway.settings import SECRET_WORDS, Secret

_SHOWN: Final = "<secret>"
_SHORTEST: Final = 4
"""A shorter secret would take half of every text with it; what it looks like still counts."""
_NAME: Final = rf"(?<![\w-])(?=[\w-]*(?:{SECRET_WORDS}))[\w-]++"
"""From the beginning of a word to its end, without a way back: a long word must not cost its square."""
_VALUE: Final = re.compile(
    rf"({_NAME}[\"']?[ \t]*[:=][ \t]*)"
    r"(?!\{[ \t]*[\"']?(?:credential|file|env)\b)"
    r"(\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|[^\s,}{][^\n,}]*)",
    re.IGNORECASE,
)
_BLOCK: Final = re.compile(
    rf"^([ \t]*)[\"']?{_NAME}[\"']?[ \t]*:[ \t]*[|>][^\n]*\n((?:\1[ \t]+[^\n]*\n?|[ \t]*\n)+)",
    re.IGNORECASE | re.MULTILINE,
)
_BELOW: Final = re.compile(
    rf"^([ \t]*)[\"']?{_NAME}[\"']?[ \t]*:[ \t]*\n(\1[ \t]+(?![\"']?[\w-]+[\"']?[ \t]*:)[^\s#][^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
"""A value in the line below its name; not the settings below it."""
_TOKEN: Final = re.compile(r"egw_[A-Za-z0-9_-]+|(?<=[Bb]earer )\S+|(?<=[Bb]asic )[A-Za-z0-9+/=]{8,}")
_SIGNATURE: Final = re.compile(
    r"(?<=[?&;])((?:X-Amz-(?:Signature|Credential|Security-Token)|X-Goog-(?:Signature|Credential)|AWSAccessKeyId|"
    r"signature|sig|token|code|api[-_]?key|subscription-key)=)[^&;#\s\"'<>)]+",
    re.IGNORECASE,
)
"""Of an address that is as good as a password."""
_PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----[^-]*(?:-(?!----)[^-]*)*(?:-----END \1-----)?"
)
"""RFC 7468; one that is cut short counts to the next dashes."""
_LINE: Final = 16
"""A line of a secret of several, as of a key, is a secret from so many characters on."""
_USERINFO: Final = re.compile(r"(?<=//)[^/\s\"']+@")
"""To the last one: a password that was not encoded may hold some."""


class Redaction:
    """Takes the secrets that are known, and those that look like one, out of texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for text in secrets for each in _parts(text) for form in _forms(each)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(_SHOWN, text)
        text = _PRIVATE_KEY.sub(_SHOWN, text)
        text = _SIGNATURE.sub(rf"\1{_SHOWN}", text)
        text = _BLOCK.sub(lambda found: found[0].replace(found[2], f"{found[1]}  {_SHOWN}\n"), text)
        text = _BELOW.sub(lambda found: found[0].replace(found[2], f"{found[1]}  {_SHOWN}"), text)
        text = _VALUE.sub(rf"\1{_SHOWN}", text)
        return _USERINFO.sub(f"{_SHOWN}@", _TOKEN.sub(_SHOWN, text))


def _parts(secret: str) -> Iterator[str]:
    if len(secret) >= _SHORTEST:
        yield secret
    for line in secret.splitlines():
        if len(line) >= _LINE and not line.startswith("-----"):
            yield line


def _forms(text: str) -> Iterator[str]:
    data = text.encode()
    yield from (
        text,
        quote(text),
        quote(text, safe=""),
        quote_plus(text),
        repr(text)[1:-1],
        ascii(text)[1:-1],
    )
    yield from (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], data.hex())
    yield from (
        base64.b64encode(data).decode().rstrip("="),
        base64.urlsafe_b64encode(data).decode().rstrip("="),
    )


def without_query(url: str) -> str:
    """Return an address that may be shown: what follows its path may be as good as a password."""
    return re.split(r"[?#]", url, maxsplit=1)[0]


def secrets_in(settings: Any) -> Iterator[str]:
    """Yield the text of every Secret within settings, mappings and sequences."""
    return (secret.text for secret in secrets_of(settings))


def secrets_of(settings: Any) -> Iterator[Secret]:
    """Yield every Secret within settings, mappings and sequences."""
    if isinstance(settings, Secret):
        yield settings
    elif dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        for each in dataclasses.fields(settings):
            yield from secrets_of(getattr(settings, each.name))
    elif isinstance(settings, Mapping):
        for value in settings.values():
            yield from secrets_of(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from secrets_of(value)
