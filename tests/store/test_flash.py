"""What is written to the flash is counted, kept over a restart, and reckoned against its endurance."""

import logging
import os
from pathlib import Path

import pytest

from gateway.config import load
from gateway.config.check import check
from gateway.config.projection import project
from gateway.store import flash
from gateway.store.flash import Flash
from tests.chaos.mounts import ext4
from tests.store.conftest import MovableClock, Opener

MB = 1_000_000


def on_a_disk(monkeypatch: pytest.MonkeyPatch, written: list[int], name: str = "disk mmcblk0") -> None:
    monkeypatch.setattr(flash, "_counted", lambda _: (name, written[0]))


class SteppedClock(MovableClock):
    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 10**12

    def mono_ns(self) -> int:
        return self.now_ns


def test_the_sectors_of_the_whole_disk_are_counted(tmp_path: Path, clock: MovableClock) -> None:
    with ext4(tmp_path / "image", tmp_path / "disk", 64 * MB) as disk:
        before = flash._counted(disk)
        (disk / "file").write_bytes(os.urandom(10 * MB))
        os.sync()
        source, after = flash._counted(disk)
        assert source == before[0] and source.startswith("disk loop")
        assert 10 * MB <= after - before[1] < 14 * MB, "data and journal"


def test_a_file_system_without_a_disk_counts_what_the_process_writes(tmp_path: Path) -> None:
    assert flash._counted(Path("/proc"))[0] == "this process"
    before = flash._by_process()
    with (tmp_path / "file").open("wb") as file:
        file.write(os.urandom(3 * MB))
        os.fsync(file.fileno())
    assert flash._by_process() - before >= 3 * MB
    assert flash._counted(tmp_path / "gone")[0] == "this process"


async def test_it_is_kept_over_a_restart_by_running_time(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    written = [5_000 * MB]
    on_a_disk(monkeypatch, written)
    async with opened() as store:
        assert store.state().flash.written_bytes == 0
        store._writer.disk.flash._seen_ns -= 12 * 3600 * 10**9  # half a day
        written[0] += 10_000 * MB
    written[0] += 1_000_000 * MB  # while the gateway did not run
    async with opened(endurance_bytes=24_000_000 * MB) as store:
        kept = store.state().flash
        assert kept.written_bytes == 10_000 * MB and 12 * 3600 <= kept.counted_s < 12 * 3600 + 10
        assert kept.bytes_per_day == pytest.approx(20_000 * MB, rel=0.001)
        assert kept.years_left == pytest.approx(23_990 / 20 / 365.25, abs=0.1)
        assert "20.0 GB a day are written to the flash: 3.3 years of its 24 TB are left" in kept.warning
        assert "20.00 GB a day, 3.3 years are left" in str(kept)
        store._writer.disk.flash.look()
    assert caplog.text.count("3.3 years of its 24 TB") == 2, "once a start"
    on_a_disk(monkeypatch, written, "disk sda")
    async with opened() as store:
        assert store.state().flash.written_bytes == 0, "another disk"


def test_a_counter_that_begins_anew_is_not_a_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sqlite3

    clock, written = SteppedClock(), [100 * MB]
    on_a_disk(monkeypatch, written)
    counter = Flash(tmp_path, 10**12, clock)
    with sqlite3.connect(":memory:") as conn:
        conn.execute("CREATE TABLE meta(key TEXT, value)")
        counter.load(conn)
    conn.close()
    for seen, total in ((150, 50), (20, 50), (30, 60)):
        written[0], clock.now_ns = seen * MB, clock.now_ns + 10**9
        counter.look()
        assert counter.state().written_bytes == total * MB
    assert counter.state().bytes_per_day is None, "two seconds say nothing about a day"


CASES = [
    ("publishing_interval: 100ms", 5000.0, 3.0),
    ("", 1000.0, 12.0),
    ("publishing_interval: 2s", 250.0, 14.0),
    ("mode: poll, poll_interval: 10s", 50.0, 20.0),
]


@pytest.mark.parametrize(("more", "rate", "least_years"), CASES)
def test_check_projects_what_a_configuration_writes(
    tmp_path: Path, more: str, rate: float, least_years: float
) -> None:
    tags = "\n".join(f"      t{n}: ns=2;i={n}" for n in range(500))
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "devices:\n  plc:\n"
        f"    opcua: {{url: 'opc.tcp://plc:4840', {more}}}\n    tags:\n{tags}\n"
        "  box: {push: {}}\n"
    )
    checked = check(file)
    assert checked.code == 0
    assert (
        f"at most {rate:g} samples/s, about " in checked.lines[-1] and "not known of box" in checked.lines[-1]
    )
    projected = project(load(file))
    assert projected.years_left is not None and projected.years_left > least_years
    assert (projected.years_left < 10) == any("store.endurance" in line for line in checked.lines)
    assert (rate == 5000) == any("(a warning)" in line for line in checked.lines), checked.lines


def test_the_budget_of_the_design_is_held(tmp_path: Path) -> None:
    """500 samples/s at a 1 s commit for ten years within 24 TB."""
    file = tmp_path / "gateway.yaml"
    tags = "\n".join(f"      t{n}: ns=2;i={n}" for n in range(500))
    file.write_text(
        f"devices:\n  plc:\n    opcua: {{url: 'opc.tcp://plc', publishing_interval: 1s}}\n    tags:\n{tags}\n"
    )
    projected = project(load(file))
    assert projected.samples_per_s == 500 and projected.years_left is not None and projected.years_left > 10


def test_the_log_files_are_in_the_projection(tmp_path: Path) -> None:
    """A batch each 10 s for a day, beside one sample an hour."""
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "devices:\n  plc:\n    opcua: {url: 'opc.tcp://plc', publishing_interval: 1h}\n    tags: {t: i=1}\n"
    )
    assert 8640 * 4096 < project(load(file)).bytes_per_day < 8640 * 32_768
