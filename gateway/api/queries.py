"""What `/v1` takes in a query, as marshmallow schemas: they document it and check it."""

from marshmallow import fields, validate

from gateway.api.line_protocol import PRECISIONS
from gateway.api.schemas import Closed, text
from gateway.api.windows import CURSOR_PATTERN, Duration, Instant

_ID_LIST = "Comma-separated."


def limit(default: int, most: int) -> fields.Integer:
    return fields.Integer(
        load_default=default,
        validate=validate.Range(1, most),
        metadata={"description": "At most so many entries."},
    )


class NoQuery(Closed):
    pass


class PushQuery(Closed):
    precision = fields.String(
        validate=validate.OneOf(list(PRECISIONS)),
        metadata={"description": "What a timestamp of line protocol counts; nanoseconds without it."},
    )


class TrustQuery(Closed):
    expired = fields.Boolean(
        load_default=False,
        metadata={"description": "Trust it as it is, though it has expired or will."},
    )


class SamplesQuery(Closed):
    from_us = Instant(data_key="from", help="Start of the window, inclusive.")
    to_us = Instant(data_key="to", help="End of the window, inclusive.")
    tags = text(f"Only these tags; all without it. {_ID_LIST}")
    limit = fields.Integer(
        validate=validate.Range(1, 1_000_000),
        metadata={
            "description": "At most so many samples. Default: 10000 for JSON, everything for NDJSON and CSV."
        },
    )
    cursor = fields.String(
        metadata={"description": "`next` of the answer before.", "pattern": CURSOR_PATTERN}
    )
    format = fields.String(
        validate=validate.OneOf(["json", "ndjson", "csv"]),
        metadata={"description": "Instead of the Accept header."},
    )
    bucket = Duration(
        help="Width of a bucket, such as 10s, 5m or 1h: min, max, avg and count of the numbers in each, "
        "instead of samples."
    )


class PageQuery(Closed):
    limit = limit(100, 1000)
    cursor = fields.Integer(
        validate=validate.Range(0, 2**63 - 1), metadata={"description": "`next` of the answer before."}
    )


class RunsQuery(PageQuery):
    device = text("Only this device.")
    status = fields.String(
        validate=validate.OneOf(["running", "ok", "partial", "error"]),
        metadata={"description": "Only these runs."},
    )
    from_us = Instant(data_key="from", help="Only what ends at or after this.")
    to_us = Instant(data_key="to", help="Only what begins at or before this.")


class GapsQuery(PageQuery):
    device = text("Only gaps of this device.")
    upload = text("Only gaps of this upload.")
    from_us = Instant(data_key="from", help="Only what ends at or after this.")
    to_us = Instant(data_key="to", help="Only what begins at or before this.")


class DeleteQuery(Closed):
    tag = text("The tag whose samples go.", required=True)
    ts_us = Instant(data_key="ts", help="The one sample of this time.")
    from_us = Instant(data_key="from", help="Start of the window, inclusive; without it: from the first on.")
    to_us = Instant(data_key="to", help="End of the window, inclusive; without it: up to the newest.")
    whole = fields.Boolean(
        data_key="all", load_default=False, metadata={"description": "The whole series: every sample."}
    )


class DeletionsQuery(PageQuery):
    device = text("Only deletions at this device.")


class BrowseQuery(Closed):
    node = text("The node whose children are listed; the root without it.")
    limit = limit(200, 1000)
    cursor = text("`next` of the answer before.")


class ScanQuery(Closed):
    seconds = fields.Float(
        load_default=5.0,
        validate=validate.Range(0.1, 30),
        metadata={"description": "How long is listened."},
    )


class StreamQuery(Closed):
    devices = text(f"Only these devices. {_ID_LIST}")
    tags = text(f"Only these tags. {_ID_LIST}")


class QuarantineQuery(PageQuery):
    pass


class UploadQuery(Closed):
    upload = text("Which upload; not needed where only one takes files.")


class FileNameQuery(Closed):
    name = text("What the file is called.", required=True, validate=validate.Length(1, 200))


class AnalysisQuery(Closed):
    every = fields.Integer(
        load_default=10,
        validate=validate.Range(1, 1000),
        metadata={"description": "One row in so many is sent; statistics are of all rows."},
    )
    pictures = fields.Boolean(
        load_default=False, metadata={"description": "Send pictures too, not only how many there are."}
    )


class IdsQuery(Closed):
    ids = text(f"Only these entries; all without it. {_ID_LIST}")
