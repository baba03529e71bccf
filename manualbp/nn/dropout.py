"""torch.nn's dropout on the function of manualbp.functional of its name."""

from torch import Tensor, nn

from manualbp import functional as F


class Dropout(nn.Dropout):
    """torch.nn.Dropout on `manualbp.functional.dropout`.

        y = x r, r = 0 with probability p, else 1 / (1 - p)    dL/dx = delta r; in evaluation y = x

    Shapes: x and y of any one shape. Kept for backward: r, the noise.
    Read: functional/dropout.py; Srivastava et al. 2014, sec. 4.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace)
