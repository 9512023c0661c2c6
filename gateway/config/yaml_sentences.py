"""libyaml's complaints as sentences for a technician, each at the place where the fix is likely to be."""

import re
from typing import Any, Final, TypeAlias

import yaml

Complaint: TypeAlias = tuple[int, int, str]
"""Line and column from 1, and the sentence."""

_TABBED: Final = re.compile(r"^ *\t", re.MULTILINE)
_TAB: Final = "a TAB stands here; indent with spaces only"

_BY_PROBLEM: Final = {
    "mapping values are not allowed in this context": (
        'a ":" stands where no name can be given; check the indentation of this line and the line above, '
        "or put the text in quotes"
    ),
    "did not find expected key": (
        "this does not fit what stands above; check the indentation, the brackets and the quotes"
    ),
    "did not find expected '-' indicator": 'the list above goes on here, but the line has no "-"',
    "did not find expected node content": "a value is missing here",
    "did not find expected <document start>": "this is one bracket too many, or does not belong here",
    "found incompatible YAML document": "only YAML 1.1 and 1.2 are read; remove the %YAML line",
    "found unknown directive name": 'a line with "%" cannot stand here; put the text in quotes',
    "found unknown escape character": (
        'unknown escape after "\\" in double quotes; use single quotes or write "\\\\"'
    ),
    "found undefined tag handle": 'a value beginning with "!" is a YAML tag, which is not taken; use quotes',
    "did not find expected alphabetic or numeric character": (
        'a value cannot begin with "*" or "&"; put the text in quotes'
    ),
}
_AT_BEGINNING: Final = {
    "could not find expected ':'": 'a ":" and a value are missing after this name',
    "found unexpected end of stream": "the text in quotes that begins here has no closing quote",
    "found unexpected document indicator": "the text in quotes that begins here has no closing quote",
    "did not find expected ',' or ']'": (
        'the list in brackets that begins here is broken on line {line}: a "," or the "]" is missing'
    ),
    "did not find expected ',' or '}'": (
        'the group in braces that begins here is broken on line {line}: a "," or the "}}" is missing'
    ),
}


def syntax_problems(error: yaml.YAMLError, text: str) -> list[Complaint]:
    """Return what a parser's error means; TABs are all listed, anything else ends the reading where it is."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return [(1, 1, "this is not YAML")]
    line, column = error.problem_mark.line, error.problem_mark.column
    lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", text)
    rest = lines[line][column:] if line < len(lines) else ""
    if rest.startswith("\t") or "tab character" in (error.problem or ""):
        tabs = [(n, m.end(), _TAB) for n, each in enumerate(lines, 1) if (m := _TABBED.match(each))]
        return tabs or [(line + 1, column + 1, _TAB)]
    return [_complaint(error, line, column, rest)]


def _complaint(error: Any, line: int, column: int, rest: str) -> Complaint:
    begin = error.context_mark
    if begin is not None and (sentence := _AT_BEGINNING.get(error.problem)):
        return begin.line + 1, begin.column + 1, sentence.format(line=line + 1)
    if error.problem == "found character that cannot start any token" and rest:
        sentence = f'a value cannot begin with "{rest[0]}"; put the text in quotes'
    else:
        sentence = _BY_PROBLEM.get(error.problem) or f"this is not YAML: {error.problem}"
    return line + 1, column + 1, sentence
