"""`kill -9` at every step of sending a file: exactly one object with the right bytes."""

import asyncio
import hashlib
import sys
from pathlib import Path

import pytest

from tests.forward.file_child import NAME
from tests.forward.folder import DIALECTS, the_only_object
from tests.peers.receiver import Receiver


async def lives(folder: Path, peer: Receiver, dialect: str, *control: str) -> list[str]:
    """Return where each life ended."""
    await asyncio.to_thread((folder / "files").mkdir)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.forward.file_child", str(folder), peer.url, dialect, *control,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode().splitlines()


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_kills_at_every_step_leave_one_object_with_the_right_bytes(
    tmp_path: Path, peer: Receiver, dialect: str
) -> None:
    ends = await lives(tmp_path, peer, dialect)
    md5 = hashlib.md5((tmp_path / "files" / NAME).read_bytes()).hexdigest()
    await the_only_object(peer, NAME, md5)
    assert ends[-1] == "done" and all(end.startswith("killed") for end in ends[:-1])
    steps = " ".join(ends)
    for step in ("before commit", "after commit", "before PUT", "middle of the bytes", "after PUT"):
        assert step in steps, f"no life ended {step}: {ends}"


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_the_control_one_that_does_not_look_leaves_more(tmp_path: Path, peer: Receiver) -> None:
    await peer.faults(dedupe=False)
    await lives(tmp_path, peer, "management", "blind")
    assert len([file for file in await peer.files() if file["state"] == "available"]) > 1
