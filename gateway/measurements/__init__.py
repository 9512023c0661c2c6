"""Measurements of ICOtronic sensor nodes: recorded into the store, finished into HDF5 files."""

from gateway.measurements.catalogue import Catalogue, LocalFile
from gateway.measurements.ift import IftRequest
from gateway.measurements.incoming import Disk
from gateway.measurements.inspection import Answer, FileFailed, FileMissing, FileUnfit
from gateway.measurements.live import Ended, IftValues, LiveFrames, LiveItem, Loss, Tap
from gateway.measurements.plan import Channel, MeasurementRefused, Plan
from gateway.measurements.record import Measurement
from gateway.measurements.service import Measurements
from gateway.measurements.settings import MeasurementSettings
from gateway.sensors import RAW, Sensor

__all__ = [
    "RAW",
    "Answer",
    "Catalogue",
    "Channel",
    "Disk",
    "Ended",
    "FileFailed",
    "FileMissing",
    "FileUnfit",
    "IftRequest",
    "IftValues",
    "LiveFrames",
    "LiveItem",
    "LocalFile",
    "Loss",
    "Measurement",
    "MeasurementRefused",
    "MeasurementSettings",
    "Measurements",
    "Plan",
    "Sensor",
    "Tap",
]
