"""python -m manualbp kernels: which kernels are used on this machine."""

import argparse
from typing import Any

from manualbp.commands import UserError, new_command


def add_command(commands: Any) -> None:
    command = new_command(
        commands,
        "kernels",
        "which kernels are used on this machine, and why",
        "Print which kernels are used on this machine, and why: those in C, which the system's compiler builds on "
        "first use, or PyTorch's own operations.",
        "MANUALBP_KERNELS=torch in the environment has PyTorch's operations used; with\n"
        "MANUALBP_KERNELS=compiled it is an error if the kernels cannot be built.",
    )
    command.set_defaults(run=run)
    command.add_argument("--clear", action="store_true", help="first remove all libraries from the cache")
    command.add_argument("--build", action="store_true", help="build them now, and say how long it took")


def run(options: argparse.Namespace) -> None:
    from manualbp.kernels.cpu import cache, report
    from manualbp.kernels.cpu.compiler import NoKernelsError

    try:
        if options.clear:
            print(f"removed {report.counted(*cache.clear())}")
        if options.build:
            print(report.built())
        print(report.report())
    except (NoKernelsError, ValueError) as error:  # ValueError: of MANUALBP_KERNELS
        raise UserError(str(error)) from error
