"""The library of the C kernels: compilers that fail, builds that are killed, caches that cannot be trusted."""

import logging
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from manualbp.kernels.cpu import build, cache, compiler
from tests.kernels.building import NEEDED, answer, forked, in_cache, new_sources, use_compiler

pytestmark = NEEDED


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return new_sources(tmp_path, monkeypatch)


# What the compiler does, and the reason that is given.
FAULTS = {
    "fails": ("echo 'x.c:3:1: error: no such thing'; exit 1", "failed with the code 1: x.c:3:1: error: no such thing"),
    "fails in silence": ("exit 3", "failed with the code 3"),
    "is killed": ("kill -9 $$", "was ended by the signal 9"),
    "is killed as it links": ('case "$*" in *-shared*) kill -9 $$;; esac', "was ended by the signal 9"),
    "hangs": ("sleep 600", "did not end within 2 s"),
    "makes nothing": ("exit 0", "No such file or directory"),
    "makes what is no library": ('while [ "$1" != -o ]; do shift; done; echo > "$2"; exit 0', "file too short"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_compiler_that(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    does, reason = FAULTS[name]
    use_compiler(does, tmp_path, monkeypatch)
    monkeypatch.setattr(compiler, "SECONDS", 2 if name == "hangs" else 60)
    start = time.monotonic()
    without_kernels(reason, monkeypatch, caplog)
    assert time.monotonic() - start < 60
    assert [path.name for path in in_cache() if path.suffix != ".so"] == []
    monkeypatch.delenv("CC")
    monkeypatch.setattr(build, "_found", None)
    assert answer() == 42


def without_kernels(reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """There are none, one line of the log says why; and with MANUALBP_KERNELS=compiled that is an error."""
    with caplog.at_level(logging.INFO, "manualbp"):
        assert build.library() is None
        assert build.library() is None
    assert reason in build.why_not()
    assert "\n" not in build.why_not()
    (line,) = (record.message for record in caplog.records if "PyTorch's operations run" in record.message)
    assert line.endswith(build.why_not())
    with monkeypatch.context() as m:
        m.setenv("MANUALBP_KERNELS", "compiled")
        m.setattr(build, "_found", None)
        with pytest.raises(RuntimeError, match="MANUALBP_KERNELS=compiled") as error:
            build.library()
        assert reason in str(error.value)


def test_all_words_of_the_compiler(
    sources: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (sources / "answer.c").write_text("long answer(void) { return nothing; }\nlong again(void) { return never; }\n")
    without_kernels("answer.c:1:28: error: ", monkeypatch, caplog)
    assert cache.UNFINISHED not in build.why_not()
    monkeypatch.setenv("MANUALBP_KERNELS", "compiled")
    monkeypatch.setattr(build, "_found", None)
    with pytest.raises(RuntimeError, match=r"(?s)nothing.*never"):
        build.library()


def no_more_space() -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    return answer()


def test_no_space_in_the_cache(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file may grow; then none may be written behind."""
    (reason,) = forked(no_more_space)
    assert "File size limit exceeded" in reason
    assert in_cache() == []

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(Path, "chmod", full)
        assert "No space left on device" in answer()
    assert in_cache() == []


def test_a_build_that_is_killed_half_way(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = use_compiler("sleep 3", tmp_path, monkeypatch)
    process = multiprocessing.get_context("fork").Process(target=answer)
    process.start()
    while not log.exists():
        time.sleep(0.05)
    process.kill()
    process.join()
    (left,) = in_cache()
    assert left.name.startswith(cache.UNFINISHED)
    monkeypatch.delenv("CC")
    assert forked(answer) == [42]
    (library,) = in_cache()
    assert library.suffix == ".so"


def test_an_interrupt_ends_the_compilers(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_compiler(f"echo $$ >> {tmp_path / 'process'}\nsleep 600", tmp_path, monkeypatch)

    def interrupted(*_: Any, **__: Any) -> Any:
        while len((tmp_path / "process").read_text().split()) < 2:
            time.sleep(0.05)
        raise KeyboardInterrupt

    tools = compiler.find_tools()
    native = compiler.native(tools.command)
    monkeypatch.setattr(compiler, "find_tools", lambda: tools)
    monkeypatch.setattr(compiler, "native", lambda _: native)
    (tmp_path / "process").touch()
    with monkeypatch.context() as m:
        once = iter([interrupted])
        communicate = subprocess.Popen.communicate
        m.setattr(subprocess.Popen, "communicate", lambda *a, **k: next(once, communicate)(*a, **k))
        with pytest.raises(KeyboardInterrupt):
            build.library()
    for process in (tmp_path / "process").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)
    assert in_cache() == []


def linked(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("elsewhere")))


def library(folder: Path) -> Path:
    return next(folder.glob("*.so"))


# What somebody else could have done to the cache, and the reason that is given.
HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "folder of others": (lambda folder: folder.chmod(0o777), "others may write to"),
    "folder of a group": (lambda folder: folder.chmod(0o770), "others may write to"),
    "link to a folder": (linked, "manualbp is a symbolic link"),
    "folder above": (lambda folder: folder.parent.chmod(0o777), "everybody may write to"),
    "library of others": (lambda folder: library(folder).chmod(0o702), "others may write to"),
    "library of a group": (lambda folder: library(folder).chmod(0o720), "others may write to"),
    "link to a library": (lambda folder: linked(library(folder)), ".so is a symbolic link"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_cache_that_others_can_write(
    sources: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It is refused, and not mended: what is in it already may be theirs."""
    assert forked(answer) == [42]
    done, reason = HOSTILE[name]
    done(cache.folder())
    without_kernels(reason, monkeypatch, caplog)


@pytest.mark.parametrize("whose", ["folder", "library"])
def test_a_cache_of_another_user(
    sources: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, whose: str
) -> None:
    assert forked(answer) == [42]
    path = library(cache.folder())
    if whose == "folder":
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    elif os.geteuid() == 0:
        os.chown(path, 1, 1)
    else:
        pytest.skip("only root can give a file away")
    without_kernels(f"{path if whose == 'library' else path.parent} belongs to another user", monkeypatch, caplog)


def no_home(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)


# What is not there, and the reason that is given.
LACKS: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], Any], str]] = {
    "compiler": (lambda _, m: m.setenv("PATH", "/nowhere"), "there is no C compiler cc or gcc"),
    "$CC": (lambda _, m: m.setenv("CC", "nowhere -m64"), "there is no C compiler nowhere ($CC)"),
    "$CC in quotes": (lambda _, m: m.setenv("CC", "'gcc"), "No closing quotation"),
    "GCC": (lambda f, m: use_clang(f, m), "is Clang, whose OpenMP threads are not PyTorch's: GCC is needed"),
    "libgomp": (lambda _, m: m.setattr(torch, "__file__", "/nowhere/torch/__init__.py"), "PyTorch has no libgomp"),
    "Linux": (lambda _, m: m.setattr(sys, "platform", "darwin"), "they are built on Linux, and this is darwin"),
    "a place to write": (lambda _, m: m.setenv("XDG_CACHE_HOME", "/proc/nowhere"), "/proc/nowhere"),
    "a folder": (lambda f, m: m.setenv("XDG_CACHE_HOME", str(f / "sources/answer.c")), "File exists"),
    "a home": (no_home, "this user has no home folder"),
    "sources": (lambda f, _: [path.unlink() for path in f.glob("sources/*.c")], "the C sources were not installed"),
}


def use_clang(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_compiler("", folder, monkeypatch)
    (folder / "compiler").write_text("#!/bin/sh\necho Debian clang version 14.0.6\n")


@pytest.mark.parametrize("name", LACKS)
def test_without(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    make, reason = LACKS[name]
    make(tmp_path, monkeypatch)
    without_kernels(reason, monkeypatch, caplog)


def test_what_the_user_chooses(
    sources: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MANUALBP_KERNELS", "torch")
    with caplog.at_level(logging.INFO, "manualbp"):
        assert answer() == "MANUALBP_KERNELS=torch"
    assert [record.message.split(": ")[1] for record in caplog.records] == ["MANUALBP_KERNELS=torch"]
    assert not cache.folder().exists()
    for value in ("Torch", "0", "none"):
        monkeypatch.setenv("MANUALBP_KERNELS", value)
        monkeypatch.setattr(build, "_found", None)
        with pytest.raises(ValueError, match=f'MANUALBP_KERNELS is \'{value}\': it must be "torch" or "compiled"'):
            build.library()
    for value in ("", "compiled"):
        monkeypatch.setenv("MANUALBP_KERNELS", value)
        monkeypatch.setattr(build, "_found", None)
        assert answer() == 42
