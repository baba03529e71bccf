"""fuse: each kind of neighbours that networks have, the same numbers in fewer bytes."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import manualbp
from manualbp.functional.activation.table import ACTIVATIONS
from manualbp.fuse.recompute import Recipe, factor_again
from manualbp.kernels.geometry import convolution
from tests.fusing import same


class NormAct(nn.BatchNorm2d):
    """Batch norm that counts its batches itself and has its activation inside: one that many networks are made of."""

    def __init__(self, maps: int, activation: nn.Module, keywords: bool = False) -> None:
        super().__init__(maps)
        self.drop, self.act, self.keywords = nn.Identity(), activation, keywords

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.ndim == 4, "images")
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        statistics = self.running_mean, self.running_var
        if self.keywords:
            how = {"weight": self.weight, "bias": self.bias, "training": self.training, "eps": self.eps}
            x = T.batch_norm(x, *statistics, **how)
        else:
            x = T.batch_norm(x, *statistics, self.weight, self.bias, self.training, 0.2, self.eps)
        return self.act(self.drop(x))


class By(nn.Module):
    """Layers, and a forward that is given."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.how = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.how(self, x)


def conv(*layers: nn.Module, maps: int = 6) -> nn.Module:
    """The layers between two convolutions."""
    return nn.Sequential(nn.Conv2d(4, maps, 3, padding=1), *layers, nn.Conv2d(maps, 4, 3))


def gate(how: Callable[[Tensor, Tensor], Tensor], last: nn.Module) -> nn.Module:
    """Squeeze and excitation between batch norm and a convolution."""

    def forward(m: Any, x: Tensor) -> Tensor:
        a = T.silu(m.norm(m.first(x)))
        g = m.last(m.up(torch.relu(m.down(a.mean((2, 3), keepdim=True)))))
        return m.second(how(a, g))

    layers = {"first": nn.Conv2d(4, 8, 1), "norm": nn.BatchNorm2d(8), "down": nn.Conv2d(8, 2, 1)}
    return By(forward, **layers, up=nn.Conv2d(2, 8, 1), last=last, second=nn.Conv2d(8, 4, 3))


def branches(join: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    layers: dict[str, nn.Module] = {"first": nn.Conv2d(4, 6, 1), "second": nn.Conv2d(4, 6, 3, padding=1)}
    layers |= {"norm": nn.BatchNorm2d(6), "norm2": nn.BatchNorm2d(6), "wide": nn.Conv2d(12, 4, 3)}
    return By(join, **layers, last=nn.Conv2d(6, 4, 3))


def of_two(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return m.norm(m.first(x)), m.norm2(m.second(x))


def upwards(convolution: Any, transposed: Any, norm: Any) -> nn.Module:
    return nn.Sequential(
        *(convolution(4, 6, 3), norm(6), nn.ReLU(True), transposed(6, 6, 3, 2, output_padding=1, bias=False)),
        *(norm(6), nn.LeakyReLU(0.2, True), convolution(6, 4, 2, groups=2), norm(4), nn.ELU(), convolution(4, 2, 1)),
    )


def by_functions(m: Any, x: Tensor) -> Tensor:
    y = T.leaky_relu(m.norm(m.first(x)), 0.2, True)
    y = T.conv2d(y, m.last.weight, m.last.bias, padding=1)
    y = T.dropout(T.elu(T.conv2d(y, m.first.weight), alpha=0.5), 0.0, m.training)
    return T.conv2d(input=T.hardtanh(y, -0.5, 0.5), weight=m.last.weight)


IMAGES = (3, 4, 9, 8)
# The model, the shape of its input, and at most how much of what PyTorch keeps is kept.
KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "counts its batches": (lambda: conv(NormAct(6, nn.ReLU(True)), nn.Conv2d(6, 6, 1)), IMAGES, 0.9),
    "counts, by keywords": (lambda: conv(NormAct(6, nn.SiLU(True), keywords=True)), IMAGES, 0.6),
    "identities between": (
        lambda: conv(nn.BatchNorm2d(6), nn.Identity(), nn.Dropout(0.0), nn.ReLU(), nn.Identity(), nn.Dropout2d(0.0)),
        IMAGES,
        0.7,
    ),
    "a linear bottleneck": (lambda: conv(nn.BatchNorm2d(6)), IMAGES, 0.7),
    "a sum of bottlenecks": (lambda: branches(lambda m, x: m.last(sum(of_two(m, x), 0 * x.mean()))), IMAGES, 1.0),
    "a sum": (lambda: branches(lambda m, x: m.last(torch.add(*of_two(m, x)))), IMAGES, 0.75),
    "a smooth sum": (lambda: branches(lambda m, x: m.last(T.silu(torch.add(*of_two(m, x))))), IMAGES, 0.6),
    "a concatenation": (
        lambda: branches(lambda m, x: m.wide(torch.cat([part.relu() for part in of_two(m, x)], dim=1))),
        IMAGES,
        0.6,
    ),
    "a concatenation, then activated": (
        lambda: branches(lambda m, x: m.wide(T.hardswish(torch.cat(of_two(m, x), 1)))),
        IMAGES,
        0.6,
    ),
    "a gate": (lambda: gate(lambda a, g: a * g, nn.Sigmoid()), IMAGES, 0.5),
    "a gate first, hard": (lambda: gate(lambda a, g: g * a, nn.Hardsigmoid()), IMAGES, 0.5),
    "a gate in place": (lambda: gate(lambda a, g: a.mul_(g), nn.Sigmoid()), IMAGES, 0.6),
    "a gate of each pixel": (
        lambda: gate(lambda a, g: a * (g * a.mean(1, keepdim=True)).sigmoid(), nn.Tanh()),
        IMAGES,
        1.0,
    ),
    "a gated sum": (lambda: gate(lambda a, g: T.relu(a * g.expand_as(a) + a), nn.Sigmoid()), IMAGES, 0.7),
    "functions": (lambda: branches(by_functions), IMAGES, 0.7),
    "one axis": (lambda: upwards(nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d), (3, 4, 16), 0.75),
    "two axes": (lambda: upwards(nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d), IMAGES, 0.75),
    "three axes": (lambda: upwards(nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d), (2, 4, 5, 6, 5), 0.75),
    "linear": (
        lambda: nn.Sequential(
            nn.Linear(4, 16), nn.GELU(), nn.Dropout(0.0), nn.Linear(16, 4), nn.SiLU(), nn.Linear(4, 2)
        ),
        (3, 5, 4),
        0.7,
    ),
    "linear, batch norm": (
        lambda: nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Mish(), nn.Linear(16, 4)),
        (9, 4),
        0.7,
    ),
    **{
        f"{kind}": (functools.partial(conv, nn.BatchNorm2d(6), phi), IMAGES, 0.7)
        for kind, phi in [
            *((str(phi), phi) for phi in (nn.LeakyReLU(0.2), nn.LeakyReLU(-0.2), nn.LeakyReLU(0.2, True))),
            *((str(phi), phi) for phi in (nn.ELU(0.5), nn.ELU(1.0, True), nn.CELU(2.0), nn.SELU(), nn.Mish(True))),
            *((str(phi), phi) for phi in (nn.Hardsigmoid(), nn.Softplus(2.0, 1.5), nn.Hardtanh(-0.5, 0.7, True))),
            *((str(phi), phi) for phi in (nn.SiLU(True), nn.Hardswish(True), nn.ReLU6(True), nn.Softsign())),
            *((str(phi), phi) for phi in (nn.LogSigmoid(), nn.GELU("tanh"), nn.Sigmoid(), nn.Tanh())),
        ]
    },
    "LeakyReLU alone": (lambda: conv(nn.LeakyReLU(0.2, True)), IMAGES, 1.0),
    "ReLU in place": (lambda: conv(nn.ReLU(True)), IMAGES, 1.0),
}


def numbers(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, the gradients of x and of the parameters, and the buffers."""
    x = x.clone().requires_grad_()
    y = model(x)
    delta = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    gradients = torch.autograd.grad(y, [x, *model.parameters()], delta, allow_unused=True, materialize_grads=True)
    return [y.detach(), *gradients, *(b.clone() for b in model.buffers())]


def made(name: str) -> tuple[nn.Module, Tensor, float]:
    torch.manual_seed(0)
    make, shape, most = KINDS[name]
    model = copy.deepcopy(make()).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model, torch.randn(shape, dtype=torch.float64), most


@pytest.mark.parametrize("convert", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_the_same_numbers(name: str, convert: bool) -> None:
    model, x, _ = made(name)
    expected = copy.deepcopy(model)
    for module in expected.modules():
        if type(module) is nn.Hardsigmoid:  # PyTorch's takes 1/6 in float32
            module.forward = lambda x: T.relu6(x + 3) / 6
    if convert:
        manualbp.convert(model)
    report = manualbp.fuse(model)
    assert report.converted, str(report)
    for training in (True, False):
        assert same(numbers(model.train(training), x), numbers(expected.train(training), x))


@pytest.mark.parametrize("name", KINDS)
def test_fewer_bytes(name: str) -> None:
    model, x, most = made(name)
    kept = manualbp.memory(model, x).totals
    assert kept["fused"] <= most * kept["pytorch"]


SHAPES = {
    "correlate": ((2, 2, 4, 3), (3, 2, 2, 2), (3,)),
    "full_convolve": ((2, 2, 4, 3), (2, 3, 2, 2), (3,)),
    "linear": ((4, 3), (2, 3), (2,)),
    "product": ((2, 2, 3, 2), (2, 2, 1, 1), None),
}


@pytest.mark.parametrize("form", SHAPES)
def test_a_factor_that_is_computed_again_has_all_derivatives(form: str) -> None:
    """By finite differences: first and second derivatives of two layers of one value, and forward mode.

    The gate is of the recipe, too.
    """
    torch.manual_seed(0)
    x_shape, w_shape, b_shape = SHAPES[form]
    g = None
    if form == "correlate":
        g = convolution("conv2d", x_shape, w_shape, 1, 1, 1, 1)
    elif form == "full_convolve":
        g = convolution("conv2d", (2, 3, 5, 4), w_shape, 1, 0, 1, 1)
    recipe = Recipe(ACTIVATIONS["tanh"], ("plain", "plain"), gated=True)
    shapes = [x_shape, x_shape, (x_shape[0], *[1] * (len(x_shape) - 1)), w_shape, *([b_shape] if b_shape else [])]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def f(x: Tensor, y: Tensor, gate: Tensor, w: Tensor, b: Tensor | None = None) -> tuple[Tensor, ...]:
        layers = [(form, g, w, b), (form, g, w.cos(), None)]
        return factor_again(torch.tanh(x + y) * gate, layers, recipe, (x, y, gate))

    assert gradcheck(f, inputs, check_forward_ad=True)
    assert gradgradcheck(f, inputs)


def test_an_activation_is_a_value() -> None:
    """So that it may stand in written source: equal to itself made again, also after pickling; it can be hashed."""
    import pickle

    from manualbp.functional.activation.table import of_layer

    one = of_layer(nn.LeakyReLU(0.2))
    assert one == of_layer(nn.LeakyReLU(0.2, inplace=True)) != of_layer(nn.LeakyReLU(0.3))
    assert pickle.loads(pickle.dumps(one)) == one
    assert len({one, of_layer(nn.LeakyReLU(0.2))}) == 1
    assert of_layer(nn.PReLU()) is None


def test_a_setting_that_has_changed_is_noticed() -> None:
    """The slope of an activation, and a dropout that has come to drop."""
    model, x, _ = made("LeakyReLU(negative_slope=0.2)")
    manualbp.fuse(model)
    expected = copy.deepcopy(model)
    manualbp.unfuse(expected)
    for one in (model, expected):
        one[2].negative_slope = 0.5
    with pytest.warns(UserWarning, match="Fuse again"):
        mine = numbers(model, x)
    assert same(mine, numbers(expected, x))


def test_a_buffer_that_the_forward_changes_is_changed_once_a_pass() -> None:
    """And where it is read: before and after its change."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = x - m.norm.running_mean.view(-1, 1, 1)
        m.norm.running_mean.mul_(0.5).add_(1.0)
        return m.last(T.relu(m.norm2(x + m.norm.running_mean.view(-1, 1, 1))))

    torch.manual_seed(0)
    layers = {"norm": nn.BatchNorm2d(4), "norm2": nn.BatchNorm2d(4), "last": nn.Conv2d(4, 4, 3)}
    model = By(forward, **layers).double()
    expected = copy.deepcopy(model)
    report = manualbp.fuse(model)
    assert [row.path for row in report.converted] == ["norm2, relu", "last"]
    x = torch.randn(IMAGES, dtype=torch.float64)
    for _ in range(2):
        assert same(numbers(model, x), numbers(expected, x))
