"""Small modules with a forward of their own, as people write them: parts of the fuzzer's random networks."""

import torch
import torch.nn.functional as T
from torch import Tensor, nn


class Residual(nn.Module):
    """Two convolutions beside a shortcut, in the forms in which people write it."""

    def __init__(self, C: int, O: int, stride: int, form: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(C, O, 3, stride, 1, bias=False), nn.BatchNorm2d(O)
        self.conv2, self.bn2 = nn.Conv2d(O, O, 3, 1, 1, bias=False), nn.BatchNorm2d(O)
        self.drop = nn.Identity()
        self.relu = nn.ReLU(inplace=form % 2 == 0)
        same = stride == 1 and C == O
        self.downsample = None if same else nn.Sequential(nn.Conv2d(C, O, 1, stride, bias=False), nn.BatchNorm2d(O))
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.drop(self.bn1(self.conv1(x))))
        y = self.bn2(self.conv2(y))
        if self.form < 2:
            y += shortcut
            return self.relu(y)
        return T.relu(y + shortcut) if self.form == 2 else T.leaky_relu_(y.add_(shortcut), 0.1)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, C: int, form: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(C, 2, 1), nn.Conv2d(2, C, 1)
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        y = T.adaptive_avg_pool2d(x, 1) if self.form % 2 else x.mean((2, 3), keepdim=True)
        y = self.fc2(T.silu(self.fc1(y), inplace=True) if self.form < 2 else self.fc1(y).relu_())
        return x * (y.sigmoid() if self.form != 1 else T.hardsigmoid(y, inplace=True))


class Branches(nn.Module):
    """Three ways side by side, concatenated."""

    def __init__(self, C: int) -> None:
        super().__init__()
        self.one, self.three = nn.Conv2d(C, 2, 1), nn.Conv2d(C, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = T.relu(self.bn(self.three(x)), inplace=True)
        return torch.cat([self.one(x), y, T.avg_pool2d(x, 3, stride=1, padding=1)], 1)


class Norm2d(nn.LayerNorm):
    """Layer norm over the maps, as ConvNeXt has it."""

    def forward(self, input: Tensor) -> Tensor:
        y = T.layer_norm(input.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


class NormAct(nn.BatchNorm2d):
    """Batch norm that counts its batches in its own forward, and an activation, as timm has it."""

    def __init__(self, C: int, act: nn.Module) -> None:
        super().__init__(C)
        self.drop, self.act = nn.Identity(), act

    def forward(self, input: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        args = self.running_mean, self.running_var, self.weight, self.bias
        return self.act(self.drop(T.batch_norm(input, *args, self.training, 0.1, self.eps)))
