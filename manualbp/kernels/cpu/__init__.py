"""Kernels in plain C, built on first use by the system's compiler: manualbp/kernels/cpu/*.c.

build.py makes the library, calls.py calls it, operators.py shows it to torch.compile.
"""
