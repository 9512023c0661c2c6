"""The one loop that takes units from the store to an uploader."""

from gateway.forward.files import FileLane, FileSource
from gateway.forward.forwarder import Forwarder
from gateway.forward.status import Backlog, Counters, FilesStatus, LaneStatus, UploadStatus

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
