"""Pooling, unpooling and resizing."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from manualbp import functional as F


class MaxPool2d(nn.MaxPool2d):
    """torch.nn.MaxPool2d on `manualbp.functional.max_pool2d`."""

    def forward(self, input: Tensor) -> Any:
        return F.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )


class AvgPool2d(nn.AvgPool2d):
    """torch.nn.AvgPool2d on `manualbp.functional.avg_pool2d`."""

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
    """torch.nn.AdaptiveMaxPool2d on `manualbp.functional.adaptive_max_pool2d`."""

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """torch.nn.AdaptiveAvgPool2d on `manualbp.functional.adaptive_avg_pool2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)


class MaxUnpool2d(nn.MaxUnpool2d):
    """torch.nn.MaxUnpool2d on `manualbp.functional.max_unpool2d`."""

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class Upsample(nn.Upsample):
    """torch.nn.Upsample on `manualbp.functional.interpolate`."""

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
    """torch.nn.UpsamplingNearest2d on `manualbp.functional.interpolate`."""

    forward = Upsample.forward


class UpsamplingBilinear2d(nn.UpsamplingBilinear2d):
    """torch.nn.UpsamplingBilinear2d on `manualbp.functional.interpolate`."""

    forward = Upsample.forward
