"""Files of others in which something lies elsewhere: nothing is read or written there, whatever is asked."""

import fcntl
import os
import termios
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gateway.measurements import hdf5
from gateway.measurements.inspection import FileFailed, FileUnfit, Inspection
from gateway.measurements.rewriting import rewriting

ROW = np.dtype([("counter", "u1"), ("timestamp", "<u8"), ("x", "<f4")])
SECRET = b"-----BEGIN PRIVATE KEY-----" * 39  # as long as rows and byte strings of 27 bytes are
JOBS: tuple[dict[str, Any], ...] = (
    {"do": "about"},
    {"do": "analyze", "every": 1, "pictures": True},
    {"do": "metadata"},
    {"do": "put_metadata", "pre": {"version": "1", "parameters": {"picture": {"0": "x"}}}},
    {"do": "embedded"},
    {"do": "extract", "dataset": "loot"},
    {"do": "embed", "name": "pwn", "mime": "text/plain"},
    {"do": "remove", "dataset": "loot"},
)


def stored(file: Any, name: str, secret: Path, dtype: Any = "u1") -> None:
    """External raw storage."""
    count = len(SECRET) // np.dtype(dtype).itemsize
    file.create_dataset(name, (count,), dtype=dtype, external=[(str(secret), 0, len(SECRET))])


def seen_through(file: Any, name: str, victim: Path, dtype: Any) -> None:
    """A virtual dataset."""
    layout = h5py.VirtualLayout((3,), dtype)
    layout[:] = h5py.VirtualSource(str(victim), "acceleration", (3,))
    file.create_virtual_dataset(name, layout)


def table(file: Any) -> None:
    file.create_dataset("acceleration", (3,), dtype=ROW, maxshape=(None,), chunks=(16,))


Made = Callable[[Any, Path, Path], None]
ELSEWHERE: dict[str, tuple[str, Made]] = {
    "embedded file": ("/embedded_files/loot", lambda f, s, v: stored(f, "embedded_files/loot", s)),
    "sensors": ("/sensors", lambda f, s, v: stored(f, "sensors", s, [("name", "S27")])),
    "picture": ("/pre__picture", lambda f, s, v: stored(f, "pre__picture", s, "S27")),
    "virtual": ("/sensors", lambda f, s, v: seen_through(f, "sensors", v, ROW)),
    "virtual, of itself": ("/sensors", lambda f, s, v: seen_through(f, "sensors", Path(), ROW)),
    "linked group": ("/embedded_files", lambda f, s, v: link(f, "embedded_files", v, "/")),
    "linked file": ("/embedded_files/loot", lambda f, s, v: link(f, "embedded_files/loot", v, "/loot")),
    "linked sensors": ("/sensors", lambda f, s, v: link(f, "sensors", v, "/acceleration")),
    "soft link": ("/sensors", lambda f, s, v: link(f, "sensors", None, "/acceleration")),
    "far below": ("/a/b/c", lambda f, s, v: link(f, "a/b/c", v, "/")),
}  # fmt: skip
TABLES: dict[str, Made] = {
    "stored": lambda f, s, v: stored(f, "acceleration", s, [("counter", "u1"), ("x", "S26")]),
    "virtual": lambda f, s, v: seen_through(f, "acceleration", v, ROW),
    "linked": lambda f, s, v: link(f, "acceleration", v, "/acceleration"),
}


def link(file: Any, name: str, to: Path | None, path: str) -> None:
    file[name] = h5py.SoftLink(path) if to is None else h5py.ExternalLink(str(to), path)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "key.pem").write_bytes(SECRET)
    return tmp_path / "key.pem"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "victim.hdf5", "w") as file:
        table(file)
        file["loot"] = np.frombuffer(SECRET, dtype="u1")
    return tmp_path / "victim.hdf5"


def test_h5py_alone_hands_out_what_lies_elsewhere(tmp_path: Path, secret: Path, victim: Path) -> None:
    with h5py.File(tmp_path / "plain.hdf5", "w") as file:
        for name in ("embedded file", "linked group"):
            ELSEWHERE[name][1](file.create_group(name), secret, victim)
    with h5py.File(tmp_path / "plain.hdf5") as file:
        assert file["embedded file/embedded_files/loot"][:].tobytes() == SECRET
        assert file["linked group/embedded_files/loot"][:].tobytes() == SECRET


def refused_by_each_way(path: Path, sentence: str) -> None:
    for way in (hdf5.looking, hdf5.opened, rewriting):
        with pytest.raises(hdf5.NotHdf5, match=sentence), way(path):
            pass
    with pytest.raises(hdf5.NotHdf5, match=sentence):
        hdf5.read_back(path)
    assert hdf5.recording_of(path) == ""


@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_file_of_which_a_part_lies_elsewhere_is_opened_by_no_way(
    tmp_path: Path, secret: Path, victim: Path, what: str
) -> None:
    where, made = ELSEWHERE[what]
    with h5py.File(tmp_path / "evil.hdf5", "w") as file:
        table(file)
        made(file, secret, victim)
    refused_by_each_way(tmp_path / "evil.hdf5", f"^{where} points elsewhere")


@pytest.mark.parametrize("what", TABLES)
def test_a_file_whose_table_lies_elsewhere_is_opened_by_no_way(
    tmp_path: Path, secret: Path, victim: Path, what: str
) -> None:
    with h5py.File(tmp_path / "evil.hdf5", "w", libver="latest") as file:
        TABLES[what](file, secret, victim)
        for n in range(20):  # links of a group that are not in its header any more
            file.create_group(f"group {n}")
    refused_by_each_way(tmp_path / "evil.hdf5", "^/acceleration points elsewhere")


def test_objects_without_end_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "ring.hdf5", "w") as file:
        table(file)
        group = file.create_group("a")
        group["a"] = group
    with pytest.raises(hdf5.NotHdf5, match="more than 10000 objects"), hdf5.looking(tmp_path / "ring.hdf5"):
        pass


@pytest.mark.parametrize("what", ["embedded file", "linked group"])
async def test_no_job_reads_or_writes_elsewhere(
    tmp_path: Path, secret: Path, victim: Path, what: str
) -> None:
    folder, before = tmp_path / "measurements", victim.read_bytes()
    folder.mkdir()
    with h5py.File(folder / "evil.hdf5", "w") as file:
        table(file)
        ELSEWHERE[what][1](file, secret, victim)
    asked, more = Inspection(), {"path": str(folder / "evil.hdf5"), "source": str(secret)}
    for job in JOBS:
        with pytest.raises(FileUnfit, match="points elsewhere"):
            await asked.document(job | more)
    assert victim.read_bytes() == before and secret.read_bytes() == SECRET
    assert [each.name for each in folder.iterdir()] == ["evil.hdf5"]


def asks_for_a_plugin(path: Path) -> None:
    """A table whose rows only a filter reads that nobody has."""
    with h5py.File(path, "w") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((16,))
        made.set_filter(300, h5py.h5z.FLAG_OPTIONAL, (1,))
        space = h5py.h5s.create_simple((16,), (16,))
        rows = h5py.h5d.create(file.id, b"acceleration", h5py.h5t.py_create(ROW), space, made)
        rows.write_direct_chunk((0,), bytes(16 * ROW.itemsize), filter_mask=0)


def waiting(pipe: int) -> int:
    """Return how many bytes wait to be read."""
    count = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


async def test_no_plugin_is_loaded_that_a_file_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that is a pipe shows whether anybody tried to load it."""
    asks_for_a_plugin(tmp_path / "evil.hdf5")
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    os.mkfifo(plugins / "libfilter.so")
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(plugins))
    pipe = os.open(plugins / "libfilter.so", os.O_RDWR)
    try:
        os.write(pipe, bytes(4096))
        with pytest.raises(FileFailed, match="ended with 1"):
            await Inspection().document(
                {"do": "analyze", "every": 1, "pictures": False, "path": str(tmp_path / "evil.hdf5")}
            )
        assert waiting(pipe) == 4096
    finally:
        os.close(pipe)
