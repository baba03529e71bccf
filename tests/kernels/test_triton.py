"""The Triton kernels where there is no card: interpreted, compiled, and not asked for.

The interpreter must be asked for before Triton is loaded, and what is interpreted cannot be compiled: a process each.
"""

import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from manualbp.kernels.cuda import calls

HERE = Path(__file__).parent
with_triton = pytest.mark.skipif(find_spec("triton") is None, reason="no Triton here")


def run(*command: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=HERE.parents[1], env={**os.environ, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@with_triton
@pytest.mark.parametrize("file", ["test_cuda_pool.py", "test_cuda_norm.py", "test_cuda_conv.py"])
def test_interpreted(file: str) -> None:
    out = run(
        "-W",
        "ignore",
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        str(HERE / file),
        TRITON_INTERPRET="1",
    )
    assert " passed" in out


@with_triton
def test_compiled(tmp_path: Path) -> None:
    out = run("-m", "tests.kernels.triton_process", TRITON_CACHE_DIR=str(tmp_path))
    names = "_affine", "_combine", "_kernel_gradient", "_max_pool", "_put", "_sum"
    assert out.split() == [f"{name}:{capability}" for name in names for capability in (80, 90)]


def test_not_loaded_without_a_card() -> None:
    code = "import sys, torch, manualbp.nn as m; m.Conv2d(16, 16, 3)(torch.ones(1, 16, 4, 4)).sum().backward()"
    code += (
        "; m.MaxPool2d(2)(torch.ones(1, 1, 4, 4)); print([m for m in sys.modules if m.startswith('manualbp.kernels')])"
    )
    loaded = run("-c", code)
    assert "'manualbp.kernels.pool'" in loaded
    assert not any(f"'manualbp.kernels.cuda.{kernel}'" in loaded for kernel in ("pool", "norm", "conv"))


def test_serves_nothing_on_a_cpu() -> None:
    with torch.no_grad():
        assert not calls.serves(torch.ones(2))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_says_once_why_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert not calls.works.__wrapped__(0)
    assert [record.levelname for record in caplog.records] == ["INFO"] * (torch.version.cuda is not None)
