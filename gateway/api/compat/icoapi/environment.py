"""ICOapi's environment variables (VITE_*, LOG_*, WEBSOCKET_UPDATE_RATE) and where the gateway has each."""

import logging
from collections.abc import Mapping
from typing import Any, Final

from gateway.api.contracts import GatewayView
from gateway.api.errors import ApiError
from gateway.api.settings import IcoapiSettings, split_address
from gateway.logs.files import FILE, FILE_BYTES, FILES, JsonLines

_PLACES: Final = {
    "VITE_API_PROTOCOL": "http.compat.icoapi.tls",
    "VITE_API_WS_PROTOCOL": "http.compat.icoapi.tls",
    "VITE_API_HOSTNAME": "http.compat.icoapi.listen",
    "VITE_API_PORT": "http.compat.icoapi.listen",
    "VITE_API_ORIGINS": "http.compat.icoapi.cors",
    "VITE_APPLICATION_FOLDER": "measurements.path",
    "WEBSOCKET_UPDATE_RATE": "http.compat.icoapi.updates_per_s",
    "LOG_LEVEL": "logs.level",
    "LOG_USE_JSON": "logs.format",
}
"""Where the YAML says it; what is not here is fixed."""
_YES: Final = ("1", "true", "yes", "on")


def environment(gateway: GatewayView, settings: IcoapiSettings) -> dict[str, str]:
    """Return what is in force, in ICOapi's words; there is no secret among these names."""
    host, port = split_address(settings.listen)
    secure = "" if settings.tls == "off" else "s"
    files = gateway.log_files()
    named = {
        "VITE_API_PROTOCOL": f"http{secure}",
        "VITE_API_HOSTNAME": host,
        "VITE_API_PORT": str(port),
        "VITE_API_VERSION": "v1",
        "VITE_API_ORIGINS": ",".join(settings.cors),
        "VITE_API_WS_PROTOCOL": f"ws{secure}",
        "WEBSOCKET_UPDATE_RATE": str(settings.updates_per_s),
        "VITE_APPLICATION_FOLDER": str(gateway.files.folder),
    }
    if files is not None:
        name = FILE.rpartition(".")[0] or FILE
        named |= {"LOG_PATH": files.folder, "LOG_NAME_WITHOUT_EXTENSION": name}
        named |= {"LOG_MAX_BYTES": str(FILE_BYTES), "LOG_BACKUP_COUNT": str(FILES - 1)}
    if gateway.logs is not None:
        is_json = isinstance(gateway.logs.feed.formatter, JsonLines)
        level = logging.getLevelName(logging.getLogger().level)
        named |= {"LOG_LEVEL": level, "LOG_USE_JSON": str(int(is_json))}
    return named


def variables(text: str) -> dict[str, str]:
    """Return what a `.env` says: lines of NAME=VALUE, with or without quotes and `export`."""
    said = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            said[name.strip()] = value.strip().strip("\"'")
    return said


def differences(data: bytes, now: Mapping[str, str]) -> list[str]:
    """Return a sentence for each name of a `.env` that differs from `now`. ApiError 400: no text."""
    try:
        said = variables(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ApiError(400, "The file is no UTF-8 text.") from None
    others = [name for name, value in said.items() if name in now and value != now[name]]
    return [
        f"{name} is {_PLACES[name]} there" if name in _PLACES else f"{name} cannot be changed"
        for name in others
    ]


def settings(said: Mapping[str, str]) -> dict[str, Any]:
    """Return what a `.env` stands for, as sections of the YAML."""
    default = IcoapiSettings()
    host, port = split_address(default.listen)
    listen = f"{said.get('VITE_API_HOSTNAME') or host}:{said.get('VITE_API_PORT') or port}"
    secure = "https" in said.get("VITE_API_PROTOCOL", "") or "wss" in said.get("VITE_API_WS_PROTOCOL", "")
    origins = said.get("VITE_API_ORIGINS", "").split(",")
    icoapi: dict[str, Any] = {
        "listen": listen,
        "tls": "self-signed" if secure else "off",
        "anonymous": "operate",
        "cors": [origin.strip() for origin in origins if origin.strip()],
        "updates_per_s": said.get("WEBSOCKET_UPDATE_RATE") or default.updates_per_s,
    }
    logs = {}
    if level := said.get("LOG_LEVEL", "").upper():
        logs["level"] = "ERROR" if level == "CRITICAL" else level
    if said.get("LOG_USE_JSON", "").lower() in _YES:
        logs["format"] = "json"
    return {"http": {"compat": {"icoapi": icoapi}}} | ({"logs": logs} if logs else {})


def unused(said: Mapping[str, str]) -> list[str]:
    """Return the names of a `.env` that `settings` has nothing for; their values may be secrets."""
    return sorted(name for name in said if name not in _PLACES or name == "VITE_APPLICATION_FOLDER")
