#!/usr/bin/env python3
"""Makes the private folder of the package: our own modules and every library of requirements.lock, for the
Python that runs this and the processor that is named. Nothing of the target processor is run.
"""

import argparse
import compileall
import csv
import os
import py_compile
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The only ones without a wheel; pure Python, made here with the setuptools of tools.lock.
SOURCES = "aiohttp-apispec,sdnotify,wait-for2"
MANYLINUX = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
# Not needed to run, to debug or to exchange a library: maps of minified scripts, sources of compiled modules.
PRUNED = (
    "*.map",
    "*.pyx",
    "*.pxd",
    "*.c",
    "*.h",
    "*.hash",
    "aiosqlite/tests",
    "numpy/**/tests",
    "h5py/tests",
    "numpy/f2py",
    "zstandard/*cffi*",  # a second make of the same, 12 MB
    "bin",
    "*.dist-info/direct_url.json",
    "*.dist-info/REQUESTED",
    "*.dist-info/INSTALLER",
)
# 12 MB of .pyc that no gateway imports: the address space of the simulated PLC.
DEMO_ALONE = re.compile("asyncua/server/standard_address_space")
NEEDED = {
    "libc",
    "libm",
    "libdl",
    "libpthread",
    "libgcc_s",
    "libstdc++",
    "ld-linux-x86-64",
    "ld-linux-aarch64",
    "libz",
}
"""What debian/control names packages for; any other library would be missing on the box."""


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--machine", required=True, help="x86_64 or aarch64")
    arguments.add_argument(
        "--tools", type=Path, required=True, help="a folder with the libraries of tools.lock"
    )
    arguments.add_argument("--target", type=Path, required=True)
    given = arguments.parse_args()
    shutil.rmtree(given.target, ignore_errors=True)
    install_libraries(given.target, given.tools, given.machine)
    install_ourselves(given.target, given.tools)
    prune(given.target)
    check_needed(given.target)
    compile_all(given.target, int(os.environ["SOURCE_DATE_EPOCH"]))


def pip(*arguments: str, tools: Path) -> None:
    command = (
        sys.executable,
        "-m",
        "pip",
        *arguments,
        "--no-deps",
        "--no-build-isolation",
        "--use-pep517",
        "--quiet",
        "--quiet",
    )
    environ = {
        **os.environ,
        "PYTHONPATH": str(tools),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    subprocess.run(command, check=True, env=environ)


def install_libraries(target: Path, tools: Path, machine: str) -> None:
    platforms = [part for name in MANYLINUX for part in ("--platform", f"{name}_{machine}")]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    pip(
        "install",
        "--target",
        str(target),
        "--no-compile",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--no-binary",
        SOURCES,
        *platforms,
        "--implementation",
        "cp",
        "--python-version",
        version,
        "-r",
        str(HERE / "requirements.lock"),
        tools=tools,
    )


def install_ourselves(target: Path, tools: Path) -> None:
    # From a copy: setuptools leaves its build folder where it works.
    copy = target.parent / "source"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for name in ("gateway", "debian/changelog", "pyproject.toml", "setup.py", "README.md"):
        kept = copy / name
        kept.parent.mkdir(exist_ok=True)
        if (HERE.parent / name).is_dir():
            shutil.copytree(HERE.parent / name, kept, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(HERE.parent / name, kept)
    pip("install", "--target", str(target), "--no-compile", "--no-index", str(copy), tools=tools)


def prune(target: Path) -> None:
    for pattern in PRUNED:
        for path in sorted(target.rglob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    for record in target.glob("*.dist-info/RECORD"):
        rows = [row for row in csv.reader(record.read_text().splitlines()) if (target / row[0]).exists()]
        with record.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(sorted(rows))


def check_needed(target: Path) -> None:
    ours = {path.name.split(".so")[0] for path in target.glob("*.libs/*.so*")}
    for module in sorted(target.rglob("*.so*")):
        read = subprocess.run(("readelf", "-d", module), check=True, capture_output=True, text=True).stdout
        needs = {name.split(".so")[0] for name in re.findall(r"NEEDED.*\[(.+)]", read)}
        if missing := needs - NEEDED - ours:
            sys.exit(f"{module} needs {', '.join(missing)}: add its package to debian/control and to NEEDED")


def compile_all(target: Path, epoch: int) -> None:
    # The mode that notices an exchanged source by its time and size: LGPL modules stay replaceable.
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    mode = py_compile.PycInvalidationMode.TIMESTAMP
    done = compileall.compile_dir(
        target,
        quiet=1,
        force=True,
        rx=DEMO_ALONE,
        stripdir=str(target),
        prependdir="/usr/lib/edge-gateway",
        invalidation_mode=mode,
    )
    if not done:
        sys.exit("a module does not compile")


if __name__ == "__main__":
    main()
