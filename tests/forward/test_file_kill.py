"""`kill -9` at every step of sending a file: exactly one object with the right bytes."""

import asyncio
import hashlib
import sys
from pathlib import Path

import pytest

from tests.forward.folder import DIALECTS, the_only_object
from tests.peers.receiver import Receiver


async def killed(folder: Path, peer: Receiver, dialect: str, *control: str) -> list[str]:
    """Return the steps at which it was killed."""
    await asyncio.to_thread((folder / "files").mkdir)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.forward.file_child", str(folder), peer.url, dialect, *control,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode().splitlines()


@pytest.mark.seed_row(39)
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_kills_at_every_step_leave_one_object_with_the_right_bytes(
    tmp_path: Path, peer: Receiver, dialect: str
) -> None:
    kills = await killed(tmp_path, peer, dialect)
    files = sorted((tmp_path / "files").iterdir())
    assert len(files) == len(kills) + 1, "each kill had a file of its own, and the last one had none"
    for file in files:
        await the_only_object(peer, file.name, hashlib.md5(file.read_bytes()).hexdigest())
    for step in ("before commit", "after commit", "before PUT", "middle of the bytes", "after PUT"):
        assert any(step in kill for kill in kills), f"nobody was killed {step}: {kills}"
    assert kills[-1].startswith("after commit"), "the last step is that the store knows of it"


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_the_control_one_that_does_not_look_leaves_more(tmp_path: Path, peer: Receiver) -> None:
    await peer.faults(dedupe=False)
    await killed(tmp_path, peer, "management", "blind")
    names = [file["name"] for file in await peer.files() if file["state"] == "available"]
    assert len(names) > len(set(names))
