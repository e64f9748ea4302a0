"""Run directories: killed anywhere, damaged, full, taken, or someone else's."""

import errno
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import tiltmeter
from forked import Forked, until
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.run_directory import code_sha256, machine, open_run, read_manifest, versions

ONES = {"a": np.ones(2)}

NANS = np.array([0x7FF8000000000001, 0xFFF0000000000002, 0x7FF0000000000003], np.uint64)
ARRAYS = {
    "kl": np.array([[1e-300, -0.0], [np.inf, 5e-324]]),
    "nan": NANS.view(np.float64),
    "token": np.array([2**62, -1]),
    "kept": np.array([True, False]),
    "small": np.array([1.5, np.nan], np.float32),
    "scalar": np.array(7.25),
    "none": np.zeros((0, 3)),
}


def small_sweep(path, kill_at=0):
    """Write a run of six shards, and kill the process at its `kill_at`-th call of the system."""
    calls = 0

    def deadly(function):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for name in ("mkdir", "open", "fsync", "replace", "unlink", "close"):
        setattr(os, name, deadly(getattr(os, name)))

    with open_run(path, {"seed": 0}, dict) as run:
        print("open", flush=True)
        for index in range(6):
            name = f"shard-{index:05d}"
            if run.load(name) is None:
                print(name, flush=True)
                run.save(name, {"kl": np.random.default_rng(index).normal(size=(50, 40))})
        merged = np.concatenate([run.load(f"shard-{index:05d}")["kl"] for index in range(6)])
        run.save("statistics", {"mean": merged.mean(0)})
        run.write_text("tables/summary.csv", "\n".join(repr(float(value)) for value in merged.mean(1)))
        print(calls, flush=True)


def hold(path):
    with open_run(path, {}, dict):
        print("open", flush=True)
        time.sleep(600)


def sweep(path, kill_at=0):
    """Exit status, and the lines printed, of a small sweep in a process of its own."""
    with Forked(small_sweep, path, kill_at) as process:
        out, _ = process.communicate()
    return process.returncode, out.split()


def contents(path):
    """Bytes of all files, without the manifest's time and the lock."""
    found = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    manifest = json.loads(found.pop("manifest.json"))
    del manifest["created"]
    assert found.pop(".lock") == b""
    return found | {"manifest": manifest}


def refuse(path, message, identity=None):
    with pytest.raises(TiltmeterError, match=message) as refused, open_run(path, identity or {}, dict):
        pass
    return str(refused.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def run(path):
    with open_run(path, {}, dict) as run:
        yield run


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Contents of a run that nothing killed, and how often it called the system."""
    path = tmp_path_factory.mktemp("whole") / "run"
    status, lines = sweep(path)
    assert status == 0
    return contents(path), int(lines[-1])


def test_a_folder_of_runs_is_told_from_no_run(tmp_path):
    with pytest.raises(TiltmeterError, match=r"is not a run: it has no manifest\.json"):
        read_manifest(tmp_path)
    (tmp_path / "blocks.1.hook_resid_pre").mkdir()
    (tmp_path / "blocks.1.hook_resid_pre" / "manifest.json").touch()
    with pytest.raises(TiltmeterError, match=r"is a folder of runs; give one of them, such as blocks\.1"):
        read_manifest(tmp_path)


def test_arrays_come_back_bit_for_bit(run):
    run.save("shard", ARRAYS)
    loaded = run.load("shard")
    assert loaded.keys() == ARRAYS.keys()
    for key, array in ARRAYS.items():
        assert (loaded[key].dtype, loaded[key].shape) == (array.dtype, array.shape)
        assert loaded[key].tobytes() == array.tobytes()


@pytest.mark.parametrize("view", [np.transpose, lambda a: a[::2, ::-1], lambda a: a.astype(">f8"), np.asfortranarray])
def test_views_are_stored_in_order(run, view):
    array = view(np.arange(12.0).reshape(4, 3))
    run.save("view", {"a": array})
    np.testing.assert_array_equal(run.load("view")["a"], array)


def test_bytes_do_not_depend_on_the_order_of_arrays(run, tmp_path):
    run.save("shard", ARRAYS)
    with open_run(tmp_path / "other", {}, dict) as other:
        other.save("shard", dict(reversed(ARRAYS.items())))
    assert contents(run.path) == contents(tmp_path / "other")


def test_files_open_with_safetensors_and_json_alone(path):
    with open_run(path, {"seed": 1}, lambda: {"note": "read me"}) as run:
        run.save("statistics", ONES)
    manifest, shard = sorted(file for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    np.testing.assert_array_equal(load_file(shard)["a"], ONES["a"])
    assert json.loads(manifest.read_text()) == read_manifest(path)
    expected = {"format": 1, "identity": {"seed": 1}, "record": {"note": "read me"}}
    assert expected.items() <= read_manifest(path).items()


def test_saving_again_replaces(run):
    assert run.load("shard") is None
    assert run.load("shard") is None
    for value in (0.0, 1.0, 1.0):
        run.save("shard", {"a": np.full(2, value)})
        assert run.load("shard")["a"].tolist() == [value, value]
    assert len(list((run.path / "shards").iterdir())) == 1


def test_of_two_whole_files_of_one_name_none_is_trusted(run):
    run.save("shard", {"a": np.zeros(2)})
    (earlier,) = (run.path / "shards").iterdir()
    data = earlier.read_bytes()
    run.save("shard", ONES)
    earlier.write_bytes(data)
    assert run.load("shard") is None
    assert not list((run.path / "shards").iterdir())


@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_it_goes_on_to_the_same_bytes(path, uninterrupted, seed):
    whole, calls = uninterrupted
    draw = random.Random(seed)
    ended = [sweep(path, kill_at=draw.randint(1, calls // 3)) for _ in range(4)] + [sweep(path)]
    kills = sum(status == -signal.SIGKILL for status, _ in ended)
    assert kills > 0
    assert ended[-1][0] == 0
    assert contents(path) == whole
    computed = [line for _, lines in ended for line in lines if line.startswith("shard")]
    assert len(computed) <= 6 + kills, "a kill lost more than the shard in hand"


def test_killed_from_outside_it_goes_on_to_the_same_bytes(path, uninterrupted):
    for wait in (0, 0.003, 0.006):
        with Forked(small_sweep, path) as process:
            until(process.printed)
            time.sleep(wait)
            process.kill()
    assert sweep(path)[0] == 0
    assert contents(path) == uninterrupted[0]


def test_second_process_is_refused_until_the_first_is_killed(path):
    with Forked(hold, path) as first:
        until(first.printed)
        refuse(path, "in use by another process")
        first.kill()
        first.wait()
        with open_run(path, {}, dict):
            refuse(path, "in use by another process")


def test_lock_is_released_when_the_block_fails(path):
    with pytest.raises(ZeroDivisionError), open_run(path, {}, dict):
        _ = 1 / 0
    with open_run(path, {}, dict):
        pass


def flip(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: flip(file, -1),
        lambda file: flip(file, 3),
        lambda file: file.write_bytes(file.read_bytes()[:-9]),
        lambda file: file.write_bytes(b""),
        lambda file: file.rename(file.with_name("shard-1.0123456789abcdef.safetensors")),
        lambda file: file.with_name("shard-1.0123456789abcdef.safetensors").write_bytes(file.read_bytes()),
    ],
    ids=["last byte", "header", "truncated", "empty", "renamed", "doubled"],
)
def test_damaged_shard_is_found_removed_and_computed_again(run, caplog, damage):
    for name in ("shard-0", "shard-1", "shard-10"):
        run.save(name, ONES)
    before = contents(run.path)
    damage(next((run.path / "shards").glob("shard-1.*")))
    assert [run.load(name) is not None for name in ("shard-0", "shard-1", "shard-10")] == [True, False, True]
    assert "shard-1." in caplog.text
    assert contents(run.path).keys() < before.keys()
    run.save("shard-1", ONES)
    assert contents(run.path) == before


def test_unfinished_files_are_removed(path, caplog):
    with open_run(path, {}, dict) as run:
        run.save("shard-0", ONES)
    before = contents(path)
    for name in ("shards/.shard-1.0123456789abcdef.safetensors.partial", ".report.html.partial"):
        (path / name).write_bytes(b"half")
    with open_run(path, {}, dict) as run:
        assert run.load("shard-1") is None
    assert contents(path) == before
    assert "shard-1" in caplog.text


def test_run_killed_before_its_manifest_can_be_created(path):
    path.mkdir()
    (path / ".lock").touch()
    (path / ".manifest.json.partial").write_text('{"format"')
    with open_run(path, {}, dict) as run:
        assert contents(run.path) == {"manifest": {"format": 1, "identity": {}, "record": {}}}


@pytest.mark.parametrize(
    ("there", "here", "named"),
    [
        ({"sweep": {"seed": 0}}, {"sweep": {"seed": 1}}, "(sweep.seed is 0 there, 1 here)"),
        ({"a": 1}, {"a": 1, "b": {"c": "d"}}, '(b is absent there, {"c": "d"} here)'),
        ({"a": 1, "b": None}, {"a": 1}, "(b is null there, absent here)"),
        ({"lengths": [0.0, 1.0]}, {"lengths": [0.0, 2.0]}, "(lengths.1 is 1.0 there, 2.0 here)"),
        ({"lengths": [0.0]}, {"lengths": [0.0, 2.0]}, "(lengths is [0.0] there, [0.0, 2.0] here)"),
        ({"a": True}, {"a": 1}, "(a is true there, 1 here)"),
        ({"a": {}}, {"a": []}, "(a is {} there, [] here)"),
        ({"code": "a" * 64}, {"code": "b" * 64}, f'(code is "{"a" * 17}…{"a" * 17}" there'),
        (dict.fromkeys("abcde", 0), dict.fromkeys("abcde", 1), "c is 0 there, 1 here; and 2 more)"),
    ],
)
def test_changed_identity_never_goes_on(path, there, here, named):
    with open_run(path, there, dict) as run:
        run.save("shard", ONES)
    before = contents(path)
    assert named in refuse(path, "is a run of another configuration", here)
    assert contents(path) == before


def test_same_identity_goes_on_whatever_its_order_or_record(path):
    with open_run(path, {"a": {"x": 0.1, "y": [1, 2]}, "b": None}, lambda: {"host": "one"}) as run:
        run.save("shard", ONES)
    before = (path / "manifest.json").read_bytes()
    with open_run(path, {"b": None, "a": {"y": (1, 2), "x": 0.1}}, lambda: {"host": "two"}) as run:
        assert run.load("shard") is not None
    assert (path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("value", [np.int64(1), Path("x"), float("nan"), {1, 2}])
def test_identity_that_is_not_json_is_refused_and_leaves_nothing(path, value):
    refuse(path, "cannot be written as JSON", {"a": value})
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("thesis.tex", "mine", "not empty and not a run"),
        ("manifest.json", '{"format": 1, "ident', "is damaged"),
        ("manifest.json", "", "is damaged"),
        ("manifest.json", '{"format": 99, "identity": {}, "record": {}}', "of format 1"),
        ("manifest.json", '{"format": 1, "identity": {}}', "not the manifest"),
        ("manifest.json", '{"name": "an extension", "version": 3}', "not the manifest"),
        ("manifest.json", "[1]", "not the manifest"),
    ],
)
def test_foreign_and_damaged_directories_are_refused_and_left_alone(path, name, text, message):
    path.mkdir()
    (path / name).write_text(text)
    refuse(path, message)
    with pytest.raises(TiltmeterError, match=message if name == "manifest.json" else "is not a run"):
        read_manifest(path)
    assert {file.name: file.read_text() for file in path.iterdir()} == {name: text}


def test_places_that_cannot_be_a_run(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, file / "below", "~no-such-user-here/run"):
        refuse(place, "cannot be used")
    for place in (file, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(TiltmeterError, match="is not a run"):
            read_manifest(place)
    assert file.read_text() == "mine"


def test_relative_and_home_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with open_run("deep/er/run", {}, dict) as run:
        monkeypatch.chdir("/")
        run.save("shard", ONES)
    assert (tmp_path / "deep/er/run/shards").is_dir()
    with open_run("~/run", {}, dict) as run:
        assert run.path == tmp_path / "home/run"
    assert read_manifest("~/run")["identity"] == {}


@pytest.fixture(params=["fsync", "replace"])
def full_disk(request, monkeypatch):
    """Call it, and the disk is full until the test ends."""

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, request.param, full)


def test_full_disk_keeps_what_was_finished(path, full_disk):
    with open_run(path, {}, dict) as run:
        run.save("shard-0", ONES)
        run.write_text("summary.csv", "old")
    before = contents(path)
    with open_run(path, {}, dict) as run:
        full_disk()
        for write in (
            lambda: run.save("shard-1", ONES),
            lambda: run.save("shard-0", {"a": np.zeros(2)}),
            lambda: run.write_text("summary.csv", "new"),
        ):
            with pytest.raises(TiltmeterError, match="cannot be used: No space left on device"):
                write()
    assert contents(path) == before


def test_full_disk_at_creation_releases_the_lock(path, full_disk):
    full_disk()
    for _ in range(2):
        refuse(path, "No space left on device")


def test_tables_and_figures_are_written_below_the_run(run):
    assert run.write_text("tables/summary.csv", "name,λ\n") == run.path / "tables/summary.csv"
    assert (run.path / "tables/summary.csv").read_bytes() == "name,λ\n".encode()
    for data in (b"\x89PNG\r\n", b"\x89PNG\n"):
        assert run.write_bytes("one.png", data).read_bytes() == data


@pytest.mark.parametrize("name", ["", ".", "/tmp/x", "../x", "a/../../x", "manifest.json", ".lock", "shards/x"])
def test_names_of_files_stay_in_the_run(run, name):
    with pytest.raises(TiltmeterError, match="is not a name"):
        run.write_bytes(name, b"")


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "../a", "*", "-a", "ä", "a\n"])
def test_names_of_shards_are_plain(run, name):
    for act in (run.load, lambda name: run.save(name, ONES)):
        with pytest.raises(TiltmeterError, match="cannot name a shard"):
            act(name)


@pytest.mark.parametrize("array", [np.array([{}]), np.array(["text"]), np.array([1j])])
def test_arrays_that_are_no_numbers_are_refused(run, array):
    with pytest.raises(TiltmeterError, match="shard cannot be stored"):
        run.save("shard", {"a": array})
    assert run.load("shard") is None


def test_code_hash_sees_names_and_bytes_of_sources_alone(tmp_path):
    def hashed(files):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return code_sha256(folder)

    base = hashed({"a.py": "x", "b/c.py": "y"})
    assert hashed({"b/c.py": "y", "a.py": "x", "card.md": "z"}) == base
    others = [{"a.py": "x", "b/c.py": "z"}, {"a.py": "x", "c.py": "y"}, {"a.py": "xb/c.pyy"}, {}]
    assert len({base, *map(hashed, others)}) == 5


def test_code_hash_covers_every_room(tmp_path):
    package = Path(tiltmeter.__file__).parent
    copy = tmp_path / "tiltmeter"
    for file in package.rglob("*.py"):
        (copy / file.relative_to(package)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy / file.relative_to(package))
    assert code_sha256() == code_sha256(package) == code_sha256(copy)
    hashes = {code_sha256(copy)}
    rooms = sorted({file.parent for file in copy.rglob("*.py")})
    for room in rooms:
        with next(room.glob("*.py")).open("a") as source:
            source.write("#")
        hashes.add(code_sha256(copy))
    assert len(hashes) == len(rooms) + 1 > 10


def test_facts_are_json_and_versions_are_those_imported():
    assert versions()["numpy"] == np.__version__
    assert versions()["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "transformers", "tiltmeter"} <= versions().keys()
    assert versions(["no-such-package-here"])["no-such-package-here"] == "not installed"
    assert machine()["cores"] == str(os.cpu_count())
    assert json.loads(json.dumps({**versions(), **machine()})) == {**versions(), **machine()}


def leave(path, *, after=lambda run: None, error=TiltmeterError, record=dict):
    """End a run with an error."""
    with pytest.raises(error), open_run(path, {}, record) as run:
        after(run)
        raise error("no")


def test_a_refused_run_leaves_no_new_directories(tmp_path):
    leave(tmp_path / "a" / "b" / "run")
    assert [*tmp_path.iterdir()] == []

    def refused():
        raise TiltmeterError("the record cannot be made")

    with pytest.raises(TiltmeterError, match="record"), open_run(tmp_path / "a" / "run", {}, refused):
        pass
    assert [*tmp_path.iterdir()] == []


def test_a_refused_run_leaves_what_was_there_and_what_was_stored(tmp_path):
    (tmp_path / "mine").mkdir()
    leave(tmp_path / "mine")
    leave(tmp_path / "mine" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"manifest.json", ".lock"}
    leave(tmp_path / "a" / "run", after=lambda run: run.save("shard-0", {"kl": np.zeros(1)}))
    leave(tmp_path / "b" / "run", after=lambda run: run.write_text("facts.csv", "1"))
    leave(tmp_path / "c" / "run", after=lambda run: (run.path.parent / "notes").touch())
    leave(tmp_path / "d" / "run", error=KeyboardInterrupt)  # it was not refused
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("[a-d]/*")}
    assert left == {"a/run", "b/run", "c/notes", "d/run"}


def test_a_run_that_was_created_earlier_stays(path):
    with open_run(path, {}, dict):
        pass
    leave(path)
    assert (path / "manifest.json").exists()
