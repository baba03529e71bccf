"""Padding."""

from torch import Tensor, nn

from manualbp import functional as F


class ZeroPad2d(nn.ZeroPad2d):
    """torch.nn.ZeroPad2d on `manualbp.functional.pad`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, value=self.value)


class ConstantPad2d(nn.ConstantPad2d):
    """torch.nn.ConstantPad2d on `manualbp.functional.pad`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, value=self.value)


class ReflectionPad2d(nn.ReflectionPad2d):
    """torch.nn.ReflectionPad2d on `manualbp.functional.pad`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, mode="reflect")


class ReplicationPad2d(nn.ReplicationPad2d):
    """torch.nn.ReplicationPad2d on `manualbp.functional.pad`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, mode="replicate")


class CircularPad2d(nn.CircularPad2d):
    """torch.nn.CircularPad2d on `manualbp.functional.pad`."""

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        return F.pad(input, self.padding, mode="circular")
