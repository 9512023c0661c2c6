"""The memory budget: in line, and no byte lost to a cancelled wait."""

import asyncio

from gateway.store.budget import MemoryBudget


async def test_those_who_wait_go_in_their_order() -> None:
    budget = MemoryBudget(100)
    await budget.take(80)
    order: list[int] = []

    async def take(size: int) -> None:
        await budget.take(size)
        order.append(size)

    waiting = [asyncio.ensure_future(take(size)) for size in (60, 30, 5)]
    await asyncio.sleep(0)
    assert not budget.try_take(1) and budget.full, "a small one does not pass those in line"
    budget.give(80)
    await asyncio.gather(*waiting)
    assert order == [60, 30, 5] and budget.used_bytes == 95 and not budget.full


async def test_a_batch_larger_than_the_budget_goes_alone() -> None:
    budget = MemoryBudget(100)
    assert budget.try_take(500) and not budget.try_take(1)
    budget.give(500)
    assert budget.try_take(1) and not budget.try_take(500)


async def test_a_wait_cancelled_just_as_its_turn_comes_gives_the_room_back() -> None:
    budget = MemoryBudget(100)
    await budget.take(100)
    first, second = (asyncio.ensure_future(budget.take(100)) for _ in range(2))
    await asyncio.sleep(0)
    budget.give(100)  # it is the first one's turn, and it is cancelled before it knows
    first.cancel()
    await second
    assert first.cancelled() and budget.used_bytes == 100
    budget.give(100)
    assert budget.used_bytes == 0


async def test_a_cancelled_wait_lets_the_next_one_in() -> None:
    budget = MemoryBudget(100)
    await budget.take(50)
    large, small = asyncio.ensure_future(budget.take(90)), asyncio.ensure_future(budget.take(10))
    await asyncio.sleep(0)
    large.cancel()
    await asyncio.wait_for(small, 1)
    assert budget.used_bytes == 60


async def test_who_gives_up_while_room_comes_is_passed_over() -> None:
    budget = MemoryBudget(100)
    await budget.take(100)
    waiting = [asyncio.create_task(budget.take(60)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    budget.give(100)  # before the cancelled one has had its turn
    await asyncio.wait(waiting)
    assert waiting[0].cancelled() and waiting[1].exception() is None
    assert budget.used_bytes == 60 and not budget.full
