"""The one loop that takes units from the store to an uploader."""

from gateway.forward.files import FileLane
from gateway.forward.forwarder import Forwarder
from gateway.forward.status import Backlog, Counters, FilesStatus, LaneStatus, UploadStatus
from gateway.forward.upload import FileSource

__all__ = [
    "Backlog",
    "Counters",
    "FileLane",
    "FileSource",
    "FilesStatus",
    "Forwarder",
    "LaneStatus",
    "UploadStatus",
]
