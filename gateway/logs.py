"""Where log records go: to stderr, with the journal's priorities where systemd reads it (sd-daemon(3))."""

import logging
import os
import sys

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _JournalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
        # Each line of a traceback is an entry of its own in the journal and needs the priority again.
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def start(level: str) -> None:
    """Send records of `level` (a word of logging) and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    if os.environ.get("JOURNAL_STREAM"):
        handler.setFormatter(_JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    # asyncua formats whole publish results at INFO; aiohttp's access log is one line a request.
    for name in ("asyncua", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
