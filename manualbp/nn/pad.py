"""Padding."""

from torch import Tensor, nn

from manualbp import functional as F
from manualbp.functional.checks import require_real


class ZeroPad2d(nn.ZeroPad2d):
    """torch.nn.ZeroPad2d on `manualbp.functional.pad`.

        y = x within margins of zeros
        dL/dx = delta without its margins

    Shapes: x [N, C, H, W] or [C, H, W] -> the same with margins. Kept for backward: nothing but the margins.
    Read: functional/pad.py; the zeros of lecture 001, eq. 1.4.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, value=self.value)


class ConstantPad2d(nn.ConstantPad2d):
    """torch.nn.ConstantPad2d on `manualbp.functional.pad`.

        y = x within margins of the value
        dL/dx = delta without its margins

    Shapes: x [N, C, H, W] or [C, H, W] -> the same with margins. Kept for backward: nothing but the margins.
    Read: functional/pad.py; as the zeros of lecture 001, eq. 1.4.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, value=self.value)


class ReflectionPad2d(nn.ReflectionPad2d):
    """torch.nn.ReflectionPad2d on `manualbp.functional.pad`.

        y[i] = x[source(i)], the image mirrored at its first and last pixel
        dL/dx[h] = sum of delta[i] over all i with source(i) = h

    Shapes: x [N, C, H, W] or [C, H, W] -> the same with margins. Kept for backward: nothing but the margins.
    Read: functional/pad.py; derived there.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, mode="reflect")


class ReplicationPad2d(nn.ReplicationPad2d):
    """torch.nn.ReplicationPad2d on `manualbp.functional.pad`.

        y[i] = x[source(i)], the first and the last pixel repeated
        dL/dx[h] = sum of delta[i] over all i with source(i) = h

    Shapes: x [N, C, H, W] or [C, H, W] -> the same with margins. Kept for backward: nothing but the margins.
    Read: functional/pad.py; derived there.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, mode="replicate")


class CircularPad2d(nn.CircularPad2d):
    """torch.nn.CircularPad2d on `manualbp.functional.pad`.

        y[i] = x[source(i)], the image repeated
        dL/dx[h] = sum of delta[i] over all i with source(i) = h

    Shapes: x [N, C, H, W] or [C, H, W] -> the same with margins. Kept for backward: nothing but the margins.
    Read: functional/pad.py; derived there.
    """

    def forward(self, input: Tensor) -> Tensor:
        require_real("pad", input=input)
        self._check_input_dim(input)
        return F.pad(input, self.padding, mode="circular")
