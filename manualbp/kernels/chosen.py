"""Which kernel serves a call of manualbp.functional, for those who want to know; kernels/cpu/choice.py chooses."""

from typing import Any

import torch
from torch import Tensor

from manualbp.kernels.cpu import build, calls, choice
from manualbp.kernels.geometry import convolution

FACES = {
    "conv1d": ("correlate", "full_convolve", "kernel_gradient"),
    "conv2d": ("correlate", "full_convolve", "kernel_gradient"),
    "conv3d": ("correlate", "full_convolve", "kernel_gradient"),
    "max_pool2d": ("forward", "backward"),
    "avg_pool2d": ("forward", "backward"),
    "batch_norm": ("forward", "backward"),
    "relu": ("forward", "backward"),
}


def chosen(op: str, input: Tensor, weight: Tensor | None = None, **settings: Any) -> dict[str, str]:
    """Which kernel makes each face of `op` for such an input: its name, or "torch" and why.

    op: a name of FACES; input and weight as the function of that name in manualbp.functional takes them, their numbers
    do not matter; settings: a convolution's stride, padding, dilation and groups. Returns, for a convolution, what
    makes "correlate" (the output), "full_convolve" (the input's gradient) and "kernel_gradient", else "forward" and
    "backward". Nothing is computed, but the kernels are built where they are not. Raises ValueError for another op,
    and for shapes and settings that do not fit.

        >>> chosen("conv2d", torch.empty(8, 64, 32, 32), torch.empty(64, 64, 3, 3), padding=1)["correlate"]
        'winograd, 4 x 4'
    """
    if op not in FACES:
        raise ValueError(f"chosen: op = {op!r}; it must be one of {', '.join(map(repr, FACES))}")
    reason = _why_not(input)
    if reason:
        return dict.fromkeys(FACES[op], f"torch: {reason}")
    if not op.startswith("conv"):
        return dict.fromkeys(FACES[op], "compiled")
    if weight is None:
        raise ValueError(f"chosen: weight is missing; {op} has one")
    how = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **settings}
    g = convolution(op, input.shape, weight.shape, **how, axes=int(op[4]))
    N = input.shape[0] if input.ndim == weight.ndim else 1
    of = input.dtype, g, N, input.shape[1 - weight.ndim], weight.shape[0]
    kernels = {face: choice.of_convolution(face, *of) for face in FACES[op]}
    return {face: "torch: it is as fast, or faster" if name == choice.TORCH else name for face, name in kernels.items()}


def _why_not(t: Tensor) -> str:
    """Why no compiled kernel serves such a tensor; empty where one may."""
    if not t.is_cpu:
        return f"the compiled kernels are a CPU's, and input is on {t.device}"
    if t.dtype == torch.float64:
        return "in float64 exactness counts"
    if t.dtype not in calls.KIND:
        return f"the compiled kernels have no {t.dtype}"
    return build.why_not()
