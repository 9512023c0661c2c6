"""What `/v1/config`, `/v1/sensor` and `/v1/logs` take and give, as marshmallow schemas."""

from marshmallow import Schema, fields, validate

from gateway.api.schemas import Closed, text, whole
from gateway.logs.files import FILE


class Header(Schema):
    schema_name = text("Name of the schema.", required=True)
    schema_version = text("Version of the schema.", required=True)
    config_name = text("What people call the file.", required=True)
    config_date = text("When it was written, ISO 8601.", required=True)
    config_version = text("Version of the file.", required=True)


class FaultAnswer(Schema):
    field = text("The names down to it, such as sensors.3.volt_min, or empty.", required=True)
    line = whole("From 1.", required=True)
    column = whole("From 1.", required=True)
    message = text("A sentence.", required=True)


class DocumentVersion(Closed):
    filename = text("As `/v1/config` has it.", required=True)
    backup_filename = text("An earlier version of it, as `/v1/config` has it.", required=True)


class VersionAnswer(Schema):
    filename = text("What `restore` takes as backup_filename.", required=True)
    timestamp = text("When it was replaced, ISO 8601 in UTC.", required=True)
    info_header = fields.Nested(
        Header, required=True, allow_none=True, metadata={"description": "null: it cannot be read."}
    )


class DocumentAnswer(Schema):
    endpoint = text("Its name under /v1/config.", required=True)
    name = text("A title.", required=True)
    filename = text("What `restore` takes as filename.", required=True)
    description = text("What it is for.", required=True)
    timestamp = text(
        "When it was stored, ISO 8601 in UTC; null: never, the built-in one is in force.",
        required=True,
        allow_none=True,
    )
    info_header = fields.Nested(Header, required=True, allow_none=True)
    problems = fields.List(
        fields.Nested(FaultAnswer),
        required=True,
        metadata={"description": "Why it is not used, where it is broken on the disk."},
    )
    backup = fields.List(
        fields.Nested(VersionAnswer), required=True, metadata={"description": "Newest first, 50 at most."}
    )


class DocumentList(Schema):
    files = fields.List(fields.Nested(DocumentAnswer), required=True)


class DocumentStoredAnswer(Schema):
    info_header = fields.Nested(Header, required=True)
    backup = text(
        "The file name that the version before it has now; null: it was the same already.",
        required=True,
        allow_none=True,
    )
    changed = fields.List(
        fields.String(), required=True, metadata={"description": "What was restarted because of it."}
    )
    warnings = fields.List(fields.String(), required=True, metadata={"description": "A sentence each."})


class SensorAnswer(Schema):
    name = text("What people call it.", required=True)
    sensor_id = text("What names it.", required=True)
    sensor_type = text("Its type, as its maker calls it.", required=True, allow_none=True)
    unit = text("Unit of the physical value.", required=True)
    dimension = text("What is measured.", required=True)
    phys_min = fields.Float(required=True, metadata={"description": "Physical value at volt_min."})
    phys_max = fields.Float(required=True, metadata={"description": "Physical value at volt_max."})
    volt_min = fields.Float(required=True, metadata={"description": "Volts at phys_min."})
    volt_max = fields.Float(required=True, metadata={"description": "Volts at phys_max."})
    scaling_factor = fields.Float(required=True, metadata={"description": "k2: physical units per volt."})
    offset = fields.Float(
        required=True, metadata={"description": "d2: the physical value is volts * scaling_factor + offset."}
    )


class SensorConfigurationAnswer(Schema):
    configuration_id = text("What names it.", required=True)
    configuration_name = text("What people call it.", required=True)
    channels = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(SensorAnswer),
        required=True,
        metadata={"description": "Channel number to sensor."},
    )


class SensorList(Schema):
    sensors = fields.List(fields.Nested(SensorAnswer), required=True)
    configurations = fields.List(fields.Nested(SensorConfigurationAnswer), required=True)
    default_configuration_id = text("The one to begin with.", required=True, allow_none=True)


class LogFileAnswer(Schema):
    name = text("Name of the file.", required=True)
    size = whole("Bytes.", required=True)
    first_timestamp = text("Of its first record, ISO 8601 in UTC.", required=True, allow_none=True)
    last_timestamp = text("Of its last record, ISO 8601 in UTC.", required=True, allow_none=True)


class LogFileList(Schema):
    files = fields.List(fields.Nested(LogFileAnswer), required=True)
    directory = text(
        "Where they are; null: there are none, the journal has the log.", required=True, allow_none=True
    )
    max_bytes = whole("A file is at most so long.", required=True)
    backup_count = whole("So many are kept beside the newest.", required=True)


class LogText(Schema):
    filename = text("Name of the file.", required=True)
    content = text("Its last lines.", required=True)


class LogQuery(Closed):
    file = text("Name of the file; the newest without it.", load_default=FILE)
    limit = fields.Integer(
        load_default=1000,
        validate=validate.Range(1, 20_000),
        metadata={"description": "At most so many of its last lines, and 1 MiB."},
    )
