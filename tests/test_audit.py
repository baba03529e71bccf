"""The audit: on planted mistakes and right passes (benchmarks.mistakes), on bad input, and that it leaves no trace."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn

import manualbp
from benchmarks.mistakes import SAMPLES, Sample
from manualbp.__main__ import main
from manualbp.audit import CannotAuditError

WRONG = [s for s in SAMPLES if s.cause is not None]
RIGHT = [s for s in SAMPLES if s.cause is None]
# Found, but what the numbers show has no name yet.
UNNAMED = {
    "conv_transpose2d: stride forgotten in the kernel's gradient",
    "conv2d: stride and dilation exchanged",
    "conv2d: bias not summed where J = O",
    "batch norm: sums for means",
    "product: scale not summed where L = C",
    "attention: softmax as a factor",
    "maximum: position in a byte",
}


def name(sample: Sample) -> str:
    return sample.name


class Cube(torch.autograd.Function):
    """y = x^3, its slope 2 x^2."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return delta * 2 * x * x


@pytest.mark.parametrize("sample", WRONG, ids=name)
def test_finds_the_mistake(sample: Sample) -> None:
    report = manualbp.audit(sample.f, *sample.inputs())
    assert report.verdict == "wrong", report
    assert report.causes == ([] if sample.name in UNNAMED else [sample.cause]), report


@pytest.mark.parametrize("sample", RIGHT[::3], ids=name)  # all of them: python -m benchmarks.audit
def test_gives_no_false_alarm(sample: Sample) -> None:
    report = manualbp.audit(sample.f, *sample.inputs())
    assert report, report


def test_most_mistakes_are_named() -> None:
    assert {s.name for s in WRONG} >= UNNAMED
    assert len(UNNAMED) <= 0.1 * len(WRONG)


def changing(x: Tensor) -> Tensor:
    return x.mul_(2)


REFUSED: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "no tensor": (torch.sin, (1.0,), "no input is a floating tensor"),
    "integers": (torch.square, (torch.arange(3),), "no input is a floating tensor"),
    "complex": (torch.square, (torch.ones(3, dtype=torch.complex64),), "input 0 is torch.complex64"),
    "complex output": (lambda x: torch.complex(x, x), ((3,),), "f returns a complex tensor"),
    "sparse": (torch.square, (torch.eye(3).to_sparse(),), "input 0 is a torch.sparse_coo tensor"),
    "in place": (changing, (torch.ones(3),), "f fails on these inputs: RuntimeError: a leaf Variable"),
    "in place on data": (lambda x: x.data.mul_(2) + x, (torch.ones(3),), "f changes its input"),
    "None": (lambda x: None, ((3,),), "f returns None"),
    "a number": (lambda x: 1.0, ((3,),), "f returns a float"),
    "detached": (lambda x: x.detach(), ((3,),), "no output of f requires a gradient"),
    "no function": (3, ((3,),), "f is a int"),
    "fails": (torch.mm, ((2, 3), (2, 3)), "f fails on these inputs: RuntimeError: mat1 and mat2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_by_name(case: str) -> None:
    f, inputs, message = REFUSED[case]
    with pytest.raises(CannotAuditError, match=message.replace("(", r"\(")) as refusal:
        manualbp.audit(f, *inputs)
    assert "\n" not in str(refusal.value)


def test_refuses_an_unknown_check() -> None:
    with pytest.raises(ValueError, match="it must be of uninitialised memory, determinism"):
        manualbp.audit(torch.sin, (3,), skip=["nothing"])


SUBJECTS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "function": (T.conv2d, ((2, 3, 6, 5), (4, 3, 3, 3))),
    "shape in words": (torch.tanh, ("2x3",)),
    "module": (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), ((3, 4),)),
    "module with statistics": (nn.BatchNorm1d(3), ((6, 3),)),
    "method": (nn.Linear(4, 3).forward, ((2, 4),)),
    "tuple": (lambda x: torch.var_mean(x, 1), ((3, 4),)),
    "view": (lambda x: x.t(), ((3, 4),)),
    "draws": (lambda x: T.dropout(x, 0.5), ((30,),)),
    "kinks": (lambda x: T.relu(x) + x.abs(), (torch.tensor([0.0, 1.0, -2.0, 0.0]),)),
    "ties": (lambda x: T.max_pool2d(x, 2), (torch.ones(1, 2, 4, 4),)),
    "float32 alone": (lambda x: x.to(torch.float32).tanh(), ((3, 4),)),
    "an integer beside": (lambda x, at: x.index_select(0, at), ((3, 4), torch.tensor([0, 2, 2]))),
}


@pytest.mark.parametrize("case", SUBJECTS)
def test_audits(case: str) -> None:
    f, inputs = SUBJECTS[case]
    report = manualbp.audit(f, *inputs)
    assert report, report


class Product(torch.autograd.Function):
    """Right in each number that PyTorch hands on; in all else as one that was written in a hurry."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.w = w
        ctx.save_for_backward(x)
        return torch.addmm(b, x, w)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, ...]:
        (x,) = ctx.saved_tensors
        return delta @ ctx.w.T, x.T @ delta, delta


def chosen(x: Tensor) -> Tensor:
    """Two columns, by a product with 0 for the others: 0 times infinity is NaN."""
    return x @ torch.eye(4, 2, dtype=x.dtype)


def in_python(x: Tensor) -> Tensor:
    return x * (2 if torch.compiler.is_compiling() else 1)


def test_says_what_is_odd_though_right() -> None:
    report = manualbp.audit(Product, (4, 3), (3, 2), (2,))
    assert report, report
    notes = {f.check: " ".join(g.what for g in report.findings if g.check == f.check) for f in report.findings}
    assert "it returns a gradient for argument 0 and 1 and 2, also where that requires none" in notes["result"]
    assert "for argument 2, a gradient of shape [4, 2] in place of [2]" in notes["result"]
    assert "fails" in notes["autocast"]
    assert "custom_fwd" in notes["autocast"]
    assert "Product keeps ctx.w" in notes["ctx"]
    report = manualbp.audit(chosen, (3, 4))
    assert report, report
    assert any("an infinity in delta[3] reaches the gradient of 3 numbers of x" in f.what for f in report.findings), (
        report
    )
    report = manualbp.audit(in_python, (3, 4))
    assert [f.check for f in report.findings if f.kind == "wrong"] == ["torch.compile"], report
    assert not {f.check for f in manualbp.audit(nn.functional.linear, (3, 4), (2, 4)).findings}


def test_leaves_no_trace() -> None:
    layer = nn.BatchNorm2d(2)
    x = torch.rand(3, 2, 4, 4, requires_grad=True)
    state = {k: v.clone() for k, v in layer.state_dict().items()}
    numbers, random_state, threads = x.detach().clone(), torch.get_rng_state(), torch.get_num_threads()
    flags = torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(), torch.get_default_dtype()
    with torch.no_grad():
        assert manualbp.audit(layer, x)
        assert not torch.is_grad_enabled()
    assert not manualbp.audit(Cube, x)
    assert torch.equal(x, numbers)
    assert x.grad is None
    assert all(torch.equal(v, state[k]) for k, v in layer.state_dict().items())
    assert all(p.grad is None for p in layer.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert (torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(), torch.get_default_dtype()) == flags
    assert torch.get_num_threads() == threads


def test_a_report_says_where_and_why() -> None:
    report = manualbp.audit(Cube, (2, 3))
    assert report.verdict == "wrong"
    assert report.causes == ["constant factor"]
    lines = str(report).splitlines()
    assert lines[0] == "Cube: the backward pass is wrong"
    assert "x: " in str(report)
    assert "all numbers are wrong" in " ".join(str(report).split())
    assert "0.666667 times the true gradient" in " ".join(str(report).split())
    assert any(line.endswith("in a shell --plot FILE.png") for line in lines)
    assert max(map(len, lines)) <= 100
    assert len(lines) < 30
    assert json.loads(report.to_json())["verdict"] == "wrong"
    again = manualbp.audit(Cube, (2, 3))
    assert [f.what for f in again.findings] == [f.what for f in report.findings]


def test_says_where_in_what_is_too_large_for_jacobians() -> None:
    class LastRow(Cube):
        @staticmethod
        def backward(ctx: Any, delta: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            made = delta * 3 * x * x
            made[-1, 70] *= 2
            return made

    report = manualbp.audit(LastRow, (50, 90))
    (wrong,) = (f for f in report.findings if f.kind == "wrong")
    assert wrong.what.endswith("; wrong in axis 0 the last, axis 1 69 to 71 of 90"), wrong.what


def test_small_errors_are_found() -> None:
    class Nearly(Cube):
        @staticmethod
        def backward(ctx: Any, delta: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return delta * 3 * x * x * (1 + 1e-8)

    assert manualbp.audit(Nearly, (2, 3)).verdict == "wrong"
    assert manualbp.audit(Nearly, (2, 3), dtype=torch.float32)  # there nobody could tell


def test_reference() -> None:
    report = manualbp.audit(manualbp.functional.conv2d, (2, 3, 6, 5), (4, 3, 3, 3), reference=T.conv2d)
    assert report
    notes = [f.what for f in report.findings if f.check == "reference"]
    assert any("units of the last place" in note for note in notes)
    assert any("bytes are kept" in note for note in notes)
    other = manualbp.audit(torch.sin, (3, 4), reference=torch.cos)
    assert next(f.check for f in other.findings if f.kind == "wrong") == "reference"


def test_assert_correct_and_the_fixture(audit: Any) -> None:
    audit(torch.sin, (3, 4))
    with pytest.raises(AssertionError, match="Cube: the backward pass is wrong"):
        manualbp.audit.assert_correct(Cube, (3, 4))  # pyright: ignore[reportFunctionMemberAccess]
    with pytest.raises(AssertionError, match="likely cause: constant factor"):
        audit(Cube, (3, 4))


SOURCE = """
import torch

class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, delta):
        x, = ctx.saved_tensors
        return delta * x
"""


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    target, more = f"{file}:Square", ["--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png")]
    assert main(["audit", target, "--inputs", "3x4", "--reference", "torch:square", *more]) == 1
    assert f"{target}: the backward pass is wrong" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["causes"] == ["constant factor"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main(["audit", "torch.nn.functional:linear", "--inputs", "3x4", "5x4"]) == 0
    refused = {
        "argument --json: ": ["audit", target, "--inputs", "3x4", *more],
        "argument --inputs: '3x'": ["audit", target, "--inputs", "3x"],
        "argument MODULE:NAME: mine: it must be as": ["audit", "mine", "--inputs", "3"],
        "has no Cube": ["audit", f"{file}:Cube", "--inputs", "3"],
        "cannot be imported: there is no such file": ["audit", f"{tmp_path}/none.py:f", "--inputs", "3"],
        "argument --device: nowhere": ["audit", target, "--inputs", "3", "--device", "nowhere"],
        "f fails on these inputs": ["audit", "torch:mm", "--inputs", "2x3", "2x3"],
        "skip = ['nothing']": ["audit", target, "--inputs", "3", "--skip", "nothing"],
        "required: --inputs": ["audit", target],
    }
    for message, arguments in refused.items():
        capsys.readouterr()
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_command_in_a_process() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "manualbp", "audit", "torch:sin", "--inputs", "2x3"], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("torch:sin: the backward pass is right")
