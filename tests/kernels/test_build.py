"""The library of the C kernels: what it is built from, that it is built once, and how it is called."""

import ctypes
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import manualbp
from manualbp.kernels.cpu import build, cache, compiler
from tests.kernels.building import NEEDED, SOURCES, answer, compiled, forked, in_cache, new_sources, use_compiler

pytestmark = NEEDED
ROOT = Path(__file__).parents[2]


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return new_sources(tmp_path, monkeypatch)


def test_built_once_and_kept(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = use_compiler("", tmp_path, monkeypatch)
    assert forked(answer) == [42]
    assert forked(answer, 2) == [42, 42]
    assert compiled(log) == 2  # files
    (library,) = in_cache()
    assert {path.stat().st_mode & 0o777 for path in (library, cache.folder(), cache.folder().parent)} == {0o700}
    library.unlink()
    with caplog.at_level(logging.INFO, "manualbp"):
        assert [build.library() is None, build.why_not(), build.library() is build.library()] == [False, "", True]
    first, second = (record.message for record in caplog.records)
    assert first.endswith("compiler compiles answer.c, doubled.c; this is done once")
    assert second.startswith(f"{library} is there after ")


def test_several_at_once(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = use_compiler("sleep 0.5", tmp_path, monkeypatch)
    assert forked(answer, 4) == [42] * 4
    assert compiled(log) == 2
    in_cache()[0].unlink()
    found: list[Any] = []
    some = [threading.Thread(target=lambda: found.append(build.library())) for _ in range(4)]
    for thread in some:
        thread.start()
    for thread in some:
        thread.join(60)
    assert len(found) == 4
    assert set(found) == {build.library()}
    assert compiled(log) == 4


def cut(part: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(part * len(content))]


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": cut(0),
    "its head": cut(0.01),
    "half": cut(0.5),
    "a byte short": lambda content: content[:-1],
    "a byte changed": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    "another key's": lambda content: content[: -cache.DIGEST] + cache.digest("another", content[: -cache.DIGEST]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_library_is_built_anew(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    log = use_compiler("", tmp_path, monkeypatch)
    assert forked(answer) == [42]
    (library,) = in_cache()
    content = library.read_bytes()
    library.write_bytes(BROKEN[name](content))
    assert forked(answer) == [42]
    assert compiled(log) == 4
    assert in_cache() == [library]
    assert len(library.read_bytes()) == len(content)


def test_what_is_there_is_read_without_the_lock(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a home that can only be read serves."""
    assert forked(answer) == [42]
    monkeypatch.delattr(cache, "locked")
    assert answer() == 42


def test_a_key_names_all_that_a_library_depends_on(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = compiler.find_tools()
    keys = [build.plan(sources).key]
    assert build.plan(sources).key == keys[0]
    changes: dict[str, Any] = {
        "command": ("/usr/bin/other",),
        "version": "other",
        "pool": Path("lib/other.so"),
        "processor": "other",
    }
    assert changes.keys() == set(tools._fields)
    for name, value in changes.items():
        with monkeypatch.context() as m:
            m.setattr(compiler, "find_tools", lambda name=name, value=value: tools._replace(**{name: value}))
            keys.append(build.plan(sources).key)
    for of, name, value in [
        *((compiler, name, ("-O0",)) for name in ("COMPILE", "NATIVE", "LINK")),
        (torch, "__version__", "9"),
        (manualbp, "__version__", "9"),
    ]:
        with monkeypatch.context() as m:
            m.setattr(of, name, value)
            keys.append(build.plan(sources).key)
    for name in SOURCES:
        (sources / name).write_text(SOURCES[name] + "\n")
        keys.append(build.plan(sources).key)
    (sources / "answer.c").rename(sources / "another.c")
    keys.append(build.plan(sources).key)
    assert len(set(keys)) == len(keys) == 1 + 4 + 5 + 3 + 1


def test_scratch_memory() -> None:
    """Each thread has its own, of the size that was asked for at most, and at an address that vectors like."""
    found = {}

    def ask(name: str) -> None:
        found[name] = [build.scratch(size) for size in (1000, 10, 1000, 10**6, 1000)]
        ctypes.memset(found[name][-1], 1, 10**6)

    some = [threading.Thread(target=ask, args=(name,)) for name in "ab"]
    for thread in some:
        thread.start()
        thread.join()
    with torch.device("meta"):
        ask("c")
    for first, *others, large, last in found.values():
        assert set(others) == {first}
        assert large == last
        assert {first % 64, large % 64} == {0}


FORKS = """
import ctypes, multiprocessing, sys
from pathlib import Path
import torch
from manualbp.kernels.cpu import build

torch.set_num_threads(2)
kernels = build.load(Path(sys.argv[1]))

def run(n):
    x = torch.arange(float(n))
    used = kernels.doubled(ctypes.c_void_p(x.data_ptr()), n, build.threads())
    return used if x.tolist() == [2.0 * i for i in range(n)] else "wrong"

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        return run(i + 100)

if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    print(run(1000), [fork.Pool(1).apply_async(run, (1000,)).get(20) for _ in range(2)], run(1000))
    data = torch.utils.data.DataLoader(Data(), num_workers=2, multiprocessing_context="fork", timeout=20)
    print([int(used) for used in data], run(1000))
"""


def test_forks_after_first_use(sources: Path) -> None:
    """The threads do not come with a fork: a child that counted on them would wait for ever."""
    command = [sys.executable, "-c", FORKS, str(sources)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["2 [1, 1] 2", "[1, 1, 1, 1] 2"], done.stderr
