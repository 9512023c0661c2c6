"""Where log records go: to stderr, with the journal's priorities where systemd reads it (sd-daemon(3)), and
to files of our own where the unit gives a folder for them.

Levels: what is about to be done is DEBUG, what was done INFO, what mends itself WARNING, a failure that was
foreseen ERROR.
"""

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.logs.archive import LogArchive
from gateway.logs.feed import LogFeed
from gateway.logs.files import JsonLines, LogFiles
from gateway.settings import Settings, setting

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


@dataclass(frozen=True, kw_only=True)
class LogSettings(Settings):
    """What is logged, and how the files beside the journal look."""

    SHORT = "level"

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting(
        "INFO", help="the least important that is logged"
    )
    format: Literal["text", "json"] = setting(
        "text", help="of the files in the service's log folder (5 of 5 MiB): lines of text, or of JSON"
    )


class _JournalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
        # Each line of a traceback is an entry of its own in the journal and needs the priority again.
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class Logs:
    """The handlers of this process; `files` where there are files, `feed` for who follows the log."""

    def __init__(self, level: str, environ: Mapping[str, str]) -> None:
        self._fixed = level
        self._text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        stderr = logging.StreamHandler(sys.stderr)
        journal = _JournalFormatter("%(name)s: %(message)s")
        stderr.setFormatter(journal if environ.get("JOURNAL_STREAM") else self._text)
        self.files: LogFiles | None = None
        self.feed = LogFeed()
        self.feed.setFormatter(self._text)
        handlers: list[logging.Handler] = [stderr, self.feed]
        if folder := environ.get("LOGS_DIRECTORY"):
            self.files = LogFiles(Path(folder.split(":")[0]))
            handlers.append(self.files)
        for handler in handlers:
            logging.getLogger().addHandler(handler)
        self.apply(LogSettings())
        # asyncua formats whole publish results at INFO; aiohttp's access log is one line a request.
        for name in ("asyncua", "aiohttp.access"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def apply(self, settings: LogSettings) -> None:
        """Take the settings of a configuration; a level of the command line stays."""
        logging.getLogger().setLevel(self._fixed or settings.level)
        for handler in filter(None, (self.files, self.feed)):
            handler.setFormatter(JsonLines() if settings.format == "json" else self._text)

    @property
    def archive(self) -> LogArchive | None:
        """The files as others may read them, where there are files."""
        return LogArchive(self.files, self.feed.redact) if self.files is not None else None


def start(level: str = "") -> Logs:
    """Send records of `level` (a word of logging; "" until a configuration says it) and above to stderr."""
    return Logs(level, os.environ)
