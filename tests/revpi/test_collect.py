"""The whole protocol over a simulated image, configuration and driver."""

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.controls.devices import Browse
from gateway.model import Flag
from gateway.protocols import revpi
from gateway.protocols.revpi import image as image_module
from gateway.protocols.revpi.bridge import BAD_NO_COMMUNICATION
from tests.opcua.recording import RecordingLink
from tests.revpi import plant
from tests.revpi.plant import Box, Driver, collecting, failure, supervised
from tests.stepped_clock import DAY_US, SteppedClock


@pytest.fixture
def link(tmp_path: Path) -> RecordingLink:
    return RecordingLink("box", tmp_path)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path, plant.core(105, "RevPi Connect"), plant.dio(32), plant.aio(33))


def open_images() -> dict[str, str]:
    """Return the open files of simulated images: the path of each to its number."""
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            if "piControl0" in (path := str(fd.readlink())):
                found[path] = fd.name
    return found


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.protocols.revpi.looking._NEWS_NS", 50_000_000)


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    yield
    until = time.monotonic() + 2
    while (open_images() or revpi_threads()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not open_images() and not revpi_threads()


def revpi_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("revpi-")]


def values(link: RecordingLink) -> dict[str, Any]:
    return {tag: sample.value for tag, sample in link.newest().items()}


async def test_everything_of_the_configuration_is_a_tag_under_its_name(box: Box, link: RecordingLink) -> None:
    box.place("I_3", 1)
    box.place("InputValue_2", -1234)
    box.place("Core_Temperature", 47)
    async with collecting(link, box.settings()):
        await link.until(lambda: len(link.newest()) == len(box.places) - 1)  # less one of memory
        got = values(link)
        assert (got["I_3"], got["I_4"], got["InputValue_2"], got["Core_Temperature"]) == (
            True,
            False,
            -1234,
            47,
        )
        assert "InputMode_1" not in got and set(link.units.values()) == {""}
        count = len(link.emitted)
        box.place("O_14", 1)
        await link.until(lambda: len(link.emitted) > count)
        (changed,) = link.emitted[count:]
        assert (changed.series, changed.value, changed.status) == (link.names["O_14"], True, 0)
        assert changed.flags == Flag.OWN_TIME and abs(changed.ts / 1e6 - time.time()) < 5
    assert link.report_now == ("running", "") and [run.kind for run in link.runs] == ["subscription"]


async def test_only_exported(box: Box, link: RecordingLink) -> None:
    async with collecting(link, box.settings(only_exported=True)):
        await link.until(lambda: link.newest())
        assert "I_1" in link.newest() and "Core_Temperature" not in link.newest()


async def test_listed_tags_with_bit_sign_unit_and_scale(box: Box, link: RecordingLink) -> None:
    box.place("InputValue_1", -25)
    box.place("RS485ErrorCnt", 0xFF00)
    tags = {
        "oil": revpi.TagSettings(io="InputValue_1", unit="bar", scale=0.1, offset=10.0),
        "raw": revpi.TagSettings(io="InputValue_1", signed=False),
        "led": revpi.TagSettings(io="RevPiLED", bit=0),
        "errors": revpi.TagSettings(io="RS485ErrorCnt", bit=15),
        "gone": revpi.TagSettings(io="InputValu_1"),
        "narrow": revpi.TagSettings(io="RevPiLED", bit=8),
        "twice": revpi.TagSettings(io="I_1", bit=0),
    }
    async with collecting(link, box.settings(), tags):
        await link.until(lambda: link.newest() and link.reports)
        assert values(link) == {"oil": 7.5, "raw": 65511, "led": False, "errors": True}
        assert link.units["oil"] == "bar"
        state, detail = link.report_now
        assert state == "degraded"
        assert "gone (gateway.yaml:14): " in detail and "no input or output 'InputValu_1'" in detail
        assert "did you mean 'InputValue_1'" in detail
        assert "RevPiLED has bits 0 to 7, so no 8" in detail and "I_1 is one bit already" in detail
        box.place("RevPiLED", 1)
        await link.until(lambda: values(link)["led"] is True)


async def test_the_box_is_never_opened_for_writing(
    box: Box, link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[Any, int]] = []
    real_open = os.open

    def watched(path: Any, flags: int, *others: Any, **named: Any) -> int:
        opened.append((path, flags))
        return real_open(path, flags, *others, **named)

    monkeypatch.setattr(os, "open", watched)
    driver = Driver(box, monkeypatch)
    box.image.chmod(0o444)
    before = box.image.read_bytes()
    async with collecting(link, box.settings()):
        await link.until(lambda: link.newest())
        info = Path(f"/proc/self/fdinfo/{open_images()[str(box.image)]}").read_text()
        flags = int(next(line.split()[1] for line in info.splitlines() if line.startswith("flags")), 8)
        assert flags & os.O_ACCMODE == os.O_RDONLY
    assert [flags & os.O_ACCMODE for path, flags in opened if path == str(box.image)] == [os.O_RDONLY]
    assert set(driver.calls) == {0x4B0D, 0x4B11}, "only questions are put to the driver"
    assert box.image.read_bytes() == before


async def test_a_poll_out_of_cycle_gives_every_tag(box: Box, link: RecordingLink) -> None:
    tags = {"a": revpi.TagSettings(io="I_1"), "b": revpi.TagSettings(io="InputValue_1")}
    async with collecting(link, box.settings(), tags):
        await link.until(lambda: len(link.emitted) == 2)
        link.polls.asked.put_nowait(77)
        await link.until(lambda: len(link.emitted) == 4)
        assert [(run.id, run.samples) for run in link.runs if run.kind == "poll"] == [(77, 2)]


async def test_a_poll_does_not_wait_for_the_next_look_and_looks_go_on_at_their_pace(
    box: Box, link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(box, monkeypatch)
    async with collecting(link, box.settings(poll_interval_ms=60_000)):
        await link.until(lambda: link.newest())
        await asyncio.sleep(0.05)  # now the thread waits for the next look
        link.polls.asked.put_nowait(7)
        await link.until(lambda: any(run.kind == "poll" and run.ended for run in link.runs), timeout=4)
    async with collecting(link, box.settings(poll_interval_ms=50)):
        link.polls.asked.put_nowait(8)
        await link.until(lambda: sum(run.kind == "poll" and run.ended for run in link.runs) == 2)
        driver.reads = 0
        await asyncio.sleep(0.5)
        assert driver.reads <= 11


async def test_what_waits_comes_though_nothing_moves_any_more(
    box: Box, link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocols.revpi.looking._NEWS_NS", 60_000_000_000)
    async with collecting(link, box.settings(keep_interval_ms=300), {"a": revpi.TagSettings(io="I_1")}):
        await link.until(lambda: link.newest())
        await asyncio.sleep(0.35)
        for value in (1, 0):
            box.place("I_1", value)
            await asyncio.sleep(0.05)
        await link.until(lambda: len(link.emitted) == 3, timeout=4)
        assert [sample.value for sample in link.emitted] == [False, True, False]


async def test_a_file_saved_as_it_was_changes_nothing(box: Box, link: RecordingLink) -> None:
    async with collecting(link, box.settings()):
        await link.until(lambda: link.newest())
        count = len(link.emitted)
        box.configure(plant.core(105, "RevPi Connect"), plant.dio(32), plant.aio(33))
        box.place("InputValue_1", 9)
        await link.until(lambda: len(link.emitted) > count)
        await asyncio.sleep(0.05)
        assert [sample.value for sample in link.emitted[count:]] == [9]


async def test_the_driver_is_asked_for_bits_too_and_not_for_names_it_cannot_know(
    box: Box, link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "a_name_that_is_longer_than_the_driver_keeps"
    bits = [(long, 1, 0, "3", True), ("b", 1, 0, "5", True)]
    box.configure(plant.core(), plant.module("LEFT_RIGHT", 96, 32, "m", bits))
    Driver(box, monkeypatch)
    async with collecting(link, box.settings()):
        await link.until(lambda: long in link.newest())
    box.configure(plant.core(), plant.module("LEFT_RIGHT", 96, 32, "m", [bits[0], ("b", 1, 0, "6", True)]))
    assert "(b lies at byte" in str(await failure(link, box.settings()))


async def test_browse_names_modules_and_what_they_have(box: Box, link: RecordingLink) -> None:
    box.place("InputValue_1", -7)
    async with collecting(link, box.settings(), {"a": revpi.TagSettings(io="I_1")}):
        await link.until(lambda: link.newest())
        (control,) = link.controls
        assert isinstance(control, Browse)
        first = await control.browse(None, 2, None)
        second = await control.browse(None, 2, first.next)
        modules = [*first.nodes, *second.nodes]
        assert [node.name for node in modules] == ["RevPi Connect", "RevPi DIO", "RevPi AIO"]
        assert second.next is None and all(node.kind == "object" and node.has_children for node in modules)
        page = await control.browse(modules[2].id, 100, None)
        node = next(node for node in page.nodes if node.id == "InputValue_1")
        assert (node.kind, node.type, node.access, node.value) == ("variable", "int16", "r", -7)
        assert not (await control.browse("InputValue_1", 100, None)).nodes
        for unknown in ("module:9", "33", "nothing"):
            with pytest.raises(KeyError):
                await control.browse(unknown, 10, None)
        for cursor in ("x", "-1"):
            with pytest.raises(ValueError):
                await control.browse(None, 10, cursor)


async def test_a_missing_module_makes_its_values_bad_and_only_those(
    box: Box, link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocols.revpi.looking._MODULES_NS", 20_000_000)
    driver = Driver(box, monkeypatch)
    box.place("InputValue_1", 5)
    async with collecting(link, box.settings()):
        await link.until(lambda: values(link).get("InputValue_1") == 5)
        driver.missing = {33}
        await link.until(lambda: link.newest()["InputValue_1"].status == BAD_NO_COMMUNICATION)
        assert link.newest()["InputValue_1"].value is None
        assert link.newest()["I_1"].status == link.newest()["RevPiStatus"].status == 0
        await link.until(lambda: link.report_now[0] == "degraded")
        assert "RevPi AIO (position 33): configured in PiCtory but not connected" in link.report_now[1]
        driver.missing = set()
        await link.until(lambda: values(link)["InputValue_1"] == 5)
        await link.until(lambda: link.report_now == ("running", ""))


async def test_transmission_errors_are_said(box: Box, link: RecordingLink) -> None:
    async with collecting(link, box.settings()):
        await link.until(lambda: link.newest())
        box.place("RS485ErrorCnt", 3)
        await link.until(lambda: "3 transmission errors on the PiBridge" in link.report_now[1])


async def test_a_new_configuration_is_taken_at_once_where_there_is_no_driver(
    box: Box, link: RecordingLink
) -> None:
    async with collecting(link, box.settings()):
        await link.until(lambda: link.newest())
        box.configure(plant.core(105, "RevPi Connect"), plant.mio(32), plant.aio(33))
        box.place("InputValue_1", 4711)
        await link.until(lambda: values(link).get("InputValue_1") == 4711 and "AnalogInput_8" in values(link))
        assert link.report_now == ("running", "")
        box.rsc.write_text('{"App": ')  # caught in the middle of writing
        await link.until(lambda: link.report_now[0] == "degraded")
        assert "is no JSON" in link.report_now[1] and "the one before is used" in link.report_now[1]
        box.place("InputValue_1", 4712)
        await link.until(lambda: values(link)["InputValue_1"] == 4712)
        box.rsc.unlink()
        await link.until(lambda: "there is no configuration at" in link.report_now[1])
        box.configure(plant.core(105, "RevPi Connect"), plant.mio(32), plant.aio(33))
        await link.until(lambda: link.report_now == ("running", ""))
    assert len(link.runs) == 1, "no hole: values flowed all the time"


@pytest.mark.parametrize("stands_still", [True, False])
async def test_a_new_configuration_counts_once_the_driver_has_it(
    box: Box, link: RecordingLink, monkeypatch: pytest.MonkeyPatch, stands_still: bool
) -> None:
    """Between saving in PiCtory and the reset of the driver the image is still laid out as before."""
    monkeypatch.setattr("gateway.protocols.revpi.collect._WAIT_S", 0.02)
    driver = Driver(box, monkeypatch)
    box.place("InputValue_1", 100)
    old = dict(box.places)
    async with collecting(link, box.settings()):
        await link.until(lambda: link.newest())
        box.configure(plant.core(105, "RevPi Connect"), plant.mio(32), plant.aio(33))
        await link.until(lambda: link.report_now[0] == "degraded")
        assert "is not what the piControl driver works with" in link.report_now[1]
        assert "piTest -x" in link.report_now[1] and "the one before is used" in link.report_now[1]
        new, box.places = box.places, old
        box.place("InputValue_1", 101)
        await link.until(lambda: values(link)["InputValue_1"] == 101)
        assert "AnalogInput_1" not in link.names
        # The reset, with the image laid out anew: nothing of it may be read by the old places.
        driver.running = not stands_still
        if stands_still:
            await link.until(lambda: link.report_now[0] == "failed")
            assert "exchanges no data" in link.report_now[1]
        driver.reset()
        box.memory[11:] = b"\x77" * (4096 - 11)
        box.places = new
        box.place("InputValue_1", 102)
        driver.running = True
        await link.until(lambda: values(link)["InputValue_1"] == 102)
        await link.until(lambda: link.report_now == ("running", ""))
        got = [s.value for s in link.emitted if s.series == link.names["InputValue_1"]]
        assert got == [100, 101, 102]
    assert bool(link.runs[0].error) == stands_still


async def test_a_module_added_at_the_end_comes_with_the_reset(
    box: Box, link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All places of before stay right, so that no look tells of the reset."""
    monkeypatch.setattr("gateway.protocols.revpi.collect._AGAIN_NS", 50_000_000)
    driver = Driver(box, monkeypatch)
    async with collecting(link, box.settings()):
        await link.until(lambda: link.newest())
        box.configure(plant.core(105, "RevPi Connect"), plant.dio(32), plant.aio(33), plant.mio(34))
        await link.until(lambda: link.report_now[0] == "degraded")
        driver.reset()
        await link.until(lambda: "AnalogInput_8" in link.newest() and link.report_now == ("running", ""))
    assert not link.runs[0].error


async def test_nothing_is_read_where_neither_the_old_nor_the_new_places_are_known(
    box: Box, link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocols.revpi.collect._WAIT_S", 0.02)
    driver = Driver(box, monkeypatch)
    async with collecting(link, box.settings()):
        await link.until(lambda: link.newest())
        new = plant.core(105, "RevPi Connect"), plant.mio(32), plant.aio(33)
        box.configure(*new)
        box.rsc.write_text("{")
        await link.until(lambda: "is no JSON" in link.report_now[1])
        count, before = len(link.emitted), driver.variables
        driver.variables = {name: (byte + 1, bit, bits) for name, (byte, bit, bits) in before.items()}
        box.memory[20:] = b"\x55" * (4096 - 20)
        box.place("Core_Temperature", 0x55)
        await link.until(lambda: link.report_now[0] == "failed")
        await asyncio.sleep(0.2)
        assert len(link.emitted) == count and "is no JSON" in link.report_now[1]
        assert len(link.runs) == 1 and link.runs[0].ended, "one hole, not one for each try"
        box.configure(*new)
        driver.reset()
        await link.until(lambda: "AnalogInput_8" in link.newest() and link.report_now == ("running", ""))


async def test_a_driver_that_stands_still_is_a_hole_and_is_not_opened_anew(
    box: Box, link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocols.revpi.collect._WAIT_S", 0.02)
    driver = Driver(box, monkeypatch)
    opened: list[str] = []
    real = image_module._open
    monkeypatch.setattr(image_module, "_open", lambda path, device: opened.append(path) or real(path, device))
    driver.running = False
    async with collecting(link, box.settings()) as task:
        await link.until(lambda: link.report_now[0] == "failed")
        assert "exchanges no data with its modules" in link.report_now[1]
        driver.running = True
        await link.until(lambda: link.newest())
        driver.running = False
        link.polls.asked.put_nowait(5)
        await link.until(lambda: link.runs[0].ended and any(r.kind == "poll" and r.error for r in link.runs))
        assert "NotRunning" in link.runs[0].error
        await asyncio.sleep(0.2)
        assert len([run for run in link.runs if run.kind == "subscription"]) == 1, "one row, not one per try"
        driver.running = True
        await link.until(lambda: link.report_now == ("running", ""))
        assert not task.done() and opened == [str(box.image)]


async def test_a_driver_that_differs_at_start(
    box: Box, link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(box, monkeypatch)
    box.configure(plant.core(105, "RevPi Connect"), plant.aio(32))
    problem = await failure(link, box.settings())
    assert "is not what the piControl driver works with (InputValue_1 lies at byte" in str(problem)
    assert not link.emitted
    driver.reset()
    async with collecting(link, box.settings()):
        await link.until(lambda: link.newest())


async def test_a_driver_that_hangs_is_said_and_the_loop_goes_on(
    box: Box, link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocols.revpi.collect._PATIENCE_S", 0.3)
    monkeypatch.setattr("gateway.protocols.revpi.looking._NEWS_NS", 20_000_000)
    hanging, real, clock = threading.Event(), os.pread, SteppedClock()
    link.clock = clock
    hanging.set()

    def read(fd: int, length: int, offset: int) -> bytes:
        hanging.wait(5)
        return real(fd, length, offset)

    monkeypatch.setattr("gateway.protocols.revpi.image.os.pread", read)
    async with collecting(link, box.settings()):
        await link.until(lambda: link.newest())
        hanging.clear()
        began = time.monotonic()
        await link.until(lambda: link.report_now[0] == "failed")
        assert "has not answered" in link.report_now[1] and time.monotonic() - began < 2
        clock.set_by_us = 3 * DAY_US  # which makes the gap no longer
        hanging.set()
        await link.until(lambda: link.report_now == ("running", "") and link.gaps)
        assert "has not answered" in link.gaps[0][2] and 300_000 <= link.gaps[0][1] - link.gaps[0][0] < DAY_US


async def test_what_is_not_looked_at_while_the_memory_budget_is_full_is_a_gap(
    box: Box, link: RecordingLink
) -> None:
    async with collecting(link, box.settings(poll_interval_ms=20, keep_interval_ms=0)):
        await link.until(lambda: link.newest())
        assert not link.gaps
        link.full.clear()
        box.place("I_1", 1)
        await asyncio.sleep(0.3)
        for value in (0, 1, 0, 1):
            box.place("I_1", value)
            await asyncio.sleep(0.1)
        link.full.set()
        await link.until(lambda: link.gaps)
        ((start, end, reason, _),) = link.gaps
        assert reason.startswith("the memory budget was full: the device was not looked at for ")
        assert 400_000 <= end - start <= time.time_ns() // 1000 - start


def test_a_driver_that_hangs_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    code = """
import asyncio, os, sys, threading
from pathlib import Path
from gateway.protocols.revpi import image
from tests.opcua.recording import RecordingLink
from tests.revpi import plant

hangs = threading.Event()

def hang(*_):
    hangs.set()
    threading.Event().wait()

async def main():
    box = plant.Box(Path(sys.argv[1]), plant.core(105, "RevPi Connect"), plant.dio(32))
    async with plant.collecting(RecordingLink("box", Path(sys.argv[1])), box.settings()):
        image.os.pread = hang
        await asyncio.to_thread(hangs.wait)

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=30)


async def test_no_image(box: Box, link: RecordingLink, tmp_path: Path) -> None:
    missing = revpi.Settings(image=str(tmp_path / "none"), configuration=str(box.rsc))
    text = str(await failure(link, missing))
    assert "none does not exist" in text and "systemd-dropin" in text and "driver is not loaded" in text
    text = str(await failure(link, revpi.Settings(image=str(tmp_path), configuration=str(box.rsc))))
    assert "is no process image" in text or "cannot be opened" in text
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    text = str(await failure(link, revpi.Settings(image=str(fifo), configuration=str(box.rsc))))
    assert "is no process image" in text
    text = str(
        await failure(link, revpi.Settings(image=str(box.image), configuration=str(tmp_path / "no.rsc")))
    )
    assert "there is no configuration at" in text
    box.image.write_bytes(b"\x01" * 20)
    assert "has 20 bytes, but PiCtory's configuration names" in str(await failure(link, box.settings()))


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (1, "forbidden to the service.*systemd-dropin"),
        (13, "in the group root"),
        (6, "cannot be opened: No such"),
    ],
)
async def test_an_image_that_may_not_be_opened(
    box: Box, link: RecordingLink, monkeypatch: pytest.MonkeyPatch, code: int, sentence: str
) -> None:
    def refused(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("gateway.protocols.revpi.image.os.open", refused)
    with monkeypatch.context() as patched:
        patched.setattr("grp.getgrgid", lambda _: type("Group", (), {"gr_name": "root"}))
        assert re.search(sentence, str(await failure(link, box.settings())))


async def test_the_supervisor_tries_again(box: Box, link: RecordingLink) -> None:
    away = box.image.with_name("away")
    box.image.rename(away)
    async with supervised(link, box.settings()) as keeper:
        await link.until(lambda: keeper.health.failures > 1)
        assert keeper.health.state == "failed" and "does not exist" in keeper.health.detail
        away.rename(box.image)
        await link.until(lambda: link.newest() and keeper.health.state == "running")


def test_the_nodes_that_a_service_has_to_be_allowed() -> None:
    assert revpi.device_nodes(revpi.Settings()) == ["/dev/piControl0 r"]
    assert revpi.device_nodes(revpi.Settings(image="/run/simulated")) == []


def test_a_configuration_is_checked_without_importing_revpimodio2() -> None:
    code = "import sys, gateway.protocols.revpi; sys.exit('revpimodio2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
