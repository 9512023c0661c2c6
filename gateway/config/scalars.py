"""One scalar of YAML 1.2 and the shape that is wanted -> its value, or the end of a sentence why not."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from gateway.config.problems import either
from gateway.config.quantities import number, quantity, scalar_type
from gateway.config.shapes import Flag, Number, Shape, Text, Words
from gateway.config.wording import found, limits, wanted
from gateway.config.yaml_source import ScalarNode

Hint: TypeAlias = Callable[[str, Iterable[str]], str]
"""`; did you mean "..."?` or nothing, for a word and the known ones."""


def scalar(shape: Shape, node: ScalarNode, folder: Path, hint: Hint) -> Any:
    """Return the value of a scalar shape. ValueError: what follows the setting's name in a sentence."""
    match shape:
        case Flag():
            if node.plain and scalar_type(node.text) == "bool":
                return node.text.lower() == "true"
            raise ValueError(f"wants true or false, found {found(node)}{_meant(node.text)}")
        case Words():
            return _word(shape, node, hint)
        case Number():
            return _number(shape, node)
        case Text(path=is_path):
            text = _text(node)
            if is_path and not text:
                raise ValueError("names no file or folder")
            return folder / text if is_path else text
    raise TypeError(f"{shape} is not the shape of a scalar")


def _meant(text: str) -> str:
    word = text.lower()
    if word in ("true", "yes", "on", "y", "1"):
        return "; write true"
    return "; write false" if word in ("false", "no", "off", "n", "0") else ""


def _word(shape: Words, node: ScalarNode, hint: Hint) -> Any:
    for word in shape.words:
        if node.text == str(word):
            return word
    words = [str(word) for word in shape.words]
    raise ValueError(f"must be {either(words)}, found {found(node)}{hint(node.text, words)}")


def _number(shape: Number, node: ScalarNode) -> float:
    if not node.plain and not shape.unit:
        raise ValueError(f"wants {wanted(shape)}, found {found(node)}; write it without quotes")
    try:
        value = quantity(node.text, shape) if shape.unit else number(node.text, shape)
    except ValueError as error:
        raise ValueError(f"{error}, found {found(node)}") from None
    too_low = shape.low is not None and value < shape.low
    too_high = shape.high is not None and value > shape.high
    if too_low or too_high:
        raise ValueError(f"must be {limits(shape)}, found {node.text}")
    return value


def _text(node: ScalarNode) -> str:
    if node.plain and not node.loose and (kind := scalar_type(node.text)) != "str":
        what = "number" if kind in ("int", "float") else "word"
        raise ValueError(f"wants text, found the {what} {node.text[:40]}; put it in quotes")
    return node.text
