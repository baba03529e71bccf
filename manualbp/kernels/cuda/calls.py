"""How the Triton kernels are called: for which tensors, and on which card."""

import logging
from functools import cache
from os import environ
from typing import Any

import torch
from torch import Tensor, nn

from manualbp.kernels.geometry import Geometry
from manualbp.kernels.layout import CHANNELS_LAST
from manualbp.kernels.transforms import followed, in_a_dispatch_mode, recorded

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PLAIN = (Tensor, nn.Parameter)

# The cards, by compute capability, on which conv.py was measured to be faster than windows that are built, and for
# which dtypes. So far it was measured on none.
FASTER: dict[tuple[int, int], tuple[torch.dtype, ...]] = {}

# Batch norm's activations.
PHI = ("", "relu")

# From this offset on, offsets take 64 bits; a block may reach a bit beyond the last number.
FAR = 2**30


@cache
def works(card: int) -> bool:
    """Whether Triton is there and makes kernels for this card: it needs a C compiler, as torch.compile does."""
    if environ.get("MANUALBP_KERNELS") == "torch" or torch.version.cuda is None:
        return False
    try:
        from manualbp.kernels.cuda.norm import affine

        affine(torch.ones(1, 1, device=f"cuda:{card}"), torch.ones(1, device=f"cuda:{card}"), None)
        return torch.cuda.get_device_capability(card) >= (8, 0)  # the first that know bfloat16
    except Exception as reason:  # whatever Triton, its compiler or the system's raises
        logging.getLogger(__name__).info("no Triton kernels on card %d, PyTorch's operations instead: %r", card, reason)
        return False


def serves(*tensors: Tensor | None) -> bool:
    """Whether the Triton kernels may be given these: plain tensors of one dtype on one card, which nothing derives.

    What follows the operations is given PyTorch's own: torch.compile makes kernels of them itself.
    """
    some = [t for t in tensors if t is not None]
    if not some[0].is_cuda or followed() or recorded() or in_a_dispatch_mode() or torch.is_grad_enabled():
        return False
    dtype, device = some[0].dtype, some[0].device
    if dtype not in DTYPES:
        return False
    for t in some:
        if type(t) not in PLAIN or (t.dtype, t.device) != (dtype, device) or t.is_neg() or t._is_zerotensor():
            return False
    return works(some[0].get_device())


def serves_norm(x: Tensor, *of_maps: Tensor | None, delta: Tensor | None = None) -> bool:
    """Whether norm.py may be given these, what belongs to maps in float32."""
    some = [t for t in of_maps if t is not None]
    if x.ndim < 2 or x.numel() == 0 or not serves(x, delta):
        return False
    return not some or (some[0].dtype == torch.float32 and some[0].device == x.device and serves(*some))


def serves_kernel_gradient(x: Tensor, delta: Tensor, g: Geometry) -> bool:
    """Whether conv.py is chosen. Its smallest tile has 16 maps; fewer in a group would waste most of it."""
    if not FASTER or len(g.w_size) != 2 or min(x.shape[1], delta.shape[1]) < 16 * g.groups or not serves(x, delta):
        return False
    return x.dtype in FASTER.get(torch.cuda.get_device_capability(x.device), ())


def far(*tensors: Tensor) -> bool:
    """Whether an offset in one of the tensors takes 64 bits."""
    return any(sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) >= FAR for t in tensors)


def ordered(t: Tensor, last: bool) -> Tensor:
    """t side by side in memory, in channels_last or not."""
    return t.contiguous(memory_format=CHANNELS_LAST[t.ndim] if last else torch.contiguous_format)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
    """Run a kernel on the card of its first tensor."""
    with torch.cuda.device_of(args[0]):
        kernel[grid](*args, **constants)
