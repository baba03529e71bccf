"""Exercises on backward passes: a file with the forward pass is written, a student fills it in, and `check` asks back.

Each exercise is a file beside this one, and its name; none has its solution here.
"""

import argparse
import ast
import traceback
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from types import ModuleType
from typing import Any

import torch

from manualbp.audit import CannotAuditError, Report, audit
from manualbp.audit.report import WRONG
from manualbp.audit.subject import line_of, subject_of
from manualbp.text import WIDTH, table

__all__ = ["Result", "check", "names", "write"]

HERE = Path(__file__).parent
# From the easy to the hard.
NAMES = (
    *("sigmoid", "linear", "softmax_cross_entropy", "average_pool", "max_pool", "conv2d", "true_convolution"),
    *("batch_norm", "find_the_mistake_1", "find_the_mistake_2", "find_the_mistake_3"),
)
OPEN = "write this"
# The task is the first derivative.
SKIP = ("second derivative", "forward mode", "vmap")

# What a teacher would ask, by the likely cause; it must not be the answer.
QUESTIONS = {
    "kernel not rotated, or rotated twice": "The numbers fit a kernel that is not rotated, or once too often: through "
    "which tap (p, q) does pixel (h, k) see output (i, j)?",
    "kernel transposed in space": "The numbers fit a kernel whose rows are its columns: which of p and q goes with h?",
    "channels exchanged": "The numbers fit maps in another order: which input map c does w[o, c] read?",
    "height for width": "The numbers are right where height is width: which extent belongs to which axis?",
    "off by one at the border": "The numbers fit a window that is a pixel off: which (h, k) does tap (0, 0) see?",
    "rest of the stride forgotten": "Does the last window end where the image does? What do the pixels behind it get?",
    "stride forgotten": "By how many pixels does the window move from one output to the next?",
    "overlap overwritten": "A pixel may be in several windows: what becomes of what the others send it?",
    "ties all counted": "Where a window has equal numbers, how many of them does y copy, and how many get delta?",
    "divisor missing": "The gradient is too large by a factor: how much does y grow when one pixel grows by 1?",
    "divisor is m, not m^2": "The gradient is too large by a factor: how many pixels does a window have?",
    "constant factor": "The gradient is right but for a factor: where does the forward pass multiply or divide?",
    "sign": "The gradient is right but for its sign: does L grow or fall when the input grows?",
    "bias not summed": "Which outputs does one number of b reach, and do they all send something back?",
    "broadcast not summed": "A number that is used many times: which outputs does it reach?",
    "averaged, not summed": "L changes with each output: does each of them count in full, or as a part of a mean?",
    "first row of delta for all": "Each sample has a delta of its own: which one is used here?",
    "delta ignored": "The gradient does not follow delta: where does the chain rule put it?",
    "no gradient is given": "It gets no gradient: which outputs does it reach?",
    "gradient of another input": "This is the gradient of another input: in which order are they returned?",
    "slope missing": "delta passes as if y were x: how much does y grow when x grows a little?",
    "slope at the output": "The slope is taken at another number than it should be: was x kept, or y?",
    "softmax's sum missing": "Each z is in the sum below the line, too: which outputs does it reach through that?",
    "statistics taken as constants": "When one x grows, do the mean and the variance of its map stay as they are?",
    "variance taken as constant": "The mean is accounted for: what else moves when one x grows?",
    "another formula than forward's": "The slope is another function's: what is the derivative of what forward does?",
    "NaN at a point": "It is not finite somewhere: is there a division by 0, or an exp of a large number?",
    "precision lost": "It is right but for its last digits: is something computed in a smaller dtype?",
    "delta assumed contiguous": "delta may lie in memory in any order, as after a transposition: what assumes one?",
    "delta written to": "delta belongs to others, too: is it changed in place?",
    "buffer not initialised": "It depends on what was in memory: is every number of a new tensor set?",
    "wrong where another input is frozen": "It depends on which other inputs ask for a gradient: which `if` does that?",
}


@dataclass(frozen=True)
class Result:
    """Whether the backward pass is right; where it is wrong and what to ask; the report, if it could be audited."""

    solved: bool
    hint: str
    report: Report | None = None


def names() -> list[str]:
    """The exercises, from the easy to the hard."""
    return [*NAMES]


def write(name: str, path: str | Path | None = None) -> Path:
    """Write the exercise into a new file, ./NAME.py where no path is given, and return its path.

    Raises ValueError for an unknown name, FileExistsError where the file is there.
    """
    if name not in NAMES:
        raise ValueError(f"exercise: {name} is not one of {', '.join(NAMES)}")
    path = Path(f"{name}.py" if path is None else path)
    with path.open("xb") as file:
        file.write((HERE / f"{name}.py").read_bytes())
    return path


def check(path: str | Path) -> Result:
    """Audit `f` of a file at its `INPUTS`, as manualbp.audit.audit takes them; its hint is not the solution.

    Raises ValueError, in one line, where the file cannot be read or run, or has no f and INPUTS.
    """
    path = Path(path)
    module = _loaded(path)
    f, inputs = (module.get(name) for name in ("f", "INPUTS"))
    if not callable(f) or not isinstance(inputs, tuple):
        raise ValueError(f"exercise: {path} must have a function f and a tuple INPUTS, as `write` wrote them")
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            subject_of(f, inputs, 0).pull()
    except CannotAuditError:
        raise
    except Exception as error:
        if isinstance(error, NotImplementedError) and str(error) == OPEN:
            return Result(False, "The backward pass is still open.")
        return Result(False, f"The backward pass fails{_place(error, path)}: {line_of(error)}")
    report = audit(f, *inputs, skip=SKIP)
    return Result(bool(report), _hint(report), report)


def _loaded(path: Path) -> dict[str, Any]:
    """What the file defines. It is run as it stands now: Python's import might take an older one from its cache."""
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except OSError as error:
        raise ValueError(f"exercise: {path} cannot be read: {error.strerror}") from error
    except (Exception, SystemExit) as error:
        why = error.msg if isinstance(error, SyntaxError) else line_of(error)
        raise ValueError(f"exercise: {path} fails{_place(error, path)}: {type(error).__name__}: {why}") from error
    return module.__dict__


def _place(error: BaseException, path: Path) -> str:
    """The last line of the file that led to the error."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    return f" in line {lines[-1]}" if lines else ""


def _hint(report: Report) -> str:
    """Of each input the first that is wrong, then the questions."""
    if report:
        return "The backward pass is right."
    wrong = [finding for finding in report.findings if finding.kind == WRONG]
    if not wrong:
        return f"It cannot be told whether the backward pass is right: {report.findings[0].what}."
    first = {finding.input: finding for finding in reversed(wrong)}
    where = [
        f"{f'dL/d{name}' if name else 'The backward pass'} is wrong: {f.what}." for name, f in reversed(first.items())
    ]
    return "\n".join([*where, *(QUESTIONS.get(cause, f"The likely cause: {cause}.") for cause in report.causes)])


def run_exercise(options: argparse.Namespace) -> int:
    """The exit code: 1 where the backward pass is not right yet."""
    if options.check is not None:
        result = check(options.check)
        print("\n".join(fill(line, WIDTH) for line in result.hint.splitlines()))
        return 0 if result.solved else 1
    if options.name is not None:
        path = write(options.name)
        print(f"{path} is written. Fill in its backward pass, then:\n  python -m manualbp exercise --check {path}")
        return 0
    print("\n".join(table([(name, _task(name)) for name in NAMES], 0, WIDTH)))
    return 0


def _task(name: str) -> str:
    """The first line of an exercise."""
    return (ast.get_docstring(ast.parse((HERE / f"{name}.py").read_bytes())) or "").partition("\n")[0]
