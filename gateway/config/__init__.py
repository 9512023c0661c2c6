"""gateway.yaml -> one frozen Config, or every problem at once with file:line:column."""

from gateway.config.layout import GatewaySettings
from gateway.config.load import (
    Config,
    DeviceConfig,
    Loaded,
    UploadConfig,
    load,
    load_again,
    load_or_last_good,
    take,
)
from gateway.config.problems import ConfigProblems

__all__ = [
    "Config",
    "ConfigProblems",
    "DeviceConfig",
    "GatewaySettings",
    "Loaded",
    "UploadConfig",
    "load",
    "load_again",
    "load_or_last_good",
    "take",
]
