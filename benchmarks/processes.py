"""A function in a process of its own, whose memory is nobody else's; and a process that is only in the way."""

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Until its parent is gone, whatever ended that.
SPIN = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"


class DiedError(RuntimeError):
    """The process ended without an answer."""


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), in a new process that has imported these modules and done nothing else.

    Raises DiedError where that process was killed, or raised something: then its traceback is on stderr.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.memory", "benchmarks.capacity"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, function, *args))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        process.join()
        raise DiedError(f"{function.__qualname__}{args}: exit code {process.exitcode}") from None
    finally:
        here.close()
        process.join()


def _answer(pipe: Any, function: Callable[..., Any], *args: Any) -> None:
    pipe.send(function(*args))
    pipe.close()


@contextmanager
def one_core_busy() -> Iterator[None]:
    """Meanwhile another process keeps one core busy, as other people's work does."""
    with subprocess.Popen([sys.executable, "-c", SPIN]) as process:
        try:
            yield
        finally:
            process.kill()
