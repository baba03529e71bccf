"""A random network, drawn from its case's name: 10 to 20 steps, then a head.

`network:SEED:INDEX:STEPS` is the same network cut off after so many steps, to find the step at which a failure starts.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as T
from torch import Tensor, nn

from benchmarks.fuzz_blocks import Branches, Gate, Norm2d, NormAct, Residual
from benchmarks.fuzz_draw import Draw, weights

# Activations that PyTorch differentiates by their input, so that their output may be changed in place, and the others.
BY_INPUT: list[Callable[..., nn.Module]] = [
    *(
        lambda **k: nn.LeakyReLU(0.2, **k),
        nn.ReLU6,
        nn.Hardtanh,
        nn.SiLU,
        nn.Mish,
        nn.Hardswish,
        nn.ELU,
        nn.CELU,
        nn.SELU,
    ),
    *(nn.Hardsigmoid, lambda **k: nn.Threshold(0.1, 0.0, **k)),
]
BY_OUTPUT = [nn.ReLU, nn.ReLU, nn.ReLU, nn.Sigmoid, nn.Tanh]
NEVER_IN_PLACE = [nn.GELU, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Hardshrink, nn.Softshrink, nn.PReLU]


class Network(nn.Module):
    """Runs its plan: (what, the name of a layer or the number of a kept value)."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: list[tuple[str, Any]] = []

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for what, which in self.plan:
            if what == "layer":
                x = getattr(self, which)(x)
            elif what == "keep":
                kept.append(x)
            elif what == "add":
                x = x + kept[which]
            elif what == "add in place":
                x += kept[which]
            elif what == "concatenate":
                x = torch.cat([x, kept[which]], 1)
            elif what == "function":
                x = getattr(T, which)(x)
            elif what == "function in place":
                x = getattr(T, which)(x, inplace=True)
            elif what == "scale in place":
                x.mul_(which)
            elif what == "larger":
                x = T.interpolate(x, scale_factor=2, mode=which)
            elif what == "mean":
                x = x.mean((2, 3))
        return x


class Builder:
    """The network while it is drawn. C maps of H x H; fresh: whether x may be changed in place in PyTorch."""

    def __init__(self, d: Draw) -> None:
        self.d, self.network = d, Network()
        self.C, self.H, self.fresh = d.choice([1, 3, 3, 4]), d.choice([7, 8, 10, 12]), False
        self.shape = (d.randint(2, 4), self.C, self.H, self.H)
        self.kept: list[tuple[int, int]] = []

    def layer(self, module: nn.Module) -> None:
        name = f"n{len(self.network._modules)}"
        self.network.add_module(name, module)
        self.network.plan.append(("layer", name))

    def activation(self) -> nn.Module:
        """Marks whether its output may be changed."""
        kind = self.d.choice([BY_INPUT, BY_INPUT, BY_OUTPUT, BY_OUTPUT, NEVER_IN_PLACE])
        make = self.d.choice(kind)
        in_place = self.fresh and self.d.chance(0.6) and kind is not NEVER_IN_PLACE
        if in_place and make not in (nn.Sigmoid, nn.Tanh):
            self.fresh = False
            return make(inplace=True)
        self.fresh = kind is not BY_OUTPUT
        return make()

    def norm(self) -> nn.Module:
        C, d = self.C, self.d
        self.fresh = True
        which = d.randrange(9)
        if which == 6 and C % 2 == 0:
            return nn.GroupNorm(2, C, affine=d.chance(0.7))
        if which == 7:
            return d.choice([nn.LayerNorm([C, self.H, self.H]), Norm2d(C), nn.GroupNorm(1, C)])
        if which == 8:
            return nn.InstanceNorm2d(C)
        affine, momentum = d.chance(0.85), d.choice([0.1, 0.1, 0.3, None])
        return nn.BatchNorm2d(C, affine=affine, momentum=momentum, track_running_stats=d.chance(0.85))

    def convolution(self) -> nn.Module:
        d, C = self.d, self.C
        O, k = d.choice([2, 4, 4, 6, 8]), d.choice([1, 2, 3, 3, 3])
        mode: Any = d.choice(["zeros"] * 5 + ["reflect", "circular", "replicate"])
        which = d.randrange(8)
        self.fresh = True
        if which == 0 and self.H <= 8:
            self.H, self.C = 2 * self.H, O
            return nn.ConvTranspose2d(C, O, 2, 2, bias=d.chance(0.5))
        if which == 1:
            return nn.Conv2d(C, C, 3, padding=1, groups=C, bias=d.chance(0.5))
        self.C = O
        if which == 2 and self.H >= 4:
            self.H = (self.H - 1) // 2 + 1
            return nn.Conv2d(C, O, 3, 2, 1, bias=d.chance(0.5), padding_mode=mode)
        if which == 3 or k >= self.H:
            return nn.Conv2d(C, O, k, padding="same", bias=d.chance(0.5), dilation=d.choice([1, 2]))
        self.H = self.H + 2 * (k // 2) - k + 1
        return nn.Conv2d(C, O, k, padding=k // 2, bias=d.chance(0.5), padding_mode=mode)

    def pool(self) -> nn.Module:
        d, H = self.d, self.H
        self.fresh = True
        if H < 4:
            return d.choice([nn.AvgPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1), nn.ZeroPad2d(0), nn.Identity()])
        module, self.H = d.choice(
            [
                (nn.MaxPool2d(2), H // 2),
                (nn.MaxPool2d(3, 2, 1), (H - 1) // 2 + 1),
                (nn.MaxPool2d(2, ceil_mode=True), (H + 1) // 2),
                (nn.AvgPool2d(2), H // 2),
                (nn.AvgPool2d(3, 1, 1, count_include_pad=False), H),
                (nn.AdaptiveAvgPool2d(3), 3),
                (nn.AdaptiveMaxPool2d(4), 4),
            ]
        )
        return module

    def step(self) -> None:
        d, network = self.d, self.network
        which = d.randrange(30)
        if which < 6:
            self.layer(self.convolution())
        elif which < 10:
            self.layer(self.norm())
        elif which < 16:
            self.layer(self.activation())
        elif which < 18:
            self.layer(self.pool())
        elif which == 18:
            self.layer(nn.Identity())
        elif which == 19:
            self.layer(nn.Sequential(self.convolution(), self.norm(), nn.Identity(), self.activation()))
        elif which == 20:
            self.layer(nn.Dropout(0.3, inplace=self.fresh and d.chance(0.5)))
            self.fresh = True
        elif which == 21:
            stride, O = (2 if self.H >= 4 and d.chance(0.4) else 1), self.C if d.chance(0.5) else 4
            form = d.randrange(4)
            self.layer(Residual(self.C, O, stride, form))
            self.C, self.H, self.fresh = O, (self.H - 1) // stride + 1, False
        elif which == 22:
            self.layer(Gate(self.C, d.randrange(4)))
            self.fresh = True
        elif which == 23:
            self.layer(Branches(self.C))
            self.C, self.fresh = self.C + 5, True
        elif which == 24:
            self.layer(nn.Sequential(self.convolution(), NormAct(self.C, self.activation())))
        elif which == 25 and self.H <= 6:
            network.plan.append(("larger", d.choice(["nearest", "bilinear"])))
            self.H, self.fresh = 2 * self.H, True
        elif which == 26:
            names = ["relu", "relu6", "silu", "hardswish", "elu", "leaky_relu"]
            network.plan.append(("function in place" if self.fresh else "function", d.choice(names)))
            self.fresh = False
        elif which == 27 and self.fresh:
            network.plan.append(("scale in place", 0.7))
        elif which == 28 and network._modules:
            self.again()
        else:
            network.plan.append(("keep", None))
            self.kept.append((self.C, self.H))
        self.skip()

    def again(self) -> None:
        """A layer once more, where it takes what there is: the same module at two places."""
        for name, module in list(self.network._modules.items())[-4:]:
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d) and not isinstance(module, NormAct):
                given = module.in_channels if isinstance(module, nn.Conv2d) else module.num_features
                made = module.out_channels if isinstance(module, nn.Conv2d) else given
                if (given, made) == (self.C, self.C) and (
                    isinstance(module, nn.BatchNorm2d) or module.padding == "same"
                ):
                    self.network.plan.append(("layer", name))
                    self.fresh = True
                    return

    def skip(self) -> None:
        fitting = [i for i, (C, H) in enumerate(self.kept) if H == self.H]
        if not fitting or not self.d.chance(0.3):
            return
        i = self.d.choice(fitting)
        if self.kept[i][0] == self.C:
            self.network.plan.append(("add in place" if self.fresh and self.d.chance(0.6) else "add", i))
            self.fresh = True
        elif self.C + self.kept[i][0] <= 16:
            self.network.plan.append(("concatenate", i))
            self.C, self.fresh = self.C + self.kept[i][0], True

    def head(self, d: Draw) -> None:
        if d.chance(0.2):
            return
        if self.H * self.H * self.C <= 64 and d.chance(0.4):
            features = self.H * self.H * self.C
            self.layer(nn.Flatten())
        else:
            features = self.C
            if d.chance(0.5):
                self.layer(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
            else:
                self.network.plan.append(("mean", None))
        between = d.choice([nn.Identity(), nn.BatchNorm1d(6), nn.LayerNorm(6)])
        self.layer(nn.Sequential(nn.Linear(features, 6), between, nn.ReLU(True), nn.Dropout(0.2), nn.Linear(6, 5)))


def drawn(case: str) -> tuple[Network, Tensor, Draw]:
    """The network in float64, its images, and what is drawn further."""
    name, seed, index, *cut = case.split(":")
    d = Draw(f"{name}:{seed}:{index}")
    torch.manual_seed(d.getrandbits(40))
    builder = Builder(d)
    steps = d.randint(10, 20)
    for _ in range(min(steps, int(cut[0]) if cut else steps)):
        builder.step()
    if not cut:
        builder.head(d)
    d = Draw(f"{name}:{seed}:{index}:settings")
    network, x = builder.network.double(), weights(builder.shape, torch.float64, d.random())
    if d.chance(0.3):
        for p in network.parameters():
            p.requires_grad_(d.chance(0.8))
    if d.chance(0.15):
        network.eval()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    if norms and d.chance(0.1):
        d.choice(norms).eval()
    if d.chance(0.25):
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    return network, x.requires_grad_(d.chance(0.5)), d
