"""The shapes of ICOapi 0.2.1's answers, from docs/icoapi.md, and what compares an answer with one."""

from collections.abc import Mapping
from typing import Any

NUMBER = (int, float)
TEXT_OR_NULL = (str, type(None))
Shape = Any
"""A type, a tuple of types, [shape of each], {name: shape} with exactly these names, or a callable."""


def check(value: Any, shape: Shape, at: str = "") -> None:
    """Raise AssertionError where a value has another shape, and say where."""
    if isinstance(shape, Mapping):
        assert isinstance(value, dict) and value.keys() == shape.keys(), (at, value)
        for name, inner in shape.items():
            check(value[name], inner, f"{at}.{name}")
    elif isinstance(shape, list):
        assert isinstance(value, list), (at, value)
        for n, each in enumerate(value):
            check(each, shape[0], f"{at}.{n}")
    elif isinstance(shape, Nullable):
        if value is not None:
            check(value, shape.shape, at)
    else:
        is_one = isinstance(value, shape) and (shape in (bool, object) or not isinstance(value, bool))
        assert is_one, (at, value)


class Nullable:
    """A shape that may be null."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape


CAPACITY = {"total": NUMBER, "available": NUMBER}
CHANNEL = {"channel_number": int, "sensor_id": TEXT_OR_NULL}
ADC = {"prescaler": int, "acquisition_time": int, "oversampling_rate": int, "reference_voltage": NUMBER}
METADATA = {"version": str, "profile": str, "parameters": dict}
INSTRUCTIONS = {
    "name": TEXT_OR_NULL,
    "mac_address": str,
    "time": (int, float, type(None)),
    "first": CHANNEL,
    "second": CHANNEL,
    "third": CHANNEL,
    "ift_requested": bool,
    "ift_channel": str,
    "ift_window_width": NUMBER,
    "adc": Nullable(ADC),
    "meta": Nullable(METADATA),
    "wait_for_post_meta": bool,
    "disconnect_after_measurement": bool,
}
STATUS = {
    "running": bool, "name": TEXT_OR_NULL, "start_time": TEXT_OR_NULL, "tool_name": TEXT_OR_NULL,
    "instructions": Nullable(INSTRUCTIONS),
}  # fmt: skip
STATE = {
    "can_ready": bool,
    "disk_capacity": CAPACITY,
    "measurement_status": STATUS,
    "cloud": {"enabled": bool, "healthy": bool, "manage_url": TEXT_OR_NULL},
}
NODE = {"name": str, "device_number": int, "mac_address": str, "rssi": int}
STU = {"name": str, "device_number": int, "mac_address": str}
RENAMED = {"name": str, "old_name": str, "mac_address": str}
VOLTAGE = {"supply_voltage": float, "unit": str, "indication": type(None), "timestamp_utc_iso": str}
STARTED = {"message": str, "data": STATUS}
POINT = {
    "timestamp": (*NUMBER, type(None)), "first": (*NUMBER, type(None)), "second": (*NUMBER, type(None)),
    "third": (*NUMBER, type(None)), "ift": Nullable([{"x": NUMBER, "y": NUMBER}]),
    "counter": (int, type(None)), "dataloss": (*NUMBER, type(None)),
}  # fmt: skip
CLOUD = {"status": str, "id": TEXT_OR_NULL, "upload_timestamp": TEXT_OR_NULL}
FILES = {
    "capacity": CAPACITY,
    "files": [{"name": str, "created": str, "size": int, "cloud": CLOUD}],
    "directory": str,
}
SENSOR = {
    "name": str,
    "sensor_type": TEXT_OR_NULL,
    "sensor_id": str,
    "unit": str,
    "dimension": str,
    "phys_min": NUMBER,
    "phys_max": NUMBER,
    "volt_min": NUMBER,
    "volt_max": NUMBER,
    "scaling_factor": NUMBER,
    "offset": NUMBER,
}
CHANNELS = {str(n): SENSOR for n in range(1, 11)}
SENSORS = {
    "sensors": [SENSOR],
    "configurations": [{"configuration_id": str, "configuration_name": str, "channels": CHANNELS}],
    "default_configuration_id": TEXT_OR_NULL,
}
EMBEDDED = {"dataset_name": str, "original_name": str, "mime": str, "size": int}
DELETED_INSIDE = {"file_name": str, "dataset_name": str}
PARSED = {
    "acceleration": {"name": str, "type": str, "path": str, "attributes": dict},
    "pictures": dict,
    "sensors": [SENSOR],
    "embedded_files": [EMBEDDED | {"download_path": str}],
}
ROWS = {
    "name": str,
    "counter": [int],
    "timestamp": [NUMBER],
    "datasets": [{"name": str, "data": [NUMBER]}],
}
HEADER = {
    "schema_name": str, "schema_version": str, "config_name": str, "config_version": str, "config_date": str,
}  # fmt: skip
BACKUP = {
    "files": [
        {
            "name": str, "filename": str, "endpoint": str, "timestamp": str, "description": str,
            "info_header": HEADER,
            "backup": [{"filename": str, "timestamp": str, "info_header": Nullable(HEADER)}],
        }
    ]
}  # fmt: skip
LOGS = {
    "files": [{"name": str, "size": int, "first_timestamp": TEXT_OR_NULL, "last_timestamp": TEXT_OR_NULL}],
    "directory": str,
    "max_bytes": int,
    "backup_count": int,
}
LOG = {"filename": str, "content": str}
DETAIL = {"detail": str}
FIELDS = {"detail": [{"type": str, "loc": list, "msg": str, "input": object}]}
