"""The fields of a point as samples: each value within, by its place as a JSON pointer (RFC 6901) without the
first slash. `{"imu": {"x": 1}, "a/b": 2}` is `{"imu/x": 1, "a~1b": 2}`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.api.values import read
from gateway.model import Value

_MAX_LEVELS: Final = 32


def flat(fields: Mapping[str, Any]) -> dict[str, Value]:
    """Return the values by their places. ValueError: there is none, or one that no sample can hold."""
    return dict(_leaves(fields, "", 1))


def _leaves(fields: Mapping[str, Any], before: str, depth: int) -> Iterator[tuple[str, Value]]:
    if not fields or "" in fields or depth > _MAX_LEVELS:
        where = f'"{before[:-1]}": ' if before else ""
        raise ValueError(
            f"{where}An object of at most {_MAX_LEVELS} levels, each with a name and a value, "
            'such as {"temp_C": 13}'
        )
    for name, value in fields.items():
        place = before + name.replace("~", "~0").replace("/", "~1")
        if isinstance(value, dict):
            yield from _leaves(value, f"{place}/", depth + 1)
            continue
        try:
            yield place, read(value, None)
        except ValueError as error:
            raise ValueError(f'"{place}" {error}') from None


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields again. Of places that exclude each other (of others) the longer are names."""
    fields: dict[str, Any] = {}
    for place, value in sorted(values.items(), key=lambda item: item[0].count("/")):
        *above, name = (word.replace("~1", "/").replace("~0", "~") for word in place.split("/"))
        within: Any = fields
        for word in above:
            within = within.setdefault(word, {}) if isinstance(within, dict) else None
        if isinstance(within, dict) and name not in within:
            within[name] = value
        else:
            fields[place] = value
    return fields
