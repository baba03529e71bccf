"""python -m manualbp kernels: what it prints, builds and removes, and what it refuses in one line."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from manualbp.__main__ import main
from manualbp.kernels.cpu import build, cache, report
from tests.kernels.building import NEEDED, in_cache, new_sources, use_compiler

pytestmark = NEEDED


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small library in the place of the kernels."""
    folder = new_sources(tmp_path, monkeypatch)
    (folder / "vector.h").write_bytes((build.HERE / "vector.h").read_bytes())
    monkeypatch.setattr(report, "report", partial(report.report, folder))
    monkeypatch.setattr(report, "built", partial(report.built, folder))
    return folder


def rows(text: str) -> dict[str, str]:
    """Each label and the words behind it, which go on in lines without a label."""
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= 24
    found: dict[str, str] = {}
    for line in text.splitlines():
        label, words = line[: report.LABEL].strip(), line[report.LABEL :]
        last = label or list(found)[-1]
        found[last] = f"{found[last]} {words}" if not label else words
    return found


def test_build_show_and_clear(sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels"]) == 0
    shown = rows(capsys.readouterr().out)
    assert shown["kernels"] == "not built yet: this is done on first use, or by --build"
    assert re.search("gcc|cc", shown["compiler"])
    assert re.fullmatch("-O3 .* -(march|mcpu)=native", shown["flags"])
    assert re.search("(4|8|16) floats a vector", shown["processor"])
    assert "libgomp" in shown["OpenMP"]
    assert shown["threads"] == "1"
    assert shown["cache"].replace(" ", "") == f"{cache.folder()}:0libraries,0.0MiB"
    assert (shown["answer"], shown["doubled"]) == ("The answer", "Numbers, doubled in place")
    assert "manualbp.kernels.chosen" in shown["choice"]
    for how in ("in .* s", "already"):
        assert main(["kernels", "--build"]) == 0
        first, rest = capsys.readouterr().out.split("\n", 1)
        assert re.fullmatch(f"built {how}", first)
        (library,) = in_cache()
        shown = rows(rest)
        assert shown["kernels"] == f"compiled: the library {library.name} is built, and loads"
        assert ": 1 library, 0.0 MiB" in shown["cache"]
    library.with_name("mine.so").write_text("mine")
    library.with_name("build-killed").mkdir()
    library.with_name("build-killed").joinpath("a.o").touch()
    assert main(["kernels", "--clear", "--build"]) == 0
    assert capsys.readouterr().out.startswith("removed 1 library, 0.0 MiB\nbuilt in ")
    assert [path.name for path in in_cache()] == [library.name, "mine.so"]
    assert main(["kernels", "--clear"]) == 0
    assert "removed 1 library" in capsys.readouterr().out
    assert [path.name for path in in_cache()] == ["mine.so"]


def test_pytorchs_operations_and_why(
    sources: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANUALBP_KERNELS", "torch")
    assert main(["kernels"]) == 0
    shown = rows(capsys.readouterr().out)
    assert shown["kernels"] == "PyTorch's operations: MANUALBP_KERNELS=torch"
    assert {"compiler", "threads", "cache"} <= shown.keys()
    assert "answer" not in shown
    monkeypatch.delenv("MANUALBP_KERNELS")
    monkeypatch.setenv("CC", "nowhere")
    assert main(["kernels", "--clear"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("removed 0 libraries, 0.0 MiB\n")
    shown = rows(out.split("\n", 1)[1])
    assert shown["kernels"] == "PyTorch's operations: there is no C compiler nowhere ($CC)"
    assert "compiler" not in shown


def test_what_the_user_can_mend(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(*arguments: str) -> str:
        assert main(["kernels", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("manualbp: error: ")
        assert err.count("\n") == 1
        return err

    assert "unrecognized arguments: --bulid" in error("--bulid")
    for value, reason in [("nowhere", "there is no C compiler nowhere ($CC)"), ("'gcc", "No closing quotation")]:
        monkeypatch.setenv("CC", value)
        assert reason in error("--build")
    use_compiler("echo 'a: error: not'; echo today; exit 1", tmp_path, monkeypatch)
    assert "failed with the code 1: a: error: not" in error("--build")
    cache.folder().chmod(0o777)
    assert "others may write to" in error("--build")
    assert "others may write to" in error("--clear")
    monkeypatch.setenv("MANUALBP_KERNELS", "fast")
    assert "MANUALBP_KERNELS is 'fast': it must be" in error()


def test_the_real_one() -> None:
    """Its files are not built here."""
    result = subprocess.run([sys.executable, "-m", "manualbp", "kernels"], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert {"kernels", "threads", "cache"} <= rows(result.stdout).keys()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["kernels", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert all(word in out for word in ("--build", "--clear", "MANUALBP_KERNELS=torch"))
