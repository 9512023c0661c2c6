"""Files of samples that wait in the flash of a logger: a JSON line each, `NUMBER.dated` or `NUMBER.bootN`.

A flash may be full, a power cut may tear a line, and a block may go bad: what is unreadable is passed over.
"""

import json
import os


def make(folder):
    try:
        os.mkdir(folder)
    except OSError:
        os.listdir(folder)  # it is there, or this says what is wrong


def file_name(number, boot):
    return "%08d.dated" % number if boot is None else "%08d.boot%d" % (number, boot)


def parts(name):
    """Return number and boot (None: dated) of a file that waits; None: it is none."""
    number, _, kind = name.partition(".")
    if len(number) != 8 or not number.isdigit():
        return None
    if kind == "dated":
        return int(number), None
    return (int(number), int(kind[4:])) if kind.startswith("boot") and kind[4:].isdigit() else None


def append(path, text):
    """Add lines to a file, below what a failure or a power cut left of one."""
    try:
        with open(path, "rb") as file:
            file.seek(-1, 2)
            torn = file.read(1) != b"\n"
    except OSError:  # it is new, or empty
        torn = False
    with open(path, "a") as file:
        file.write("\n" + text if torn else text)


def replace(folder, name, pieces):
    """Put a file in its place, all of it or nothing."""
    try:
        with open(folder + "/part", "w") as file:
            for piece in pieces:
                file.write(piece)
        os.rename(folder + "/part", folder + "/" + name)
    except OSError:
        _discard(folder + "/part")
        raise


def _discard(path):
    try:
        os.remove(path)
    except OSError:
        pass  # it was never made


def read_state(folder):
    try:
        with open(folder + "/state") as file:
            state = json.load(file)
            return state if isinstance(state, dict) else {}
    except (OSError, ValueError):
        return {}


def lines_of(path):
    """Yield each line of a file and its sample, None where it is unreadable."""
    try:
        with open(path, "rb") as file:
            for line in file:
                yield line, _sample(line)
    except OSError:
        yield b"}\n", None  # the flash is damaged here: what follows cannot be had


def _sample(line):
    try:
        sample = json.loads(line)
        return sample if isinstance(sample["ts"], int) else None
    except (ValueError, KeyError, TypeError):
        return None


def measured(path):
    """Return how many bytes and readings of a file can be sent, and how many unreadable lines were whole:
    what is left of a torn one was written again, or never there.
    """
    length, times, unreadable = 0, set(), 0
    for line, sample in lines_of(path):
        if sample is not None:
            length += len(line)
            times.add(sample["ts"])
        elif line.endswith(b"}\n"):
            unreadable += 1
    return length, len(times), unreadable


def pieces(path):
    """Yield what can be sent of a file, a little at a time."""
    piece = b""
    for line, sample in lines_of(path):
        if sample is not None:
            piece += line
            if len(piece) >= 512:
                yield piece
                piece = b""
    yield piece
