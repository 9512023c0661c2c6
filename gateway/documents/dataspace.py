"""dataspace.yaml: the connection to a dataspace. Its password stands in a file of its own, never in this one.

Two generations: with `connector` (schema 1.0.0), and before it (0.0.1), without.
"""

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from gateway.config import UploadConfig
from gateway.config.problems import Place
from gateway.config.quantities import scalar_type
from gateway.config.reading import INVALID
from gateway.config.secret_reference import resolve
from gateway.config.yaml_source import Entry, MapNode, Node, RefusedNode, ScalarNode
from gateway.controls.documents import DocumentRefused
from gateway.documents.reading import Header, Source, is_null, parse, within
from gateway.documents.secret_files import REFERENCE
from gateway.settings import Secret, Settings, setting

UPLOAD: Final = "dataspace"
"""The id of the upload that this document makes."""
_DOMAIN: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)
_PATH: Final = re.compile(r"[A-Za-z0-9._~/-]*")
_PAGE: Final = re.compile(r"[A-Za-z0-9._~/?#&=%:+,;!$'()*@-]*")
_NEEDED: Final = ("protocol", "domain", "base_path", "username", "bucket")


def _domain(value: str) -> None:
    if value.strip("/") and not _DOMAIN.fullmatch(value.strip("/")):
        raise ValueError("it is a host and, where it has one, a port, as in trident.example.com")


def _path(value: str) -> None:
    if not _PATH.fullmatch(value):
        raise ValueError("it is a path of letters, digits, - _ . and /, as in api/v1")


def _page(value: str) -> None:
    if not _PAGE.fullmatch(value):
        raise ValueError("it is a path, with what may follow ? and #, as in assets?tab=files")


@dataclass(frozen=True, kw_only=True)
class Connection(Settings):
    """The `connection` block, but for its password."""

    enabled: bool = setting(help="whether the dataspace is used")
    connector: Literal["trident"] | None = setting(None, help="its kind; before schema 1.0.0 there was one")
    protocol: Literal["http", "https"] | None = setting(None, help="http travels unencrypted")
    domain: str | None = setting(None, help="host, and port where it has one", check=_domain)
    base_path: str | None = setting(None, help="path of the service", check=_path)
    username: str | None = setting(None, help="name of the account")
    bucket: str | None = setting(None, help="bucket of the storage")
    bucket_folder: str | None = setting(None, help="folder in the bucket")
    gui: str | bool | None = setting(None, help="not used")
    manage_assets_path: str | None = setting(None, help="path of the page for people", check=_page)
    virtual_group_root: str | None = setting(None, help="virtual group that objects are shown in")

    @property
    def url(self) -> str:
        domain, path = (self.domain or "").strip("/"), (self.base_path or "").strip("/")
        return f"{self.protocol}://{domain}/{path}".rstrip("/")

    @property
    def manage_url(self) -> str | None:
        path = (self.manage_assets_path or "").strip("/")
        return f"{self.url}/{path}" if path else None

    @property
    def account(self) -> tuple[str, str | None]:
        """Where a password goes, and for whom: it is given for this and for nothing else."""
        return self.url, self.username


@dataclass(frozen=True, kw_only=True)
class DataspaceFile(Settings):
    """The whole dataspace.yaml, but for the password."""

    info: Header = setting(help="what this file is")
    connection: Connection = setting(help="how the dataspace is reached")


@dataclass(frozen=True, slots=True)
class Given:
    """A password as it was uploaded: in the clear (`text`), or as the reference that we made of it."""

    place: Place
    text: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Dataspace:
    """A dataspace.yaml as kept; `password` is None only where it is not enabled."""

    connection: Connection
    password: Secret | None

    def upload(self) -> UploadConfig | None:
        """Return the upload that it makes; None: it is not enabled."""
        connection = self.connection
        if not connection.enabled or self.password is None:
            return None
        from gateway.uploaders.dataspace import Settings as Target  # only a dataspace in use needs it

        target = Target(
            url=connection.url,
            user=connection.username or "",
            password=self.password,
            dialect="management" if connection.connector else "s3",
            bucket=connection.bucket or "",
            virtual_group=connection.virtual_group_root or None,
            virtual_group_root=connection.virtual_group_root or None,
            manage_url=connection.manage_url,
        )
        if connection.bucket_folder:
            target = replace(target, folder=connection.bucket_folder)
        return UploadConfig(UPLOAD, "dataspace", target)


def read(source: Source, folder: Path) -> tuple[Header, Dataspace]:
    """Return what a kept dataspace.yaml says. DocumentRefused: it cannot be used."""
    whole, given = given_in(source)
    password = None
    if given is not None and given.text:
        source.add(
            given.place, '"password" is a secret, which is never kept in the file itself; upload the file'
        )
    elif given is not None:
        try:
            password = resolve("file", given.reference, {}, folder)
        except ValueError:
            if whole.connection.enabled:
                sentence = '"password" is not kept here any more; upload the file anew, with it in it'
                source.add(given.place, sentence)
    source.check()
    return whole.info, Dataspace(whole.connection, password)


def given_in(source: Source) -> tuple[DataspaceFile, Given | None]:
    """Return an uploaded dataspace.yaml, and the password that it gives. DocumentRefused: it will not do."""
    given = _password(source)
    whole = source.read(DataspaceFile, _without_password(source.root))
    if whole is INVALID:
        source.check()
    assert isinstance(whole, DataspaceFile)
    if whole.connection.enabled:
        connection = source.root.entries["connection"].key_place
        for name in _NEEDED:
            if not str(getattr(whole.connection, name) or "").strip():
                source.add(connection, f'"connection" needs the setting "{name}" where it is enabled')
        if given is None:
            source.add(connection, '"connection" needs the setting "password" where it is enabled')
    source.check()
    return whole, given


def _without_password(root: MapNode) -> MapNode:
    """Return the document without it, so that nothing that is read or said of the rest can hold it."""
    entry = root.entries.get("connection")
    if entry is None or not isinstance(entry.node, MapNode):
        return root
    rest = {name: each for name, each in entry.node.entries.items() if name != "password"}
    connection = Entry(entry.key_place, MapNode(entry.node.place, rest))
    return MapNode(root.place, root.entries | {"connection": connection})


def _password(source: Source) -> Given | None:
    connection = within(source.root, "connection")
    entry = connection.entries.get("password") if isinstance(connection, MapNode) else None
    if entry is None or is_null(entry.node) or isinstance(entry.node, RefusedNode):
        return None
    try:
        return _given(entry.node)
    except ValueError as error:
        source.add(entry.node.place, f'"password" {error}')
        return Given(entry.node.place)


def _given(node: Node) -> Given | None:
    """Return a password. ValueError: why it is none, never showing it."""
    if isinstance(node, MapNode):
        entry = node.entries.get("file") if len(node.entries) == 1 else None
        if entry and isinstance(entry.node, ScalarNode) and REFERENCE.fullmatch(entry.node.text):
            return Given(node.place, reference=entry.node.text)
        raise ValueError(
            "is the password itself, or {file: ...} as the gateway wrote it; nothing else is taken"
        )
    if not isinstance(node, ScalarNode):
        raise ValueError("wants text, found a list")
    if node.plain and scalar_type(node.text) != "str":
        raise ValueError("wants text; put it in quotes")
    if not node.text.isprintable():
        raise ValueError("holds a character that cannot be typed, such as a line break")
    return Given(node.place, text=node.text) if node.text else None


def written(whole: DataspaceFile, reference: str) -> bytes:
    """Return the YAML to keep: all that was said, but the password by reference, and no comments.

    A comment may hold a password too, an older one perhaps.
    """
    connection = _said(whole.connection)
    if reference:
        connection["password"] = {"file": reference}
    document = {"info": _said(whole.info), "connection": connection}
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, encoding="utf-8")


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would take for something else than text."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None if scalar_type(text) == "str" else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)


def _said(settings: Settings) -> dict[str, Any]:
    found = {each.name: getattr(settings, each.name) for each in fields(settings)}  # type: ignore[arg-type]
    return {name: value for name, value in found.items() if value is not None}


def is_ours(data: bytes) -> bool:
    """Say whether a dataspace.yaml is as we write it: then no password is anywhere in it."""
    try:
        whole, given = given_in(parse(data, f"{UPLOAD}.yaml"))
    except DocumentRefused:
        return False
    if given is not None and given.text:
        return False
    return data == written(whole, given.reference if given is not None else "")
