"""The command line, a file a command: its options, and the import of what it runs, which waits until it is run.

`import torch` takes seconds. Nothing here needs it, so help and a wrong option are answered at once.
"""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any, NoReturn

WIDTH = 80


class UserError(ValueError):
    """Something that the user can mend: shown as one line, without a traceback, with the exit code 2."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


class Narrow(argparse.HelpFormatter):
    """Help of 80 columns at most, however wide the terminal is."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, width=min(WIDTH, shutil.get_terminal_size().columns) - 2, **settings)


class Raw(Narrow, argparse.RawDescriptionHelpFormatter):
    """Lines that are broken already stay so: a command that is broken in two cannot be copied."""


def shell_name() -> str:
    """What was typed: the script, or the package."""
    script = os.path.basename(sys.argv[0]) in ("manualbp", "manualbp.exe")
    return "manualbp" if script else "python -m manualbp"


def new_command(commands: Any, name: str, help: str, description: str, epilog: str = "", **settings: Any) -> Parser:
    return commands.add_parser(
        name,
        help=help,
        description=fill(description, WIDTH - 2),
        epilog=epilog,
        formatter_class=Raw,
        allow_abbrev=False,
        **settings,
    )


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """A package that cannot be imported is one line that names the extra that installs it."""
    try:
        yield
    except ImportError as error:
        raise UserError(f'{error}; this needs what an extra installs: pip install "manualbp[{extra}]"') from error


def size(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*)*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: it must be positive numbers with x between them, as 8x3x224x224")
    return tuple(map(int, text.split("x")))


def positive(text: str) -> int:
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: it must be a positive number")
    return int(text)


def require_new_files(json: Path | None, picture: Path | None) -> None:
    """UserError, before anything is computed, where a file cannot be made or would be written over."""
    for name, path in (("--json", json), ("--plot", picture)):
        if path is not None:
            require_new_file(name, path)
    if picture is None:
        return
    if json is not None and json.resolve() == picture.resolve():
        raise UserError(f"argument --plot: {picture} is the file of --json, too")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('argument --plot: it needs matplotlib: pip install "manualbp[train]"') from error
    endings = Figure().canvas.get_supported_filetypes()
    if picture.suffix.removeprefix(".").lower() not in endings:
        raise UserError(f"argument --plot: {picture}: it must end in one of .{', .'.join(sorted(endings))}")


def require_new_file(argument: str, path: Path) -> None:
    if path.exists():
        raise UserError(f"argument {argument}: {path} exists already")
    if not path.parent.is_dir():
        raise UserError(f"argument {argument}: {path.parent} is no folder")
