"""`/v1/config` and `/v1/sensor`: real files, real uploads, and everything that must not get in."""

import asyncio
import gzip
import io
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from gateway.api.tokens import Role
from gateway.controls.documents import DocumentRefused
from gateway.documents import Documents, dataspace, metadata, sensors
from gateway.documents.kinds import KINDS
from gateway.documents.reading import parse
from gateway.documents.shelf import KEPT
from gateway.sensors import RAW
from tests.api.plant import Plant

BUILT_IN = {name: kind.default().decode() for name, kind in KINDS.items()}
INFO = """\
info:
  schema_name: {name}_schema
  schema_version: 0.0.1
  config_name: Hall 3
  config_date: '2025-10-07T13:52:40+0200'
  config_version: {version}
"""
SENSOR = """\
- name: Force
  offset: -125.0
  phys_max: 100.0
  phys_min: -100.0
  scaling_factor: 1.0
  sensor_id: force_01
  sensor_type: null
  unit: N
  dimension: Force
  volt_max: 2.97
  volt_min: 0.33
"""
CONFIGURATION = """\
sensor_configurations:
- configuration_id: press
  configuration_name: Press
  channels:
    1: {sensor_id: force_01}
    6: {sensor_id: force_01}
default_configuration_id: press
"""
SENSORS = INFO.format(name="sensors", version="0.0.2") + "sensors:\n" + SENSOR + CONFIGURATION
METADATA = (
    INFO.format(name="metadata", version="0.0.1")
    + """\
default_profile_id: milling
profiles:
  milling:
    id: milling
    name: Milling
    pre:
      General:
        person: {id: person, label: Person, datatype: text, type: default, required: optional}
        process:
          id: process
          label: Process
          datatype: dropdown
          type: default
          options: [Milling, 1.2379]
      Type: {}
    post:
      General:
        deeper:
          pictures: {id: pictures, label: Pictures, datatype: image, type: default}
"""
)
PASSWORD = 'strongPw123! "ü'
DATASPACE = (
    INFO.format(name="dataspace", version="1.0.0")
    + """\
connection:
  enabled: True
  connector: trident
  username: press
  password: 'strongPw123! "ü'   # not strongPw122 any more
  bucket: common
  bucket_folder: default
  protocol: https
  domain: trident.example.com
  base_path: /api/v1/
  gui:
  manage_assets_path: /ui/assets
  virtual_group_root: root
"""
)
OLDER = DATASPACE.replace("  connector: trident\n", "").replace(
    "  gui:\n  manage_assets_path: /ui/assets\n  virtual_group_root: root\n", ""
)
DISABLED = DATASPACE.replace("enabled: True", "enabled: false")


async def post(client: aiohttp.ClientSession, name: str, text: str | bytes) -> tuple[int, Any]:
    data = text.encode() if isinstance(text, str) else text
    async with client.post(
        f"/v1/config/{name}", data=data, headers={"Content-Type": "application/yaml"}
    ) as answer:
        return answer.status, await answer.json()


async def stored(client: aiohttp.ClientSession, name: str, text: str) -> Any:
    status, answer = await post(client, name, text)
    assert status == 200, answer
    return answer


async def text_of(client: aiohttp.ClientSession, name: str) -> str:
    async with client.get(f"/v1/config/{name}") as answer:
        assert (answer.status, answer.content_type) == (200, "application/yaml")
        return await answer.text()


async def restore(client: aiohttp.ClientSession, filename: str, backup: str) -> tuple[int, Any]:
    said = {"filename": filename, "backup_filename": backup}
    async with client.put("/v1/config/restore", json=said) as answer:
        return answer.status, await answer.json()


async def reopen(gateway: Plant) -> None:
    """Start anew, as far as the documents know."""
    gateway.documents = Documents(gateway.state, gateway.clock, gateway._applied)
    await asyncio.to_thread(gateway.documents.open)


async def files(client: aiohttp.ClientSession) -> Mapping[str, Any]:
    async with client.get("/v1/config") as answer:
        assert answer.status == 200
        return {each["endpoint"]: each for each in (await answer.json())["files"]}


# -- what is there from the beginning ------------------------------------------------------------------


async def test_the_built_in_documents_are_in_force_until_others_are_stored(
    admin: aiohttp.ClientSession, gateway: Plant
) -> None:
    listed = await files(admin)
    assert sorted(listed) == ["dataspace", "metadata", "sensors"]
    for name, each in listed.items():
        assert (each["timestamp"], each["backup"], each["problems"]) == (None, [], [])
        assert each["info_header"]["schema_name"] == f"{name}_schema"
        assert await text_of(admin, name) == BUILT_IN[name]
    assert gateway.documents.uploads() == {}


async def test_the_sensors_have_their_line_computed(admin: aiohttp.ClientSession) -> None:
    async with admin.get("/v1/sensor") as answer:
        listed = await answer.json()
    first = listed["sensors"][0]
    assert first["sensor_id"] == "acc100g_01"
    assert first["scaling_factor"] == pytest.approx(75.75757575757575)
    assert first["offset"] == pytest.approx(-125.0)
    assert listed["sensors"][4]["offset"] == pytest.approx(-297.3333333333334)
    assert [each["sensor_id"] for each in listed["sensors"][6:10]] == [
        *(f"backpack_0{n}" for n in (1, 2, 3)),
        "vbat_01",
    ]
    assert listed["sensors"][5]["sensor_type"] is None
    (configuration,) = listed["configurations"]
    assert configuration["channels"]["10"] == listed["sensors"][9]
    assert listed["default_configuration_id"] == configuration["configuration_id"]


# -- storing -------------------------------------------------------------------------------------------


async def test_an_upload_is_kept_as_it_came_and_what_was_there_before_it_too(
    admin: aiohttp.ClientSession, gateway: Plant
) -> None:
    answer = await stored(admin, "sensors", SENSORS)
    assert answer["info_header"]["config_version"] == "0.0.2"
    assert await text_of(admin, "sensors") == SENSORS
    kept = gateway.state / "documents" / "sensors.yaml"
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == (SENSORS, 0o600)
    assert re.fullmatch(r"sensors__\d{8}T\d{6}Z\.yaml", answer["backup"])
    (version,) = (await files(admin))["sensors"]["backup"]
    assert version["filename"] == answer["backup"]
    assert version["info_header"]["config_version"] == "0.0.1"
    assert (kept.parent / "backup" / answer["backup"]).stat().st_mode & 0o777 == 0o600
    async with admin.get("/v1/sensor") as listed:
        assert [each["name"] for each in (await listed.json())["sensors"]] == ["Force"]


async def test_the_same_again_changes_nothing(admin: aiohttp.ClientSession, gateway: Plant) -> None:
    await stored(admin, "metadata", METADATA)
    assert (await stored(admin, "metadata", METADATA))["backup"] is None
    assert len((await files(admin))["metadata"]["backup"]) == 1


async def test_a_form_is_taken_too(admin: aiohttp.ClientSession) -> None:
    form = aiohttp.FormData()
    form.add_field("comment", "of the night shift")
    form.add_field("file", SENSORS, filename="../../evil.yaml", content_type="application/x-yaml")
    async with admin.post("/v1/config/sensors", data=form) as answer:
        assert answer.status == 200, await answer.text()
    assert await text_of(admin, "sensors") == SENSORS


@pytest.mark.seed_row(33)
async def test_a_restored_version_is_the_same_byte_for_byte(admin: aiohttp.ClientSession) -> None:
    await stored(admin, "metadata", METADATA)
    other = METADATA.replace("Milling", "Turning")
    backup = (await stored(admin, "metadata", other))["backup"]
    status, answer = await restore(admin, "metadata.yaml", backup)
    assert status == 200, answer
    assert await text_of(admin, "metadata") == METADATA
    names = [each["filename"] for each in (await files(admin))["metadata"]["backup"]]
    assert answer["backup"] == names[0], "a restore is an upload: what it replaces is kept"
    assert len(names) == 3
    assert (await restore(admin, "metadata.yaml", names[-1]))[0] == 200, "the built-in one comes back too"
    assert (await text_of(admin, "metadata")) == BUILT_IN["metadata"]


async def test_it_is_still_there_after_a_restart(admin: aiohttp.ClientSession, gateway: Plant) -> None:
    await stored(admin, "sensors", SENSORS)
    await reopen(gateway)
    assert [each.id for each in gateway.documents.sensors().sensors] == ["force_01"]


async def test_the_oldest_versions_go(admin: aiohttp.ClientSession) -> None:
    for number in range(KEPT + 3):
        await stored(admin, "sensors", SENSORS.replace("0.0.2", f"0.1.{number}"))
    versions = [each["info_header"]["config_version"] for each in (await files(admin))["sensors"]["backup"]]
    assert versions == [f"0.1.{number}" for number in reversed(range(2, KEPT + 2))]


async def test_parallel_uploads_each_have_their_version(admin: aiohttp.ClientSession, gateway: Plant) -> None:
    texts = [SENSORS.replace("0.0.2", f"0.2.{number}") for number in range(12)]
    answers = await asyncio.gather(*(stored(admin, "sensors", text) for text in texts))
    assert len({each["backup"] for each in answers}) == 12
    last = await text_of(admin, "sensors")
    kept = [
        (gateway.state / "documents" / "backup" / each["filename"]).read_text()
        for each in (await files(admin))["sensors"]["backup"]
    ]
    assert sorted([last, *kept]) == sorted([*texts, BUILT_IN["sensors"]])


# -- refusing ------------------------------------------------------------------------------------------

DEFAULT = "default_configuration_id: press"
CHANNELS = "sensor_configurations.0.channels"
WRONG_SENSORS = [
    ("sensor_id: force_01\n  s", "sensor_id: ''\n  s", "sensors.0.sensor_id", 13, "is empty"),
    ("volt_max: 2.97", "volt_max: 0.33", "sensors.0", 8, "no range of volts"),
    ("volt_max: 2.97", "volt_max: '2.97'", "sensors.0.volt_max", 17, "without quotes"),
    ("volt_max: 2.97", "volt_max: .inf", "sensors.0.volt_max", 17, "finite"),
    ("volt_max: 2.97", "volt_mix: 2.97", "sensors.0.volt_mix", 17, 'did you mean "volt_max"'),
    ("1: {sensor_id: force_01}", "1: {sensor_id: force_02}", f"{CHANNELS}.1.sensor_id", 23, "force_01"),
    ("    6:", "    256:", f"{CHANNELS}.256", 24, "1 to 255"),
    ("sensor_conf", SENSOR + "sensor_conf", "sensors.1.sensor_id", 24, "twice; the first is on line 13"),
    ("config_date: '2025-10-07T13:52:40+0200'", "config_date: yesterday", "info.config_date", 5, "ISO 8601"),
    ("config_version: 0.0.2", "config_version: 2", "info.config_version", 6, "put it in quotes"),
    ("  unit: N\n", "  unit: N\n  unit: kN\n", "", 16, "given twice"),
    ("config_name: Hall 3", f"config_name: {'x' * 300}", "info.config_name", 4, "longer than 200"),
    ("info:", "about:", "about", 1, 'needs the setting "info"'),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "field", "line", "says"), WRONG_SENSORS)
async def test_what_is_wrong_with_sensors_is_named_with_its_place(
    admin: aiohttp.ClientSession, before: str, after: str, field: str, line: int, says: str
) -> None:
    assert before in SENSORS
    status, answer = await post(admin, "sensors", SENSORS.replace(before, after))
    assert status == 422, answer
    details = answer["error"]["details"]
    assert [
        each for each in details if (each["field"], each["line"]) == (field, line) and says in each["message"]
    ], details
    assert answer["error"]["message"].startswith("Nothing was changed; sensors.yaml:")
    assert await text_of(admin, "sensors") == BUILT_IN["sensors"]


@pytest.mark.seed_row(30)
async def test_each_field_of_a_sensor_is_needed(admin: aiohttp.ClientSession) -> None:
    for name in ("name", "sensor_id", "unit", "dimension", "phys_min", "phys_max", "volt_min", "volt_max"):
        document = yaml.safe_load(SENSORS)
        del document["sensors"][0][name]
        status, answer = await post(admin, "sensors", yaml.safe_dump(document))
        assert (status, f'needs the setting "{name}"' in answer["error"]["message"]) == (422, True), name


@pytest.mark.parametrize("document", ["sensors", "metadata", "dataspace"])
async def test_each_field_of_the_header_is_needed(admin: aiohttp.ClientSession, document: str) -> None:
    text = {"sensors": SENSORS, "metadata": METADATA, "dataspace": DATASPACE}[document]
    for name in ("schema_name", "schema_version", "config_name", "config_date", "config_version"):
        status, answer = await post(admin, document, re.sub(rf"(?m)^  {name}: .*\n", "", text))
        assert (status, f'needs the setting "{name}"' in answer["error"]["message"]) == (422, True), name


@pytest.mark.parametrize(
    ("document", "before", "after", "says"),
    [
        (
            "sensors",
            "default_configuration_id: press",
            "default_configuration_id: presz",
            'did you mean "press"',
        ),
        (
            "sensors",
            "default_configuration_id:",
            "made_by: x\ndefault_configuration_id:",
            '"made_by" is not known',
        ),
        ("sensors", "volt_max: 2.97", "volt_max: 2.97\n  colour: red", '"colour" is not known, and not used'),
        ("sensors", "info:\n", "info:\n  generated_at: now\n", '"generated_at" is not known'),
        ("metadata", "default_profile_id: milling", "default_profile_id: turning", "no profile here"),
    ],
)
async def test_what_does_not_count_is_taken_with_a_warning(
    admin: aiohttp.ClientSession, document: str, before: str, after: str, says: str
) -> None:
    """Other programs of this format write more than it has, and their files have to do."""
    text = {"sensors": SENSORS, "metadata": METADATA}[document]
    assert before in text
    warnings = (await stored(admin, document, text.replace(before, after, 1)))["warnings"]
    assert [each for each in warnings if says in each and f"{document}.yaml:" in each], warnings
    assert (await stored(admin, document, text))["warnings"] == []


DATATYPES = "text text_box text_suggestions dropdown int float int_qty float_qty boolean image"
WRONG_METADATA = [
    ("datatype: image", "datatype: picture", "deeper.pictures.datatype", "must be text"),
    ("label: Person, ", "", "person", 'needs the setting "label"'),
    ("options: [Milling, 1.2379]", "options: Milling", "process.options", "wants a list"),
    ("      Type: {}", "      Type: 5", "pre.Type", "wants a group"),
    ("    id: milling\n", "    id: 7\n", "milling.id", "put it in quotes"),
    ("    name: Milling\n", "", "profiles.milling", 'needs the setting "name"'),
    ("    post:\n      General:", "    post:\n      - General:", "post", "wants a group, found a list"),
]


@pytest.mark.parametrize(("before", "after", "field", "says"), WRONG_METADATA)
async def test_what_is_wrong_with_metadata_is_named_with_its_place(
    admin: aiohttp.ClientSession, before: str, after: str, field: str, says: str
) -> None:
    assert before in METADATA
    status, answer = await post(admin, "metadata", METADATA.replace(before, after))
    assert status == 422, answer
    details = answer["error"]["details"]
    assert [e for e in details if e["field"].endswith(field) and says in e["message"]], details


@pytest.mark.seed_row(31)
async def test_each_of_the_ten_datatypes_is_taken(admin: aiohttp.ClientSession) -> None:
    for kind in DATATYPES.split():
        await stored(admin, "metadata", METADATA.replace("datatype: image", f"datatype: {kind}"))


WRONG_DATASPACE = [
    ("protocol: https", "protocol: ftp", "protocol", "http or https"),
    ("domain: trident.example.com", "domain: a:b@trident.example.com", "domain", "a host"),
    ("base_path: /api/v1/", "base_path: api?x=1", "base_path", "a path"),
    ("  bucket: common\n", "", "connection", 'needs the setting "bucket"'),
    ("  username: press\n", "  username:\n", "connection", 'needs the setting "username"'),
    ("connector: trident", "connector: poseidon", "connector", "must be trident"),
    ("enabled: True", "enabled: maybe", "enabled", "true or false"),
]


@pytest.mark.parametrize(("before", "after", "field", "says"), WRONG_DATASPACE)
async def test_what_is_wrong_with_a_dataspace_is_named_and_its_password_is_not(
    admin: aiohttp.ClientSession, gateway: Plant, before: str, after: str, field: str, says: str
) -> None:
    assert before in DATASPACE
    status, answer = await post(admin, "dataspace", DATASPACE.replace(before, after))
    assert status == 422, answer
    details = answer["error"]["details"]
    assert [e for e in details if e["field"].endswith(field) and says in e["message"]], details
    assert "strongPw" not in str(answer)
    assert list((gateway.state / "documents" / "secrets").iterdir()) == []


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (b"", 400, "says nothing"),
        (b"# nothing\n", 400, "says nothing"),
        (b"just words", 400, "names and their values"),
        (b"- a\n- b\n", 400, "names and their values"),
        (b"info: [1, 2", 400, "bracket"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 400, "0x89 is not UTF-8"),
        (b"info: \0", 400, "NUL"),
        (b"{" * 5000, 400, "deeper than 32"),
        (b"[" + b"0," * 200_000 + b"]", 400, "more than 100000 values"),
        (BOMB.encode(), 422, "is not taken"),
        (b"info: !!python/object/apply:os.system ['id']\n", 422, "is not taken"),
        (b"---\ninfo: {}\n---\ninfo: {}\n", 400, "second document"),
    ],
)
async def test_what_is_no_yaml_of_ours_changes_nothing(
    admin: aiohttp.ClientSession, gateway: Plant, data: bytes, status: int, says: str
) -> None:
    for name in ("sensors", "metadata", "dataspace"):
        answered, answer = await post(admin, name, data)
        assert (answered, says in str(answer)) == (status, True), answer
        assert len(answer["error"]["details"]) <= 100
        assert await text_of(admin, name) == BUILT_IN[name]
    assert gateway.applied == 0


async def test_a_hundred_megabytes_are_refused_early(admin: aiohttp.ClientSession) -> None:
    sent = 0

    async def body() -> Any:
        nonlocal sent
        for _ in range(1600):
            sent += 65536
            yield b"#" * 65536

    try:
        async with admin.post(
            "/v1/config/sensors", data=body(), headers={"Content-Type": "text/yaml"}
        ) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (413, "too_large")
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        pass  # the answer crossed what was still on its way
    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(b"#" * 8_000_000), filename="sensors.yaml", content_type="text/yaml")
    try:
        async with admin.post("/v1/config/sensors", data=form) as answer:
            assert answer.status == 413
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        pass
    assert sent < 100_000_000, "it was read to its end"
    bomb = gzip.compress(b"#" * 100_000_000, 6)
    headers = {"Content-Type": "text/yaml", "Content-Encoding": "gzip"}
    async with admin.post("/v1/config/sensors", data=io.BytesIO(bomb), headers=headers) as answer:
        assert answer.status == 413
    await stored(admin, "sensors", SENSORS)


async def test_other_media_types_and_broken_forms_are_refused(admin: aiohttp.ClientSession) -> None:
    form = aiohttp.FormData()
    form.add_field("file", SENSORS, filename="a.png", content_type="image/png")
    async with admin.post("/v1/config/sensors", data=form) as answer:
        assert answer.status == 415
    named = b"Content-Disposition: form-data; "
    bodies = {
        "application/json": (b"{}", 415),
        "multipart/mixed; boundary=b": (b"--b\r\n\r\nx\r\n--b--", 415),
        "multipart/form-data": (b"--b\r\n\r\nx\r\n--b--", 400),
        "multipart/form-data; boundary=b": (b"--b\r\n" + named + b"name=file\r\n\r\nx", 400),
        "multipart/form-data; boundary=c": (b"--b\r\n\r\nx\r\n--b--", 400),
        f"multipart/form-data; boundary={'d' * 80}": (b"", 400),
        "multipart/form-data; boundary=e": (b"--e\r\n" + b"A: " + b"x" * 20_000 + b"\r\n\r\n--e--", 400),
        "multipart/form-data; boundary=f": (b"--f\r\n" + named + b"name=x\r\n\r\n1\r\n--f--", 400),
    }  # fmt: skip
    for kind, (body, status) in bodies.items():
        async with admin.post("/v1/config/sensors", data=body, headers={"Content-Type": kind}) as answer:
            assert answer.status == status, (kind, await answer.text())
            assert "error" in await answer.json()


async def test_roles_and_names(admin: aiohttp.ClientSession, gateway: Plant, url: str) -> None:
    for role in (Role.READ, Role.OPERATE):
        async with aiohttp.ClientSession(url, headers=gateway.bearer(role)) as client:
            assert (await post(client, "sensors", SENSORS))[0] == 403
            assert (await restore(client, "sensors.yaml", "x"))[0] == 403
            assert await text_of(client, "sensors") == BUILT_IN["sensors"]
    async with aiohttp.ClientSession(url) as client, client.get("/v1/config/dataspace") as answer:
        assert answer.status == 401
    for name in ("meta", "..%2Fadmin-token", "sensors.yaml", "restore", "%00"):
        assert (await post(admin, name, SENSORS))[0] == 404
        async with admin.get(f"/v1/config/{name}") as answer:
            assert answer.status == 404


# -- restoring what will not do ------------------------------------------------------------------------


async def test_a_broken_version_is_not_restored(admin: aiohttp.ClientSession, gateway: Plant) -> None:
    backup = (await stored(admin, "sensors", SENSORS))["backup"]
    (gateway.state / "documents" / "backup" / backup).write_text(SENSORS.replace("2.97", "high"))
    status, answer = await restore(admin, "sensors.yaml", backup)
    assert status == 422
    assert answer["error"]["details"][0]["field"] == "sensors.0.volt_max"
    assert f"{backup}:17:13:" in answer["error"]["message"]
    assert await text_of(admin, "sensors") == SENSORS


async def test_only_versions_of_that_file_are_restored(admin: aiohttp.ClientSession, gateway: Plant) -> None:
    backup = (await stored(admin, "sensors", SENSORS))["backup"]
    token = gateway.state / "documents" / "backup" / "token.yaml"
    token.write_text(SENSORS)
    for name in ("../sensors.yaml", "token.yaml", "", "../../admin-token", backup + "\0", "/etc/passwd"):
        assert (await restore(admin, "sensors.yaml", name))[0] == 404
    for filename in ("metadata.yaml", "sensors", "../sensors.yaml", "admin-token"):
        assert (await restore(admin, filename, backup))[0] == 404
    as_json = {"Content-Type": "application/json"}
    for body in (b"", b"[]", b"{}", b'{"filename": 1, "backup_filename": 2}', b'{"filename": "a"}'):
        async with admin.put("/v1/config/restore", data=body, headers=as_json) as answer:
            assert answer.status in (400, 422)


async def test_a_document_that_is_broken_on_the_disk_is_told(
    admin: aiohttp.ClientSession, gateway: Plant
) -> None:
    await stored(admin, "sensors", SENSORS)
    (gateway.state / "documents" / "sensors.yaml").write_text(SENSORS.replace("2.97", "high"))
    await reopen(gateway)
    each = (await files(admin))["sensors"]
    assert (each["info_header"], each["problems"][0]["line"]) == (None, 17)
    async with admin.get("/v1/sensor") as answer:
        assert answer.status == 409
        assert "sensors.yaml:17:13" in (await answer.json())["error"]["message"]
    assert "sensors.yaml:17:13" in gateway.documents.problems[0]
    await stored(admin, "sensors", SENSORS.replace("0.0.2", "0.0.3"))
    assert gateway.documents.problems == []


async def test_the_names_of_versions_grow_also_when_the_clock_goes_back(
    admin: aiohttp.ClientSession, gateway: Plant
) -> None:
    first = (await stored(admin, "sensors", SENSORS))["backup"]
    later = gateway.state / "documents" / "backup" / "sensors__20990101T000000Z.yaml"
    later.write_text(SENSORS)
    second = (await stored(admin, "sensors", SENSORS.replace("0.0.2", "0.0.3")))["backup"]
    assert second == "sensors__20990101T000000Z_1.yaml"
    names = [each["filename"] for each in (await files(admin))["sensors"]["backup"]]
    assert names == [second, later.name, first]


# -- the password --------------------------------------------------------------------------------------


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def secrets(gateway: Plant) -> list[Path]:
    return list((gateway.state / "documents" / "secrets").iterdir())


@pytest.mark.parametrize("text", [DATASPACE, OLDER, DISABLED])
async def test_a_password_is_in_its_own_file_and_nowhere_else(
    admin: aiohttp.ClientSession, gateway: Plant, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    answer = await stored(admin, "dataspace", text)
    (secret,) = secrets(gateway)
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == (PASSWORD, 0o600)
    await stored(admin, "dataspace", text.replace("Hall 3", "Hall 4"))
    shown = await text_of(admin, "dataspace")
    assert yaml.safe_load(shown)["connection"]["password"] == {"file": f"secrets/{secret.name}"}
    told = [answer, shown, await files(admin), caplog.text]
    holding = [name for name, data in everything(gateway.state).items() if b"strongPw" in data]
    assert holding == [f"documents/secrets/{secret.name}"]
    assert "strongPw" not in str(told), "also not the older one in the comment"


async def test_a_dataspace_becomes_an_upload(admin: aiohttp.ClientSession, gateway: Plant) -> None:
    await stored(admin, "dataspace", DATASPACE)
    upload = gateway.documents.uploads()["dataspace"]
    assert (upload.id, upload.kind) == ("dataspace", "dataspace")
    settings = upload.settings
    assert settings.url == "https://trident.example.com/api/v1"
    assert (settings.user, settings.password.text) == ("press", PASSWORD)
    assert (settings.folder, settings.virtual_group, settings.virtual_group_root) == (
        "default",
        "root",
        "root",
    )
    assert (settings.dialect, settings.manage_url) == ("management", f"{settings.url}/ui/assets")
    await stored(admin, "dataspace", OLDER)
    settings = gateway.documents.uploads()["dataspace"].settings
    assert (settings.dialect, settings.bucket, settings.virtual_group) == ("s3", "common", None)
    await stored(admin, "dataspace", DISABLED)
    assert gateway.documents.uploads() == {}


async def test_what_was_given_out_can_be_sent_back(admin: aiohttp.ClientSession, gateway: Plant) -> None:
    await stored(admin, "dataspace", DATASPACE)
    edited = (await text_of(admin, "dataspace")).replace("bucket_folder: default", "bucket_folder: hall-3")
    assert (await stored(admin, "dataspace", edited))["backup"]
    settings = gateway.documents.uploads()["dataspace"].settings
    assert (settings.folder, settings.password.text) == ("hall-3", PASSWORD)


@pytest.mark.parametrize(
    ("before", "after"),
    [("trident.example.com", "evil.example"), ("username: press", "username: eve"), ("api/v1", "api/v2"),
     ("protocol: https", "protocol: http")],
)  # fmt: skip
async def test_a_kept_password_goes_to_no_other_address(
    admin: aiohttp.ClientSession, before: str, after: str
) -> None:
    await stored(admin, "dataspace", DATASPACE)
    shown = await text_of(admin, "dataspace")
    assert before in shown
    status, answer = await post(admin, "dataspace", shown.replace(before, after))
    assert (status, "write it anew" in answer["error"]["message"]) == (422, True)
    assert await text_of(admin, "dataspace") == shown


@pytest.mark.parametrize(
    "password",
    ["{file: /etc/passwd}", "{file: ../admin-token}", "{file: secrets/dataspace-0123456789abcdef}",
     "{credential: dataspace}", "{env: HOME}", "[a, b]", "12345", "\"two\\nlines\""],
)  # fmt: skip
async def test_a_password_cannot_be_taken_from_elsewhere(
    admin: aiohttp.ClientSession, gateway: Plant, password: str
) -> None:
    text = re.sub(r"password: .*", lambda _: f"password: {password}", DATASPACE)
    status, answer = await post(admin, "dataspace", text)
    assert (status, answer["error"]["details"][0]["field"]) == (422, "connection.password")
    assert secrets(gateway) == []


async def test_an_earlier_password_comes_back_with_its_version(
    admin: aiohttp.ClientSession, gateway: Plant
) -> None:
    await stored(admin, "dataspace", DATASPACE)
    backup = (await stored(admin, "dataspace", DATASPACE.replace("strongPw123", "other")))["backup"]
    assert len(secrets(gateway)) == 2
    assert (await restore(admin, "dataspace.yaml", backup))[0] == 200
    assert gateway.documents.uploads()["dataspace"].settings.password.text == PASSWORD


async def test_a_password_that_no_version_names_is_removed(
    admin: aiohttp.ClientSession, gateway: Plant
) -> None:
    await stored(admin, "dataspace", DATASPACE)
    first = secrets(gateway)
    for number in range(KEPT + 1):
        await stored(admin, "dataspace", DATASPACE.replace("strongPw123", f"other{number % 2}"))
    assert not set(first) & set(secrets(gateway))


async def test_a_password_that_a_power_cut_left_is_removed(
    admin: aiohttp.ClientSession, gateway: Plant
) -> None:
    await stored(admin, "dataspace", DATASPACE)
    (used,) = secrets(gateway)
    for name in ("dataspace-0123456789abcdef", ".dataspace-0123456789abcdef.part"):
        (used.parent / name).write_text("orphan")
    await reopen(gateway)
    assert secrets(gateway) == [used]


async def test_without_its_password_it_is_not_used_and_said_so(
    admin: aiohttp.ClientSession, gateway: Plant
) -> None:
    backup = (await stored(admin, "dataspace", DATASPACE))["backup"]
    later = (await stored(admin, "dataspace", DATASPACE.replace("Hall 3", "Hall 4")))["backup"]
    for secret in secrets(gateway):
        secret.unlink()  # as after a restore on another box: no secret is in a backup
    await reopen(gateway)
    assert gateway.documents.uploads() == {}
    assert "upload the file anew" in gateway.documents.problems[0]
    assert (await restore(admin, "dataspace.yaml", later))[0] == 422
    assert (await files(admin))["dataspace"]["backup"][0]["info_header"]["config_name"] == "Hall 3"
    assert (await restore(admin, "dataspace.yaml", backup))[0] == 200, "that one needs none"


async def test_a_file_that_somebody_put_there_by_hand_is_neither_used_nor_shown(
    admin: aiohttp.ClientSession, gateway: Plant
) -> None:
    (gateway.state / "documents" / "dataspace.yaml").write_text(DATASPACE)
    await reopen(gateway)
    assert gateway.documents.uploads() == {}
    async with admin.get("/v1/config/dataspace") as answer:
        assert answer.status == 409
        assert "strongPw" not in await answer.text()
    assert "strongPw" not in str(await files(admin)) + str(gateway.documents.problems)


@pytest.mark.parametrize("generation", ["0.0.1", "1.0.0"])
async def test_a_dataspace_as_icoapi_ships_it_is_taken(
    admin: aiohttp.ClientSession, gateway: Plant, generation: str
) -> None:
    names = ["username", "password", "bucket", "bucket_folder", "protocol", "domain", "base_path"]
    names += ["connector", "gui", "virtual_group_root"] if generation == "1.0.0" else []
    empty = "".join(f"  {name}:\n" for name in names)
    text = INFO.format(name="dataspace", version=generation) + f"connection:\n  enabled: False\n{empty}"
    await stored(admin, "dataspace", text)
    assert (gateway.documents.uploads(), secrets(gateway)) == ({}, [])


async def test_a_disk_that_refuses_changes_nothing(admin: aiohttp.ClientSession, gateway: Plant) -> None:
    await stored(admin, "sensors", SENSORS)
    backup = gateway.state / "documents" / "backup"
    for file in backup.iterdir():
        file.unlink()
    backup.rmdir()
    backup.write_text("in the way")
    status, answer = await post(admin, "sensors", SENSORS.replace("0.0.2", "0.0.3"))
    assert (status, "nothing was changed" in answer["error"]["message"]) == (503, True)
    assert await text_of(admin, "sensors") == SENSORS


# -- without the API -----------------------------------------------------------------------------------


def test_what_a_channel_measures() -> None:
    _, library = sensors.read(parse(KINDS["sensors"].default(), "sensors.yaml"))
    assert library.of_channel(1).id == "acc100g_01"
    assert library.of_channel(10).id == "vbat_01"
    assert library.of_channel(1, "rotacc_02").id == "rotacc_02"
    assert library.of_channel(11) == library.of_channel(0) == RAW, "the eleventh stands for no channel"
    with pytest.raises(LookupError, match="nothing-such"):
        library.of_channel(1, "nothing-such")
    _, short = sensors.read(parse(SENSORS.encode(), "sensors.yaml"))
    assert (short.of_channel(1).id, short.of_channel(2)) == ("force_01", RAW)
    _, unchosen = sensors.read(parse(SENSORS.replace(DEFAULT, "").encode(), "sensors.yaml"))
    assert unchosen.default_configuration == "press"


PIECES = [
    "null",
    "~",
    "[]",
    "{}",
    "{a: b}",
    "[1]",
    "'x'",
    "1",
    "true",
    "",
    "|\n  a\n",
    "- a",
    "? a",
    "&a b",
    "*a",
    "!!str x",
]
PIECES += ["'", '"', "{", ":", "\t"]


def spoilt(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        line, piece = lines[at], rng.choice(PIECES)
        lines[at] = rng.choice(
            [piece, f"  {line}", line[2:], line.partition(":")[0] + ": " + piece, line + piece]
        )
        lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("name", "text"), [("sensors", SENSORS), ("metadata", METADATA), ("dataspace", DATASPACE)]
)
def test_whatever_is_spoilt_is_refused_with_a_sentence_or_taken(name: str, text: str) -> None:
    rng, taken = random.Random(name), 0
    for _ in range(500):
        try:
            source = parse(spoilt(text, rng).encode(), name)
            if name == "sensors":
                sensors.read(source)
            elif name == "metadata":
                metadata.read(source)
            else:
                whole, given = dataspace.given_in(source)
                kept = dataspace.written(whole, f"secrets/dataspace-{'0' * 16}" if given else "")
                assert dataspace.is_ours(kept)
                assert b"strongPw" not in kept
            taken += 1
        except DocumentRefused as refused:
            assert refused.faults and all(fault.message for fault in refused.faults)
            assert "strongPw" not in str(refused) + str(refused.faults)
    assert taken < 400, "nothing was spoilt"
