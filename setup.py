"""The version stands in debian/changelog alone; everything else is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import setup

_FIRST = re.compile(r"edge-gateway \(([^)]+)\)")


def _version() -> str:
    line = (Path(__file__).parent / "debian" / "changelog").read_text(encoding="utf-8").split("\n", 1)[0]
    found = _FIRST.match(line)
    if found is None:
        raise ValueError(f"debian/changelog begins with {line!r}, not with: edge-gateway (VERSION)")
    return found[1].replace("~", "")  # 1.2~rc1 is 1.2rc1 in Python


setup(version=_version())
