"""The exercises: a solution passes, a typical mistake gets the question that names it, nothing is overwritten."""

import argparse
import re
from pathlib import Path

import pytest
import torch

from manualbp import exercises
from manualbp.commands import exercise
from manualbp.exercises import QUESTIONS, check, names, write

LINEAR = """x, w = ctx.saved_tensors
return delta @ w, delta.T @ x, delta.sum(0)"""
SIGMOID = """(y,) = ctx.saved_tensors
return delta * y * (1 - y)"""
LOSS = """z, t = ctx.saved_tensors
one = T.one_hot(t, z.shape[1])
return delta[:, None] * (z.softmax(1) - one), None"""
AVERAGE = """m, s = ctx.m, ctx.s
dx = delta.new_zeros(ctx.shape)
I, J = delta.shape[2:]
for p in range(m):
    for q in range(m):
        dx[:, :, p : p + s * (I - 1) + 1 : s, q : q + s * (J - 1) + 1 : s] += delta / m**2
return dx, None, None"""
MAXIMUM = """(x,) = ctx.saved_tensors
_, place = T.max_pool2d(x, ctx.m, ctx.s, return_indices=True)
dx = torch.zeros_like(x).flatten(2).scatter_add(2, place.flatten(2), delta.flatten(2))
return dx.view(x.shape), None, None"""
ALL_MAXIMA = """(x,) = ctx.saved_tensors
m, s = ctx.m, ctx.s
y, dx = T.max_pool2d(x, m, s), torch.zeros_like(x)
I, J = y.shape[2:]
for p in range(m):
    for q in range(m):
        at = ..., slice(p, p + s * (I - 1) + 1, s), slice(q, q + s * (J - 1) + 1, s)
        dx[at] += delta * (x[at] == y)
return dx, None, None"""
CONV = """x, w = ctx.saved_tensors
dx = T.conv_transpose2d(delta, w)
dw = T.conv2d(x.transpose(0, 1), delta.transpose(0, 1)).transpose(0, 1)
return dx, dw, delta.sum((0, 2, 3))"""
NOT_ROTATED = CONV.replace("(delta, w)", "(delta, w.flip(2, 3))")
TRUE = """x, w = ctx.saved_tensors
dx = T.conv_transpose2d(delta, w.flip(2, 3))
dw = T.conv2d(x.transpose(0, 1), delta.transpose(0, 1)).transpose(0, 1)
return dx, dw.flip(2, 3)"""
NORM = """x, w = ctx.saved_tensors
mu, r = statistics(x)
x_hat, d_hat = (x - mu) * r, delta * w[:, None, None]
dx = r * (d_hat - d_hat.mean(MAP, keepdim=True) - x_hat * (d_hat * x_hat).mean(MAP, keepdim=True))
return dx, (delta * x_hat).sum(MAP), delta.sum(MAP)"""

SOLUTIONS = {
    "linear": LINEAR,
    "sigmoid": SIGMOID,
    "softmax_cross_entropy": LOSS,
    "average_pool": AVERAGE,
    "max_pool": MAXIMUM,
    "conv2d": CONV,
    "true_convolution": TRUE,
    "batch_norm": NORM,
}

ROTATION = "kernel not rotated, or rotated twice"
# Exercise, its solution with one mistake, the input whose gradient is wrong, the cause.
MISTAKES = [
    ("linear", LINEAR.replace("delta.sum(0)", "delta.mean(0)"), "b", "averaged, not summed"),
    ("linear", LINEAR.replace("delta.sum(0)", "delta[0]"), "b", "bias not summed"),
    ("linear", LINEAR.replace("delta.T @ x", "None"), "w", "no gradient is given"),
    ("sigmoid", "return delta", "x", "slope missing"),
    ("sigmoid", SIGMOID.replace("* y", "* y.sigmoid()").replace("- y", "- y.sigmoid()"), "x", "slope at the output"),
    ("sigmoid", SIGMOID.replace("1 - y", "y - 1"), "x", "sign"),
    ("softmax_cross_entropy", LOSS.replace("delta[:, None] * ", ""), "z", "delta ignored"),
    ("average_pool", AVERAGE.replace(" / m**2", ""), "x", "divisor missing"),
    ("average_pool", AVERAGE.replace("m**2", "m"), "x", "divisor is m, not m^2"),
    ("max_pool", MAXIMUM.replace("scatter_add", "scatter"), "x", "overlap overwritten"),
    ("max_pool", ALL_MAXIMA, "x", "ties all counted"),
    ("conv2d", NOT_ROTATED, "x", ROTATION),
    ("conv2d", CONV.replace(".sum((0, 2, 3))", ".mean((0, 2, 3))"), "b", "averaged, not summed"),
    ("true_convolution", TRUE.replace("w.flip(2, 3)", "w"), "x", ROTATION),
    ("true_convolution", TRUE.replace("dw.flip(2, 3)", "dw"), "w", ROTATION),
    ("batch_norm", re.sub(r"\(d_hat - .*", "d_hat", NORM), "x", "statistics taken as constants"),
    ("batch_norm", re.sub(r" - x_hat \* .*", ")", NORM), "x", "variance taken as constant"),
]

# The cause, the wrong piece and the right one.
FOUND = {
    "find_the_mistake_1": ("overlap overwritten", "] = delta[:", "] += delta[:"),
    "find_the_mistake_2": (
        "statistics taken as constants",
        "dx = r * d_hat",
        "dx = r * (d_hat - d_hat.mean(MAP, keepdim=True) - x_hat * (d_hat * x_hat).mean(MAP, keepdim=True))",
    ),
    "find_the_mistake_3": (ROTATION, "w.transpose(0, 1))", "w.flip(2, 3).transpose(0, 1))"),
}


def changed(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return path


def filled(folder: Path, name: str, backward: str) -> Path:
    """The exercise with this in the place of what is open."""
    path = write(name, folder / f"{name}.py")
    return changed(path, 'raise NotImplementedError("write this")', backward.replace("\n", "\n        "))


def test_every_exercise_is_listed_and_tried() -> None:
    assert sorted(names()) == sorted(path.stem for path in exercises.HERE.glob("*.py") if path.stem != "__init__")
    assert names() == list(dict.fromkeys(names()))
    assert set(names()) == SOLUTIONS.keys() | FOUND.keys()
    assert {name for name, *_ in MISTAKES} == SOLUTIONS.keys()


@pytest.mark.parametrize("name", SOLUTIONS)
def test_solved(name: str, tmp_path: Path) -> None:
    result = check(filled(tmp_path, name, SOLUTIONS[name]))
    assert (result.solved, result.hint) == (True, "The backward pass is right."), result.report
    assert len(SOLUTIONS[name].splitlines()) <= 15


@pytest.mark.parametrize("name", SOLUTIONS)
def test_open(name: str, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    result = check(write(name, tmp_path / "mine.py"))
    assert torch.equal(torch.get_rng_state(), state)
    assert (result.solved, result.hint, result.report) == (False, "The backward pass is still open.", None)
    assert not [path for path in tmp_path.iterdir() if path.name != "mine.py"]


@pytest.mark.parametrize(("name", "backward", "wrong", "cause"), MISTAKES, ids=[f"{m[0]}: {m[3]}" for m in MISTAKES])
def test_typical_mistakes(name: str, backward: str, wrong: str, cause: str, tmp_path: Path) -> None:
    assert backward != SOLUTIONS[name]
    result = check(filled(tmp_path, name, backward))
    assert not result.solved
    assert result.report is not None
    assert result.report.causes == [cause]
    first, *_, last = result.hint.splitlines()
    assert first.startswith(f"dL/d{wrong} is wrong: ")
    assert last == QUESTIONS[cause]
    assert not gives_away(result.hint, SOLUTIONS[name])


def gives_away(hint: str, solution: str) -> bool:
    """Whether a call or product of the solution stands in the hint."""
    pieces = re.findall(r"\w+\.?\w*\(|delta [*@/] .*", solution)
    assert pieces
    return any(piece in hint for piece in pieces)


@pytest.mark.parametrize("name", FOUND)
def test_find_the_mistake(name: str, tmp_path: Path) -> None:
    cause, wrong, right = FOUND[name]
    path = write(name, tmp_path / "mine.py")
    result = check(path)
    assert not result.solved
    assert result.report is not None
    assert result.report.causes == [cause]
    assert {f.input for f in result.report.findings if f.kind == "wrong"} == {"x"}
    assert result.hint.splitlines()[-1] == QUESTIONS[cause]
    assert right not in result.hint
    assert check(changed(path, wrong, right)).solved


def test_questions_are_of_causes_that_the_audit_names() -> None:
    audit = exercises.HERE.parent / "audit"
    text = "".join(path.read_text() for path in audit.glob("*.py"))
    assert not [cause for cause in QUESTIONS if f'"{cause}"' not in text]
    assert all(question.endswith("?") for question in QUESTIONS.values())


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write("sigmoid") == Path("sigmoid.py")
    Path("sigmoid.py").write_text("mine")
    with pytest.raises(FileExistsError, match=r"sigmoid\.py"):
        write("sigmoid")
    assert Path("sigmoid.py").read_text() == "mine"
    with pytest.raises(ValueError, match="exercise: tanh is not one of sigmoid, linear"):
        write("tanh")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = (\n", r" fails in line 2: SyntaxError: '\(' was never closed"),
        ("import torch\n\nx = torch.nothing\n", " fails in line 3: AttributeError: module 'torch' has no"),
        ("def g():\n    1 / 0\n\n\ng()\n", " fails in line 2: ZeroDivisionError: division by zero"),
        ("raise SystemExit\n", " fails in line 1: SystemExit"),
        ("import torch\n\nf = torch.sin\n", "must have a function f and a tuple INPUTS"),
        ("INPUTS = ((2, 3),)\n", "must have a function f and a tuple INPUTS"),
        ("INPUTS = ((2, 3),)\n\n\ndef f(x):\n    return x @ x\n", "f fails on these inputs"),
    ],
)
def test_broken_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        check(path)
    assert "\n" not in str(raised.value)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.py", tmp_path):
        with pytest.raises(ValueError, match="cannot be read"):
            check(path)


@pytest.mark.parametrize(
    ("backward", "hint"),
    [
        (LINEAR.replace("delta @ w", "delta @ w.T"), "The backward pass fails in line 34: mat1 and mat2 shapes"),
        (LINEAR.replace(", delta.sum(0)", ""), "The backward pass fails: .* number of gradients"),
        (LINEAR.replace("delta.T @ x", "x.T @ delta"), "The backward pass fails: .* invalid gradient at index 1"),
        ('raise NotImplementedError("later")', "The backward pass fails in line 33: later"),
    ],
)
def test_backward_fails(backward: str, hint: str, tmp_path: Path) -> None:
    result = check(filled(tmp_path, "linear", backward))
    assert not result.solved
    assert re.match(hint, result.hint)
    assert "\n" not in result.hint


def test_a_file_is_read_anew(tmp_path: Path) -> None:
    """Also after a change of no length within a second."""
    path = filled(tmp_path, "sigmoid", SIGMOID.replace("1 - y", "1 + y"))
    assert not check(path).solved
    assert check(changed(path, "1 + y", "1 - y")).solved


def run(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    exercise.add_command(parser.add_subparsers())
    options = parser.parse_args(["exercise", *argv])
    return options.run(options)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == names()
    assert max(map(len, lines)) <= 100
    assert all(line.endswith(".") for line in lines)
    assert run("sigmoid") == 0
    assert "python -m manualbp exercise --check sigmoid.py" in capsys.readouterr().out
    assert run("--check", "sigmoid.py") == 1
    assert capsys.readouterr().out == "The backward pass is still open.\n"
    Path("sigmoid.py").unlink()
    filled(tmp_path, "sigmoid", SIGMOID.replace("1 - y", "y - 1"))
    assert run("--check", "sigmoid.py") == 1
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[-1] == QUESTIONS["sign"]
    Path("sigmoid.py").unlink()
    filled(tmp_path, "sigmoid", SIGMOID)
    assert run("--check", "sigmoid.py") == 0
    assert capsys.readouterr().out == "The backward pass is right.\n"
    with pytest.raises(SystemExit):
        run("sigmoid", "--check", "sigmoid.py")
