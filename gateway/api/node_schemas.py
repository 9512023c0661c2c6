"""What `/v1/stu`, `/v1/sth` and `/v1/measurement` take and give, as marshmallow schemas."""

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from gateway.api.queries import limit
from gateway.api.schemas import Closed, Running, text, whole
from gateway.controls.sensor_nodes import AdcConfiguration

MAC = r"^[0-9A-Fa-f]{2}([-:][0-9A-Fa-f]{2}){5}(?!\n)$"
"""In Python `$` lets a line end follow; OpenAPI's regular expressions have no `\\Z`."""
_DEVICE = "The STU, by its device; needed where several are configured."
_LONGEST_NAME = 200


class StuQuery(Closed):
    device = text(_DEVICE)


class MeasurementListQuery(Closed):
    device = text("Only of this device.")
    limit = limit(100, 1000)


class ConnectedAnswer(Schema):
    name = text("Name of the node.", required=True)
    mac = text("Its MAC, as 08-6B-D7-01-DE-81.", required=True)


class StuAnswer(Schema):
    device = text("The device.", required=True)
    health = fields.Nested(Running, required=True)
    ready = fields.Boolean(
        required=True, metadata={"description": "Its session is up: it can be asked, and measure."}
    )
    connected = fields.Nested(
        ConnectedAnswer,
        required=True,
        allow_none=True,
        metadata={"description": "The sensor node that it is connected to; null: none."},
    )
    measurement = text("Name of the measurement that runs; null: none.", required=True, allow_none=True)


class StuList(Schema):
    stus = fields.List(fields.Nested(StuAnswer), required=True)


class UnitInformationAnswer(Schema):
    name = text("Name.", required=True)
    mac = text("MAC, as 08-6B-D7-01-DE-81.", required=True)
    hardware_version = text("Version of the hardware.", required=True)
    firmware_version = text("Version of the firmware.", required=True)
    release_name = text("Name of the firmware's release.", required=True)
    serial_number = text("Serial number.", required=True)


class FoundNodeAnswer(ConnectedAnswer):
    number = whole("At the STU; it may be another in the next search.", required=True)
    rssi_dbm = whole("How strongly it is received.", required=True)


class FoundNodeList(Schema):
    nodes = fields.List(
        fields.Nested(FoundNodeAnswer), required=True, metadata={"description": "By their numbers."}
    )


def _choice() -> dict[str, Any]:
    return {
        "mac": text(
            "MAC of the node.",
            validate=validate.Regexp(MAC, error="This is no MAC, such as 08-6B-D7-01-DE-81."),
        ),
        "name": text("Name of the node.", validate=validate.Length(1, 8)),
        "number": fields.Integer(
            strict=True,
            validate=validate.Range(0, 254),
            metadata={"description": "Number of the node in the newest search."},
        ),
    }


class NodeChoice(Closed):
    """One node, by exactly one of its MAC, name and number."""

    mac, name, number = _choice().values()

    @validates_schema
    def _one(self, data: dict[str, Any], **_: object) -> None:
        if len(data) != 1:
            raise ValidationError("Name the node by one of mac, name and number.")


class Rename(Closed):
    new_name = text("1 to 8 bytes.", required=True, validate=validate.Length(1, 8))
    mac = text(
        "MAC of the node; it is connected for this where none is. Without it: the connected one.",
        validate=validate.Regexp(MAC, error="This is no MAC, such as 08-6B-D7-01-DE-81."),
    )


class RenamedAnswer(ConnectedAnswer):
    old_name = text("Its name before.", required=True)


class RssiAnswer(Schema):
    rssi_dbm = whole("How strongly the connected node is received.", required=True)


class SupplyVoltageAnswer(Schema):
    supply_voltage_v = fields.Float(
        required=True, metadata={"description": "Volts of the connected node's battery."}
    )


class Adc(Closed):
    prescaler = fields.Integer(required=True, strict=True, validate=validate.Range(1, 127))
    acquisition_time = fields.Integer(
        required=True,
        strict=True,
        validate=validate.OneOf(AdcConfiguration.ACQUISITION_TIMES),
        metadata={"description": "Cycles of the ADC's clock."},
    )
    oversampling_rate = fields.Integer(
        required=True, strict=True, validate=validate.OneOf(AdcConfiguration.OVERSAMPLING_RATES)
    )
    reference_voltage_v = fields.Float(
        required=True, validate=validate.OneOf(AdcConfiguration.REFERENCE_VOLTAGES_V)
    )


class AdcAnswer(Adc):
    sample_rate_hz = fields.Float(
        required=True,
        metadata={"description": "Of all channels together: two have a half of it each, three a third."},
    )


class SensorMapDocument(Closed):
    sensors = fields.List(
        fields.Integer(strict=True, validate=validate.Range(0, 255)),
        required=True,
        validate=validate.Length(equal=3),
        metadata={"description": "Which sensor each of the three channels measures; 0: it stays as it is."},
    )


class ChannelPlan(Closed):
    number = fields.Integer(
        required=True,
        strict=True,
        validate=validate.Range(1, 255),
        metadata={"description": "Number of the sensor at the node."},
    )
    sensor_id = text(
        "What its volts mean, of /v1/sensor; without it the sensor in the place of its number there.",
        allow_none=True,
        load_default=None,
    )


class IftPlan(Closed):
    channel = fields.Integer(required=True, strict=True, validate=validate.Range(1, 3))
    window_s = fields.Float(required=True, validate=validate.Range(0.005, 1.0))
    raw = fields.Boolean(
        load_default=False,
        metadata={"description": "Of raw counts, at the rate of all channels, as ICOapi gives it."},
    )


class MeasurementPlan(Closed):
    name = text(
        "Part of the file's name; without it the device's.", validate=validate.Length(max=_LONGEST_NAME)
    )
    duration_s = fields.Float(
        allow_none=True,
        load_default=None,
        validate=validate.Range(0, 1e8, min_inclusive=False),
        metadata={"description": "null: until it is stopped."},
    )
    channels = fields.List(
        fields.Nested(ChannelPlan, allow_none=True),
        required=True,
        validate=validate.Length(equal=3),
        metadata={"description": "The three channels; null: not measured."},
    )
    adc = fields.Nested(
        Adc,
        allow_none=True,
        load_default=None,
        metadata={"description": "Written to the node first; null: it stays as it is."},
    )
    ift = fields.Nested(
        IftPlan, allow_none=True, load_default=None, metadata={"description": "The IFT value of a channel."}
    )
    metadata = fields.Dict(
        allow_none=True,
        load_default=None,
        metadata={"description": "What is known before: version, profile, parameters."},
    )
    wait_for_post_metadata = fields.Boolean(
        load_default=False, metadata={"description": "Metadata is to follow after the end."}
    )
    disconnect_afterwards = fields.Boolean(
        load_default=False, metadata={"description": "The node is let go at the end."}
    )


class PostMetadata(Closed):
    name = text("Name of the measurement; without it the newest that waits for metadata.")
    metadata = fields.Dict(
        required=True,
        allow_none=True,
        metadata={"description": "version, profile, parameters; null: there is none."},
    )


class MeasurementAnswer(Schema):
    name = text("Of its file too, less .hdf5.", required=True)
    device = text("The STU.", required=True)
    node = text("Name of the sensor node.", required=True)
    mac = text("MAC of the sensor node.", required=True)
    state = text("recording, recorded, written, or empty: there was no frame.", required=True)
    started_us = whole("When it began.", required=True)
    ended_us = whole("When it ended; null: it runs.", required=True, allow_none=True)
    duration_s = fields.Float(
        required=True, allow_none=True, metadata={"description": "As asked for; null: until it is stopped."}
    )
    channels = fields.List(
        fields.Dict(allow_none=True),
        required=True,
        metadata={"description": "Number and sensor of each of the three channels; null: not measured."},
    )
    adc = fields.Nested(AdcAnswer, required=True)
    received = whole("Frames.", required=True)
    lost = whole("Frames that are missing, by their counters.", required=True)
    loss = fields.Float(required=True, metadata={"description": "Share of the frames that is missing."})
    interrupted = fields.Boolean(required=True, metadata={"description": "It ended before it was to."})
    ending = text("Why it ended, where it was not as asked for; else empty.", required=True)
    waits_for_metadata = fields.Boolean(required=True)
    file = text("Name of its file; empty: it is not written yet.", required=True)
    problem = text("Why its file is not written yet; else empty.", required=True)


class MeasurementStatus(Schema):
    device = text("The STU.", required=True)
    running = fields.Nested(MeasurementAnswer, required=True, allow_none=True)


class MeasurementList(Schema):
    measurements = fields.List(
        fields.Nested(MeasurementAnswer), required=True, metadata={"description": "The newest first."}
    )
