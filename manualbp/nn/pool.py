"""Pooling, unpooling and resizing."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from manualbp import functional as F


class MaxPool2d(nn.MaxPool2d):
    """torch.nn.MaxPool2d on `manualbp.functional.max_pool2d`.

        y[n,c,i,j] = x[n,c] at place[n,c,i,j], that of the largest value of the window
        dL/dx[n,c,h,k] = sum of delta[n,c,i,j] over the windows whose place is (h, k)

    Shapes: x [N, C, H, W] or [C, H, W] -> y [N, C, I, J] or [C, I, J].
    Kept for backward: the place, one byte a window of at most 256 pixels; with return_indices 8 bytes. Not x.
    Read: functional/pool.py; lecture 001, eq. 1.6; lecture 004, eq. 4.8.
    """

    def forward(self, input: Tensor) -> Any:
        return F.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )


class AvgPool2d(nn.AvgPool2d):
    """torch.nn.AvgPool2d on `manualbp.functional.avg_pool2d`.

        y[n,c,i,j] = 1/m^2 sum of x over the window
        dL/dx[n,c,h,k] = 1/m^2 sum of delta[n,c,i,j] over the windows that see (h, k)

    Shapes: x [N, C, H, W] or [C, H, W] -> y [N, C, I, J] or [C, I, J]. Kept for backward: nothing but the extents.
    Read: functional/pool.py; lecture 001, eq. 1.7.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AdaptiveMaxPool2d(nn.AdaptiveMaxPool2d):
    """torch.nn.AdaptiveMaxPool2d on `manualbp.functional.adaptive_max_pool2d`.

        y[n,c,i,j] = x[n,c] at index[n,c,i,j], that of the largest value of window (i, j) of I x J
        dL/dx[n,c,h,k] = sum of delta[n,c,i,j] over the windows whose index is that of (h, k)

    Shapes: x [N, C, H, W] or [C, H, W] -> y [N, C, I, J] or [C, I, J]. Kept for backward: the index, not x.
    Read: functional/adaptive.py; lecture 001, eq. 1.6.
    """

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """torch.nn.AdaptiveAvgPool2d on `manualbp.functional.adaptive_avg_pool2d`.

        y = A x B^T    dL/dx = A^T delta B    A[i,h] = [window i sees h] / (pixels of window i); B likewise for columns

    Shapes: x [N, C, H, W] or [C, H, W] -> y [N, C, I, J] or [C, I, J]. Kept for backward: nothing but the extents.
    Read: functional/adaptive.py; lecture 001, eq. 1.7.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)


class MaxUnpool2d(nn.MaxUnpool2d):
    """torch.nn.MaxUnpool2d on `manualbp.functional.max_unpool2d`.

        y[n,c] at index[n,c,i,j] = x[n,c,i,j], else 0    dL/dx[n,c,i,j] = delta[n,c] at index[n,c,i,j]

    Shapes: x and index [N, C, I, J] or [C, I, J] -> y [N, C, H, W] or [C, H, W]. Kept for backward: the index, not x.
    Read: functional/unpool.py; Zeiler and Fergus 2014, sec. 2.1.
    """

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class Upsample(nn.Upsample):
    """torch.nn.Upsample on `manualbp.functional.interpolate`.

        y = A x B^T    dL/dx = A^T delta B    A and B: the weights of rows and columns, which do not depend on x

    Shapes: x [N, C, H, W] -> y [N, C, I, J], or one or three axes. Kept for backward: nothing but the extents and the
    factors.
    Read: functional/resize.py; Long, Shelhamer and Darrell 2015, sec. 3.3; Keys 1981.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            recompute_scale_factor=self.recompute_scale_factor,
        )


class UpsamplingNearest2d(nn.UpsamplingNearest2d):
    """torch.nn.UpsamplingNearest2d on `manualbp.functional.interpolate`.

        y = A x B^T    dL/dx = A^T delta B    A and B: the weights of rows and columns, which do not depend on x

    Shapes: x [N, C, H, W] -> y [N, C, I, J]. Kept for backward: nothing but the extents and the factors.
    Read: functional/resize.py; Long, Shelhamer and Darrell 2015, sec. 3.3.
    """

    forward = Upsample.forward


class UpsamplingBilinear2d(nn.UpsamplingBilinear2d):
    """torch.nn.UpsamplingBilinear2d on `manualbp.functional.interpolate`.

        y = A x B^T    dL/dx = A^T delta B    A and B: the weights of rows and columns, which do not depend on x

    Shapes: x [N, C, H, W] -> y [N, C, I, J]. Kept for backward: nothing but the extents and the factors.
    Read: functional/resize.py; Long, Shelhamer and Darrell 2015, sec. 3.3.
    """

    forward = Upsample.forward
