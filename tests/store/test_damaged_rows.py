"""Rows that SQLite reads without complaint and that no writer of ours wrote: found by tests/chaos."""

from pathlib import Path

import pytest

from gateway.store.records import row_crc
from tests.store.conftest import NOW_US, Opener
from tests.store.damaging import edit
from tests.store.reading import everything, put
from tests.store.searching import searched


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE tag_unit SET unit = CAST(x'75ff' AS TEXT)",
        "UPDATE series SET device = CAST(x'ff' AS TEXT)",
        "DELETE FROM meta",
        "UPDATE meta SET value = 'x' WHERE key = 'running_s'",
    ],
)
async def test_a_store_with_rows_that_are_none_is_set_aside(
    damage: str, opened: Opener, tmp_path: Path
) -> None:
    async with opened() as store:
        await put(store, (store.series("plc", "a", "mm"), NOW_US, 1))
    edit(
        tmp_path / "store" / "hot.db",
        f"INSERT OR REPLACE INTO meta VALUES ('running_s', 1.0, {row_crc('running_s', 1.0)})",
    )
    edit(tmp_path / "store" / "hot.db", damage)
    async with opened() as store:
        s = store.series("plc", "a")
        await searched(store)
        assert await put(store, (s, NOW_US, 2)) == (0, 0, 1), "the sample that was there is there again"
        await store.flush()
        assert "set aside as hot.db.corrupt-1" in (await store.gaps())[-1][1].reason


async def test_a_block_without_bytes_is_a_damaged_block(opened: Opener, tmp_path: Path) -> None:
    async with opened() as store:
        await put(store, (store.series("plc", "a"), NOW_US, 1))
    edit(tmp_path / "store" / "hot.db", "UPDATE block SET data = NULL")
    async with opened() as store:
        assert await everything(store, [store.series("plc", "a")]) == []
        await store.flush()
        assert "damaged" in (await store.gaps())[0][1].reason


async def test_a_block_in_the_place_of_another_is_not_served_twice(opened: Opener, tmp_path: Path) -> None:
    async with opened() as store:
        s = store.series("plc", "a")
        for n in range(3):
            await put(store, (s, NOW_US + n, n))
    path = tmp_path / "store" / "hot.db"
    edit(path, "UPDATE block SET data = (SELECT data FROM block WHERE seq = 2) WHERE seq = 3")
    async with opened() as store:
        assert [sample.value for sample in await everything(store, [s])] == [0, 1]
        assert [sample.value for sample in await store.unit_samples(0, 9)] == [0, 1]
        await store.flush()
        assert "block 3 of the store is damaged" in (await store.gaps())[0][1].reason


async def test_a_name_that_changed_is_not_served(opened: Opener, tmp_path: Path) -> None:
    async with opened() as store:
        await put(store, (store.series("plc", "a-long-name"), NOW_US, 1))
    path = tmp_path / "store" / "hot.db"
    content = path.read_bytes()
    assert content.count(b"plca-long-name") == 2, "the table and its index"
    path.write_bytes(content.replace(b"plca-long-name", b"plca-lung-name", 1))
    async with opened() as store:
        assert store.find_series("plc", "a-lung-name") is None
        store.series("plc", "a-long-name")
        await store.flush()
        assert "name of series 1 and its record differ" in (await store.gaps())[-1][1].reason
