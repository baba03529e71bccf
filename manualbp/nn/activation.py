"""torch.nn's activations and dropout, each on the function of manualbp.functional of its name."""

from torch import Tensor, nn

from manualbp import functional as F


class Sigmoid(nn.Sigmoid):
    """torch.nn.Sigmoid on `manualbp.functional.sigmoid`.

        y = 1 / (1 + exp(-x))    dL/dx = delta y (1 - y)

    Shapes: x and y of any one shape. Kept for backward: y.
    Read: functional/activation/sigmoid.py; lecture 004, eq. 4.4.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(nn.Tanh):
    """torch.nn.Tanh on `manualbp.functional.tanh`.

        y = tanh x    dL/dx = delta (1 - y^2)

    Shapes: x and y of any one shape. Kept for backward: y.
    Read: functional/activation/sigmoid.py; lecture 003, eq. 3.2.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Softsign(nn.Softsign):
    """torch.nn.Softsign on `manualbp.functional.softsign`.

        y = x / (1 + |x|)    dL/dx = delta / (1 + |x|)^2

    Shapes: x and y of any one shape. Kept for backward: x.
    Read: functional/activation/sigmoid.py; Glorot and Bengio 2010.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.softsign(input)


class ReLU(nn.ReLU):
    """torch.nn.ReLU on `manualbp.functional.relu`.

        y = max(x, 0)    dL/dx = delta [y > 0]

    Shapes: x and y of any one shape. Kept for backward: y.
    Read: functional/activation/relu.py; lecture 003, eq. 3.2.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)


class Hardtanh(nn.Hardtanh):
    """torch.nn.Hardtanh on `manualbp.functional.hardtanh`.

        y = min(max(x, low), high)    dL/dx = delta [low < y < high]

    Shapes: x and y of any one shape. Kept for backward: a bit a number.
    Read: functional/activation/piecewise_linear.py; Collobert 2004.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)


class ReLU6(nn.ReLU6):
    """torch.nn.ReLU6 on `manualbp.functional.relu6`.

        y = min(max(x, 0), 6)    dL/dx = delta [0 < y < 6]

    Shapes: x and y of any one shape. Kept for backward: a bit a number.
    Read: functional/activation/piecewise_linear.py; Krizhevsky 2010.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(input, self.inplace)


class LeakyReLU(nn.LeakyReLU):
    """torch.nn.LeakyReLU on `manualbp.functional.leaky_relu`.

        y = x above 0, else a x    dL/dx = delta above 0, else a delta

    Shapes: x and y of any one shape. Kept for backward: a bit a number; in place y, if a is not negative.
    Read: functional/activation/piecewise_linear.py; Maas et al. 2013.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)


class PReLU(nn.PReLU):
    """torch.nn.PReLU on `manualbp.functional.prelu`.

        y = x above 0, else a x    dL/dx = delta above 0, else a delta    dL/da[c] = sum delta x [x <= 0]

    Shapes: x and y [N, C, ...], weight a [1] or [C]. Kept for backward: x and a.
    Read: functional/activation/piecewise_linear.py; He et al. 2015.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)


class ELU(nn.ELU):
    """torch.nn.ELU on `manualbp.functional.elu`.

        y = x above 0, else alpha (exp x - 1)    dL/dx = delta above 0, else delta alpha exp x

    Shapes: x and y of any one shape. Kept for backward: x; in place y, if alpha is not negative.
    Read: functional/activation/exponential.py; Clevert et al. 2015, sec. 3.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)


class SELU(nn.SELU):
    """torch.nn.SELU on `manualbp.functional.selu`.

        y = scale x above 0, else scale alpha (exp x - 1)    dL/dx = delta scale, or delta scale alpha exp x

    Shapes: x and y of any one shape. Kept for backward: x; in place y.
    Read: functional/activation/exponential.py; Klambauer et al. 2017.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.selu(input, self.inplace)


class CELU(nn.CELU):
    """torch.nn.CELU on `manualbp.functional.celu`.

        y = x above 0, else alpha (exp(x / alpha) - 1)    dL/dx = delta above 0, else delta exp(x / alpha)

    Shapes: x and y of any one shape. Kept for backward: x; in place y.
    Read: functional/activation/exponential.py; Barron 2017.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.celu(input, self.alpha, self.inplace)


class Softplus(nn.Softplus):
    """torch.nn.Softplus on `manualbp.functional.softplus`.

        y = log(1 + exp(beta x)) / beta    dL/dx = delta s(beta x), s the sigmoid

    Shapes: x and y of any one shape. Kept for backward: x.
    Read: functional/activation/exponential.py; Dugas et al. 2001.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)


class LogSigmoid(nn.LogSigmoid):
    """torch.nn.LogSigmoid on `manualbp.functional.logsigmoid`.

        y = -log(1 + exp(-x))    dL/dx = delta s(-x), s the sigmoid

    Shapes: x and y of any one shape. Kept for backward: x.
    Read: functional/activation/exponential.py, derived there.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.logsigmoid(input)


class GELU(nn.GELU):
    """torch.nn.GELU on `manualbp.functional.gelu`.

        y = x Phi(x)    dL/dx = delta (Phi(x) + x phi(x)), phi the density of Gauss, Phi its integral

    Shapes: x and y of any one shape. Kept for backward: x.
    Read: functional/activation/gated.py; Hendrycks and Gimpel 2016.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)


class SiLU(nn.SiLU):
    """torch.nn.SiLU on `manualbp.functional.silu`.

        y = x s(x), s the sigmoid    dL/dx = delta s (1 + (1 - s) x)

    Shapes: x and y of any one shape. Kept for backward: x.
    Read: functional/activation/gated.py; Elfwing et al. 2017.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, self.inplace)


class Mish(nn.Mish):
    """torch.nn.Mish on `manualbp.functional.mish`.

        y = x t, t = tanh(softplus x)    dL/dx = delta (t + x (1 - t^2) s(x)), s the sigmoid

    Shapes: x and y of any one shape. Kept for backward: x.
    Read: functional/activation/gated.py; Misra 2019.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.mish(input, self.inplace)


class Hardsigmoid(nn.Hardsigmoid):
    """torch.nn.Hardsigmoid on `manualbp.functional.hardsigmoid`.

        y = min(max(x + 3, 0), 6) / 6    dL/dx = delta [-3 < x < 3] / 6

    Shapes: x and y of any one shape. Kept for backward: a bit a number.
    Read: functional/activation/piecewise_linear.py; Howard et al. 2019.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.hardsigmoid(input, self.inplace)


class Hardswish(nn.Hardswish):
    """torch.nn.Hardswish on `manualbp.functional.hardswish`.

        y = x hardsigmoid(x)    dL/dx = delta (x/3 + 1/2) inside (-3, 3), 0 below, delta above

    Shapes: x and y of any one shape. Kept for backward: x.
    Read: functional/activation/gated.py; Howard et al. 2019.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.hardswish(input, self.inplace)


class Hardshrink(nn.Hardshrink):
    """torch.nn.Hardshrink on `manualbp.functional.hardshrink`.

        y = x, and 0 where |x| <= lambd    dL/dx = delta, and 0 where -lambd <= x <= lambd

    Shapes: x and y of any one shape. Kept for backward: a bit a number.
    Read: functional/activation/shrink.py; Donoho and Johnstone 1994.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.hardshrink(input, self.lambd)


class Softshrink(nn.Softshrink):
    """torch.nn.Softshrink on `manualbp.functional.softshrink`.

        y = x - lambd above lambd, x + lambd below -lambd, else 0    dL/dx = delta, and 0 where -lambd <= x <= lambd

    Shapes: x and y of any one shape. Kept for backward: a bit a number.
    Read: functional/activation/shrink.py; Donoho and Johnstone 1994.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.softshrink(input, self.lambd)


class Threshold(nn.Threshold):
    """torch.nn.Threshold on `manualbp.functional.threshold`.

        y = x where x is above the threshold, else the value    dL/dx = delta, and 0 where x is not above it

    Shapes: x and y of any one shape. Kept for backward: a bit a number.
    Read: functional/activation/shrink.py, derived there.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.threshold(input, self.threshold, self.value, self.inplace)
