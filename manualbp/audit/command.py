"""What `python -m manualbp audit` does: the audit of a function that stands in a module or a file."""

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
from manualbp.commands import require_new_files, size

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def run(options: argparse.Namespace) -> int:
    """Audit, print, write; CannotAuditError names what the user can mend."""
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
