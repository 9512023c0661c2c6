"""The Link as the protocols get it, over a real store: runs, holes, polls, controls."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.controls.devices import Channel, NotPollable
from gateway.intake import DeviceSession
from gateway.model import Batch, DeviceProblem, Gap, Sample
from gateway.own_time import OwnTime
from gateway.store import Store, StoreSettings
from gateway.supervise import Keeper
from tests.test_base import HandClock


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path, StoreSettings(commit_interval_s=0.05), HandClock()) as opened:
        yield opened


def session(store: Store, clock: HandClock, kind: str = "opcua") -> DeviceSession:
    made = DeviceSession(
        "press-07", kind, store=store, clock=clock, own_time=OwnTime(clock, 0, store.gap),
        state=Path("unused"), gateway_id="gw", listeners=[],
    )  # fmt: skip
    made.attempt_began(Keeper("device press-07", clock))
    return made


async def gaps(store: Store) -> list[Gap]:
    await store.flush()
    return [gap for _id, gap in await store.gaps()]


async def test_a_run_is_recorded_with_its_samples_and_its_problems(store: Store) -> None:
    clock = HandClock()
    link = session(store, clock)
    async with link.run("cycle") as run:
        run.add(3)
        run.problem("tag speed: BadNodeIdUnknown")
        clock.pass_s(0.25)
    await store.flush()
    record = await store.last_run("press-07")
    assert record is not None
    assert (record.kind, record.samples, record.status) == ("cycle", 3, "partial")
    assert (record.duration_us, record.error) == (250_000, "tag speed: BadNodeIdUnknown")


async def test_a_problem_that_lasts_is_written_in_full_only_now_and_then(store: Store) -> None:
    clock = HandClock()
    link = session(store, clock)
    sentences = [f"tag t{n} (ns=2;s=Line1.Cell{n}.Value): node: BadNodeIdUnknown" for n in range(90)]

    async def cycle(problems: list[str]) -> None:
        async with link.run("cycle") as run:
            for sentence in problems * 2:
                run.problem(sentence)
        clock.pass_s(1)

    for second in range(1201):
        await cycle(sentences)
        if second % 5 == 0:  # another interval of the same device
            await cycle(sentences[:50])
    await cycle(["tag speed: BadOutOfService"])
    with pytest.raises(OSError):
        async with link.run("cycle"):
            raise OSError("x" * 50_000)
    await store.flush()
    rows = (await store.runs(limit=5000))[::-1]
    assert {row.status for row in rows[:-1]} == {"partial"} and rows[-1].status == "error"
    full = [row for row in rows[:-1] if row.error == "\n".join(sentences)]
    assert [(row.start_us - rows[0].start_us) // 600_000_000 for row in full] == [0, 1, 2]
    assert rows[-2].error == "tag speed: BadOutOfService" and len(rows[-1].error or "") == 8000
    for row in rows[:-2]:
        if row.error not in ("\n".join(sentences), "\n".join(sentences[:50])):
            first, told = (row.error or "").split("\n")
            assert first == sentences[0] and "unchanged since run" in told
            (there,) = [run for run in rows if f"since run {run.id}," in told]
            lines = (there.error or "").splitlines()
            assert there.id < row.id and lines in (sentences, sentences[:50])
            assert f"all {len(lines)} lines" in told
    assert sum(len(row.error or "") for row in rows) < 1500 * 200 + 6 * 8000


async def test_a_row_that_others_refer_to_was_not_written_over(store: Store) -> None:
    clock = HandClock()
    link = session(store, clock)
    sentences = [f"a value of tag t{n} cannot be decoded (no such structure)" for n in range(20)]
    for number in range(3):
        with contextlib.suppress(OSError):
            async with link.run("subscription") as run:
                for sentence in sentences:
                    run.problem(sentence)
                for _ in range(3):  # the row is there while it runs
                    run.add(1)
                    clock.pass_s(11)
                if number == 0:
                    raise OSError("unplugged")
    await store.flush()
    first, second, third = (await store.runs())[::-1]
    assert "unplugged" in (first.error or "") and sentences[1] not in (first.error or "")
    assert second.error == "\n".join(sentences)
    assert third.error == f"{sentences[0]}\n(unchanged since run {second.id}, whose row has all 20 lines)"


async def test_what_a_run_says_of_its_problems_is_bounded(store: Store) -> None:
    link = session(store, HandClock())
    async with link.run("poll") as run:
        for n in range(300):
            run.problem(f"tag t{n}: {'x' * 5000}")
    await store.flush()
    record = await store.last_run("press-07")
    assert record is not None and 6000 < len(record.error or "") < 8100
    assert (record.error or "").endswith("\n… and more")


async def test_a_subscription_is_cut_into_rows_of_a_minute(store: Store) -> None:
    clock = HandClock()
    async with session(store, clock).run("subscription") as run:
        for _ in range(5):
            clock.pass_s(31)
            run.add(10)
    await store.flush()
    rows = await store.runs()
    assert [row.samples for row in rows] == [10, 20, 20]


async def test_a_hole_lasts_from_the_last_sign_of_life_to_the_next(store: Store) -> None:
    clock = HandClock()
    link = session(store, clock)
    heard = clock.now_us
    with pytest.raises(DeviceProblem):
        async with link.run("subscription") as run:
            run.add(1)
            clock.pass_s(8)  # half-open: nobody says that the server is gone
            raise DeviceProblem("no answer for 8 s")
    clock.pass_s(20)
    with pytest.raises(DeviceProblem):
        async with link.run("subscription"):
            raise DeviceProblem("refused")
    clock.pass_s(2)
    assert await gaps(store) == []
    assert link.hole == (heard - 250_000, "no answer for 8 s")
    async with link.run("subscription") as run:
        run.add(0)
    assert link.hole is None
    (gap,) = await gaps(store)
    assert gap.from_us == heard - 250_000
    assert (gap.to_us, gap.reason, gap.device) == (heard + 30_000_000, "no answer for 8 s", "press-07")


async def test_a_power_cut_leaves_until_when_the_device_was_heard(store: Store) -> None:
    clock = HandClock()
    run = session(store, clock).run("subscription")
    running = await run.__aenter__()
    running.add(5)
    clock.pass_s(11)
    running.add(5)
    heard = clock.now_us
    clock.pass_s(3600)  # the power goes: the run is never left
    after = session(store, clock)
    await store.flush()
    await after.take_over()
    async with after.run("subscription") as next_run:
        next_run.add(0)
    (gap,) = await gaps(store)
    assert (gap.from_us, gap.to_us) == (heard - 250_000, clock.now_us)
    assert gap.reason == "the gateway was not running"
    rows = await store.runs()
    assert [row.status for row in rows] == ["ok", "error"]
    assert "killed" in (rows[1].error or "")


async def test_a_power_cut_while_tags_are_read_beside_a_subscription(store: Store) -> None:
    clock = HandClock()
    before = session(store, clock)
    never_left = before.run("subscription")
    running = await never_left.__aenter__()
    running.add(5)
    heard = clock.now_us
    for _ in range(3):
        clock.pass_s(1)
        async with before.run("cycle") as cycle:
            cycle.add(3)
    await store.flush()
    after = session(store, clock)  # the power was gone
    await after.take_over()
    assert after.hole == (heard - 250_000, "the gateway was not running")
    await store.flush()
    assert "running" not in {row.status for row in await store.runs()}


@pytest.mark.parametrize("step_s", [-3600, 3600, 315_000_000, -1_700_000_000])
async def test_a_clock_that_is_set_makes_a_hole_no_longer_and_no_shorter(store: Store, step_s: int) -> None:
    clock = HandClock()
    link = session(store, clock)
    async with link.run("cycle") as run:
        run.add(1)
    clock.pass_s(5)
    link.lost("unplugged")
    clock.pass_s(55)
    clock.now_us += step_s * 1_000_000
    async with link.run("cycle") as run:
        run.add(1)
    (gap,) = await gaps(store)
    assert (gap.to_us, gap.to_us - gap.from_us) == (clock.now_us, 60_250_000)


async def test_a_boot_in_1970_does_not_turn_the_hole_of_the_power_cut_around(store: Store) -> None:
    clock = HandClock(wall_us=5_000_000, synchronised=False)
    link = session(store, clock)
    heard = 1_800_000_000_000_000
    link.was_heard(heard, "the gateway was not running")
    clock.pass_s(20)
    async with link.run("cycle") as run:
        run.add(1)
    (gap,) = await gaps(store)
    assert (gap.from_us, gap.to_us) == (heard - 250_000, heard - 250_000 + 20_000_000)


async def test_polls_and_pushes_end_no_hole(store: Store) -> None:
    clock = HandClock()
    link = session(store, clock)
    link.was_heard(clock.now_us - 10**9, "the gateway was not running")
    for kind in ("poll", "push"):
        async with link.run(kind) as run:
            run.add(1)
    assert await gaps(store) == []


@pytest.mark.parametrize("beside", ["cycle", "poll", "backfill"])
async def test_what_is_read_beside_a_silent_subscription_hides_no_hole(store: Store, beside: str) -> None:
    clock = HandClock()
    link = session(store, clock)
    with pytest.raises(DeviceProblem):
        async with link.run("subscription") as run:
            run.add(1)
            heard = clock.now_us
            for _ in range(20):
                clock.pass_s(1)
                async with link.run(beside) as other:
                    other.add(3)
            raise DeviceProblem("the subscription has been silent for 20 s")
    assert link.last_heard_us == clock.now_us
    clock.pass_s(2)
    async with link.run("subscription") as run:
        async with link.run(beside) as other:
            other.add(3)
        clock.pass_s(1)
        run.add(1)
    reason = "the subscription has been silent for 20 s"
    assert await gaps(store) == [Gap(heard - 250_000, clock.now_us, reason, device="press-07")]


async def test_a_poll_before_the_first_publish_moves_no_hole(store: Store) -> None:
    clock = HandClock()
    link = session(store, clock)
    async with link.run("subscription") as run:
        run.add(1)
    heard = clock.now_us
    link.lost("unplugged")
    clock.pass_s(600)
    async with link.run("poll") as poll:
        poll.add(5)
    clock.pass_s(1)
    async with link.run("subscription") as run:
        run.add(1)
    assert await gaps(store) == [Gap(heard - 250_000, clock.now_us, "unplugged", device="press-07")]


async def test_a_changed_configuration_moves_no_hole(store: Store) -> None:
    clock = HandClock()
    before = session(store, clock)
    async with before.run("subscription") as run:
        run.add(1)
    heard = clock.now_us
    clock.pass_s(5)
    async with before.run("poll") as poll:
        poll.add(5)
    after = session(store, clock)
    after.follow(before, "its configuration changed")
    assert after.last_heard_us == clock.now_us
    assert after.hole == (heard - 250_000, "its configuration changed")


async def test_a_pushing_device_has_no_holes_of_ours(store: Store) -> None:
    clock = HandClock()
    link = session(store, clock, kind="push")
    link.was_heard(clock.now_us - 10**9, "the gateway was not running")
    async with link.run("push") as run:
        run.add(1)
    assert await gaps(store) == []


@pytest.mark.parametrize(("left", "records"), [("", 0), ("unplugged; 3 of 5 tags were filled", 1)])
async def test_a_hole_that_is_mended_is_recorded_as_what_is_left(
    store: Store, left: str, records: int
) -> None:
    clock = HandClock()
    link = session(store, clock)
    heard = clock.now_us
    link.was_heard(heard, "unplugged")
    clock.pass_s(60)
    with link.mending() as hole:
        assert hole is not None
        assert hole.since_us == heard - 250_000
        async with link.run("subscription") as run:
            run.add(1)
            until = clock.now_us
            clock.pass_s(5)
            run.add(1)
            assert await gaps(store) == []
            hole.close(left)
    assert link.hole is None
    assert await gaps(store) == [Gap(heard - 250_000, until, left, device="press-07")] * records


async def test_a_hole_that_is_not_mended_to_the_end_is_recorded(store: Store) -> None:
    clock = HandClock()
    link = session(store, clock)
    heard = clock.now_us
    link.was_heard(heard, "unplugged")
    clock.pass_s(60)
    again = clock.now_us
    with contextlib.suppress(DeviceProblem), link.mending():
        async with link.run("subscription") as run:
            run.add(1)
            clock.pass_s(5)
            raise DeviceProblem("no answer for 8 s")
    assert await gaps(store) == [Gap(heard - 250_000, again, "unplugged", device="press-07")]


async def test_mending_where_nothing_is_open_holds_nothing_back(store: Store) -> None:
    link = session(store, HandClock())
    with link.mending() as hole:
        assert hole is None
        async with link.run("subscription") as run:
            run.add(1)
    assert await gaps(store) == []


async def test_a_kill_while_a_hole_is_mended_loses_no_part_of_it(store: Store) -> None:
    clock = HandClock()
    before = session(store, clock)
    async with before.run("subscription") as run:
        run.add(1)
    heard = clock.now_us
    await store.flush()
    clock.pass_s(60)
    killed = session(store, clock)
    await killed.take_over()
    with killed.mending():
        run_of_the_killed = killed.run("subscription")
        run = await run_of_the_killed.__aenter__()
        for _ in range(20):
            clock.pass_s(10)
            run.add(1)
        await store.flush()
        # Here it is killed: nothing more is written.
        after = session(store, clock)
        await after.take_over()
        assert after.hole == (heard - 250_000, "the gateway was not running")
        await run_of_the_killed.__aexit__(None, None, None)


async def test_a_hole_begins_when_what_came_late_was_put_together(store: Store) -> None:
    clock = HandClock()
    link = session(store, clock)
    async with link.run("subscription") as run:
        run.add(1)
        clock.pass_s(5)
        run.add(1, late_us=2_000_000)
    link.lost("no answer for 8 s")
    assert link.hole == (clock.now_us - 2_250_000, "no answer for 8 s")


async def test_polls_join_while_one_is_pending_or_running(store: Store) -> None:
    clock = HandClock()
    link = session(store, clock)
    with pytest.raises(NotPollable):
        await link.poll()

    async def protocol() -> None:
        while True:
            run_id = await link.polls.next()
            async with link.run("poll", run_id) as run:
                await asyncio.sleep(0.05)
                run.add(7)

    polled = asyncio.create_task(protocol())
    await asyncio.sleep(0)
    first, ended = await link.poll()
    await asyncio.sleep(0.02)
    assert (await link.poll())[0] == first
    record = await ended
    assert (record.id, record.samples, record.status) == (first, 7, "ok")
    second, ended = await link.poll()
    assert second != first
    await ended
    third = (await link.poll())[1]
    polled.cancel()
    link.lost("stopped")
    with pytest.raises(NotPollable):
        await third
    with pytest.raises(NotPollable):
        await link.poll()


async def test_a_failed_connection_is_a_run_once_a_minute(store: Store) -> None:
    clock = HandClock()
    link = session(store, clock)
    keeper = Keeper("device press-07", clock)
    for _ in range(10):
        link.attempt_began(keeper)
        clock.pass_s(10)
        link.attempt_ended(DeviceProblem("nothing listens there"))
    await store.flush()
    rows = await store.runs()
    assert [(row.kind, row.status) for row in rows] == [("connect", "error")] * len(rows)
    assert len(rows) == 2
    assert "nothing listens there" in (rows[0].error or "")


async def test_listeners_hear_a_batch_before_it_is_committed(store: Store) -> None:
    clock, heard = HandClock(), []
    link = session(store, clock)
    link._listeners.append(lambda device, batch: heard.append((device, len(batch))))
    ticket = await link.emit(Batch.of([Sample(link.tag("speed", unit="rpm"), 1, 2.5)]))
    assert heard == [("press-07", 1)]
    assert not ticket.done
    assert (await ticket).added == 1


async def test_insecure_is_what_the_live_channel_says(store: Store) -> None:
    link = session(store, HandClock())
    assert link.insecure == ""
    with link.offer(Channel("none", "neither signed nor encrypted")):
        assert link.insecure == "neither signed nor encrypted"
        assert link.control(Channel) == Channel("none", "neither signed nor encrypted")
    assert link.control(Channel) is None
