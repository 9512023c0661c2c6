"""Which configuration is taken: the file as it is, an edit of it, or the last good one in its place."""

import contextlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.api.settings import HttpSettings
from gateway.config.last_good import keep_good, kept_file, read_good
from gateway.config.load import Config, config_of, source_of
from gateway.config.problems import ConfigProblems
from gateway.model import GatewayError


@dataclass(frozen=True, slots=True)
class Loaded:
    """The configuration to run with; `problems` says why it is the last good one, and what it lacks."""

    config: Config
    problems: tuple[str, ...] = ()
    from_last_good: bool = False


def edited(path: Path, environ: Mapping[str, str] | None = None, unable: Collection[str] = ()) -> Config:
    """Read a configuration file anew. ConfigProblems: it cannot be used.

    A missing secret is no reason where only those need it that are `unable` already.
    """
    environ = os.environ if environ is None else environ
    config = config_of(source_of(path, environ), path, path, environ)
    if not {*config.unable()} <= {*unable}:
        raise ConfigProblems(config.lacking)
    return config


def load_or_last_good(
    path: Path,
    state: Path,
    environ: Mapping[str, str] | None = None,
    prove: Callable[[HttpSettings], None] | None = None,
) -> Loaded:
    """Read a configuration file, or where it is broken the last valid one of this file.

    A secret that cannot be had costs only the device or upload that needs it, unless the file is an edit
    that was never valid. `prove` raises GatewayError where what listens cannot be as an edit wants it; what
    `http` was at the last start is not asked about. ConfigProblems: neither can be used; its
    `ever_valid` says whether there was a valid one.
    """
    environ = os.environ if environ is None else environ
    config = None
    try:
        config = config_of(source_of(path, environ), path, path, environ)
        problems = config.lacking or _unproven(config, path, state, environ, prove)
    except ConfigProblems as error:
        problems = error.problems
    if config is not None and not problems:
        return Loaded(keep(config, path, state))
    kept = kept_file(state, path)
    try:
        source = read_good(state, path)
        if config is not None and source in (None, config.source):
            return Loaded(keep(config, path, state), problems)
        if source is None:
            raise ConfigProblems(problems)
        good = config_of(source, path, kept, environ)
        return Loaded(good, (*problems, *good.lacking), from_last_good=True)
    except OSError as error:
        sentence = f"{kept}: the last valid configuration cannot be read: {error.strerror}"
        raise ConfigProblems([*problems, sentence], ever_valid=True) from error
    except ConfigProblems as error:
        if error.problems == problems:
            raise
        raise ConfigProblems([*problems, *error.problems], ever_valid=True) from error


def load_again(loaded: Loaded, path: Path, state: Path, environ: Mapping[str, str]) -> Loaded:
    """Read a configuration again from what it was read from, with the secrets that are there now."""
    lacked = loaded.config.lacking
    config = config_of(
        loaded.config.source, path, kept_file(state, path) if loaded.from_last_good else path, environ
    )
    problems = (*(each for each in loaded.problems if each not in lacked), *config.lacking)
    return replace(loaded, config=config, problems=problems)


def _unproven(
    config: Config,
    path: Path,
    state: Path,
    environ: Mapping[str, str],
    prove: Callable[[HttpSettings], None] | None,
) -> tuple[str, ...]:
    """Say why what listens cannot be as a file has it that was edited before the start."""
    with contextlib.suppress(OSError, ConfigProblems):
        source = read_good(state, path)
        if prove is None or source in (None, config.source):
            return ()
        if config_of(source, path, kept_file(state, path), environ).http != config.http:
            try:
                prove(config.http)
            except GatewayError as error:
                return (f"{config.http_at}: {error}",)
    return ()


def keep(config: Config, path: Path, state: Path) -> Config:
    """Keep a configuration as the last good one of its file; that it cannot be kept is a warning."""
    try:
        keep_good(state, path, config.source)
    except OSError as error:
        kept = f"{path}: it could not be kept as the last valid configuration: {error}"
        return replace(config, warnings=(*config.warnings, kept))
    return config
