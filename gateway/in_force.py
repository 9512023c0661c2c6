"""The configuration in force: the last valid file, and what the documents lay beside it."""

import logging
from collections.abc import Iterable
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
        self.loaded: Loaded
        """What was taken last; its `problems` are of the file as it is now."""
        self.config: Config
        self._started: Config | None = None
        self._loaded_us = self._projected = 0

    def take(self, loaded: Loaded) -> None:
        """Have a configuration in force, and its logs' settings at once."""
        self.loaded, self._loaded_us = loaded, self._clock.wall_us()
        if self._logs is not None:
            self._logs.apply(loaded.config.logs)
        self._started = self._started or loaded.config
        self.lay_out()
        for sentence in loaded.config.warnings:
            _log.warning("%s", sentence)
        for sentence in loaded.problems:
            _log.error("%s", sentence)
        if loaded.problems:
            _log.error("%s", self.trouble())

    def refuse(self, problems: Iterable[str]) -> None:
        """Take note that the file cannot be taken as it is now; what is in force stays."""
        self.loaded = replace(self.loaded, problems=tuple(problems), from_last_good=True)

    def trouble(self) -> str:
        """Say in a few words what is wrong with the file, "" where nothing is."""
        if self.loaded.from_last_good:
            return f"{self._file} is broken; running the last valid configuration"
        without = ", ".join(self.loaded.config.unable())
        return without and f"secrets of {self._file} cannot be had; running without {without}"

    def lay_out(self) -> None:
        """Let what the documents make run beside what the YAML names."""
        written = self.loaded.config
        self.config = replace(written, uploads={**self._documents.uploads(), **written.uploads})
        self._projected = project(self.config).bytes_per_day
        if self._logs is not None:
            secrets = [*secrets_in(self.config), *self._documents.passwords()]
            self._logs.feed.redact = Redaction(secrets)

    def needs_restart(self) -> list[str]:
        """Name the sections that differ from those at the start, which a reload cannot apply."""
        return [
            f"{section}: changes there take effect when the service is restarted"
            for section in ("store", "gateway", "measurements")
            if getattr(self._started, section) != getattr(self.config, section)
        ]

    def outvoted(self) -> list[str]:
        """Return what a document wants to be and cannot: the YAML has the last word."""
        both = self._documents.uploads().keys() & self.loaded.config.uploads.keys()
        named = f"{self._file.name} names an upload"
        return [f'{named} "{name}" of its own; that of {name}.yaml is not used' for name in sorted(both)]

    def info(self) -> ConfigInfo:
        warnings = [*self.config.warnings, *self.needs_restart(), *self._documents.problems, *self.outvoted()]
        return ConfigInfo(str(self._file), self._loaded_us, warnings, self.loaded.problems, self._projected)
