"""torch.nn's activations and dropout, each on the function of manualbp.functional of its name."""

from torch import Tensor, nn

from manualbp import functional as F


class Sigmoid(nn.Sigmoid):
    """torch.nn.Sigmoid on `manualbp.functional.sigmoid`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(nn.Tanh):
    """torch.nn.Tanh on `manualbp.functional.tanh`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class ReLU(nn.ReLU):
    """torch.nn.ReLU on `manualbp.functional.relu`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)


class Hardtanh(nn.Hardtanh):
    """torch.nn.Hardtanh on `manualbp.functional.hardtanh`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)


class ReLU6(nn.ReLU6):
    """torch.nn.ReLU6 on `manualbp.functional.relu6`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(input, self.inplace)


class LeakyReLU(nn.LeakyReLU):
    """torch.nn.LeakyReLU on `manualbp.functional.leaky_relu`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)


class ELU(nn.ELU):
    """torch.nn.ELU on `manualbp.functional.elu`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)


class Softplus(nn.Softplus):
    """torch.nn.Softplus on `manualbp.functional.softplus`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)


class GELU(nn.GELU):
    """torch.nn.GELU on `manualbp.functional.gelu`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)


class SiLU(nn.SiLU):
    """torch.nn.SiLU on `manualbp.functional.silu`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, self.inplace)


class Hardsigmoid(nn.Hardsigmoid):
    """torch.nn.Hardsigmoid on `manualbp.functional.hardsigmoid`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardsigmoid(input, self.inplace)


class Hardswish(nn.Hardswish):
    """torch.nn.Hardswish on `manualbp.functional.hardswish`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardswish(input, self.inplace)


class Softmax(nn.Softmax):
    """torch.nn.Softmax on `manualbp.functional.softmax`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim, _stacklevel=5)


class LogSoftmax(nn.LogSoftmax):
    """torch.nn.LogSoftmax on `manualbp.functional.log_softmax`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim, _stacklevel=5)


class Dropout(nn.Dropout):
    """torch.nn.Dropout on `manualbp.functional.dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace)
