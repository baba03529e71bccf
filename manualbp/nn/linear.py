"""The fully connected layer."""

from torch import Tensor, nn

from manualbp import functional as F


class Linear(nn.Linear):
    """torch.nn.Linear on `manualbp.functional.linear`.

        y = x w^T + b    dL/dx = delta w    dL/dw = delta^T x    dL/db[o] = sum of delta over all but o

    Shapes: x [..., I], weight [O, I], bias [O] -> y [..., O].
    Kept for backward: x if the gradient of weight is asked for, weight if that of x is; nothing for bias.
    Read: functional/linear.py; lecture 003, eq. 3.2, 3.3 and 3.4.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)
