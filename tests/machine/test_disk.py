"""The disk of the machine that is cut off: what was flushed stays, the rest is lost, kept or torn."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.machine.disk import SECTOR_BYTES, VolatileDisk

SIZE = 64 * SECTOR_BYTES


@pytest.mark.skipif(shutil.which("qemu-io") is None, reason="qemu-utils is not installed")
def test_a_cut_spares_what_was_flushed_and_nothing_else_for_sure(tmp_path: Path) -> None:
    file = tmp_path / "disk"
    seen = set()
    for seed in range(12):
        file.write_bytes(bytes(SIZE))
        disk = VolatileDisk(file, tmp_path / f"socket-{seed}")
        commands = ("write -P 1 0 8k", "flush", "write -P 2 4k 4k", "write -P 3 16k 2k", "read -P 2 4k 4k")
        asked = ["qemu-io", "-f", "raw", "-t", "none", f"nbd+unix:///?socket={tmp_path}/socket-{seed}"]
        # It is killed: closing would flush.
        asked += [part for command in commands for part in ("-c", command)]
        done = subprocess.run([*asked, "-c", "abort"], capture_output=True, text=True, check=False)
        assert "Pattern verification failed" not in done.stdout, done.stdout
        assert disk.flushes >= 1
        disk.cut(random.Random(seed))
        disk.close()
        data = file.read_bytes()
        assert data[:4096] == b"\1" * 4096
        assert set(data[4096:8192]) <= {1, 2}
        assert set(data[16384 : 16384 + 2048]) <= {0, 3}
        assert not any(data[18432:])
        seen.add((bytes(sorted(set(data[4096:8192]))), bytes(sorted(set(data[16384:18432])))))
    assert {(b"\1", b"\0"), (b"\2", b"\3")} <= seen, "each is lost at times, and kept at times"
    assert any(b"\1\2" in pair or b"\0\3" in pair for pair in seen), "torn at times"
