"""What `/v1` gives, as marshmallow schemas: they document every answer.

Samples themselves never pass through marshmallow: `values.py` writes them.
"""

from typing import Any

from marshmallow import RAISE, Schema, fields, validate


def text(help: str, **more: Any) -> fields.String:  # noqa: A002
    return fields.String(metadata={"description": help}, **more)


def whole(help: str, **more: Any) -> fields.Integer:  # noqa: A002
    return fields.Integer(metadata={"description": help, "format": "int64"}, **more)


class Closed(Schema):
    """What a client sends, as a query or a body: unknown fields are refused by name."""

    class Meta:
        """Read by marshmallow."""

        unknown = RAISE


class Failure(Schema):
    code = text("A word for programs.", required=True)
    message = text("A sentence for people.", required=True)
    details = fields.List(
        fields.Dict(), required=True, metadata={"description": "What was wrong, one entry each."}
    )


class ErrorAnswer(Schema):
    error = fields.Nested(Failure, required=True)


class Running(Schema):
    state = text("starting, running, degraded, waiting for trust, failed or stopped.", required=True)
    detail = text("A sentence, or empty.", required=True)
    since_us = whole("In this state since.", required=True)
    failures = whole("Failures in a row.", required=True)
    starts = whole("How often it was started.", required=True)


class RunAnswer(Schema):
    id = whole("Grows with time.", required=True)
    device = text("Device.", required=True)
    kind = text("poll, cycle, subscription...", required=True)
    start_us = whole("Start.", required=True)
    duration_us = whole("Duration.", required=True)
    samples = whole("Samples received.", required=True)
    status = text("running, ok, partial or error.", required=True)
    error = fields.String(allow_none=True, required=True, metadata={"description": "With its traceback."})


class RunList(Schema):
    runs = fields.List(fields.Nested(RunAnswer), required=True)
    next = fields.Integer(allow_none=True, required=True)


class GapAnswer(Schema):
    id = whole("Grows with time.", required=True)
    device = fields.String(allow_none=True, required=True)
    upload = fields.String(allow_none=True, required=True)
    from_us = whole("From, gateway time.", required=True)
    to_us = whole("To, gateway time.", required=True)
    count = fields.Integer(
        allow_none=True,
        required=True,
        metadata={"description": "Samples lost, where known; frames where a bus lost frames."},
    )
    reason = text("Why.", required=True)


class GapList(Schema):
    gaps = fields.List(fields.Nested(GapAnswer), required=True)
    next = fields.Integer(allow_none=True, required=True)


class DeletionAnswer(Schema):
    id = whole("Grows with time.", required=True)
    at_us = whole("When, gateway time.", required=True)
    by = text("The name of the token that asked for it.", required=True)
    device = text("Device.", required=True)
    tag = text("Tag.", required=True)
    from_us = whole("First time, inclusive; null for the whole series.", required=True, allow_none=True)
    to_us = whole("Last time, inclusive; null for the whole series.", required=True, allow_none=True)
    count = fields.Integer(
        allow_none=True,
        required=True,
        metadata={"description": "Samples deleted; null where counting them would have taken too long."},
    )


class DeletionList(Schema):
    deletions = fields.List(fields.Nested(DeletionAnswer), required=True)
    next = fields.Integer(allow_none=True, required=True)


class SampleAnswer(Schema):
    tag = text("Tag.", required=True)
    ts = whole("Microseconds since 1970 UTC.", required=True)
    value = fields.Raw(required=True, allow_none=True)
    status = whole("OPC UA StatusCode, 0 = Good.", required=True)
    type = fields.String(
        validate=validate.OneOf(["float", "bytes", "mixed"]),
        metadata={"description": "Only where JSON cannot carry the value itself; see the documentation."},
    )
    flags = fields.List(
        fields.String(
            validate=validate.OneOf(
                ["server_time", "own_time", "moved", "implausible", "unsynced", "history"]
            )
        )
    )


class Bucket(Schema):
    tag = text("Tag.", required=True)
    ts = whole("Start of the bucket.", required=True)
    min = fields.Float(required=True, allow_none=True)
    max = fields.Float(required=True, allow_none=True)
    avg = fields.Float(required=True, allow_none=True)
    count = whole("Numbers in it.", required=True)


class SampleList(Schema):
    samples = fields.List(fields.Nested(SampleAnswer))
    buckets = fields.List(fields.Nested(Bucket))
    next = fields.String(allow_none=True, required=True)


class HoleAnswer(Schema):
    since_us = whole("Last sign of life.", required=True)
    reason = text("Why nothing came since.", required=True)


class ItemsAnswer(Schema):
    alive = whole("Tags of which a value came in this session.", required=True)
    subscribed = whole("Tags that the device sends by itself.", required=True)
    polled = whole("Tags that are read cyclically.", required=True)
    bad = whole("Tags that give no values.", required=True)


class DeviceAnswer(Schema):
    id = text("Device.", required=True)
    kind = text("Its protocol.", required=True)
    url = text("Where it is.", required=True)
    insecure = text("Why its session is not secured, or empty.", required=True)
    health = fields.Nested(Running, required=True)
    tags = whole("Number of tags.", required=True)
    items = fields.Nested(
        ItemsAnswer,
        allow_none=True,
        required=True,
        metadata={"description": "The tags of the live session; null where none tells."},
    )
    last_heard_us = fields.Integer(allow_none=True, required=True)
    hole = fields.Nested(
        HoleAnswer,
        allow_none=True,
        required=True,
        metadata={"description": "What is missing just now; it becomes a gap record when it ends."},
    )


class DeviceList(Schema):
    devices = fields.List(fields.Nested(DeviceAnswer), required=True)


class TagAboutAnswer(Schema):
    type = text("The device's word for the type.", required=True)
    format = text('"json" where structures are decoded to JSON text, else empty.', required=True)
    unit = text("Unit of measure of the raw values, or empty.", required=True)
    range = fields.List(
        fields.Float(),
        allow_none=True,
        required=True,
        metadata={"description": "Low and high of normal operation."},
    )
    instrument_range = fields.List(
        fields.Float(),
        allow_none=True,
        required=True,
        metadata={"description": "Low and high of what the instrument can measure."},
    )
    enum = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={"description": "Texts of the integers that a value may be."},
    )


class TagStateAnswer(Schema):
    way = text("subscribed, polled (read cyclically) or bad.", required=True)
    address = text("Where the device has it: the node, say.", required=True)
    detail = text("Why it is bad, or polled though it should be subscribed.", required=True)
    alive = fields.Boolean(required=True, metadata={"description": "A value of it came in this session."})
    about = fields.Nested(
        TagAboutAnswer,
        allow_none=True,
        required=True,
        metadata={
            "description": "What the device says of it beside its values; null where it was not asked."
        },
    )


class TagAnswer(Schema):
    tag = text("Tag.", required=True)
    unit = text("Unit of measure, or empty.", required=True)
    last = fields.Nested(SampleAnswer, allow_none=True, required=True)
    state = fields.Nested(
        TagStateAnswer,
        allow_none=True,
        required=True,
        metadata={"description": "How it is in the live session; null where none tells."},
    )


class ChannelAnswer(Schema):
    security = text('Such as "Basic256Sha256/SignAndEncrypt", or "none".', required=True)
    thumbprint = text("SHA-1 of the device's certificate; empty for none.", required=True)
    clock_offset_us = fields.Integer(
        allow_none=True, required=True, metadata={"description": "What the device's clock is ahead of ours."}
    )
    warnings = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "Sentences: a certificate that expires, a clock that is wrong."},
    )


class CertificateAnswer(Schema):
    place = text("own, trusted, issuers, trusted_expired or rejected.", required=True)
    thumbprint = text("SHA-1 in hex, as OPC UA tools show it.", required=True)
    sha256 = text("SHA-256 in hex.", required=True)
    subject = text("Whose it is.", required=True)
    issuer = text("Who signed it.", required=True)
    application_uri = text("Of the application it is made out to, or empty.", required=True)
    valid_from_us = whole("Valid from.", required=True)
    valid_until_us = whole("Valid until.", required=True)
    device = text("Which device showed it, where it was rejected; else empty.", required=True)
    file = text("Where it lies on the gateway.", required=True)


class CertificateList(Schema):
    certificates = fields.List(fields.Nested(CertificateAnswer), required=True)


class DeviceDetail(DeviceAnswer):
    channel = fields.Nested(
        ChannelAnswer,
        allow_none=True,
        required=True,
        metadata={"description": "The live session; null where there is none, or no such thing."},
    )
    tags = fields.List(fields.Nested(TagAnswer), required=True)  # type: ignore[assignment]
    controls = fields.List(
        fields.String(), required=True, metadata={"description": "What it offers now: browse, scan, push."}
    )
    last_run = fields.Nested(RunAnswer, allow_none=True, required=True)


class Pushed(Schema):
    added = whole("New samples.", required=True)
    same = whole("Samples that were there already.", required=True)
    moved = whole(
        "Samples kept at the next free microsecond: another value stood under the key.", required=True
    )


class PollAnswer(Schema):
    run_id = whole("The run that answers this request.", required=True)
    run = fields.Nested(RunAnswer, allow_none=True, required=True)


class NodeAnswer(Schema):
    id = text("What the YAML takes as `node`.", required=True)
    name = text("Name.", required=True)
    kind = text("object or variable.", required=True)
    type = text("Data type, or empty.", required=True)
    access = text("r, w, rw or empty.", required=True)
    value = fields.Raw(required=True, allow_none=True)
    value_type = fields.String(metadata={"description": "As `type` of a sample."})
    unit = text("Unit of measure, or empty.", required=True)
    meaning = text("What the value means, where it is one of an enumeration; else empty.", required=True)
    has_children = fields.Boolean(required=True)


class NodeList(Schema):
    nodes = fields.List(fields.Nested(NodeAnswer), required=True)
    next = fields.String(allow_none=True, required=True)


class HeardAnswer(Schema):
    id = text("The id: 0x1A0 of 11 bits, 0x18FEF100 of 29.", required=True)
    message = text("What the database calls it; empty where none knows it.", required=True)
    source = fields.Integer(
        allow_none=True, required=True, metadata={"description": "J1939: the source address."}
    )
    frames = fields.Integer(required=True)
    rate_hz = fields.Float(
        allow_none=True, required=True, metadata={"description": "Frames a second; null of a single one."}
    )
    lengths = fields.List(fields.Integer(), required=True, metadata={"description": "Bytes of the payloads."})
    changes = fields.Integer(
        required=True, metadata={"description": "How often the payload was another one than before."}
    )
    payload = text("The newest, in hex.", required=True)
    hints = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "What it looks like, or what does not fit the database."},
    )
    values = fields.Dict(required=True, metadata={"description": "The newest value of each signal."})


class ScanAnswer(Schema):
    ids = fields.List(fields.Nested(HeardAnswer), required=True)


class UploadAnswer(Schema):
    id = text("Upload.", required=True)
    kind = text("Its uploader.", required=True)
    url = text("Where it goes.", required=True)
    insecure = text("Why the way is not secured, or empty.", required=True)
    health = fields.Nested(Running, required=True)
    status = fields.Dict(required=True, metadata={"description": "Backlog, lag, lanes and counters."})


class UploadList(Schema):
    uploads = fields.List(fields.Nested(UploadAnswer), required=True)


class QuarantinedAnswer(Schema):
    id = whole("Grows with time.", required=True)
    device = text("Device.", required=True)
    sample = fields.Nested(SampleAnswer, required=True)
    reason = text("The target's words.", required=True)
    at_us = whole("When it was refused.", required=True)


class QuarantineList(Schema):
    quarantine = fields.List(fields.Nested(QuarantinedAnswer), required=True)
    next = fields.Integer(allow_none=True, required=True)


class Count(Schema):
    count = whole("So many.", required=True)


class Alive(Schema):
    status = text("alive", required=True)


class Login(Closed):
    token = text("As `edge-gateway token make` shows it.", required=True)


class SessionAnswer(Schema):
    name = text("The token's name.", required=True)
    role = text("read, operate or admin.", required=True)


class RoomAnswer(Schema):
    used_percent = fields.Float(required=True, metadata={"description": "As df counts."})
    free_bytes = whole("Free for the gateway.", required=True)
    level = whole("The level that is passed, 85 or 95 %; 0: none.", required=True)
    warning = text("A sentence where a level is passed, or empty.", required=True)


class FlashAnswer(Schema):
    source = text(
        "What is counted: a disk with all that anybody writes, or this process alone.", required=True
    )
    written_bytes = whole("Since it is counted.", required=True)
    counted_s = fields.Float(
        required=True, metadata={"description": "Running time over which it is counted."}
    )
    bytes_per_day = whole("Null: counted for less than an hour.", allow_none=True, required=True)
    endurance_bytes = whole("What the flash is said to endure.", required=True)
    years_left = fields.Float(allow_none=True, required=True)
    warning = text("A sentence where it is less than ten years, or empty.", required=True)


class StoreAnswer(Schema):
    bytes_used = whole("Of the hot file and the history.", required=True)
    bytes_budget = whole("What it may use now: `store.max`, or what the disk leaves of it.", required=True)
    history_bytes = whole("Of the history alone.", required=True)
    segments = whole("Files of the history.", required=True)
    blocks = whole("Commits in the hot file.", required=True)
    oldest_seq = whole("Of the blocks.", required=True)
    newest_seq = whole("Of the blocks.", required=True)
    pending_samples = whole("Waiting for the next commit.", required=True)
    pending_bytes = whole("Memory of what waits.", required=True)
    refusing = text("A sentence while the disk refuses; nothing is acknowledged then.", required=True)
    counters = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata={"description": "What came, went and was lost since the start."},
    )
    last_commit_mono_ns = whole("Monotonic time of the last commit.", required=True)
    wal_bytes = whole("Of the write-ahead log.", required=True)
    disk = fields.Nested(RoomAnswer, required=True)
    flash = fields.Nested(FlashAnswer, required=True)
    salvaging = text("The damaged file whose samples are being taken in, or empty.", required=True)
    tombstones = whole("Deletions that hold still, of at most 10 000.", required=True)


class StateAnswer(Schema):
    id = text("Gateway.", required=True)
    version = text("Version.", required=True)
    now_us = whole("The gateway's wall time.", required=True)
    uptime_s = fields.Float(required=True)
    clock_synchronised = fields.Boolean(required=True)
    config = fields.Dict(
        required=True, metadata={"description": "File, warnings, problems of a broken edit."}
    )
    compat = fields.Dict(
        required=True, metadata={"description": "How the listeners of `http.compat` are, by name."}
    )
    insecure = fields.List(
        fields.String(), required=True, metadata={"description": "Every choice that weakens security."}
    )
    store = fields.Nested(StoreAnswer, required=True)
    logs = fields.Dict(
        allow_none=True,
        required=True,
        metadata={"description": "The own log files: folder, bytes written since the start; null: none."},
    )
    devices = fields.Dict(required=True, metadata={"description": "Device to state."})
    uploads = fields.Dict(required=True, metadata={"description": "Upload to state."})
    streams = whole("WebSocket clients.", required=True)
