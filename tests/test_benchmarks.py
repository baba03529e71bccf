"""python -m benchmarks: what it measures, on things small enough to be known beforehand."""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import manualbp
from benchmarks import backward, machine, processes, scaling
from benchmarks.__main__ import main
from benchmarks.capacity import fits, largest
from benchmarks.memory import MIB, kept_and_peak, kept_bytes, memory
from benchmarks.networks import NETWORKS, airbench94, lecture004
from benchmarks.processes import DiedError, alone, one_core_busy
from benchmarks.report import word
from benchmarks.rules import operation_of
from benchmarks.scaling import line
from benchmarks.textbook import Textbook
from benchmarks.variants import BASE, BY_HAND, COMPILED, VARIANTS, Training, has_kernels, setting, variants_of
from manualbp.kernels.cpu import calls

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the limit and the peak are Linux's")


def test_the_line_of_three_points() -> None:
    """By hand: the means are 1 and 2/3, slope = 1 / 2, residuals -1/6, 1/3, -1/6; R^2 = 1 - (1/6) / (2/3)."""
    found = line([0, 1, 2], [0, 1, 1])
    assert (found.slope, found.intercept) == pytest.approx((1 / 2, 1 / 6))
    assert (found.r2, found.worst) == pytest.approx((3 / 4, 1 / 3))
    exact = line([1, 4, 16], [5, 14, 50])
    assert (exact.slope, exact.intercept, exact.r2, exact.worst) == pytest.approx((3, 2, 1, 0))


@pytest.mark.parametrize("most", [0, 1, 7, 8, 37, 100, 1000])
def test_the_largest_batch_is_found_to_2_percent(most: int) -> None:
    assert 0.98 * most <= largest(lambda n: n <= most) <= most


@pytest.mark.parametrize("by_hand", [False, True])
def test_bytes_kept_are_those_worked_out_on_paper(by_hand: bool) -> None:
    """5 images of 1 x 4 x 4 in float32.

    The convolution keeps x, 5 * 16 * 4 = 320 bytes, and its kernel, a parameter. The sigmoid keeps its output,
    5 * 2 * 16 * 4 = 640 bytes; torch.nn's average pooling its input, which is the same storage, by hand nothing. The
    linear layer keeps its input, 5 * 2 * 4 * 4 = 160 bytes.
    """
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    if by_hand:
        manualbp.convert(model)
    x = torch.randn(5, 1, 4, 4)
    assert kept_bytes(lambda: model(x), model.parameters()) == 320 + 640 + 160
    pool = model[2]
    y = torch.randn(5, 2, 4, 4, requires_grad=True)
    assert kept_bytes(lambda: pool(y), []) == (0 if by_hand else 640)


def test_a_process_of_its_own_answers_or_has_died() -> None:
    assert alone(math.sqrt, 4.0) == 2
    assert alone(os.getpid) != os.getpid()
    with pytest.raises(DiedError, match="exit code 3"):
        alone(os._exit, 3)


@LINUX
def test_two_runs_have_the_same_peak_and_a_batch_that_is_too_large_does_not_fit() -> None:
    s = setting("lecture004", "float32", "cpu", batch=32)
    (kept, first), (_, second) = (alone(kept_and_peak, BY_HAND, s) for _ in range(2))
    assert first == pytest.approx(second, rel=0.05)
    assert first > kept - s.batch * 3 * 32 * 32 * 4  # the images were there before
    assert alone(fits, BY_HAND, s, 2 * first)
    assert not alone(fits, BY_HAND, replace(s, batch=256), 2 * first)


def test_airbench94() -> None:
    """In the order of the layers; frozen are the whitening kernel and the weights of the normalisations."""
    model = airbench94()
    groups = [9 * (C * O + O * O) + 2 * 2 * O for C, O in ((24, 64), (64, 256), (256, 256))]
    assert groups == [50_944, 738_304, 1_180_672]
    everything = 24 * 12 + 24 + sum(groups) + 2560
    assert sum(p.numel() for p in model.parameters()) == everything == 1_972_792
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 288 + 2 * (64 + 256 + 256)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_the_textbook_equals_torch_nn() -> None:
    torch.manual_seed(0)
    model, x = lecture004(12).double(), torch.randn(2, 3, 12, 12, dtype=torch.float64)
    model.zero_grad()
    y, expected = Textbook(model)(x), model(x)
    delta = torch.randn_like(y)
    gradients, theirs = (torch.autograd.grad(z, list(model.parameters()), delta) for z in (y, expected))
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
def test_all_variants_compute_the_same_gradient(network: str) -> None:
    s = setting(network, "float32", "cpu", batch=2)
    expected = Training(BASE, s).gradient()
    for name in set(variants_of(s)) - {COMPILED}:
        training = Training(name, s)
        assert ((training.gradient() - expected).norm() / expected.norm()).item() < 1e-4, name
        covered = manualbp.coverage(training.loss())
        if VARIANTS[name].by_hand:
            assert covered.layers == {}
        else:
            assert covered.by_hand == {}


def test_the_compiled_kernels_run_where_a_variant_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_kernels("cpu"):
        pytest.skip("there are no compiled kernels here")
    library, called = calls.library(), []

    class Library:
        def __getattr__(self, name: str) -> Any:
            called.append(name)
            return getattr(library, name)

    monkeypatch.setattr(calls, "library", Library)
    s = setting("airbench94", "float32", "cpu", batch=2)
    Training("manualbp, torch operations", s)()
    assert called == []
    Training(BY_HAND, s)()
    assert called != []


@LINUX
def test_a_core_is_kept_busy_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(processes.subprocess, "Popen", lambda command: started.append(popen(command)) or started[-1])
    with one_core_busy():
        (process,) = started
        time.sleep(1)
        assert process.poll() is None
        ticks = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11])
        assert ticks / os.sysconf("SC_CLK_TCK") > 0.05  # seconds of a processor; others may want it, too
    assert process.poll() is not None


def test_the_names_of_operations() -> None:
    node = "autograd::engine::evaluate_function: "
    assert operation_of("CorrelateDual") == ("Correlate", "forward")
    assert operation_of(f"{node}CorrelateDualBackward") == ("Correlate", "backward")
    assert operation_of(f"{node}MaxPool2DWithIndicesBackward0") == ("MaxPool2DWithIndices", "backward")
    assert operation_of(f"{node}torch::autograd::AccumulateGrad") == ("AccumulateGrad", "backward")
    assert operation_of("Optimizer.step#SGD.step") == ("SGD.step", "update")


def test_what_is_above_1_is_said_in_a_word() -> None:
    assert [word(0.5), word(1.004), word(1.01), word(2, "more")] == ["0.50", "1.00", "1.01 slower", "2.00 more"]


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SIDE", {"cpu": 64})
    monkeypatch.setattr(machine, "COPIED", {"cpu": MIB})
    monkeypatch.setattr(scaling, "BATCHES", [1, 2, 4])
    for variant in (COMPILED, "textbook"):
        monkeypatch.delitem(VARIANTS, variant)
    monkeypatch.setattr("benchmarks.__main__.compiles", lambda _: False)


@pytest.mark.usefixtures("_small")
def test_figures_are_shown_written_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = ["--networks", "lecture004", "--dtypes", "float32", "--batch-size", "2", "--rounds", "2", "--device", "cpu"]
    to = ["--json", str(tmp_path / "all.json"), "--plots", str(tmp_path / "pictures")]
    assert main([*of, "--parts", "steps", "rules", "scaling", *to]) == 0
    shown = capsys.readouterr().out
    assert f"torch {torch.__version__}, cpu: {machine.cpu()}, {torch.get_num_threads()} threads" in shown
    assert "torch.compile is left out" in shown
    written = json.loads((tmp_path / "all.json").read_text())
    assert [row["variant"] for row in written["steps"]] == variants_of(setting("lecture004", "float32", "cpu"))
    assert all(row["gradient"] < 1e-5 and row["quartiles"][0] <= row["ms"] for row in written["steps"])
    assert {("Correlate", "backward"), ("Convolution", "backward")} <= {
        (row["operation"], row["part"]) for row in written["rules"]
    }
    kept = [row["kept_line"] for row in written["scaling"]]
    assert len(kept) == 6
    assert all(of["r2"] > 1 - 1e-9 for of in kept)  # bytes kept grow along a line, to the byte
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert pictures == {"steps.png", "rules-lecture004-float32.png", "scaling-lecture004-float32.png"}
    with pytest.raises(SystemExit, match="2"):
        main([*of, *to])


@LINUX
def test_a_row_of_memory_for_each_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.memory.variants_of", lambda _: [BASE, BY_HAND])
    rows = memory(setting("lecture004", "bf16", "cpu", batch=4))
    assert [row["variant"] for row in rows] == [BASE, BY_HAND]
    assert all(row["peak"] > 0 for row in rows)
    base, by_hand = (row["kept_ratio"] for row in rows)
    assert base == 1
    assert 0.5 < by_hand < 1  # a byte for each maximum, instead of 8; the rest is alike


@pytest.mark.parametrize("dtype", ["float32", "bf16"])
def test_operations_beside_pytorchs(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    convolutions = [backward.Convolution(4, 6, 3, 6, stride=2, groups=2, padding=0)]
    small = {"CONVOLUTIONS": convolutions, "NORMS": [(4, 6)], "MAXIMA": [(4, 6)], "MEANS": [(4, 6, 3, 1)]}
    for name, value in small.items():
        monkeypatch.setattr(backward, name, value)
    file = tmp_path / "all.json"
    monkeypatch.setattr(
        sys, "argv", ["backward", "--rounds", "2", "--batch", "3", "--dtype", dtype, "--json", str(file)]
    )
    backward.main()
    shown = capsys.readouterr().out
    assert "convolution 4 -> 6, 3 x 3, 6 x 6, stride 2, 2 groups, batch 3\n" in shown
    rows = json.loads(file.read_text())["rows"]
    assert [row["face"] for row in rows[:3]] == ["y", "dx", "dw"]
    assert len({row["operation"] for row in rows}) == 1 + 2 + 3 + 1
    assert len(rows) == 3 + 2 * 6
    ways = {"PyTorch", "by hand"} | ({"torch operations"} if has_kernels("cpu") else set())
    for row in rows:
        assert row["quartiles"].keys() == row["error"].keys() == ways
        assert max(row["error"][way] for way in ways - {"PyTorch"}) < (1e-6 if dtype == "float32" else 0.02)
    with pytest.raises(SystemExit, match="2"):  # the file is there
        backward.main()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--networks", "lenet"], "argument --networks: invalid choice: 'lenet'"),
        (["--batch-size", "0"], "argument --batch-size: 0 is no positive whole number"),
        (["--rounds", "many"], "argument --rounds: many is no positive whole number"),
        (["--parts", "speed"], "argument --parts: invalid choice: 'speed'"),
        (["--json", "nowhere/all.json"], "argument --json: nowhere/all.json is a folder, or in one that is not there"),
        (["--json", "there.json"], "argument --json: there.json exists: choose another, or add --overwrite"),
        (["--plots", "there.json"], "argument --plots: there.json is no folder"),
        (["--plots", "."], "argument --plots: . is not empty: choose another, or add --overwrite"),
        (["--what"], "unrecognized arguments: --what"),
    ],
)
def test_what_is_refused_is_refused_in_a_line(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.json").write_text("{}")
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    message = capsys.readouterr().err
    assert message.startswith(f"python -m benchmarks: error: {reason}")
    assert message.count("\n") == 1
    assert Path("there.json").read_text() == "{}"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--quick" in capsys.readouterr().out
