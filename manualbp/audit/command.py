"""python -m manualbp audit: the audit of a function that stands in a module or a file."""

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from manualbp.audit import audit
from manualbp.audit.subject import CannotAuditError, line_of

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
EXAMPLE = """\
examples:
  python -m manualbp audit torch.nn.functional:conv2d --inputs 2x3x8x8 4x3x3x3
  python -m manualbp audit mine.py:Square --inputs 3x4 --reference torch:square
Functions that need settings, in Python:
  print(manualbp.audit(lambda x: f(x, stride=2), (2, 3, 8, 8)))"""


def add_command(commands: Any) -> None:
    command = commands.add_parser(
        "audit",
        help="whether a backward pass is right, where it is wrong, and why",
        description="Tell whether the backward pass of a function is right, and if not where it is wrong\n"
        "and a likely cause. Exit code 0: it is right; 1: it is wrong, or it cannot be told;\n"
        "2: it cannot be audited.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run)
    add = command.add_argument
    add(
        "function",
        metavar="MODULE:NAME",
        help="a function, a torch.autograd.Function, or a Module or what makes one; a file, as mine.py:NAME, will do",
    )
    add("--inputs", metavar="SIZE", nargs="+", required=True, help="of each input, as 2x3x8x8: normal numbers")
    add("--reference", metavar="MODULE:NAME", help="a trusted function of the same inputs, to put beside it")
    add("--dtype", choices=DTYPES, help="of the inputs (default: float64 if the function takes it, else float32)")
    add("--device", default="cpu", help="of the inputs, as cuda (default: cpu)")
    add("--skip", metavar="CHECK", nargs="+", default=[], help="checks to leave out, by the names in the report")
    add("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")
    add("--json", metavar="FILE", type=Path, help="also write the report to a new FILE")
    add("--plot", metavar="FILE", type=Path, help="also draw true and given gradient into a new FILE, as a.png")


def run(options: argparse.Namespace) -> int:
    """Audit, print, write; CannotAuditError names what the user can mend."""
    from manualbp.__main__ import require_new_files, size

    require_new_files(options.json, options.plot)
    sizes = []
    for text in options.inputs:
        try:
            sizes.append(size(text))
        except argparse.ArgumentTypeError as error:
            raise CannotAuditError(f"argument --inputs: {error}") from error
    f, trusted = (t and named(t, a) for t, a in ((options.function, "MODULE:NAME"), (options.reference, "--reference")))
    try:
        numbers = torch.Generator().manual_seed(options.seed)
        inputs = [torch.randn(n, generator=numbers).to(options.device) for n in sizes]
        f = f.to(options.device) if isinstance(f, nn.Module) else f
    except RuntimeError as error:
        raise CannotAuditError(f"argument --device: {options.device}: {line_of(error)}") from error
    settings = {"skip": options.skip, "dtype": DTYPES.get(options.dtype), "seed": options.seed}
    report = audit(f, *inputs, reference=trusted, **settings)
    report.name = options.function
    print(report, flush=True)
    if options.json is not None:
        with options.json.open("x") as file:
            file.write(report.to_json() + "\n")
    if options.plot is not None and report.given is not None:
        report.plot(options.plot)
    elif options.plot is not None:
        print(f"{options.plot} is not drawn: no gradient is wrong, or the inputs are too large")
    return 0 if report else 1


def named(text: str, argument: str) -> Any:
    """What MODULE:NAME, or FILE.py:NAME, is; a class of modules is made."""
    place, colon, name = text.rpartition(":")
    if not (place and colon and name):
        raise CannotAuditError(f"argument {argument}: {text}: it must be as package.module:name, or file.py:name")
    try:
        module = _of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise CannotAuditError(f"argument {argument}: {place} cannot be imported: {line_of(error)}") from error
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise CannotAuditError(f"argument {argument}: {place} has no {name}")
        found = getattr(found, part)
    if isinstance(found, type) and issubclass(found, nn.Module):
        try:
            return found()
        except Exception as error:
            raise CannotAuditError(f"argument {argument}: {text}() fails: {line_of(error)}") from error
    return found


def _of_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError("there is no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and pickles look for it there
    spec.loader.exec_module(module)
    return module
