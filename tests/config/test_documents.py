"""The reference, the JSON Schema and the example say what the declarations say."""

import ast
import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway.config import ConfigProblems, load
from gateway.config.check import check
from gateway.config.json_schema import json_schema
from gateway.config.quantities import scalar_type
from gateway.config.reference import reference
from gateway.protocols import PROTOCOLS
from gateway.uploaders import UPLOADERS
from tests.config.documents import EXAMPLE, REFERENCE, SCHEMA, schema_text
from tests.config.test_fuzz import SEEDS

_RENEW = "renew it: python -m tests.config.documents"


class _Core(yaml.SafeLoader):
    """PyYAML with the scalars of YAML 1.2, for judging files by the schema alone."""


def _scalar(loader: _Core, node: yaml.ScalarNode) -> Any:
    kind = scalar_type(node.value) if node.style is None else "str"
    read: dict[str, Any] = {"null": lambda _: None, "bool": lambda text: text.lower() == "true", "int": int}
    return read.get(kind, float if kind == "float" else str)(node.value)


_Core.yaml_implicit_resolvers = {}
_Core.add_constructor("tag:yaml.org,2002:str", _scalar)


def by_schema(text: str, schema: dict[str, Any]) -> list[str]:
    document = yaml.load(text, Loader=_Core)  # a SafeLoader
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]


def test_the_page_of_all_settings_is_up_to_date() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference(), _RENEW


def test_the_committed_schema_is_up_to_date() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), _RENEW


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_every_kind_is_in_both() -> None:
    for kind in [*PROTOCOLS, *UPLOADERS]:
        assert f"\n### {kind}\n" in reference()
    alternatives = json_schema()["properties"]["devices"]["additionalProperties"]["oneOf"]
    assert [each["required"] for each in alternatives] == [[kind] for kind in PROTOCOLS]


def test_the_example_names_the_schema_and_passes_both() -> None:
    text = EXAMPLE.read_text()
    assert text.startswith("# yaml-language-server: $schema=gateway.schema.json\n")
    assert by_schema(text, json_schema()) == []
    assert check(EXAMPLE, {}).lines == (
        f"{EXAMPLE}: OK, 1 device (1 opcua), 0 listed tags, 0 uploads",
        f"{EXAMPLE}: flash: how much is written is not known before it runs (press-07)",
    )


def test_the_example_with_all_its_examples_passes_both(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^#(?=  |[a-z])", "", EXAMPLE.read_text())
    assert by_schema(text, json_schema()) == []
    for name in re.findall(r"credential: ([a-z0-9-]+)", text):
        (tmp_path / name).write_text("hunter2")
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    config = load(file, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    devices = {"press-07", "press-08", "scale-3", "box", "cell-bus", "drives", "tools", "timeseries"}
    assert set(config.devices) == devices
    assert set(config.uploads) == {"plant-cloud", "research"}
    assert {device.kind for device in config.devices.values()} == set(PROTOCOLS)
    assert {upload.kind for upload in config.uploads.values()} == set(UPLOADERS)
    assert list(config.devices["press-08"].device.tags) == ["speed", "force", "state"]


@pytest.mark.parametrize(
    "wrong",
    ["gatway: {}", "devices: {a b: {plant: }}", "devices: {a: {plant: {count: 101}}}",
     "devices: {a: {plant: {cycle: 10}}}", "devices: {a: {plant: {buffer: 1s}}}",
     "devices: {a: {plant: {mode: fats}}}", "devices: {a: {plant: {password: hunter2}}}",
     "devices: {a: {plant: {tls: {certificate: a}}}}", "devices: {a: {plant: {enabled: on}}}",
     "devices: {a: {}}", "devices: {a: {plant: , tags: {t: {nod: x}}}}", "uploads: {a: {cloud: {}}}"],
)  # fmt: skip
def test_what_the_schema_refuses_is_refused_by_the_loader_too(wrong: str, tmp_path: Path) -> None:
    root = _without_broken()
    assert by_schema(wrong, json_schema(root))
    file = tmp_path / "gateway.yaml"
    file.write_text(wrong)
    with pytest.raises(ConfigProblems):
        load(file, {}, root=root)


def test_what_the_loader_takes_passes_the_schema() -> None:
    assert by_schema(SEEDS[0].decode(), json_schema(_without_broken())) == []


def _without_broken() -> Any:
    from gateway.config.layout import layout

    return layout({"plant": "tests.config.plant"}, {"cloud": "tests.config.cloud"})


def test_the_reference_says_type_default_range_and_variable() -> None:
    page = reference(_without_broken())
    rows = [
        "| `cycle` | duration | `1s` | from 10ms to 1d | A duration in seconds. "
        "| `EDGE_GATEWAY__DEVICES__ID__PLANT__CYCLE` |",
        "| `buffer` | size | `1MiB` |  | A size. | `EDGE_GATEWAY__DEVICES__ID__PLANT__BUFFER` |",
        "| `waits` | list of duration | `[1s, 2s]` |  | A list of durations. "
        "| `EDGE_GATEWAY__DEVICES__ID__PLANT__WAITS` |",
        "| `limits.high` | number | `1` |  | Upper end. | `EDGE_GATEWAY__DEVICES__ID__PLANT__LIMITS__HIGH` |",
        "| `tls.certificate` | text | **must be given** |  | PEM file, for example `a.pem` "
        "| `EDGE_GATEWAY__DEVICES__ID__PLANT__TLS__CERTIFICATE` |",
        "| `keep` | `forever` or duration or nothing |  |  | A word, a duration or nothing. "
        "| `EDGE_GATEWAY__DEVICES__ID__PLANT__KEEP` |",
    ]
    for row in rows:
        assert row in page


def test_check_lists_every_problem_and_fails(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("htpp: {}\ndevices: {a: {}}\n")
    assert check(file, {}) == type(check(file, {}))(
        1,
        (
            f'{file}:1:1: "htpp" is not a known setting here; did you mean "http"?',
            f'{file}:2:11: "a" names no protocol; add one of can, icotronic, opcua, push or revpi',
            f"{file}: 2 problems",
        ),
    )


def test_check_shows_warnings_and_counts(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "devices:\n  a: {opcua: 'opc.tcp://plc:4840', tags: {t: ns=2;s=T}}\n"
        "  b: {opcua: 'opc.tcp://plc:4840'}\nuploads: {c: {http: 'https://cloud.example'}}\n"
    )
    checked = check(file, {})
    assert checked.code == 0
    assert checked.lines == (
        f'{file}:3:3: "b" and "a" are the same opcua device, opc.tcp://plc:4840 (a warning)',
        f"{file}: OK, 2 devices (2 opcua), 1 listed tag, 1 upload (1 http)",
        f"{file}: flash: at most 2 samples/s, about 1.80 GB a day, 36.5 years of its 24 TB; not known of b",
    )


FILES = """\
http:
  tls: {certificate: own/cert.pem, key: own/key.pem}
  compat: {timeseries: {users: users.json, tls: {certificate: own/cert.pem, key: other.pem}}}
store: {path: data}
measurements: recordings
uploads:
  cloud: {http: {url: 'https://cloud.example', ca: plant-ca.pem}}
"""


def test_a_relative_path_begins_at_the_file_wherever_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(FILES)
    config = load(file, {})
    assert config.store.path == tmp_path / "data"
    assert config.measurements.path == tmp_path / "recordings"
    assert config.uploads["cloud"].settings.ca == tmp_path / "plant-ca.pem"
    own = tmp_path / "own"
    assert config.http.files() == [own / "cert.pem", own / "key.pem", tmp_path / "other.pem"]
    file.write_text("store: {path: ''}\n")
    with pytest.raises(ConfigProblems, match=r':1:15: "path" names no file or folder'):
        load(file, {})


def test_check_warns_of_files_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, closed = tmp_path / "gateway.yaml", tmp_path / "own"
    file.write_text(FILES)
    (tmp_path / "plant-ca.pem").mkdir()
    closed.mkdir()
    (closed / "cert.pem").touch()
    http = f"{file}: http: there is no file"
    warnings = [line for line in check(file, {}).lines if line.endswith("(a warning)")]
    assert warnings == [
        f'{file}:7:3: "cloud": there is no file {tmp_path}/plant-ca.pem (a warning)',
        f"{http} {closed}/key.pem (a warning)",
        f"{http} {tmp_path}/other.pem (a warning)",
    ]
    is_file = Path.is_file

    def as_another_user(path: Path) -> bool:
        if path.parent == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", as_another_user)  # of /etc/ssl/private, say
    assert [line for line in check(file, {}).lines if str(closed) in line] == []


def test_check_names_a_database_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    (tmp_path / "press.dbc").write_text("")
    file.write_text("devices:\n  a: {can: {database: [press.dbc, oven.dbc]}}\n")
    checked = check(file, {})
    assert checked.code == 0
    assert checked.lines[0] == f'{file}:2:3: "a": there is no file {tmp_path}/oven.dbc (a warning)'
    assert "press.dbc" not in checked.lines[0]


def _said() -> Iterator[tuple[Path, str]]:
    """Yield what the documentation and the texts in the code say."""
    here = Path(__file__).parents[2]
    for path in (here / "README.md", *here.glob("docs/*.md")):
        yield path, path.read_text()
    for path in here.glob("gateway/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path, node.value


def test_the_settings_of_http_that_are_named_anywhere_exist() -> None:
    """A technician who is told of `http.max_body_bytes` looks for it in vain: the YAML has `max_body`."""
    known = set(re.findall(r"EDGE_GATEWAY__(\w+)", reference()))
    named = {
        (path.name, found)
        for path, text in _said()
        for found in re.findall(r"(?<![\w./-])http\.[a-z_]+(?:\.[a-z_]+)*", text)
    }
    wrong = {
        (file, name)
        for file, name in named
        if not any(f"{each}__".startswith(name.upper().replace(".", "__") + "__") for each in known)
    }
    assert len(named) > 20 and not wrong
