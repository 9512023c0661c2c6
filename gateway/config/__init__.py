"""gateway.yaml -> one frozen Config, or every problem at once with file:line:column."""

from gateway.config.layout import GatewaySettings
from gateway.config.load import Config, DeviceConfig, UploadConfig, load
from gateway.config.problems import ConfigProblems
from gateway.config.taking import Loaded, edited, keep, load_again, load_or_last_good

__all__ = [
    "Config",
    "ConfigProblems",
    "DeviceConfig",
    "GatewaySettings",
    "Loaded",
    "UploadConfig",
    "edited",
    "keep",
    "load",
    "load_again",
    "load_or_last_good",
]
