"""The command line as a whole: what it answers without PyTorch, how wide, and that what it runs has everything."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import manualbp
from manualbp.commands.audit import DTYPES
from manualbp.commands.explain import KINDS, LARGEST
from manualbp.explain.examples import OPTIONS
from manualbp.explain.network import LARGEST as LARGEST_OF_PAGES

COMMANDS = ("audit", "exercise", "explain", "export", "kernels", "memory", "predict", "test", "train")
NEEDS_ARGUMENTS = ("audit", "export", "memory", "predict", "test")
TRAIN = str(Path(__file__).parents[1] / "train.py")
ANSWERED = [
    *(([command, "--help"], 0) for command in COMMANDS),
    *(([command], 2) for command in NEEDS_ARGUMENTS),
    (["--help"], 0),
    (["--version"], 0),
    ([], 2),
    (["nothing"], 2),
    (["kernels", "--bulid"], 2),
]


def command(*arguments: str, columns: int = 200, python: tuple[str, ...] = ("-m", "manualbp")) -> Any:
    environment = {"COLUMNS": str(columns), "PYTHONPATH": str(Path(manualbp.__file__).parents[1])}
    call = [sys.executable, *python, *arguments]
    return subprocess.run(call, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    ("python", "arguments", "code"),
    [*((("-m", "manualbp"), *answered) for answered in ANSWERED), ((TRAIN,), ["--help"], 0)],
    ids=str,
)
def test_answered_without_torch_in_80_columns(python: tuple[str, ...], arguments: list[str], code: int) -> None:
    found = command(*arguments, python=("-X", "importtime", *python))
    assert found.returncode == code
    lines = found.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "argparse" in imported
    assert not {"torch", "numpy", "lightning", "matplotlib"} & imported
    assert sum(not line.startswith("import time:") for line in lines) == (code != 0)
    if code == 0:
        assert max(map(len, found.stdout.splitlines())) <= 80
        assert found.stdout


def test_help_takes_less_than_two_seconds() -> None:
    start = time.perf_counter()
    assert command("train", "--help").returncode == 0
    assert time.perf_counter() - start < 2


def test_version_and_the_list_of_all_commands() -> None:
    assert command("--version").stdout == f"manualbp {manualbp.__version__}\n"
    lines = command("--help").stdout.splitlines()
    assert lines[0] == "usage: python -m manualbp [-h] [--version] COMMAND ..."
    assert sorted(line.split()[0] for line in lines if line.startswith("    ")) == sorted(COMMANDS)


def test_the_script_beside_its_python_is_as_quick(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    (tmp_path / "elsewhere").mkdir()
    home = f"import sys; sys.path[:0] = {[*sys.path]!r}; sys.executable = {str(tmp_path / 'python')!r}\n"
    say = "import atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
    for folder, slow in ((tmp_path, "False"), (tmp_path / "elsewhere", "True")):
        script = folder / "manualbp"
        script.write_text(f"{home}{say}from manualbp.__main__ import script\nscript()\n")
        found = command("train", "--help", python=(str(script),))
        assert found.stdout.startswith("usage: manualbp train ")
        assert found.stderr == f"{slow}\n"


def test_what_is_run_has_the_whole_package(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import manualbp, torch\n"
        "import manualbp.audit.report, manualbp.explain.pages\n"
        "assert all(hasattr(manualbp, name) for name in manualbp.__all__)\n"
        "assert all(callable(getattr(manualbp, name)) for name in ('audit', 'convert', 'explain', 'memory'))\n"
        "f = torch.square\n"
    )
    assert command("audit", f"{tmp_path}/mine.py:f", "--inputs", "2x2").returncode == 0


def test_a_program_that_imports_the_package_has_it_at_once(tmp_path: Path) -> None:
    program = tmp_path / "manualbp"
    program.write_text("import manualbp; manualbp.convert, manualbp.audit.__call__, manualbp.nn.Conv2d")
    # As in a process that multiprocessing has started for the script, and where a program has no arguments left.
    started = "import os, sys; sys.argv[0] = os.path.join(os.path.dirname(sys.executable), 'manualbp')"
    for call in (
        [str(program), "--help"],
        ["-c", program.read_text(), "-m", "manualbp", "--help"],
        ["-c", f"{started}; {program.read_text()}"],
        ["-c", f"import sys; sys.argv.clear(); {program.read_text()}"],
    ):
        found = command(python=tuple(call))
        assert (found.returncode, found.stderr) == (0, "")


def test_what_the_help_says_is_what_the_package_has() -> None:
    assert tuple(OPTIONS) == KINDS
    assert LARGEST == LARGEST_OF_PAGES
    from manualbp.audit.command import DTYPES as OF_AUDIT

    assert tuple(OF_AUDIT) == DTYPES


@pytest.mark.parametrize(
    ("python", "name", "usage"),
    [
        (("-m", "manualbp", "train"), "manualbp train", "python -m manualbp train"),
        ((TRAIN,), "train.py", "train.py"),
    ],
)
def test_train_is_called_what_was_typed(python: tuple[str, ...], name: str, usage: str) -> None:
    found = command("--lr", "0", python=python)
    assert found.returncode == 2
    assert found.stderr.startswith(f"{name}: error: argument --lr: ")
    assert found.stderr.count("\n") == 1
    assert command("--help", python=python).stdout.startswith(f"usage: {usage} [-h]")
