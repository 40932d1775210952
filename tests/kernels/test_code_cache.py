"""Whatever is wrong with numba's cache, code runs, and one line says what is amiss."""

from __future__ import annotations

import ctypes
import os
import pickle
import shutil
import signal
import subprocess
import sys
import types
import warnings
import zlib
from pathlib import Path

import pytest

pytest.importorskip("numba")
resource = pytest.importorskip("resource", reason="Windows has no limits of this kind")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")

from numba.core import config  # noqa: E402

import xpmlp  # noqa: E402
from xpmlp.kernels.numba import code_cache  # noqa: E402
from xpmlp.kernels.numba.sources import compiled  # noqa: E402

SOURCE = "def doubled(x):\n    return x + x\n\n\ndef thrice(x):\n    return x * 3\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A module of two functions, whose code is kept in ``cache``; the home is somewhere else."""
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr(code_cache, "_warned", set())
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "module_in_cache", None)  # put back afterwards
    (tmp_path / "module.py").write_text(SOURCE)
    return tmp_path


@pytest.fixture
def warm(place):
    """The same with code for floats in the cache."""
    assert start(place) == (0, [])
    assert start(place) == (1, [])
    return place


def start(place, name="doubled", argument=1.5):
    """Use the function as a new process would: how often its code was found, and warnings."""
    path = place / "module.py"
    module = sys.modules["module_in_cache"] = types.ModuleType("module_in_cache")
    exec(compile(path.read_text(), str(path), "exec"), vars(module))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        function = compiled(getattr(module, name))
        assert function(argument) == argument * (2 if name == "doubled" else 3)
    return sum(function.stats.cache_hits.values()), [str(warning.message) for warning in told]


def only(place, kind):
    (found,) = (place / "__pycache__").glob(f"*doubled*.{kind}")
    return found


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path, at=0.7):
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 4
    path.write_bytes(content)


def folder_instead(path):
    path.unlink()
    path.mkdir()
    (path / "x").touch()


def rubbish(path):
    path.write_bytes(os.urandom(3000))


def longer(path):
    path.write_bytes(path.read_bytes() + b"\0")


def of_something_else(path):
    """A file that is whole, but holds no code."""
    content = pickle.dumps(("no", "code", "here"))
    path.write_bytes(zlib.crc32(content).to_bytes(4, "little") + content)


def index_of_something_else(path):
    content = pickle.dumps(["neither stamp", "nor names", "here"])
    head = code_cache._FORMAT + zlib.crc32(content).to_bytes(4, "little")
    path.write_bytes(head + content)


def of_another_function(path):
    """What two processes that write at the same time may leave, or a full disk."""
    start(path.parents[1], "thrice")
    (other,) = path.parent.glob("*thrice*.nbc")
    shutil.copy(other, path)


def of_another_version(path):
    path.write_bytes(pickle.dumps("0.1", protocol=-1) + b"stamp and names")


def of_plain_numba(path):
    from numba.core.caching import IndexDataCacheFile

    base = path.name.removesuffix(".nbi")
    IndexDataCacheFile(str(path.parent), base, b"stamp")._save_index({"key": f"{base}.1.nbc"})


DAMAGE = {  # name: file, what happens to it, whether a warning is due
    "index empty": ("nbi", lambda path: path.write_bytes(b""), True),
    "index truncated": ("nbi", cut, True),
    "index of one byte": ("nbi", lambda path: path.write_bytes(b"\x80"), True),
    "index rubbish": ("nbi", rubbish, True),
    "index with a flipped bit": ("nbi", flip, True),
    "index with a flipped bit in its head": ("nbi", lambda path: flip(path, 0), True),
    "index longer": ("nbi", longer, True),
    "index is a folder": ("nbi", folder_instead, True),
    "index of something else": ("nbi", index_of_something_else, True),
    "index of another version": ("nbi", of_another_version, False),
    "index of plain numba": ("nbi", of_plain_numba, False),
    "index missing": ("nbi", Path.unlink, False),
    "code empty": ("nbc", lambda path: path.write_bytes(b""), True),
    "code truncated": ("nbc", cut, True),
    "code rubbish": ("nbc", rubbish, True),
    "code with a flipped bit": ("nbc", flip, True),
    "code longer": ("nbc", longer, True),
    "code is a folder": ("nbc", folder_instead, False),
    "code of something else": ("nbc", of_something_else, False),
    "code of another function": ("nbc", of_another_function, False),
    "code missing": ("nbc", Path.unlink, False),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_passed_over_and_mended(warm, name):
    kind, damage, told = DAMAGE[name]
    damage(only(warm, kind))
    hits, warned = start(warm)
    assert hits == 0
    folder = "is a folder" in name  # cannot be replaced: the user's cache takes the code
    if told:
        assert len(warned) == 1 and "compiled again" in warned[0] and str(warm) in warned[0]
    else:
        assert warned == []
    code_cache._warned.clear()
    hits, warned = start(warm)
    assert hits == 1 and (folder or warned == [])


def test_a_changed_source_and_another_processor_are_compiled_for(warm, monkeypatch):
    (warm / "module.py").write_text(SOURCE.replace("x + x", "2 * x"))
    assert start(warm) == (0, [])
    assert start(warm) == (1, [])
    from numba.core.codegen import JITCPUCodegen

    monkeypatch.setattr(JITCPUCodegen, "magic_tuple", lambda self: ("another", "cpu", "+none"))
    assert start(warm) == (0, [])
    assert start(warm) == (1, [])
    monkeypatch.undo()


def test_files_that_a_killed_process_left_are_no_matter(warm):
    path = only(warm, "nbc")
    path.with_name(path.name + ".tmp.0123456789abcdef").write_bytes(b"half of it")
    assert start(warm) == (1, [])


# --- Folders, in processes that obey permissions, which root does not -----------------------------

PROGRAM = f"""
import sys
sys.path[:0] = [{str(Path(xpmlp.__file__).parents[1])!r}, {str(Path(__file__).parent)!r}]
import pathlib, test_code_cache
hits, warned = test_code_cache.start(pathlib.Path(sys.argv[1]))
print("hits", hits)
print(*warned, sep="\\n", end="")
"""


def obey_permissions():
    """Give up root's right to read and write everything."""
    for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, right, 0, 0, 0)  # PR_CAPBSET_DROP


def small_files_only():
    """As on a full disk: no file grows beyond 100 bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    obey_permissions()


def in_a_process(place, before=obey_permissions, **environment):
    clean = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    chosen = {**clean, "HOME": str(place / "home"), **environment}
    done = subprocess.run(
        [sys.executable, "-B", "-c", PROGRAM, str(place)],
        **{"capture_output": True, "text": True, "env": chosen, "preexec_fn": before},
    )
    assert done.returncode == 0, done.stderr
    first, *warned = done.stdout.splitlines()
    return int(first.removeprefix("hits ")), warned


@pytest.fixture
def closed():
    """Takes rights away from a path until the test is over."""
    changed = []

    def close(path, mode=0o500):
        changed.append((path, path.stat().st_mode))
        path.chmod(mode)

    yield close
    for path, mode in reversed(changed):
        path.chmod(mode)


@pytest.mark.skipif(sys.platform != "linux", reason="root gives up rights by Linux's means")
@pytest.mark.slow
class TestFolders:
    def test_warm_and_read_only(self, warm, closed):
        closed(warm / "__pycache__")
        closed(warm)
        assert in_a_process(warm) == (1, [])

    def test_read_only_code_goes_to_the_home(self, place, closed):
        (place / "home").mkdir()
        closed(place)
        assert in_a_process(place) == (0, [])
        assert in_a_process(place) == (1, [])

    @pytest.mark.parametrize("home", ["missing", "read-only", "a file"])
    def test_read_only_and_no_home(self, place, closed, home):
        if home == "read-only":
            (place / "home").mkdir()
            closed(place / "home")
        if home == "a file":
            (place / "home").touch()
        closed(place)
        hits, warned = in_a_process(place)
        assert hits == 0
        assert len(warned) == 1 and "cannot be kept" in warned[0] and "NUMBA_CACHE_DIR" in warned[0]

    def test_unreadable(self, warm, closed):
        for kind in ("nbi", "nbc"):
            closed(only(warm, kind), 0)
            hits, warned = in_a_process(warm)
            assert hits == (kind == "nbc") * 0
            assert len(warned) == (kind == "nbi")
            only(warm, kind).chmod(0o600)

    def test_an_unreadable_folder(self, warm, closed):
        closed(warm / "__pycache__", 0)
        hits, warned = in_a_process(warm)
        assert hits == 0 and len(warned) == 1

    def test_a_file_where_the_folder_should_be(self, place):
        (place / "__pycache__").touch()
        assert in_a_process(place)[0] == 0

    def test_full_disk(self, place):
        hits, warned = in_a_process(place, small_files_only)
        assert hits == 0 and len(warned) == 1 and "cannot be kept" in warned[0]
        assert not list(place.rglob("*.tmp.*"))
        assert in_a_process(place)[0] == 0  # an index may be there, no code
        assert in_a_process(place) == (1, [])

    def test_a_given_folder(self, place):
        given = place / "given" / "new"
        assert in_a_process(place, NUMBA_CACHE_DIR=str(given)) == (0, [])
        assert in_a_process(place, NUMBA_CACHE_DIR=str(given)) == (1, [])
        assert not (place / "__pycache__").exists()

    def test_a_given_folder_that_cannot_be_made(self, warm):
        assert in_a_process(warm, NUMBA_CACHE_DIR="/proc/nowhere") == (1, [])

    def test_a_given_folder_that_is_read_only(self, place, closed):
        given = place / "given"
        given.mkdir()
        closed(given)
        hits, warned = in_a_process(place, NUMBA_CACHE_DIR=str(given))
        assert hits == 0 and len(warned) == 1 and "cannot be kept" in warned[0]

    def test_processes_that_start_at_once(self, place):
        command = [sys.executable, "-B", "-c", PROGRAM, str(place)]
        env = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
        options = {"stdout": subprocess.PIPE, "text": True, "env": env}
        several = [subprocess.Popen(command, **options) for _ in range(4)]
        told = [process.communicate()[0].splitlines() for process in several]
        assert all(lines[0] in ("hits 0", "hits 1") and lines[1:] == [] for lines in told)
        assert in_a_process(place) == (1, [])
