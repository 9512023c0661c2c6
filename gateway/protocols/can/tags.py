"""What the YAML says of the signals of a bus: databases, CANopen nodes, tags. It imports no library."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gateway.settings import Settings as Group
from gateway.settings import setting

FORMATS = (".dbc", ".kcd", ".arxml", ".sym")


def _check_databases(value: "Path | tuple[Path, ...]") -> None:
    for path in value if isinstance(value, tuple) else (value,):
        if path.suffix.lower() not in FORMATS:
            raise ValueError(
                f"{path.name}: a CAN database ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}; "
                "an EDS goes below `canopen`"
            )


def _check_encoding(name: str) -> None:
    try:
        codecs.lookup(name)
    except LookupError:
        raise ValueError(f"there is no text encoding {name!r}: try cp1252, utf-8 or latin-1") from None


def _check_signal(name: str) -> None:
    if "." not in name.strip("."):
        raise ValueError(f"{name!r} is no signal: write its message before it, as EngineData.EngineSpeed")


@dataclass(frozen=True, kw_only=True)
class NodeSettings(Group):
    """A CANopen node."""

    node: int = setting(help="Its node id.", low=1, high=127, example="5")
    eds: Path = setting(help="Its EDS or DCF file.", example="drive.eds")


@dataclass(frozen=True, kw_only=True)
class DecodingSettings(Group):
    """How frames become values."""

    database: Path | tuple[Path, ...] | None = setting(
        None,
        help="DBC, KCD, ARXML or SYM file, or a list of them: the first that knows an id is asked.",
        check=_check_databases,
        example="press.dbc",
    )
    encoding: str | None = setting(
        None,
        help="Of the text in the databases; unless given UTF-8 where it is that, else cp1252 in DBC and SYM.",
        check=_check_encoding,
        example="utf-8",
    )
    j1939: bool | None = setting(
        None,
        help="Whether messages with 29-bit ids are matched by PGN, from any source address and of any "
        "priority; as the database marks each unless given.",
    )
    canopen: Mapping[str, NodeSettings] = setting(
        {}, help="CANopen nodes whose process data (PDOs) are taken, each under a name."
    )
    keep_interval_ms: int = setting(
        1000,
        help="A signal that keeps changing is kept at most this often, with its newest value; 0 keeps that "
        "of every frame.",
        low=0,
        high=86_400_000,
        example="1s",
    )
    overdue_ms: int = setting(
        5000,
        help="The signals of a message for which the database has a cycle time are BadNoCommunication after "
        "this time without it, or 5 cycles where that is longer; 0 never.",
        low=0,
        high=86_400_000,
        example="5s",
    )
    raw_frames: Literal["off", "unknown", "all"] = setting(
        "off",
        help="Of which ids the whole payload is kept too, as bytes, under the tag MESSAGE.raw or 0x1A0.raw: "
        "of none, of those that no database knows (or whose page it does not), or of all.",
    )

    def most_samples_per_s(self, tags: Mapping[str, Any]) -> float | None:
        """Return how much listed tags can give; None where every frame or every signal is kept."""
        if not tags or self.raw_frames != "off":
            return None
        kept_ms = [
            self.keep_interval_ms if tag.keep_interval_ms is None else tag.keep_interval_ms
            for tag in tags.values()
        ]
        return sum(1000 / each_ms for each_ms in kept_ms) if all(kept_ms) else None

    @property
    def databases(self) -> tuple[Path, ...]:
        found = self.database or ()
        return found if isinstance(found, tuple) else (found,)


@dataclass(frozen=True, kw_only=True)
class TagSettings(Group):
    """A signal, or the payload of an id."""

    SHORT = "signal"

    signal: str = setting(
        help="Message.Signal as in the database; Message.raw or 0x1A0.raw is the whole payload (an id of 29 "
        "bits has 8 digits).",
        check=_check_signal,
        example="EngineData.EngineSpeed",
    )
    source: int | None = setting(
        None, help="J1939: only from this source address.", low=0, high=253, example="0"
    )
    unit: str = setting("", help="Unit of measure after scaling; that of the database unless scaled.")
    scale: float = setting(1.0, help="Factor from the database's physical to the stored value.")
    offset: float = setting(0.0, help="Added after scaling.")
    deadband: float = setting(0.0, help="Smaller changes are not kept; in the unit of the tag.", low=0)
    keep_interval_ms: int | None = setting(
        None, help="As at the device, for this tag.", low=0, high=86_400_000, example="0s"
    )
