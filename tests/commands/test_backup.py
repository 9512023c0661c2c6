"""`backup` and `restore`: what was acknowledged is in it, once, under keys that nobody else uses."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.commands import backup
from gateway.commands.backup import BackupProblem, back_up
from gateway.commands.restore import restore
from gateway.store import Store, StoreSettings, outbox, records
from tests.chaos.oracle import SETTINGS, START_US, Verdict, judge_folder, judge_store, samples, tags_of
from tests.commands.conftest import ALL, command, filled
from tests.store.folding import AT_ONCE, folded

NOW_US = SystemClock().wall_us


def restored(source: Path, folder: Path, *, force: bool = False, damaged: bool = False) -> None:
    restore(source, folder, folder, NOW_US(), force=force, damaged=damaged)


def one(path: Path, query: str) -> object:
    with sqlite3.connect(path) as conn:
        row = conn.execute(query).fetchone()
    conn.close()
    return row[0]


@pytest.mark.timeout(40)
async def test_a_backup_beside_a_writing_store_holds_all_that_was_acknowledged(tmp_path: Path) -> None:
    tickets, judged = [], 0
    async with Store.open(
        tmp_path / "store", StoreSettings(**AT_ONCE, commit_interval_s=0.01), SystemClock()
    ) as store:
        tags = tags_of(store)
        store.pin([])
        for turn in range(4):
            making: asyncio.Task[object] | None = None
            acked = sum(ticket.done for ticket in tickets) * 50
            making = asyncio.create_task(
                command("backup", tmp_path / f"copy-{turn}", "--state", tmp_path / "store")
            )
            while not making.done() or len(tickets) < 20:
                first = len(tickets) * 50
                tickets.append(await store.put(samples(range(first, first + 50), tags)))
                await asyncio.sleep(0.005)
            said = await making
            assert said.code == 0, said
            assert (await command("verify", tmp_path / f"copy-{turn}")).code == 0
            await asyncio.to_thread(restored, tmp_path / f"copy-{turn}", tmp_path / f"new-{turn}")
            verdict = await judge_folder(tmp_path / f"new-{turn}", range(acked), len(tickets) * 50)
            assert verdict and verdict.stored >= acked, verdict
            judged += verdict.stored
        await asyncio.gather(*tickets)
        assert store.state().history_bytes and not store.state().refusing
    assert judged > 1000


async def backed_up_across_a_fold(
    folder: Path, monkeypatch: pytest.MonkeyPatch, order: Callable[[Path, Path], None]
) -> Verdict:
    """Make a backup in the middle of which all blocks are folded and deleted; judge what it holds."""
    settings = StoreSettings(**AT_ONCE, commit_interval_s=0.01)
    async with Store.open(folder / "store", settings, SystemClock()) as store:
        store._writer.compactor._look_ns = 2**63
        for first in range(0, 2000, 200):
            await (await store.put(samples(range(first, first + 200), tags_of(store))))
        store.pin([])

        def fold() -> None:
            store._writer.compactor._look_ns = 0
            asyncio.run_coroutine_threadsafe(folded(store), loop).result(10)

        loop, hot, history = asyncio.get_running_loop(), backup.copy_hot, backup.copy_history
        order(monkeypatch, hot, history, fold)  # type: ignore[call-arg,arg-type]
        await asyncio.to_thread(back_up, folder / "store", folder / "store", folder / "copy", NOW_US())
    await asyncio.to_thread(restored, folder / "copy", folder / "new")
    return await judge_folder(folder / "new", range(2000), 2000)


async def test_what_is_folded_while_it_is_backed_up_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def between(patch, hot, history, fold):  # type: ignore[no-untyped-def]
        patch.setattr(backup, "copy_history", lambda a, b: (fold(), history(a, b))[1])

    assert await backed_up_across_a_fold(tmp_path, monkeypatch, between)


async def test_the_history_copied_before_the_blocks_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def history_first(patch, hot, history, fold):  # type: ignore[no-untyped-def]
        def both(path: Path, copy: Path) -> int:
            history(path.parent / "history", copy.parent / "history")
            fold()
            return int(hot(path, copy))

        patch.setattr(backup, "copy_hot", both)
        patch.setattr(backup, "copy_history", lambda a, b: [])

    assert (await backed_up_across_a_fold(tmp_path, monkeypatch, history_first)).missing


async def test_a_restored_store_has_keys_of_its_own_and_goes_on_after_all_seqs(tmp_path: Path) -> None:
    async with filled(tmp_path / "store") as store:
        await store.ride(lambda tx: outbox.register(tx, "cloud", 0))
        await store.ride(lambda tx: outbox.cut(tx, "cloud", "live", 1, tx.newest_seq, "{}"))
        epoch, newest = store.epoch, store.state().newest_seq
        await asyncio.to_thread(back_up, tmp_path / "store", tmp_path / "store", tmp_path / "copy", NOW_US())
    assert json.loads((tmp_path / "copy" / "backup.json").read_text())["epoch"] == epoch
    await asyncio.to_thread(restored, tmp_path / "copy", tmp_path / "new")
    await asyncio.to_thread(restored, tmp_path / "copy", tmp_path / "other")
    async with Store.open(tmp_path / "new", SETTINGS, SystemClock()) as store:
        assert (
            len(
                {
                    epoch,
                    store.epoch,
                    one(tmp_path / "other" / "hot.db", "SELECT value FROM meta WHERE key='epoch'"),
                }
            )
            == 3
        )
        assert await judge_store(store, range(ALL), ALL)
        receipt = await (await store.put(samples(range(ALL), tags_of(store))))
        assert (receipt.added, receipt.same) == (0, ALL), "the same samples again are the same"
        await (await store.put(samples(range(ALL, ALL + 10), tags_of(store))))
        assert store.state().newest_seq > newest
        (_, gap), *_ = await store.gaps()
        assert "restored from a backup" in gap.reason
        seq = await store.read(lambda conn: conn.execute("SELECT max(seq) FROM gap").fetchone()[0])
        assert newest < seq <= store.state().newest_seq, "the gap record is uploaded with a block"
        assert await store.read(lambda conn: conn.execute("SELECT count(*) FROM unit").fetchone()[0]) == 0


async def test_seqs_that_the_original_folded_later_are_not_used_again(tmp_path: Path) -> None:
    """Else blocks of the restored store would be taken for folded, and deleted."""
    async with filled(tmp_path / "store") as store:
        await asyncio.to_thread(back_up, tmp_path / "store", tmp_path / "store", tmp_path / "copy", NOW_US())
        newest = store.state().newest_seq
    with sqlite3.connect(tmp_path / "copy" / "history" / "000001.db") as conn:
        conn.execute(
            "UPDATE folded SET to_seq = ? WHERE to_seq = (SELECT max(to_seq) FROM folded)", (newest + 500,)
        )
        number, record = conn.execute("SELECT id, record FROM fold ORDER BY id DESC").fetchone()
        fields = records.unpack(record)[1]
        fields[-1][-1][1] = newest + 500
        row = records.pack(records.FOLD, *fields), number
        conn.execute("UPDATE fold SET record = ? WHERE id = ?", row)
    conn.close()
    await asyncio.to_thread(restored, tmp_path / "copy", tmp_path / "new", damaged=True)
    async with Store.open(tmp_path / "new", SETTINGS, SystemClock()) as store:
        await (await store.put(samples(range(ALL, ALL + 10), tags_of(store))))
        assert store.state().newest_seq > newest + 500


async def test_no_secret_goes_into_a_backup_and_trust_does(tmp_path: Path) -> None:
    state, copy = tmp_path / "store", tmp_path / "copy"
    async with filled(state):
        pass
    for name, content in {
        "gateway-id": "hall-3\n", "tokens.json": "{}", "admin-token": "egw_x", "tls/self-signed.pem": "KEY",
        "pki/own/key.pem": "PRIVATE KEY", "pki/own/certificate.der": "x", "pki/trusted/plc.der": "plc",
        "pki/trusted/mine.pem": "-----BEGIN PRIVATE KEY-----", "pki/secured/plc": "Basic256Sha256",
        "pki/rejected/x.der": "x", "config/0123456789abcdef.yaml": "devices:\n",
        "timeseries-series.json": "{}", "timeseries-users.json": "a hash of a token",
        "documents/sensors.yaml": "sensors:", "documents/secrets/dataspace-0123456789abcdef": "password",
        "documents/backup/sensors__20260101T000000Z_1.yaml": "sensors:", "documents/backup/x.yaml": "x",
        "documents/dataspace.yaml": "connection: {password: by hand}",
    }.items():  # fmt: skip
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text(content)
    said = await command("backup", copy, "--state", state)
    assert said.code == 0 and "pki/trusted/mine.pem holds a private key and was left out" in said.err
    assert "documents/dataspace.yaml was not written by the gateway" in said.err
    found = {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()}
    kept = {"gateway-id", "pki/trusted/plc.der", "pki/secured/plc", "config/0123456789abcdef.yaml"}
    kept |= {"timeseries-series.json", "documents/sensors.yaml"}
    kept.add("documents/backup/sensors__20260101T000000Z_1.yaml")
    assert found == {"backup.json", "hot.db", "history/000001.db", *kept}
    assert not any(file.stat().st_mode & 0o077 for file in copy.rglob("*"))
    said = await command("restore", copy, "--state", tmp_path / "new")
    assert said.code == 0, said
    assert all((tmp_path / "new" / name).read_bytes() == (state / name).read_bytes() for name in kept)


async def test_a_backup_overwrites_nothing_and_one_that_did_not_end_is_known_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "store"
    async with filled(state):
        pass
    (tmp_path / "there").mkdir()
    assert "overwrites nothing" in (await command("backup", tmp_path / "there", "--state", state)).err
    (tmp_path / "half.partial").mkdir()
    assert "did not end" in (await command("backup", tmp_path / "half", "--state", state)).err
    assert "did not end" in (await command("verify", tmp_path / "half.partial")).err
    assert (
        "did not end" in (await command("restore", tmp_path / "half.partial", "--state", tmp_path / "x")).err
    )
    assert "there is no store in" in (await command("backup", tmp_path / "x", "--state", tmp_path / "no")).err

    def fails(*_: object) -> list[str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "copy_history", fails)
    with pytest.raises(BackupProblem, match="No space left on device; nothing is left of it"):
        await asyncio.to_thread(back_up, state, state, tmp_path / "full", NOW_US())
    assert not list(tmp_path.glob("full*"))


async def test_restore_refuses_a_store_in_use_or_there_and_moves_it_aside_when_forced(tmp_path: Path) -> None:
    async with filled(tmp_path / "store"):
        said = await command("backup", tmp_path / "copy", "--state", tmp_path / "store")
        assert said.code == 0, said
        said = await command("restore", tmp_path / "copy", "--state", tmp_path / "store", "--force")
        assert said.code == 1 and "in use by another edge-gateway" in said.err
    said = await command("restore", tmp_path / "copy", "--state", tmp_path / "store")
    assert said.code == 1 and "hot.db is there already: nothing was restored" in said.err
    assert await judge_folder(tmp_path / "store", range(ALL), ALL)
    said = await command("restore", tmp_path / "copy", "--state", tmp_path / "store", "--force")
    assert said.code == 0 and "moved aside" in said.out, said
    assert await judge_folder(tmp_path / "store", range(ALL), ALL)
    assert await judge_folder(tmp_path / "store" / "replaced-1", range(ALL), ALL)


async def test_a_backup_that_changed_is_not_restored(tmp_path: Path) -> None:
    async with filled(tmp_path / "store"):
        await asyncio.to_thread(back_up, tmp_path / "store", tmp_path / "store", tmp_path / "copy", NOW_US())
    file = tmp_path / "copy" / "history" / "000001.db"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    said = await command("restore", tmp_path / "copy", "--state", tmp_path / "new")
    assert said.code == 1 and "nothing was restored" in said.err
    assert "history/000001.db: is not what was backed up" in said.out
    assert not (tmp_path / "new" / "hot.db").exists()
    said = await command("restore", tmp_path / "copy", "--state", tmp_path / "new", "--damaged")
    assert said.code == 0
    verdict = await judge_folder(tmp_path / "new", (), ALL)
    assert verdict and verdict.stored > ALL // 2, "no wrong value is served"


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "history/../../evil", "pki/trusted/..", "tokens.json"]
)
async def test_a_backup_cannot_write_where_it_likes(tmp_path: Path, name: str) -> None:
    async with filled(tmp_path / "store"):
        await asyncio.to_thread(back_up, tmp_path / "store", tmp_path / "store", tmp_path / "copy", NOW_US())
    file = tmp_path / "copy" / "backup.json"
    said = json.loads(file.read_text())
    said["files"][name] = "00"
    file.write_text(json.dumps(said))
    with pytest.raises(BackupProblem, match="is not that of a backup"):
        await asyncio.to_thread(restored, tmp_path / "copy", tmp_path / "new", damaged=True)
    assert not (tmp_path / "new").exists()


async def test_a_backup_after_a_kill_in_the_middle_of_a_fold(tmp_path: Path) -> None:
    """A journal is left beside the newest segment: it is rolled back first."""
    async with filled(tmp_path / "store") as store:
        writing = store._history.writing()
        writing.execute("BEGIN IMMEDIATE")
        writing.execute("DELETE FROM chunk")
        writing.execute("PRAGMA cache_spill=ON")
        writing.execute("PRAGMA cache_size=1")
        for n in range(300):
            writing.execute("INSERT INTO chunk VALUES (?, zeroblob(5000))", (2**60 + n,))
        await asyncio.to_thread(
            shutil.copytree, tmp_path / "store", tmp_path / "killed", ignore=shutil.ignore_patterns("*-shm")
        )
        writing.execute("ROLLBACK")
    assert (tmp_path / "killed" / "history" / "000001.db-journal").exists()
    said = await command("backup", tmp_path / "copy", "--state", tmp_path / "killed")
    assert said.code == 0, said
    await asyncio.to_thread(restored, tmp_path / "copy", tmp_path / "new")
    assert await judge_folder(tmp_path / "new", range(ALL), ALL)


async def test_what_was_deleted_stays_deleted_in_exports_and_backups(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    gone = {n for n in range(ALL) if n % 20 == 3} | {
        n for n in range(ALL) if n % 20 == 7 and 2000 <= n < 4000
    }
    async with filled(folder) as store:
        tags = tags_of(store)
        await store.delete(tags[3], "me")
        await store.delete(tags[7], "me", START_US + 2000 * 1000, START_US + 3999 * 1000)
        exported = await command("export", "--state", folder)
        assert len(exported.out.splitlines()) == 1 + ALL - len(gone), exported.err
        said = await command("backup", tmp_path / "copy", "--state", folder)
        assert said.code == 0, said
        assert (await command("verify", folder)).code == 0
    assert (await command("verify", tmp_path / "copy")).code == 0
    await asyncio.to_thread(restored, tmp_path / "copy", tmp_path / "new")
    verdict = await judge_folder(tmp_path / "new", set(range(ALL)) - gone, ALL)
    assert verdict and verdict.stored == ALL - len(gone), verdict
