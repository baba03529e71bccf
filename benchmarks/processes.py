"""A function in a process of its own, whose memory is nobody else's."""

import multiprocessing
from collections.abc import Callable
from typing import Any


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
