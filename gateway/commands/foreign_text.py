"""Words of devices and files in a terminal and in YAML."""


def printable(text: str) -> str:
    """Leave out what a terminal would obey."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def quoted(text: str) -> str:
    """Return text as a double-quoted YAML scalar."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08X}"
