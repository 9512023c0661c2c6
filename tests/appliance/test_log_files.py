"""The log files: batches, rotation, a disk that refuses, formats, and the settings that choose."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.logs import Logs, LogSettings
from gateway.logs.files import FILE, JsonLines, LogFiles


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.Logger("test", logging.DEBUG)  # noqa: LOG001  # of this test alone
    yield made
    for handler in made.handlers:
        handler.close()


def test_nothing_is_written_until_a_batch_is_due(tmp_path: Path, logger: logging.Logger) -> None:
    files = LogFiles(tmp_path, every_s=3600)
    logger.addHandler(files)
    for number in range(100):
        logger.info("line %d", number)
    assert not (tmp_path / FILE).exists()
    logger.error("now")
    files.close()
    lines = (tmp_path / FILE).read_text().splitlines()
    assert lines == [*(f"line {number}" for number in range(100)), "now"]
    assert files.bytes_written == (tmp_path / FILE).stat().st_size
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_an_error_is_written_at_once(tmp_path: Path, logger: logging.Logger) -> None:
    files = LogFiles(tmp_path, every_s=3600)
    logger.addHandler(files)
    logger.error("the reason")
    for _ in range(500):
        if files.bytes_written:
            break
        os.sched_yield()
        files._thread.join(0.01)
    assert (tmp_path / FILE).read_text() == "the reason\n"


def test_five_files_hold_the_newest(tmp_path: Path, logger: logging.Logger) -> None:
    files = LogFiles(tmp_path, every_s=3600, file_bytes=1000)
    logger.addHandler(files)
    for number in range(100):
        logger.info("%099d", number)
        files.flush()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [FILE, *(f"{FILE}.{number}" for number in range(1, 5))]
    assert all(path.stat().st_size == 1000 for path in tmp_path.iterdir())
    kept = [int(line) for name in reversed(names) for line in (tmp_path / name).read_text().splitlines()]
    assert kept == list(range(50, 100))
    assert files.bytes_written == 10_000


def test_a_new_process_goes_on_in_the_same_file(tmp_path: Path, logger: logging.Logger) -> None:
    for word in ("before", "after"):
        files = LogFiles(tmp_path, file_bytes=1000)
        files.handle(logging.makeLogRecord({"msg": word, "levelno": logging.INFO}))
        files.close()
    assert (tmp_path / FILE).read_text() == "before\nafter\n"


def test_a_disk_that_refuses_costs_records_and_no_more(tmp_path: Path, logger: logging.Logger) -> None:
    files = LogFiles(tmp_path / "absent", every_s=3600)
    logger.addHandler(files)
    logger.info("lost")
    files.flush()
    assert files.dropped == 1
    (tmp_path / "absent").mkdir()
    logger.info("kept")
    files.flush()
    assert (tmp_path / "absent" / FILE).read_text() == "kept\n"


def test_what_waits_is_bounded(tmp_path: Path, logger: logging.Logger) -> None:
    files = LogFiles(tmp_path, every_s=3600)
    files._writing.acquire()  # a disk that hangs
    logger.addHandler(files)
    for _ in range(40):
        logger.info("x" * 50_000)
    assert files.dropped > 15
    files._writing.release()


def test_json_lines_say_all_of_it(tmp_path: Path, logger: logging.Logger) -> None:
    files = LogFiles(tmp_path, every_s=3600)
    files.setFormatter(JsonLines())
    logger.addHandler(files)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("ä broken %s", "part")
    files.flush()
    (line,) = (tmp_path / FILE).read_text(encoding="utf-8").splitlines()
    read = json.loads(line)
    assert (read["level"], read["logger"], read["message"]) == ("ERROR", "test", "ä broken part")
    assert read["ts"].endswith("Z")
    assert read["exception"].endswith("ValueError: two\nlines")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    found = logging.getLogger()
    before, level = found.handlers[:], found.level
    found.handlers = []
    yield found
    for handler in found.handlers:
        handler.close()
    found.handlers = before
    found.setLevel(level)


def test_the_settings_choose_level_and_format(tmp_path: Path, root: logging.Logger) -> None:
    logs = Logs("", {"LOGS_DIRECTORY": f"{tmp_path}:/elsewhere"})
    logs.apply(LogSettings(level="WARNING", format="json"))
    logging.getLogger("a").info("no")
    logging.getLogger("a").warning("yes")
    logs.apply(LogSettings())
    logging.getLogger("a").info("text now")
    assert logs.files is not None
    logs.files.flush()
    first, second = (tmp_path / FILE).read_text().splitlines()
    assert json.loads(first)["message"] == "yes"
    assert second.endswith("INFO    a: text now")


def test_the_command_line_has_the_last_word_on_the_level(root: logging.Logger) -> None:
    logs = Logs("ERROR", {})
    logs.apply(LogSettings(level="DEBUG"))
    assert root.level == logging.ERROR
    assert logs.files is None


def test_the_journal_gets_priorities(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    Logs("", {"JOURNAL_STREAM": "8:1"})
    logging.getLogger("part").warning("it mends itself")
    assert capsys.readouterr().err == "<4>part: it mends itself\n"
