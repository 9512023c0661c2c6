"""Reading YAML text with the tests' own protocols."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.config import Config, ConfigProblems, load
from tests.config.plant import ROOT

Read = Callable[..., Config]
Problems = Callable[..., list[str]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read YAML text (and an environment) as gateway.yaml of a folder of its own."""

    def read(yaml: str | bytes, environ: Mapping[str, str] | None = None) -> Config:
        file = tmp_path / "gateway.yaml"
        file.write_bytes(yaml if isinstance(yaml, bytes) else yaml.encode())
        return load(file, environ or {}, root=ROOT)

    return read


@pytest.fixture
def problems(read: Read, tmp_path: Path) -> Problems:
    """Return the problems of YAML text, without the folder."""

    def problems(yaml: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigProblems) as caught:
            read(yaml, environ)
        return [line.replace(f"{tmp_path}/", "") for line in caught.value.problems]

    return problems
