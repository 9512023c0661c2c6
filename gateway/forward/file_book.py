"""What is known of the files of one upload while it runs: what failed, what is being sent, how each is."""

import logging
from typing import NamedTuple

from gateway.clock import Clock
from gateway.controls.files import FileState, Reachable, RemoteFile
from gateway.forward.status import FilesStatus
from gateway.model import UploadProblem
from gateway.store.file_queue import ANNOUNCED, CHANGED, GONE, FileRow

_log = logging.getLogger(__name__)


class _Failure(NamedTuple):
    attempts: int
    sentence: str


class FileBook:
    """Takes note; event loop only."""

    def __init__(self, upload: str, clock: Clock) -> None:
        self._upload, self._clock = upload, clock
        self._failures: dict[str, _Failure] = {}
        self.status = FilesStatus()
        self.sending, self.sent_bytes = "", 0

    def attempts(self, name: str) -> int:
        """Return how often it failed in a row."""
        return self._failures[name].attempts if name in self._failures else 0

    def counted(self, rows: list[FileRow]) -> list[FileRow]:
        self.status.waiting = sum(row.due for row in rows)
        self.status.failing = sum(row.due and row.name in self._failures for row in rows)
        return rows

    def forget(self, name: str) -> None:
        """Forget that it failed."""
        self._failures.pop(name, None)

    def delivered(self, name: str, size: int) -> None:
        self.forget(name)
        self.status.delivered += 1
        self.status.bytes += size
        self.answered()
        _log.info("upload %s: has %s (%.1f MB)", self._upload, name, size / 1e6)

    def failed(self, name: str, problem: UploadProblem) -> None:
        self._failures[name] = _Failure(self.attempts(name) + 1, str(problem))
        self.status.failures += 1

    def answered(self) -> None:
        """Note that the target is there and takes files."""
        self.status.reachable = Reachable(healthy=True, checked_us=self._clock.wall_us())

    def refused(self, problem: UploadProblem) -> None:
        """Note that the target is not there, or takes none."""
        self.status.reachable = Reachable(
            healthy=False, detail=str(problem), checked_us=self._clock.wall_us()
        )

    def checked_before(self, age_s: float) -> bool:
        """Say whether nothing was heard of the target for so long."""
        checked_us = self.status.reachable.checked_us
        return checked_us is None or abs(self._clock.wall_us() - checked_us) >= age_s * 1e6

    def state(self, row: FileRow, look: str) -> FileState:
        """Return how a file is; `look`: as it lies here now."""
        failure = self._failures.get(row.name)
        state, detail = _judged(row, look)
        if row.name == self.sending:
            state, detail = "updating", ""
        elif row.due and failure is not None:
            state, detail = "error", failure.sentence
        return FileState(
            state,
            queued=bool(row.due),
            detail=detail,
            attempts=failure.attempts if failure else 0,
            sent_bytes=self.sent_bytes if row.name == self.sending else 0,
            remote_id=row.remote_id if row.remote != GONE else "",
            uploaded_us=row.stored_us or None,
        )


def _judged(row: FileRow, look: str) -> tuple[str, str]:
    """Return how a file is that is not being sent, and why."""
    if not row.md5:
        return "not_uploaded", ""
    if row.remote == GONE:
        return "not_uploaded", "the target had it, and has it no more"
    if row.remote == ANNOUNCED:
        return "created", "the target has it announced once more, and no bytes of it"
    if row.remote == CHANGED:
        return "outdated", "the target has other bytes under its name now"
    if row.due or look != row.local:
        return "outdated", "it was changed since, or asked for again"
    return "up_to_date", ""


def seen(row: FileRow, there: RemoteFile | None) -> str:
    """Return what became of a file at the target."""
    if there is None:
        return GONE
    if not there.stored:
        return ANNOUNCED
    return CHANGED if there.etag and row.etag and there.etag != row.etag else ""
