"""The child process on a disk that gives back something else than was written: a bit of a row."""

import os
from pathlib import Path

import h5py

from gateway.measurements import file_process


def main() -> None:
    really = os.posix_fadvise

    def lie(descriptor: int, *rest: int) -> None:
        really(descriptor, *rest)
        with h5py.File(Path(f"/proc/self/fd/{descriptor}").readlink(), "r+") as file:
            row = file["acceleration"][7]
            row["counter"] ^= 4
            file["acceleration"][7] = row

    os.posix_fadvise = lie
    file_process.main()


if __name__ == "__main__":
    main()
