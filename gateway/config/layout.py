"""What a whole gateway.yaml holds: the root of all shapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.api.settings import HttpSettings
from gateway.config.shapes import Group, Kinds, MapOf, Member, group_of
from gateway.config.wording import check_name
from gateway.logs import LogSettings
from gateway.measurements.settings import MeasurementSettings
from gateway.protocols import PROTOCOLS
from gateway.settings import Declared, Settings, setting
from gateway.store.settings import StoreSettings
from gateway.uploaders import UPLOADERS


def _check_id(value: str) -> None:
    if value:
        check_name("gateway", value)


@dataclass(frozen=True, kw_only=True)
class GatewaySettings(Settings):
    """The `gateway:` part of the YAML."""

    SHORT = "id"

    id: str = setting(
        "",
        help="name of this gateway, part of every delivery; empty: made at first start and kept",
        check=_check_id,
        example="hall-3-press",
    )


@dataclass(frozen=True)
class Whole:
    """A configuration file as read."""

    gateway: Any
    http: Any
    logs: Any
    measurements: Any
    store: Any
    devices: Mapping[str, Any]
    uploads: Mapping[str, Any]


def layout(
    protocols: Mapping[str, str] = PROTOCOLS,
    uploaders: Mapping[str, str] = UPLOADERS,
    *,
    http: type[Settings] = HttpSettings,
    store: type[Settings] = StoreSettings,
) -> Group:
    """Return the root; other protocols, uploaders and groups than the real ones are for tests."""
    members = {}
    groups: dict[str, type[Settings]] = {
        "gateway": GatewaySettings, "http": http, "store": store, "logs": LogSettings,
        "measurements": MeasurementSettings,
    }  # fmt: skip
    for name, cls in groups.items():
        text = (cls.__doc__ or "").strip()
        members[name] = Member(name, group_of(cls), Declared(text), cls())
    devices = MapOf(Kinds("device", protocols), "device")
    uploads = MapOf(Kinds("upload", uploaders), "upload")
    members["devices"] = Member("devices", devices, Declared("The devices, each under its id."), {})
    members["uploads"] = Member(
        "uploads", uploads, Declared("Where samples are sent, each under its id."), {}
    )
    return Group(Whole, members)
