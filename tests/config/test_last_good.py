"""The last valid configuration: kept, private, per file, and run where the file is broken."""

import os
import stat
from pathlib import Path

import pytest

from gateway.api import tls
from gateway.config import ConfigProblems, Loaded, edited, keep, load_again, load_or_last_good
from gateway.config.last_good import Source, keep_good, kept_file, read_good

GOOD = "devices:\n  press-07:\n    push: {max_batch: 10}\n"
BROKEN = "devices:\n  press-07:\n    push: {max_batch: 0}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "gateway.yaml"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def start(file: Path, state: Path, environ: dict[str, str] | None = None) -> Loaded:
    return load_or_last_good(file, state, environ or {})


def test_a_good_file_runs_and_is_kept_privately(file: Path, state: Path) -> None:
    write(file, GOOD)
    loaded = start(file, state)
    assert (loaded.problems, loaded.from_last_good) == ((), False)
    kept = kept_file(state, file)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert kept.read_text().startswith(GOOD)
    assert [each.name for each in kept.parent.iterdir()] == [kept.name]


@pytest.mark.parametrize("text", [BROKEN, "", "devices: [", "\0"])
def test_a_broken_file_leaves_the_last_good_one(file: Path, state: Path, text: str) -> None:
    write(file, GOOD)
    before = start(file, state).config
    write(file, text)
    loaded = start(file, state)
    assert loaded.from_last_good
    assert loaded.config == before
    assert loaded.problems
    assert all(line.startswith(str(file)) for line in loaded.problems)
    assert loaded.config.devices["press-07"].device.where[""] == f"{kept_file(state, file)}:2"


def test_a_vanished_or_unreadable_file_counts_as_broken(file: Path, state: Path) -> None:
    write(file, GOOD)
    start(file, state)
    file.unlink()
    (problem,) = start(file, state).problems
    assert problem.startswith(f"{file}: there is no such file: ")
    file.mkdir()
    assert start(file, state).problems == (f"{file}: the file cannot be read: Is a directory",)


def test_a_file_is_not_needed_where_the_environment_names_the_devices(file: Path, state: Path) -> None:
    environ = {"EDGE_GATEWAY__DEVICES": "{press-07: {push: {max_batch: 10}}}", "EDGE_GATEWAY__LOGS": "DEBUG"}
    loaded = start(file, state, environ)
    assert (loaded.problems, loaded.from_last_good) == ((), False)
    assert loaded.config.devices["press-07"].settings.max_batch == 10
    assert loaded.config.logs.level == "DEBUG"
    # What is broken there leaves the last good one, and so does a file that is there and says nothing.
    broken = start(file, state, environ | {"EDGE_GATEWAY__DEVICES": "{press-07: {push: {max_batch: 0}}}"})
    assert (broken.config, broken.from_last_good) == (loaded.config, True)
    write(file, "")
    assert start(file, state, environ).from_last_good
    file.unlink()
    file.symlink_to("gone")
    assert start(file, state, environ).from_last_good


def test_without_devices_in_the_environment_a_missing_file_is_a_problem_that_says_so(
    file: Path, state: Path
) -> None:
    with pytest.raises(ConfigProblems) as caught:
        start(file, state, {"EDGE_GATEWAY__LOGS": "DEBUG"})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}: there is no such file")
    assert problem.endswith("EDGE_GATEWAY__DEVICES")


def test_without_a_last_good_one_it_is_the_files_problems(file: Path, state: Path) -> None:
    write(file, BROKEN)
    with pytest.raises(ConfigProblems) as caught:
        start(file, state)
    assert caught.value.problems == (f'{file}:3:23: "max_batch" must be 1 to 10000000, found 0',)
    assert not caught.value.ever_valid


def test_each_file_has_its_own_last_good_one(file: Path, state: Path) -> None:
    write(file, GOOD)
    start(file, state)
    other = file.with_name("other.yaml")
    write(other, BROKEN)
    with pytest.raises(ConfigProblems):
        start(other, state)


def test_a_relative_path_names_the_same_file(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, GOOD)
    start(file, state)
    file.unlink()
    monkeypatch.chdir(file.parent)
    assert start(Path("gateway.yaml"), state).from_last_good


def test_the_broken_edit_and_the_kept_file_are_not_overwritten(file: Path, state: Path) -> None:
    write(file, GOOD)
    start(file, state)
    kept = kept_file(state, file).read_bytes()
    write(file, BROKEN)
    start(file, state)
    assert file.read_text() == BROKEN
    assert kept_file(state, file).read_bytes() == kept


SECRET = """\
devices:
  press-07:
    push: {max_batch: 10}
uploads:
  cloud:
    http: {url: 'https://cloud.example', token: {env: TOKEN}}
"""


def test_secrets_are_kept_by_reference_and_a_lost_one_costs_what_needs_it(file: Path, state: Path) -> None:
    write(file, SECRET)
    start(file, state, {"TOKEN": "hunter2"})
    kept = kept_file(state, file)
    assert b"hunter2" not in kept.read_bytes()
    write(file, BROKEN)
    assert start(file, state, {"TOKEN": "hunter3"}).config.uploads["cloud"].settings.token.text == "hunter3"
    loaded = start(file, state)
    assert loaded.from_last_good
    lacking = f'{kept}:6:55: "token" cannot be had: the environment variable TOKEN is not set'
    assert loaded.problems == (f'{file}:3:23: "max_batch" must be 1 to 10000000, found 0', lacking)
    assert loaded.config.uploads["cloud"].lacking == lacking
    assert loaded.config.devices["press-07"].lacking == ""


@pytest.mark.parametrize("ever_valid", [True, False])
def test_a_secret_that_is_gone_at_the_start_costs_only_what_needs_it(
    ever_valid: bool, file: Path, state: Path
) -> None:
    write(file, SECRET)
    if ever_valid:
        start(file, state, {"TOKEN": "hunter2"})
    loaded = start(file, state)
    lacking = f'{file}:6:55: "token" cannot be had: the environment variable TOKEN is not set'
    assert (loaded.problems, loaded.from_last_good) == ((lacking,), False)
    assert loaded.config.lacking == (lacking,)
    assert loaded.config.uploads["cloud"].lacking == lacking
    again = load_again(loaded, file, state, {"TOKEN": "hunter3"})
    assert (again.problems, again.config.lacking) == ((), ())
    assert again.config.uploads["cloud"].settings.token.text == "hunter3"
    write(file, BROKEN)
    assert start(file, state).from_last_good


def test_an_edit_is_refused_for_a_missing_secret_and_the_last_valid_file_runs(
    file: Path, state: Path
) -> None:
    write(file, GOOD)
    start(file, state)
    write(file, SECRET)
    with pytest.raises(ConfigProblems, match="TOKEN is not set"):
        edited(file, {})
    loaded = start(file, state)
    assert (loaded.from_last_good, list(loaded.config.uploads)) == (True, [])
    (problem,) = loaded.problems
    assert problem.startswith(f"{file}:6:55: ")


def test_an_edit_is_taken_where_nothing_more_lacks_a_secret(file: Path, state: Path) -> None:
    write(file, SECRET)
    running = start(file, state).config
    assert running.unable() == ["upload cloud"]
    write(file, SECRET.replace("max_batch: 10", "max_batch: 20"))
    taken = keep(edited(file, {}, running.unable()), file, state)
    assert (taken.devices["press-07"].settings.max_batch, len(taken.lacking)) == (20, 1)
    assert start(file, state).config == taken
    write(file, SECRET + "  other:\n    http: {url: 'https://cloud.example', token: {env: OTHER}}\n")
    with pytest.raises(ConfigProblems, match="OTHER is not set"):
        edited(file, {}, running.unable())


def test_a_missing_secret_excuses_no_other_problem(file: Path, state: Path) -> None:
    write(file, SECRET.replace("max_batch: 10", "max_batch: 0"))
    with pytest.raises(ConfigProblems) as caught:
        start(file, state)
    assert len(caught.value.problems) == 2


def test_a_relative_secret_is_found_beside_the_file_itself(file: Path, state: Path) -> None:
    write(file, "uploads:\n  cloud:\n    http: {url: 'https://cloud.example', token: {file: token.txt}}\n")
    secret = file.with_name("token.txt")
    secret.write_text("hunter2")
    secret.chmod(0o600)
    start(file, state)
    write(file, BROKEN)
    assert start(file, state).config.uploads["cloud"].settings.token.text == "hunter2"


def test_a_broken_variable_leaves_the_last_good_ones(file: Path, state: Path) -> None:
    variable = "EDGE_GATEWAY__DEVICES__PRESS_07__PUSH__MAX_BATCH"
    write(file, GOOD)
    start(file, state, {variable: "20"})
    loaded = start(file, state, {variable: "0"})
    assert loaded.problems == (f'{variable}: "max_batch" must be 1 to 10000000, found 0',)
    assert loaded.config.devices["press-07"].settings.max_batch == 20


def test_an_edit_of_what_listens_is_proven_also_at_the_start(file: Path, state: Path) -> None:
    def begun() -> Loaded:
        return load_or_last_good(file, state, {}, tls.prove)

    own = "http: {tls: {certificate: own.pem, key: own.pem}}\n"
    write(file, GOOD)
    begun()
    write(file, GOOD + own)
    loaded = begun()
    assert (loaded.from_last_good, loaded.config.http.tls) == (True, "self-signed")
    (problem,) = loaded.problems
    assert problem.startswith(f"{file}:4:1: http.tls: {file.parent}/own.pem and ")
    made = state / "tls" / "self-signed.pem"
    tls.context(loaded.config.http, state)
    pem = made.rename(file.with_name("own.pem"))
    assert begun().problems == ()
    pem.unlink()  # what runs already is tried again as it is, and costs no other edit
    write(file, GOOD.replace("10", "20") + own)
    again = begun()
    assert (again.problems, again.config.devices["press-07"].settings.max_batch) == ((), 20)


def test_a_damaged_last_good_one_is_a_problem_not_a_crash(file: Path, state: Path) -> None:
    write(file, GOOD)
    start(file, state)
    kept = kept_file(state, file)
    whole = kept.read_bytes()
    write(file, BROKEN)
    for length in range(len(whole)):
        kept.write_bytes(whole[:length])
        try:
            assert start(file, state).problems
        except ConfigProblems as error:
            assert error.ever_valid
    kept.unlink()
    kept.mkdir()
    with pytest.raises(ConfigProblems, match="the last valid configuration cannot be read"):
        start(file, state)


def test_the_same_configuration_is_not_written_again(file: Path, state: Path) -> None:
    write(file, GOOD)
    start(file, state)
    before = kept_file(state, file).stat().st_mtime_ns, kept_file(state, file).stat().st_ino
    start(file, state)
    assert (kept_file(state, file).stat().st_mtime_ns, kept_file(state, file).stat().st_ino) == before


def test_a_draft_left_by_a_power_cut_is_no_hindrance(file: Path, state: Path) -> None:
    kept = kept_file(state, file)
    kept.parent.mkdir(parents=True)
    kept.with_suffix(".new").write_text("half of a")
    keep_good(state, file, Source(GOOD.encode(), {"A": "\n#"}))
    assert read_good(state, file) == Source(GOOD.encode(), {"A": "\n#"})


def test_a_state_folder_that_takes_no_file_is_a_warning(file: Path, state: Path) -> None:
    write(file, GOOD)
    state.write_text("not a folder")
    config = keep(edited(file, {}), file, state)
    assert config.devices["press-07"].settings.max_batch == 10
    assert "could not be kept" in config.warnings[0]


def test_it_is_durable_before_it_takes_the_place_of_the_old_one(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        order.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    keep_good(state, file, Source(GOOD.encode(), {}))
    assert order == ["file", "replace", "folder"]
