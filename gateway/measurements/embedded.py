"""Files inside the file of a measurement, as ICOapi keeps them. For the child process.

Source: ICOapi 0.2.1: group `embedded_files`, a dataset of bytes each, with size, mime and original name.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gateway.measurements import hdf5

GROUP = "embedded_files"
_PIECE_BYTES = 1 << 20


def listed(file: Any) -> list[dict[str, Any]]:
    """Return what is inside, by name."""
    group = file.get(GROUP)
    if not isinstance(group, h5py.Group):
        return []
    return [_row(name, group[name]) for name in sorted(group) if _is_file(group[name])]


def _is_file(dataset: Any) -> bool:
    return isinstance(dataset, h5py.Dataset) and dataset.dtype == np.uint8 and dataset.ndim == 1


def _row(name: str, dataset: Any) -> dict[str, Any]:
    return {
        "dataset": name,
        "name": hdf5.plain(dataset.attrs.get("original_name", name)),
        "mime": hdf5.plain(dataset.attrs.get("mime", "application/octet-stream")),
        "size_bytes": int(dataset.shape[0]),
    }


def found(file: Any, name: str) -> Any:
    """Return a file inside. LookupError: there is none of that name."""
    group = file.get(GROUP)
    if "/" in name or not isinstance(group, h5py.Group) or name not in group or not _is_file(group[name]):
        raise LookupError(f"it holds no file {name}")
    return group[name]


def extracted(path: Path, name: str) -> tuple[Mapping[str, Any], Iterator[bytes]]:
    """Return what a file inside is, and its bytes."""
    with hdf5.looking(path) as file:
        dataset = found(file, name)
        hdf5.check_size(file, dataset)
        row = _row(name, dataset)
    return row, _bytes(path, name)


def _bytes(path: Path, name: str) -> Iterator[bytes]:
    with hdf5.looking(path) as file:
        dataset = found(file, name)
        for start in range(0, dataset.shape[0], _PIECE_BYTES):
            yield dataset[start : start + _PIECE_BYTES].tobytes()


def add(file: Any, source: Path, name: str, mime: str) -> dict[str, Any]:
    """Put a file inside, under a name of a dataset that nothing has yet."""
    group = file.require_group(GROUP)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80].strip("._") or "file"
    dataset_name, number = stem, 1
    while dataset_name in group:
        number += 1
        dataset_name = f"{stem}_{number}"
    size = source.stat().st_size
    dataset = group.create_dataset(
        dataset_name, (size,), dtype="u1", chunks=(min(size, _PIECE_BYTES),) if size else None
    )
    with source.open("rb") as bytes_of:
        at = 0
        while piece := bytes_of.read(_PIECE_BYTES):
            dataset[at : at + len(piece)] = np.frombuffer(piece, dtype="u1")
            at += len(piece)
    hdf5.text(dataset, "original_name", name)
    hdf5.text(dataset, "mime", mime)
    dataset.attrs["size"] = np.int64(size)
    return _row(dataset_name, dataset)
