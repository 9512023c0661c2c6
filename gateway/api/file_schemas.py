"""What `/v1/files` and `/v1/cloud` give, as marshmallow schemas."""

from marshmallow import Schema, fields, validate

from gateway.api.schemas import Closed, text, whole

_STATES = ["not_uploaded", "updating", "up_to_date", "outdated", "created", "error"]


class FileChoice(Closed):
    file = text("Its name.", required=True, validate=validate.Length(1, 200))


class FileReplacement(FileChoice):
    remote_id = text("Of the file at the target.", required=True, validate=validate.Length(1))


class MetadataChange(Closed):
    pre = fields.Dict(allow_none=True, metadata={"description": "Null, or missing: as it was."})
    post = fields.Dict(allow_none=True, metadata={"description": "Null, or missing: as it was."})


class FileStateAnswer(Schema):
    state = fields.String(
        required=True,
        validate=validate.OneOf(_STATES),
        metadata={
            "description": "not_uploaded; updating: it is being sent; up_to_date: the target was seen to "
            "have it as it is; outdated: the target has it as it was before; created: it has it announced, "
            "and no bytes of it; error: it could not be sent, which is tried again."
        },
    )
    queued = fields.Boolean(required=True, metadata={"description": "It is to be sent."})
    detail = text("A sentence: why it is not up to date; or empty.", required=True)
    attempts = whole("That failed in a row.", required=True)
    sent_bytes = whole("Of the file being sent.", required=True)
    remote_id = text("Its id at the target, or empty.", required=True)
    uploaded_us = whole("When the target was seen to have it; null: never.", required=True, allow_none=True)


class FileAnswer(Schema):
    name = text("Its name, by which everything is asked.", required=True)
    size_bytes = whole("Its size.", required=True)
    created_us = whole("When the measurement began.", required=True)
    modified_us = whole("When it was changed last: metadata may come later.", required=True)
    measurement = text("The measurement it is of, where the gateway knows.", required=True, allow_none=True)
    uploads = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(FileStateAnswer),
        required=True,
        metadata={"description": "How it is with each upload that takes files."},
    )


class DiskAnswer(Schema):
    total_bytes = whole("Of the disk that the files lie on.", required=True)
    free_bytes = whole("Free for the gateway.", required=True)


class FileList(Schema):
    folder = text("Where the files lie on the gateway.", required=True)
    disk = fields.Nested(DiskAnswer, required=True)
    files = fields.List(fields.Nested(FileAnswer), required=True)


class FileTaken(Schema):
    name = text("Its name now: with a number where there was one of the name.", required=True)


class FileDeleted(Schema):
    name = text("The file.", required=True)
    never_uploaded = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "Uploads that never got it as it was; a gap record says so."},
    )


class FileMetadata(Schema):
    pre = fields.Raw(
        required=True, allow_none=True, metadata={"description": "Known before the measurement; null: none."}
    )
    post = fields.Raw(required=True, allow_none=True, metadata={"description": "Known after it; null: none."})


class EmbeddedFile(Schema):
    dataset = text("By which it is asked for.", required=True)
    name = text("What it was called.", required=True)
    mime = text("Its type.", required=True)
    size_bytes = whole("Its size.", required=True)


class EmbeddedList(Schema):
    embedded = fields.List(fields.Nested(EmbeddedFile), required=True)


class ReachableAnswer(Schema):
    healthy = fields.Boolean(
        required=True,
        allow_none=True,
        metadata={"description": "It took files when last asked; null: not yet."},
    )
    detail = text("A sentence where it did not, or empty.", required=True)
    checked_us = whole("When.", required=True, allow_none=True)


class CloudAnswer(Schema):
    upload = text("The upload.", required=True)
    kind = text("Its uploader.", required=True)
    url = text("Where it goes.", required=True)
    manage_url = text("Where people look after the files there, or empty.", required=True)
    insecure = text("Why the way is not secured, or empty.", required=True)
    reachable = fields.Nested(ReachableAnswer, required=True)
    waiting = whole("Files to be sent.", required=True)
    failing = whole("Of these, how many could not be sent.", required=True)


class CloudList(Schema):
    uploads = fields.List(fields.Nested(CloudAnswer), required=True)


class RemoteFileAnswer(Schema):
    id = text("Its id at the target.", required=True)
    name = text("Name.", required=True)
    size_bytes = whole("Null: the target does not say.", required=True, allow_none=True)
    etag = text("Checksum, as the target lists it.", required=True)
    stored = fields.Boolean(required=True, metadata={"description": "False: it was announced only."})
    modified = text("When its bytes were stored, in the target's words.", required=True)
    details = fields.Dict(required=True, metadata={"description": "All that the target says of it."})


class RemoteFileList(Schema):
    upload = text("The upload.", required=True)
    files = fields.List(fields.Nested(RemoteFileAnswer), required=True)
    note = text("How many files are left out, or empty.", required=True)
