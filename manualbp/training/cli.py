"""How `train` and train.py end: what they print, and the exit code.

It is 0 if the run is done, 2 if something is to mend, 3 if a loss, a gradient or a weight is not finite, 130 if the run
was interrupted.
"""

import os
import re
import sys
from collections.abc import Sequence

from jsonargparse import ArgumentError

from manualbp.training import NotFiniteError, UserError
from manualbp.training.options import parse


def main(argv: Sequence[str] | None = None, command: str = "train.py") -> int:
    """Train with these arguments (the process's own where None) and return the exit code.

    command: what is typed before the arguments, for its messages.
    """
    name = command.removeprefix("python -m ")
    try:
        parser, options = parse(argv, command)
        # Only now, as it takes seconds to import: a wrong option is answered at once.
        from manualbp.training.run import run

        run(options, parser.dump(options), command)
    except ArgumentError as error:
        return fail(name, named(str(error)))
    except UserError as error:
        # One raised in a process that reads data comes with that process's traceback, itself in the last line.
        return fail(name, str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.UserError: "))
    except NotFiniteError as error:
        return fail(name, str(error), 3) if is_first() else 3
    except KeyboardInterrupt as interrupt:
        if is_first():
            print(f"\n{name}: interrupted{interrupt}", file=sys.stderr)
        return 130
    return 0


def is_first() -> bool:
    """Whether this process is the one of several that says what all of them met."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def named(message: str) -> str:
    """jsonargparse's message with the argument as it is written on the command line."""
    message = re.sub(r'^Parser key "(\w+)"', lambda m: f"argument --{m[1].replace('_', '-')}", message)
    return re.sub(r"^(?=Problems parsing config|Option ')", "argument --config: ", message)


def fail(name: str, message: str, code: int = 2) -> int:
    print(f"{name}: error:", " ".join(message.split()), file=sys.stderr)
    return code
