"""`verify`: each kind of damage is named with its file; a store without one, also in use, is not."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.store.segment import chunk_id
from gateway.store.verify import Counted, verify_store
from tests.chaos.oracle import judge_folder, samples, tags_of
from tests.commands.conftest import ALL, command, filled

Damage = Callable[[Path], object]


def sql(file: str, *queries: str) -> Damage:
    def damage(folder: Path) -> None:
        with sqlite3.connect(folder / file) as conn:
            for query in queries:
                conn.execute(query)
        conn.close()

    return damage


def flipped(file: str, at: Callable[[int], int]) -> Damage:
    def damage(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        content[at(len(content))] ^= 0x40
        (folder / file).write_bytes(content)

    return damage


SEGMENT = "history/000001.db"
TEXT = "data = substr(data, 1, 200) || x'5a' || substr(data, 202)"
LAST = "(SELECT max(seq) FROM block)"
FIRST = "(SELECT min(id) FROM chunk)"
SECOND = chunk_id(1, 2, 0)
FLIP = "data = CAST(substr(data, 1, 200) || x'5a' || substr(data, 202) AS BLOB)"
DAMAGES: dict[str, tuple[Damage, str]] = {
    "a block": (sql("hot.db", f"UPDATE block SET {FLIP} WHERE seq = 10"),
                "hot.db: block 10 is damaged"),
    "bytes that became text": (sql("hot.db", f"UPDATE block SET {TEXT} WHERE seq = 10"),
        "block 10 is damaged"),
    "a row": (sql("hot.db", "UPDATE block SET t1 = t1 - 5000000 WHERE seq = 10"),
        "hot.db: block 10 holds something else"),
    "a block in another's place": (sql("hot.db", f"UPDATE block SET seq = seq + 1 WHERE seq = {LAST}"),
                                   "in the place of block"),
    "a missing block": (sql("hot.db", "DELETE FROM block WHERE seq = 10"),
        "hot.db: blocks 10 to 10 are missing"),
    "a name": (sql("hot.db", "DELETE FROM series WHERE tag = 'tag-3'"), "which has no name"),
    "the snapshot": (sql("hot.db", "UPDATE snapshot SET newest = substr(newest, 1, 100)"),
        "hot.db: the snapshot"),
    "the epoch": (sql("hot.db", "DELETE FROM meta WHERE key = 'epoch'"), "hot.db: its epoch is missing"),
    "acknowledged twice": (sql("hot.db", "INSERT INTO upload VALUES ('cloud', 0, 0)",
                               "INSERT INTO acked VALUES ('cloud', 0, 5, 0), ('cloud', 3, 9, 0)"),
        "overlap at 3"),
    "a unit of nothing": (sql("hot.db", "INSERT INTO unit VALUES ('cloud', 'live', 3, 9, '', 0, 0, 0)"),
        "unit 3-9"),
    "a deletion": (sql("hot.db", "INSERT INTO tombstone VALUES (1, x'00')"), "deletion 1 is damaged"),
    "a fold's end": (sql(SEGMENT, "UPDATE folded SET to_seq = to_seq + 1 WHERE fold = 1"),
        "its fold took blocks up to"),
    "a page of the hot file": (flipped("hot.db", lambda size: 1024 * 3 + 3), "hot.db: "),
    "no database": (lambda folder: (folder / "hot.db").write_bytes(b"nonsense" * 1000), "hot.db: "),
    "a chunk": (sql(SEGMENT, f"UPDATE chunk SET {FLIP} WHERE id = {FIRST}"),
                f"{SEGMENT}: a chunk of series 1 in fold 1 is damaged"),
    "a chunk that became text": (
        sql(SEGMENT, f"UPDATE chunk SET {TEXT} WHERE id = {FIRST}"),
        "in fold 1 is damaged",
    ),
    "a missing chunk": (sql(SEGMENT, f"DELETE FROM chunk WHERE id = {FIRST}"), "some are lost"),
    "a chunk of another": (sql(SEGMENT, f"UPDATE chunk SET id = {chunk_id(1, 77, 0)} WHERE id = {SECOND}"),
                           "a chunk of series 77 in fold 1 is of series 2"),
    "a fold's times": (sql(SEGMENT, "UPDATE fold SET t1 = t0"), "outside the times of its fold"),
    "folded twice": (sql(SEGMENT, "INSERT INTO folded VALUES (1, 1, 2)"), "was folded twice"),
    "a fold that is gone": (sql(SEGMENT, "UPDATE fold SET id = 9 WHERE id = 1"), "fold 1 is missing"),
    "a series of another": (sql(SEGMENT, "UPDATE series SET tag = 'other' WHERE id = 4"),
        "series 4 is another one"),
    "the middle of a segment": (flipped(SEGMENT, lambda size: size // 2), f"{SEGMENT}: "),
    "half a segment": (lambda folder: (folder / SEGMENT).write_bytes((folder / SEGMENT).read_bytes()[:9000]),
                       f"{SEGMENT}: "),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
async def test_each_damage_is_named_with_its_file(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "store"
    async with filled(folder):
        pass
    damage, sentence = DAMAGES[what]
    assert not await asyncio.to_thread(lambda: list(verify_store(folder, Counted())))
    await asyncio.to_thread(damage, folder)
    said = await command("verify", folder)
    assert said.code == 1, said
    assert sentence in said.out, said.out
    assert not said.err
    assert "faults; " in said.out


async def test_a_store_in_use_is_verified_and_is_whole(tmp_path: Path) -> None:
    async with filled(tmp_path) as store:
        said = await command("verify", "--state", tmp_path)
        assert said.code == 0 and f"OK; {ALL} samples read" in said.out, said
        store._writer.compactor._look_ns = 0
        tags, n = tags_of(store), ALL
        for _ in range(4):
            verifying = asyncio.create_task(command("verify", tmp_path))
            while not verifying.done():
                await store.put(samples(range(n, n + 50), tags))
                n += 50
                await asyncio.sleep(0.005)
            assert (await verifying).code == 0, await verifying
        assert store._writer.compactor.folds > 3


async def test_damage_that_the_gateway_knows_of_is_no_new_fault(tmp_path: Path) -> None:
    async with filled(tmp_path):
        pass
    for what in ("a block", "a chunk"):
        DAMAGES[what][0](tmp_path)
    assert not await judge_folder(tmp_path, range(ALL), ALL)
    said = await command("verify", tmp_path)
    assert said.code == 0 and said.out.count("(known, a gap is recorded)") == 2, said


async def test_what_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    said = await command("verify", tmp_path)
    assert said.code == 1 and "there is no store in" in said.err
