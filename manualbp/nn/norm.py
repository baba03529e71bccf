"""Normalisation."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from manualbp import functional as F
from manualbp.functional.checks import require_real


def batch_norm_settings(layer: _BatchNorm, input: Tensor) -> tuple[Any, ...]:
    """What `batch_norm` takes beside its input, as torch.nn's layers have it: the statistics of the batch in training,

    and where there are no running ones. These are updated in training if they are tracked, with momentum, or
    cumulatively (momentum=None): the batch is counted here.
    """
    require_real("batch_norm", input=input)
    layer._check_input_dim(input)
    momentum = layer.momentum if layer.momentum is not None else 0.0
    if layer.training and layer.track_running_stats and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if layer.momentum is None:
            momentum = 1.0 / float(layer.num_batches_tracked)
    mean, var = layer.running_mean, layer.running_var
    training = layer.training or (mean is None and var is None)
    if layer.training and not layer.track_running_stats:
        mean = var = None
    return mean, var, layer.weight, layer.bias, training, momentum, layer.eps


class BatchNorm1d(nn.BatchNorm1d):
    """torch.nn.BatchNorm1d on `manualbp.functional.batch_norm`.

        y = (x - mu) r w + b    mu the mean of a map over the batch, r = 1 / sqrt(its variance + eps)
        dL/dx = w r (delta - mean(delta) - x^ mean(delta x^))    x^ = (x - mu) r; in evaluation w r delta
        dL/dw = sum delta x^    dL/db = sum delta

    Shapes: x and y [N, C] or [N, C, H], weight and bias [C].
    Kept for backward: x, mu and r (in evaluation x for weight's gradient only), weight if that of x is asked for.
    Read: functional/norm.py; Ioffe and Szegedy 2015, sec. 3.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(input, *batch_norm_settings(self, input))


class BatchNorm2d(nn.BatchNorm2d):
    """torch.nn.BatchNorm2d on `manualbp.functional.batch_norm`.

        y = (x - mu) r w + b    mu the mean of a map over the batch, r = 1 / sqrt(its variance + eps)
        dL/dx = w r (delta - mean(delta) - x^ mean(delta x^))    x^ = (x - mu) r; in evaluation w r delta
        dL/dw = sum delta x^    dL/db = sum delta

    Shapes: x and y [N, C, H, W], weight and bias [C].
    Kept for backward: x, mu and r (in evaluation x for weight's gradient only), weight if that of x is asked for.
    Read: functional/norm.py; Ioffe and Szegedy 2015, sec. 3.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(input, *batch_norm_settings(self, input))


class BatchNorm3d(nn.BatchNorm3d):
    """torch.nn.BatchNorm3d on `manualbp.functional.batch_norm`.

        y = (x - mu) r w + b    mu the mean of a map over the batch, r = 1 / sqrt(its variance + eps)
        dL/dx = w r (delta - mean(delta) - x^ mean(delta x^))    x^ = (x - mu) r; in evaluation w r delta
        dL/dw = sum delta x^    dL/db = sum delta

    Shapes: x and y [N, C, D, H, W], weight and bias [C].
    Kept for backward: x, mu and r (in evaluation x for weight's gradient only), weight if that of x is asked for.
    Read: functional/norm.py; Ioffe and Szegedy 2015, sec. 3.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(input, *batch_norm_settings(self, input))


class LayerNorm(nn.LayerNorm):
    """torch.nn.LayerNorm on `manualbp.functional.layer_norm`.

        y = (x - mu) r w + b    mu the mean of a sample's last axes, r = 1 / sqrt(their variance + eps)
        dL/dx = r (g - mean(g) - x^ mean(g x^))    g = delta w, x^ = (x - mu) r
        dL/dw = sum delta x^    dL/db = sum delta    over the samples

    Shapes: x and y [..., *normalized_shape], weight and bias [*normalized_shape].
    Kept for backward: x, mu and r, and weight if the gradient of x is asked for.
    Read: functional/norm.py; Ba, Kiros and Hinton 2016, sec. 3.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class GroupNorm(nn.GroupNorm):
    """torch.nn.GroupNorm on `manualbp.functional.group_norm`.

        y = (x - mu) r w + b    mu the mean of a group of maps of an image, r = 1 / sqrt(its variance + eps)
        dL/dx = r (g - mean(g) - x^ mean(g x^))    g = delta w, x^ = (x - mu) r
        dL/dw = sum delta x^    dL/db = sum delta    over the images and positions

    Shapes: x and y [N, C, ...], weight and bias [C].
    Kept for backward: x, mu and r, and weight if the gradient of x is asked for.
    Read: functional/norm.py; Wu and He 2018, sec. 3.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
