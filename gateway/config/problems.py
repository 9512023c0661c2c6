"""What is wrong with a configuration: places, sentences, suggestions, and the one exception for it all."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gateway.model import GatewayError
from gateway.settings import SECRET_WORDS

_SHOWN: Final = 60
_MOST: Final = 1000
_SUGGESTIONS: Final = 200  # comparing words is slow: a file of noise must not keep the processor busy
_UNIT: Final = re.compile(r"_(s|ms|bytes)$")
_USERINFO: Final = re.compile(r"//[^/\s]*@")
_SECRET: Final = re.compile(SECRET_WORDS, re.IGNORECASE)


class Place(NamedTuple):
    """Where something was written: a file with line and column from 1, or (0, 0) a whole file or variable."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, as `file:line:column: sentence`."""

    place: Place
    sentence: str
    secret: bool = False
    """A secret that cannot be had: all but the device or upload that needs it can be used."""

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}"


class ConfigProblems(GatewayError):
    """A configuration cannot be used; it names all that is wrong, not only the first.

    `ever_valid`: an earlier valid configuration was kept for this file, but it cannot be used now either.
    """

    def __init__(self, problems: Iterable[str], *, ever_valid: bool = False) -> None:
        self.problems = tuple(problems)
        self.ever_valid = ever_valid
        super().__init__("\n".join(self.problems))


@dataclass(slots=True)
class Problems:
    """Collects what is wrong while reading goes on."""

    found: list[Problem] = field(default_factory=list)
    left_out: int = 0
    _suggested: int = 0

    def add(self, place: Place, sentence: str, *, secret: bool = False) -> None:
        if len(self.found) < _MOST:
            self.found.append(Problem(place, visible(sentence), secret))
        else:
            self.left_out += 1

    def listed(self) -> list[str]:
        """Return them as lines in the order of their places, files before the environment."""
        listed = [str(each) for each in sorted(self.found, key=lambda p: (p.place.line == 0, p.place))]
        if self.left_out:
            listed.append(f"{self.found[0].place.source}: {self.left_out} more problems are not listed")
        return listed

    def only_secrets(self) -> bool:
        """Say whether the rest can be used where what lacks a secret is left out."""
        return not self.left_out and all(each.secret for each in self.found)

    def hint(self, word: str, known: Iterable[str]) -> str:
        """Return `; did you mean "..."?` where a known word is near, else nothing."""
        self._suggested += 1
        if len(word) > _SHOWN or self._suggested > _SUGGESTIONS:
            return ""
        folded = {fold(k): k for k in known}
        if (exact := folded.get(_UNIT.sub("", fold(word)))) is not None:
            return f'; did you mean "{exact}"?'
        near = difflib.get_close_matches(fold(word), folded, n=1, cutoff=0.6)
        return f'; did you mean "{folded[near[0]]}"?' if near else ""


def fold(word: str) -> str:
    """Return a name as it is compared where case and the kind of dash do not matter."""
    return re.sub(r"[^0-9a-z]", "_", word.lower())


def without_userinfo(url: str) -> str:
    """Return a URL that may be shown: without user name and password."""
    return _USERINFO.sub("//", url)


def names_secret(name: str) -> bool:
    """Say whether what stands under a name may be a secret, whatever its place in a broken file."""
    return _SECRET.search(name) is not None


def quoted(text: str) -> str:
    """Return text for a sentence: on one line, not too long, without what may be a password or token."""
    text = without_userinfo(text)
    if (secret := _SECRET.search(text)) is not None and secret.end() < len(text):
        text = text[: secret.end()] + "..."
    short = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return f'"{visible(short)}"'


def visible(text: str) -> str:
    """Return text on one line, with what cannot be printed as its number."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def either(words: Sequence[str]) -> str:
    """Return words as `a, b or c`."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "nothing"
