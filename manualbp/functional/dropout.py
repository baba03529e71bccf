"""Dropout: each number is left out with probability p, the others grow so that the mean stays.

y = x noise, noise = 0 with probability p, else 1 / (1 - p): its mean is (1 - p) / (1 - p) = 1, so that of y is x.
The noise does not depend on x: y is linear in x, number by number, and dL/dx = delta noise, with the same noise. This
map is its own adjoint: <delta, x noise> = <delta noise, x>.

Letters: x input, y output, delta = dL/dy, eps = dL/d(dx).
"""

from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.functional.activation.in_place import put
from manualbp.functional.checks import require_floating, require_real
from manualbp.functional.rule import ElementwiseRule, LinearRule, run


class Thin(LinearRule, ElementwiseRule):
    """y = x noise. dL/dx = delta noise, the same map; kept: the noise."""

    @staticmethod
    def forward(x: Tensor, noise: Tensor) -> Tensor:
        return x * noise

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        (noise,) = ctx.saved_tensors
        return run(Thin, delta, noise), None


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """torch.nn.functional.dropout with a backward pass by hand.

    input of any shape and floating dtype -> input with each number 0 with probability p, else times 1 / (1 - p); the
    same shape. Without training, or for p = 0, input itself. The noise is that of PyTorch for the same seed, its
    dropout of ones; on CUDA for an input without gaps in memory. inplace: the values are also written into input, which
    is returned. Kept for backward: the noise, not the input. Raises ValueError for p outside [0, 1], TypeError for
    complex numbers, and for integers where noise is drawn.
    Source: Srivastava et al. 2014, sec. 4 and 10; derivation at the head of this file.
    """
    require_real("dropout", input=input)
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p = {p}; it must be a probability from 0 to 1")
    if not training or p == 0:
        return input
    if p < 1 and input.numel():
        require_floating("dropout", input=input)
    y = run(Thin, input, T.dropout(torch.ones_like(input), p))
    return put(input, y) if inplace else y
