"""Writes what is derived from the declarations: `python -m tests.config.documents`."""

import json
from pathlib import Path

from gateway.config.json_schema import json_schema
from gateway.config.reference import reference

_HERE = Path(__file__).parents[2]
REFERENCE = _HERE / "docs" / "settings.md"
SCHEMA = _HERE / "config" / "gateway.schema.json"
EXAMPLE = _HERE / "config" / "gateway.yaml"


def schema_text() -> str:
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")
