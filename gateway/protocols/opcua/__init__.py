"""OPC UA servers: subscription with fall-back to cyclic reads.

Only the settings live here, so that a configuration is checked without importing asyncua.
"""

import asyncio
import gc
import importlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal
from urllib.parse import urlsplit

from gateway.model import Device, Link
from gateway.protocols.opcua.patterns import Pattern, is_pattern
from gateway.settings import Secret, setting
from gateway.settings import Settings as Group

POLICIES = ("Aes256_Sha256_RsaPss", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Basic256", "Basic128Rsa15")
"""Security policies that can be named; the last two are outdated and never chosen by `auto`."""

_FASTEST_MS = 10
"""Assumed where 0 asks for the fastest the server can, which it tells only in its answer."""
_SECURITY = re.compile(rf"(auto|none|({'|'.join(POLICIES)})(/(SignAndEncrypt|Sign))?)")


def check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "opc.tcp" or not parts.hostname:
        raise ValueError(f"{url!r} is no OPC UA address: it has the form opc.tcp://host:4840")
    if parts.username is not None or parts.password is not None:
        raise ValueError("user and password do not belong into the address: use `user` and `password`")
    if parts.port == 0:
        raise ValueError(f"{url!r} has the impossible port 0")


def check_urls(urls: Sequence[str]) -> None:
    for url in urls:
        check_url(url)


def _check_security(security: str) -> None:
    if not _SECURITY.fullmatch(security):
        raise ValueError(
            f"{security!r} is no security: auto, none, or a policy ({', '.join(POLICIES)}), "
            "with /Sign or /SignAndEncrypt after it where only that mode will do"
        )


def _check_node(node: str) -> None:
    if not node.strip():
        raise ValueError(
            "the node is empty: nsu=URI;s=Name, ns=2;s=Name, i=2258 or a path such as Line1/Speed"
        )
    if is_pattern(node):
        Pattern(node)


@dataclass(frozen=True, kw_only=True)
class Settings(Group):
    """An OPC UA server."""

    SHORT = "url"

    url: str = setting(help="Address of the server.", check=check_url, example="opc.tcp://plc-07:4840")
    urls: tuple[str, ...] = setting(
        (),
        help="Further addresses: of redundant servers, of which the healthiest is used, or of the same one.",
        check=check_urls,
        example="[opc.tcp://plc-08:4840]",
    )
    security: str = setting(
        "auto",
        help="auto (the strongest that works), none, or a policy with or without a mode.",
        check=_check_security,
        example="Basic256Sha256/SignAndEncrypt",
    )
    user: str = setting("", help="User name; without one the session is anonymous.", example="gateway")
    password: Secret | None = setting(None, help="Password, by reference; never sent without encryption.")
    user_certificate: Secret | None = setting(
        None, help="Instead of a user name: PEM text with a certificate and its private key, by reference."
    )
    publishing_interval_ms: int = setting(
        500, help="How often the server sends what it collected.", low=10, high=3_600_000, example="500ms"
    )
    sampling_interval_ms: int | None = setting(
        None,
        help="How often the server looks at a value; the publishing interval unless given, 0 the fastest.",
        low=0,
        high=86_400_000,
        example="100ms",
    )
    queue_size: int | None = setting(
        None,
        help="Values the server keeps per tag between two publishes; enough for the intervals unless given.",
        low=1,
        high=100_000,
    )
    deadband: float = setting(0.0, help="Smaller changes are not kept; in the unit of the tag.", low=0)
    mode: Literal["auto", "subscribe", "poll"] = setting(
        "auto", help="auto subscribes and reads cyclically what cannot be subscribed; or only one of them."
    )
    poll_interval_ms: int = setting(
        1000, help="Cycle of the reads where polled.", low=10, high=86_400_000, example="1s"
    )
    max_tags: int = setting(
        1000,
        help="The most tags taken by searching: when none are listed, or by wildcards.",
        low=1,
        high=100_000,
        example="1000",
    )
    session_timeout_s: float = setting(
        30.0, help="How long the server keeps a lost session.", low=10, high=3600, example="60s"
    )
    request_timeout_s: float = setting(
        10.0, help="How long the server may take for an answer.", low=1, high=300, example="10s"
    )
    backfill_s: float = setting(
        86_400.0,
        help="How far back missed values are fetched from the server's history; 0 fetches none.",
        low=0,
        example="1d",
    )
    root: str = setting(
        "/Objects", help="Where the search begins when no tags are listed: a node or path.", check=_check_node
    )

    def __post_init__(self) -> None:
        if self.password is not None and not self.user:
            raise ValueError("there is a password but no user: add `user`, or remove `password`")
        if self.user and self.user_certificate is not None:
            raise ValueError("there are `user` and `user_certificate`: the server takes one of them")

    def most_samples_per_s(self, tags: Mapping[str, Any]) -> float | None:
        """Return what comes if each tag changes whenever it is looked at; None: how many is not known."""
        if not tags or any(is_pattern(tag.node) for tag in tags.values()):
            return None
        if self.mode == "poll":
            return sum(bool(tag.node) for tag in tags.values()) * 1000 / self.poll_interval_ms
        usual = (
            self.publishing_interval_ms if self.sampling_interval_ms is None else self.sampling_interval_ms
        )
        own = (tag.sampling_interval_ms for tag in tags.values() if tag.node)
        return sum(1000 / ((usual if ms is None else ms) or _FASTEST_MS) for ms in own)


@dataclass(frozen=True, kw_only=True)
class TagSettings(Group):
    """A variable of the server."""

    SHORT = "node"

    node: str = setting(
        "",
        help="Node id by namespace URI or index, or a browse path from Objects; one with *, ? or ** makes a "
        "tag of each variable that it matches.",
        check=_check_node,
        example="nsu=urn:plc;s=Line1.Speed",
    )
    events: str = setting(
        "",
        help="Instead of `node`: the node whose events and alarms are kept, i=2253 for all of the server.",
        example="i=2253",
    )
    least_severity: int = setting(1, help="Events below it are left out.", low=1, high=1000)
    event_types: tuple[str, ...] = setting(
        (),
        help="Only events of these types: node ids, or names of the standard.",
        example="[AlarmConditionType]",
    )
    unit: str = setting("", help="Unit of measure.", example="rpm")
    scale: float = setting(1.0, help="Factor from the raw to the stored value.")
    offset: float = setting(0.0, help="Added after scaling.")
    deadband: float | None = setting(None, help="As at the device, for this tag.", low=0)
    sampling_interval_ms: int | None = setting(
        None, help="As at the device, for this tag.", low=0, high=86_400_000, example="100ms"
    )
    queue_size: int | None = setting(None, help="As at the device, for this tag.", low=1, high=100_000)

    def __post_init__(self) -> None:
        if self.node and self.events:
            raise ValueError("it has both `node` and `events`: one tag keeps values, another one events")
        if not self.node and not self.events:
            raise ValueError("it needs `node`, such as nsu=urn:plc;s=Line1.Speed, or `events`, as i=2253")
        if not self.events and (self.least_severity > 1 or self.event_types):
            raise ValueError("`least_severity` and `event_types` are for tags with `events`")


def queue_size(settings: Settings, sampling_ms: int) -> int:
    """Return what the server is asked to keep between two publishes: all it samples, and two more."""
    if settings.queue_size is not None:
        return settings.queue_size
    return math.ceil(settings.publishing_interval_ms / (sampling_ms or _FASTEST_MS)) + 2


@cache
def _collecting() -> Any:
    module = importlib.import_module("gateway.protocols.opcua.collect")
    # asyncua brings some hundred thousand objects that stay: the collector's looks at them hold the loop.
    gc.freeze()
    return module


async def run(device: Device, settings: Settings, link: Link) -> None:
    """Collect from the server until cancelled, or raise."""
    # Importing asyncua takes a second of CPU on a small box: not in the event loop.
    module = await asyncio.to_thread(_collecting)
    await module.collect(device, settings, link)
