"""The command line: `python -m manualbp`, or the script `manualbp`. What a command is stands in manualbp.commands."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import manualbp
from manualbp.commands import (
    Parser,
    Raw,
    UserError,
    audit,
    exercise,
    explain,
    export,
    kernels,
    memory,
    predict,
    shell_name,
    test,
    train,
)

COMMANDS = (train, predict, test, export, audit, explain, exercise, memory, kernels)
__all__ = ["UserError", "leave", "main", "script"]


def main(argv: Sequence[str] | None = None, name: str | None = None) -> int:
    """Run the command with these arguments (the process's own where None) and return its exit code.

    name: what the messages of `train` call it, if not by what was typed.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv[:1] == ["train"]:  # jsonargparse has its options
            if not {"-h", "--help"} & {*argv}:
                load()
            return train.run(argv[1:], name or f"{shell_name()} train")
        options = build_parser().parse_args(argv)
        load()
        return options.run(options) or 0
    except BrokenPipeError:  # the reader, as `head`, has seen enough; Python would complain again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"{name or 'manualbp'}: error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def load() -> None:
    """What `import manualbp` gives elsewhere: where this process is the command, it was put off until now."""
    if manualbp._waits:
        importlib.reload(manualbp)


def build_parser() -> Parser:
    parser = Parser(
        prog=shell_name(),
        description="Convolutional networks trained on gradients that were derived by hand.",
        epilog=memory.EXAMPLE,
        formatter_class=Raw,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"manualbp {manualbp.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_command(commands)
    return parser


def leave(code: int) -> NoReturn:
    """End the process. One of several does so at once: PyTorch's threads may abort it while Python tidies up."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def script() -> NoReturn:
    leave(main())


if __name__ == "__main__":
    script()
