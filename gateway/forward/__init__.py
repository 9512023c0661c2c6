"""The one loop that takes units from the store to an uploader."""

from gateway.forward.forwarder import Forwarder
from gateway.forward.status import Backlog, Counters, LaneStatus, UploadStatus

__all__ = ["Backlog", "Counters", "Forwarder", "LaneStatus", "UploadStatus"]
