"""torch.nn's softmax and its logarithm, each on the function of manualbp.functional of its name."""

from torch import Tensor, nn

from manualbp import functional as F


class Softmax(nn.Softmax):
    """torch.nn.Softmax on `manualbp.functional.softmax`.

        y_i = exp(x_i) / sum_k exp(x_k)    dL/dx_j = y_j (delta_j - sum_i delta_i y_i)

    Shapes: x and y of any one shape. Kept for backward: y.
    Read: functional/softmax.py; lecture 004, eq. 4.1.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim, _stacklevel=5)


class LogSoftmax(nn.LogSoftmax):
    """torch.nn.LogSoftmax on `manualbp.functional.log_softmax`.

        y_i = x_i - log sum_k exp(x_k)    dL/dx_j = delta_j - exp(y_j) sum_i delta_i

    Shapes: x and y of any one shape. Kept for backward: y.
    Read: functional/softmax.py; lecture 001, eq. 1.8.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim, _stacklevel=5)
