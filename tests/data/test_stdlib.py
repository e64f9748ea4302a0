"""Which modules nano was trained on and which it never saw. The split must stay what it was when nano was trained."""

import sys
from pathlib import Path

import pytest

from tiltmeter.data import stdlib
from tiltmeter.data.stdlib import Module, is_test, library_root, module_files, read_source, side, texts

HELD_OUT = [
    "abc",
    "configparser",
    "dataclasses",
    "http.client",
    "ipaddress",
    "json.decoder",
    "logging.handlers",
    "multiprocessing.pool",
    "os",
    "random",
    "re._compiler",
    "tarfile",
    "tomllib",
    "unittest.mock",
]
TRAINED_ON = [
    "argparse",
    "ast",
    "asyncio.events",
    "collections",
    "csv",
    "email.message",
    "enum",
    "heapq",
    "inspect",
    "pathlib",
    "sqlite3",
    "typing",
    "xml.etree.ElementTree",
]
"""Written down when nano was trained: never change these two lists to make a test pass."""


@pytest.mark.parametrize("name", HELD_OUT)
def test_what_nano_never_saw_stays_held_out(name):
    assert side(name) == "held-out"


@pytest.mark.parametrize("name", TRAINED_ON)
def test_what_nano_was_trained_on_stays_so(name):
    assert side(name) == "train"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pathlib", "pathlib._local"),
        ("datetime", "_pydatetime"),
        ("decimal", "_pydecimal"),
        ("io", "_pyio"),
        ("abc", "_py_abc"),
        ("sysconfig", "sysconfig.__main__"),
        ("json", "json.decoder"),
        ("strptime", "_strptime"),
    ],
)
def test_code_that_a_python_version_moves_stays_on_its_side(old, new):
    assert side(old) == side(new)


def test_the_sides_of_moved_code_are_not_all_one():
    assert {side(name) for name in ("pathlib._local", "_pydatetime")} == {"train", "held-out"}


@pytest.mark.parametrize(
    "name",
    [
        "test.test_json",
        "unittest.test.testmock.support",
        "json.tests.test_decode",
        "idlelib.idle_test.test_run",
        "distutils.cmd",
        "ensurepip",
        "idlelib.run",
        "lib2to3.pytree",
        "tkinter.ttk",
        "turtle",
        "turtledemo.clock",
        "venv.__main__",
    ],
)
def test_what_some_distributions_lack_is_never_held_out(name):
    assert side(name) == "train"


def test_a_name_that_only_contains_test_is_no_test():
    assert not is_test("doctest")
    assert not is_test("unittest.mock")
    assert is_test("ctypes.test.test_arrays")


@pytest.fixture
def library(tmp_path):
    """A small `Lib`."""
    for name in (
        "json/__init__.py",
        "json/decoder.py",
        "os.py",
        "ast.py",
        "test/test_os.py",
        "site-packages/numpy/random.py",
        "dist-packages/apt.py",
        "encodings/cp437.py",
        "pydoc_data/topics.py",
        "config-3.11-x86_64-linux-gnu/python-config.py",
        "_sysconfigdata__linux_x86_64-linux-gnu.py",
        "os.txt",
        "__pycache__/os.cpython-311.pyc",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    return tmp_path


def test_modules_are_found_by_name_without_what_is_no_source_of_the_library(library):
    assert [module.name for module in module_files(library)] == ["ast", "json", "json.decoder", "os", "test.test_os"]


def test_texts_are_of_one_side_in_order(library):
    assert list(texts("held-out", library)) == [
        ("json", "# json/__init__.py\n"),
        ("json.decoder", "# json/decoder.py\n"),
        ("os", "# os.py\n"),
    ]
    assert [name for name, _ in texts("train", library)] == ["ast", "test.test_os"]


@pytest.mark.parametrize("content", [b"# coding: ascii\n# \xff\n", b"x = '\xff'\n", b"# coding: of-no-kind\n", b""])
def test_a_file_that_holds_no_text_is_skipped(library, content):
    (library / "json" / "decoder.py").write_bytes(content)
    assert [name for name, _ in texts("held-out", library)] == ["json", "os"]


def test_a_file_that_cannot_be_read_is_skipped(library):
    (library / "json" / "decoder.py").unlink()
    (library / "json" / "decoder.py").symlink_to(library / "nowhere.py")
    (library / "os.py").unlink()
    (library / "os.py").mkdir()
    assert [name for name, _ in texts("held-out", library)] == ["json"]


def test_text_is_decoded_as_python_would(tmp_path):
    path = tmp_path / "a.py"
    path.write_bytes("# coding: latin-1\nx = 'é'\r\n".encode("latin-1"))
    assert read_source(Module("a", path)) == "# coding: latin-1\nx = 'é'\n"


def test_the_running_interpreter_has_both_sides_and_about_a_quarter_is_held_out():
    modules = module_files()
    assert [module.name for module in modules] == sorted(module.name for module in modules)
    assert not [
        m for m in modules if {"site-packages", "dist-packages"} & set(m.path.relative_to(library_root()).parts)
    ]
    assert {"abc", "argparse", "os"} <= {module.name for module in modules}
    sides = [side(module.name) for module in modules if not is_test(module.name)]
    assert 0.18 < sides.count("held-out") / len(sides) < 0.32


def test_only_the_standard_library_is_imported():
    lines = Path(stdlib.__file__).read_text(encoding="utf-8").splitlines()
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported <= sys.stdlib_module_names
