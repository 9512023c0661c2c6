"""Browse paths with wildcards: `*` and `?` within an element, `**` for any number of elements. Pure."""

import re
from functools import cached_property

_ANY_DEPTH = "**"
_SPECIAL = "&/:*?"
NODE_ID = re.compile(r"(?:nsu=(?P<uri>.+?);|ns=(?P<index>\d+);)?(?P<id>[isgb]=.+)", re.DOTALL)

Places = frozenset[int]
"""Where in a pattern a path may have come to; empty: nowhere, nothing below it can match."""


def split(spec: str) -> list[str]:
    """Split a browse path at its slashes; `&` takes the next character as it is, and stays before it."""
    elements = [""]
    escaped = False
    for character in spec.strip():
        if escaped or character not in "&/":
            elements[-1] += f"&{character}" if escaped and character in _SPECIAL else character
            escaped = False
        elif character == "&":
            escaped = True
        else:
            elements.append("")
    return elements


def plain(element: str) -> str:
    """Return the name that an element of a path spells."""
    return re.sub(r"&([&/:*?])", r"\1", element)


def escaped(name: str, specials: str = "&/*?") -> str:
    """Return a name as an element of a path that means it alone."""
    return "".join(f"&{character}" if character in specials else character for character in name)


def is_pattern(spec: str) -> bool:
    """Say whether this is a browse path, no node id, and holds a wildcard."""
    return NODE_ID.fullmatch(spec.strip()) is None and any(_wild(element) for element in split(spec))


class Pattern:
    """A browse path with wildcards, followed element by element."""

    def __init__(self, spec: str, *, anywhere: bool = False) -> None:
        """`anywhere`: a single element matches at any depth. ValueError: an element is empty."""
        self.spec = spec
        elements = split(spec)
        self.from_root = elements[0] == ""
        if self.from_root:
            elements.pop(0)
            if elements and elements[0] in ("Objects", "0:Objects"):
                elements.pop(0)
                self.from_root = False
        if not elements or "" in elements:
            raise ValueError("the path has an empty element")
        if anywhere and len(elements) == 1:
            elements.insert(0, _ANY_DEPTH)
        self._elements = [_Element(element) for element in elements]

    @cached_property
    def start(self) -> Places:
        return self._reach({0})

    def step(self, places: Places, name: str, namespace: int) -> Places:
        """Return where a child of that name leads to."""
        found = set()
        for place in places:
            if place == len(self._elements):
                continue
            element = self._elements[place]
            if element.any_depth:
                found.add(place)
            elif element.matches(name, namespace):
                found.add(place + 1)
        return self._reach(found)

    def complete(self, places: Places) -> bool:
        return len(self._elements) in places

    def spells_out(self, places: Places, name: str) -> bool:
        """Say whether it has this child's name in full, rather than meets it by a wildcard."""
        return any(place < len(self._elements) and self._elements[place].literal == name for place in places)

    def _reach(self, places: set[int]) -> Places:
        """Add what lies behind a `**`, which may stand for nothing."""
        reached = set(places)
        for place, element in enumerate(self._elements):
            if place in reached and element.any_depth:
                reached.add(place + 1)
        return frozenset(reached)


class _Element:
    """One element of a pattern."""

    def __init__(self, text: str) -> None:
        self.any_depth = text == _ANY_DEPTH
        number, colon, name = text.partition(":")
        self._namespace = int(number) if colon and number.isdecimal() else None
        if self._namespace is None:
            name = text
        self.literal = None if _wild(name) else plain(name)
        self._name = re.compile(
            "".join(map(_as_regex, re.findall(r"&[&/:*?]|.", name, re.DOTALL))), re.DOTALL
        )

    def matches(self, name: str, namespace: int) -> bool:
        if self._namespace is not None and self._namespace != namespace:
            return False
        return self._name.fullmatch(name) is not None


def _wild(element: str) -> bool:
    return any(part in ("*", "?") for part in re.findall(r"&[&/:*?]|.", element, re.DOTALL))


def _as_regex(part: str) -> str:
    return {"*": ".*", "?": "."}.get(part) or re.escape(part[-1])
