"""How a setting is declared (default, help, range) and read; no setting is declared twice.

A group of settings is a frozen dataclass whose fields are made by `setting`. Names carry their unit
(`commit_interval_s`); in the YAML the unit is written with the value instead (`commit_interval: 1s`),
so the suffix is dropped there: `_s`, `_ms` for durations, `_bytes` for sizes.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

_REQUIRED: Final = dataclasses.MISSING
SECRET_WORDS: Final = (
    "passw(?:or)?d|pwd|passphrase|secret|token|authorization|cookie|(?:api|subscription)[-_]?key"
)
"""A pattern, whatever the case: what has one of them in its name is taken for a secret."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What `setting` says of a field, beside its type and default."""

    help: str
    low: float | None = None
    high: float | None = None
    check: Callable[[Any], None] | None = None
    """Raises ValueError with a sentence where the value will not do."""
    example: str | None = None
    yaml: str | None = None
    """The name in the YAML where it is not the field's name less its unit."""


def setting(
    default: Any = _REQUIRED,
    *,
    help: str,  # noqa: A002  # the field's standard word, as in argparse
    low: float | None = None,
    high: float | None = None,
    check: Callable[[Any], None] | None = None,
    example: str | None = None,
    yaml: str | None = None,
) -> Any:
    """Declare one setting. Without a default it must be given. A mapping default is given as {}."""
    metadata = {"declared": Declared(help, low, high, check, example, yaml)}
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Settings:
    """Base of a group of settings: subclasses are `@dataclass(frozen=True, kw_only=True)`.

    What concerns several fields is judged in `__post_init__`, by ValueError with a sentence. The types are
    those that `shapes.shape_of` knows; the reader is in `reading`.
    """

    SHORT: ClassVar[str | None] = None
    """The field that a bare scalar in place of the mapping stands for (a URL, say)."""

    def most_samples_per_s(self, _tags: Mapping[str, Any]) -> float | None:
        """Return how many samples a device with these tags can give a second; None: nobody can say."""
        return None

    def files(self) -> Sequence[Path]:
        """Return the files that are read beside the configuration."""
        return ()


@dataclass(frozen=True)
class Secret:
    """A secret by reference, resolved when the configuration was read; it never prints its text."""

    reference: str
    """How it was named: "env NAME", "file PATH" or "credential NAME"."""
    text: str = dataclasses.field(repr=False)

    def __str__(self) -> str:
        return f"<secret from {self.reference}>"
