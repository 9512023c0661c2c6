"""The configuration in force: the last valid file, and what the documents lay beside it."""

import logging
from dataclasses import replace
from pathlib import Path

from gateway.api.contracts import ConfigInfo
from gateway.clock import Clock
from gateway.config import Config, Loaded
from gateway.config.projection import project
from gateway.documents import Documents
from gateway.logs import Logs
from gateway.redaction import Redaction, secrets_in

_log = logging.getLogger(__name__)


class InForce:
    """What was taken last, and what is wrong with the file since."""

    def __init__(self, file: Path, clock: Clock, documents: Documents, logs: Logs | None) -> None:
        self._file, self._clock, self._documents, self._logs = file, clock, documents, logs
        self._written: Config
        self.config: Config
        self.problems: tuple[str, ...] = ()
        """Of the file as it is now; a valid one runs all the same."""
        self._loaded_us = self._projected = 0

    def take(self, loaded: Loaded) -> None:
        """Have a configuration in force, and its logs' settings at once."""
        self.problems, self._loaded_us = loaded.problems, self._clock.wall_us()
        if self._logs is not None:
            self._logs.apply(loaded.config.logs)
        self._written = loaded.config
        self.lay_out()
        for sentence in loaded.config.warnings:
            _log.warning("%s", sentence)
        for sentence in loaded.problems:
            _log.error("%s", sentence)
        if loaded.problems:
            _log.error("%s is broken; running the last valid configuration", self._file)

    def lay_out(self) -> None:
        """Let what the documents make run beside what the YAML names."""
        self.config = replace(self._written, uploads={**self._documents.uploads(), **self._written.uploads})
        self._projected = project(self.config).bytes_per_day
        if self._logs is not None:
            secrets = [*secrets_in(self.config), *self._documents.passwords()]
            self._logs.feed.redact = Redaction(secrets)

    def outvoted(self) -> list[str]:
        """Return what a document wants to be and cannot: the YAML has the last word."""
        both = self._documents.uploads().keys() & self._written.uploads.keys()
        named = f"{self._file.name} names an upload"
        return [f'{named} "{name}" of its own; that of {name}.yaml is not used' for name in sorted(both)]

    def info(self) -> ConfigInfo:
        warnings = [*self.config.warnings, *self._documents.problems, *self.outvoted()]
        return ConfigInfo(str(self._file), self._loaded_us, warnings, self.problems, self._projected)


def needs_restart(before: Config, after: Config) -> list[str]:
    """Name the changed sections that a reload cannot apply."""
    return [
        f"{section}: changes there take effect when the service is restarted"
        for section in ("store", "gateway", "measurements")
        if getattr(before, section) != getattr(after, section)
    ]
