"""fuse and unfuse: the same numbers, the same objects, less memory; and what must be left as it is."""

import copy
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint

import manualbp
from tests.checks import distance, random_like
from tests.copies import COPIES, through_pickle

EXACT = 1e-12


class Residual(nn.Module):
    """A block of a residual network, with torch.nn's own layers, and the image brought to its size."""

    def __init__(self, maps: int = 4, stride: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, maps, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(maps, maps, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps)
        self.down = (
            nn.Sequential(nn.Conv2d(4, maps, 1, stride, bias=False), nn.BatchNorm2d(maps)) if stride > 1 else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.down is None else self.down(x)
        return self.relu(y)


class Functions(nn.Module):
    """Functions and methods instead of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.conv, self.pool = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2)
        self.bn2, self.conv2 = nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor, shift: Tensor | None = None, twice: bool = False) -> Tensor:
        if shift is not None:
            x = x + shift
        y = self.conv(T.relu(self.bn(x), inplace=True))
        y = self.pool(y.sigmoid())
        y = self.conv2(self.bn2(y).relu())
        y = T.gelu(y, approximate="tanh")
        return y.mean((2, 3)) * (2 if twice else 1)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "pooling": lambda: nn.Sequential(nn.Conv2d(4, 3, 3), nn.Sigmoid(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 2)),
    "norm, relu, convolution": lambda: nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 2, 3, padding=1, groups=2)
    ),
    "gates": lambda: nn.Sequential(
        *(nn.Conv2d(4, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 1), nn.Hardswish()),
        *(nn.Identity(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2, affine=False), nn.GELU("tanh")),
    ),
    "residual": lambda: nn.Sequential(Residual(), Residual(stride=1), Residual(stride=1), nn.AdaptiveAvgPool2d(1)),
    "functions": Functions,
}


def make(name: str, convert: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name]().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    if convert:
        manualbp.convert(model)
    return model


X = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
every_model = pytest.mark.parametrize("name", MODELS)


def results(model: nn.Module, f: Callable[..., Any] | None = None) -> list[Tensor]:
    """The output, the gradients of the image and of the parameters that require one, and the buffers."""
    x = X.to(next(model.parameters()).dtype).requires_grad_()
    y = (model if f is None else f)(x * 1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(y, [x, *parameters], random_like(y), allow_unused=True, materialize_grads=True)
    return [y.detach(), *gradients, *(b.clone() for b in model.buffers())]


def same(a: list[Tensor], b: list[Tensor], limit: float = 1e-9) -> bool:
    """A gradient that is 0 but for rounding, as that of a bias before batch norm, is measured by the largest of all."""
    floor = max(t.double().norm().item() for t in b)
    return distance(a[0], b[0]) <= min(limit, EXACT) and all(
        (mine.double() - theirs.double()).norm() <= limit * max(theirs.double().norm().item(), 1e-3 * floor)
        for mine, theirs in zip(a, b, strict=True)
    )


def fused(model: nn.Module, places: int | None = None) -> nn.Module:
    report = manualbp.fuse(model)
    assert report.converted
    assert places is None or len(report.converted) == places
    return model


@every_model
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("convert", [True, False])
def test_same_numbers(name: str, training: bool, convert: bool) -> None:
    expected = make(name, convert=False).train(training)
    model = fused(make(name, convert)).train(training)
    assert not convert or manualbp.coverage(copy.deepcopy(model)(X)).layers == {}
    assert same(results(model), results(expected))
    assert same(results(model.train()), results(expected.train()))  # and changed over
    assert same(results(model.eval()), results(expected.eval()))


def test_the_report_names_every_place() -> None:
    model = make("residual")[0]
    report = manualbp.fuse(model)
    assert [(row.path, row.kind, row.converted, row.remark) for row in report.rows] == [
        ("bn1, relu", "BatchNorm2d, ReLU", True, "keep their input alone"),
        ("conv2", "Conv2d", True, "keeps what its input is made of"),
        ("relu", "ReLU", True, "keeps a bit a number"),
    ]
    assert str(report).splitlines()[0] == "fused: 3 of 3 places"
    alone = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    assert [row.remark for row in manualbp.fuse(alone).rows] == ["left: no activation behind it"]
    assert "forward" not in alone.__dict__


def test_what_is_fused_is_a_rule_of_its_own() -> None:
    assert manualbp.coverage(fused(make("residual"))(X)).by_hand.keys() >= {"Recorrelate", "Reactivate", "ReLUBits"}
    assert "Correlate" in manualbp.coverage(make("residual")(X)).by_hand


def contents(model: nn.Module) -> list[tuple[str, type, dict[str, Any]]]:
    """All that the modules hold."""
    return [(path, type(module), dict(vars(module))) for path, module in model.named_modules()]


@every_model
def test_unfuse_gives_back_exactly_what_was(name: str) -> None:
    model = make(name)
    before, objects = contents(model), [*model.parameters(), *model.buffers(), *model.modules()]
    layout, printed = list(model.state_dict()), repr(model)
    fused(model)
    assert all(a is b for a, b in zip(objects, [*model.parameters(), *model.buffers(), *model.modules()], strict=True))
    assert (list(model.state_dict()), repr(model)) == (layout, printed)
    manualbp.restore(make(name))
    report = manualbp.unfuse(model)
    assert [row.remark for row in report.rows] == ["unfused"]
    assert [(path, kind, list(held.items())) for path, kind, held in contents(model)] == [
        (path, kind, list(held.items())) for path, kind, held in before
    ]
    assert manualbp.unfuse(model).rows == ()
    manualbp.restore(model)
    assert same(results(model), results(make(name, convert=False)))


@pytest.mark.parametrize("op", [manualbp.fuse, manualbp.convert, manualbp.restore])
def test_what_is_fused_must_be_unfused_first(op: Callable[[nn.Module], Any]) -> None:
    model = nn.Sequential(fused(make("residual")))
    with pytest.raises(ValueError, match=f"{op.__name__}: the model is fused already; unfuse it first"):
        op(model)


@pytest.mark.parametrize("op", [manualbp.fuse, manualbp.unfuse])
def test_what_is_no_module_is_refused(op: Any) -> None:
    with pytest.raises(TypeError, match=f"{op.__name__}: model is a list"):
        op([nn.Linear(2, 2)])


@pytest.mark.parametrize("through", COPIES)
def test_a_copy_is_fused_and_can_be_unfused(through: Callable[[nn.Module], nn.Module]) -> None:
    model = fused(make("residual"))
    other = through(model)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    expected = make("residual", convert=False)
    with torch.no_grad():
        for p in expected.parameters():
            p.mul_(1.5)
    assert "Recorrelate" in manualbp.coverage(copy.deepcopy(other)(X)).by_hand
    assert same(results(other), results(expected))
    assert same(results(model), results(make("residual", convert=False)))
    manualbp.unfuse(other)
    assert "Recorrelate" not in manualbp.coverage(other(X)).by_hand
    assert "Recorrelate" in manualbp.coverage(model(X)).by_hand


def test_frozen_parameters_and_frozen_statistics() -> None:
    """bn.eval() inside of a network that trains; a kernel and a norm that do not."""
    model, expected = fused(make("residual")), make("residual", convert=False)
    for one in (model, expected):
        one[0].bn1.eval()
        one[1].conv2.weight.requires_grad_(False)
        one[1].bn1.requires_grad_(False)
        one[2].bn2.eval().requires_grad_(False)
    assert same(results(model), results(expected))


@every_model
def test_compile(name: str) -> None:
    torch._dynamo.reset()
    model, expected = fused(make(name)), make(name, convert=False)
    for one in (model, copy.deepcopy(model)):
        compiled = torch.compile(one, fullgraph=True, backend="aot_eager")
        assert same(results(one, compiled), results(copy.deepcopy(expected)))
    assert same(results(model.eval(), compiled_again(model)), results(eval_after_step(expected)))


def compiled_again(model: nn.Module) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, backend="aot_eager")


def eval_after_step(model: nn.Module) -> nn.Module:
    """In evaluation, with the statistics that one step in training leaves."""
    model(X)
    return model.eval()


def test_compile_of_an_unpickled_copy() -> None:
    """As it is, until it was called once: nothing can be traced inside torch.compile."""
    model, expected = fused(make("residual")), make("residual", convert=False)
    other = through_pickle(model)
    assert same(results(other, compiled_again(other)), results(expected))
    other(X)
    expected(X)
    assert same(results(other, compiled_again(other)), results(expected))


@every_model
def test_the_gradients_of_each_image(name: str) -> None:
    """torch.func, with the statistics of training."""

    def of_each(model: nn.Module) -> dict[str, Tensor]:
        parameters = {name: p.detach() for name, p in model.named_parameters()}

        def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(model, parameters, (x[None],)).square().sum()

        return vmap(grad(loss), in_dims=(None, 0))(parameters, X)

    mine, theirs = of_each(fused(make(name)).eval()), of_each(make(name, convert=False).eval())
    for key, g in mine.items():
        assert distance(g, theirs[key]) <= 1e-9


@every_model
def test_checkpointing(name: str) -> None:
    model, expected = fused(make(name)).eval(), make(name, convert=False).eval()
    assert same(results(model, lambda x: checkpoint(model, x, use_reentrant=False)), results(expected))


@every_model
def test_autocast(name: str) -> None:
    """As near to float64 as PyTorch's own, in its dtypes."""
    truth = results(make(name, convert=False))
    model, expected = fused(make(name)).float(), make(name, convert=False).float()

    def run(one: nn.Module) -> list[Tensor]:
        def f(x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return one(x)

        return results(one, f)

    mine, theirs = run(model), run(expected)
    assert mine[0].dtype == theirs[0].dtype
    far = sum(distance(a, b) for a, b in zip(theirs[:2], truth[:2], strict=True))
    assert sum(distance(a, b) for a, b in zip(mine[:2], truth[:2], strict=True)) <= 2 * far


def test_second_derivatives() -> None:
    model = fused(
        nn.Sequential(nn.BatchNorm2d(2), nn.GELU(), nn.Conv2d(2, 2, 2), nn.BatchNorm2d(2), nn.Sigmoid()).double()
    )
    x = random_like(torch.empty(2, 2, 3, 3, dtype=torch.float64)).requires_grad_()
    assert "Recorrelate" in manualbp.coverage(model(x)).by_hand
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # finite differences are of a function that stays the same
    weights = [p.detach().clone().requires_grad_() for p in model.parameters()]
    names = [name for name, _ in model.named_parameters()]

    def f(x: Tensor, *weights: Tensor) -> Tensor:
        return functional_call(model, dict(zip(names, weights, strict=True)), (x,))

    assert gradcheck(f, (x, *weights), rtol=1e-6, atol=1e-7)
    assert gradgradcheck(f, (x, *weights), rtol=1e-6, atol=1e-7)


def test_a_layer_that_is_replaced_runs() -> None:
    """Another kind, the same kind with other settings, one more and one less."""
    layers = [nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)]
    model = fused(nn.Sequential(*layers).double())
    other = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular").double()
    for change in (
        lambda m: setattr(m, "2", nn.Tanh()),
        lambda m: setattr(m, "3", other),
        lambda m: m.append(nn.Sigmoid()),
        lambda m: m.__delitem__(1),
    ):
        change(model)
        expected = nn.Sequential(*(copy.deepcopy(layer) for layer in model))
        assert same(results(model), results(expected))


def test_hooks_fire() -> None:
    """Of a layer that had one when the model was fused, of one that gets one later, and of a block."""
    model = make("residual")
    calls: list[str] = []
    model[0].bn1.register_forward_hook(lambda *_: calls.append("norm"))
    model[1].register_forward_hook(lambda *_: calls.append("block"))
    report = manualbp.fuse(model)
    assert "0.bn1, 0.relu" not in [row.path for row in report.rows]
    assert "1.bn1, 1.relu" in [row.path for row in report.converted]  # inside the block that has a hook
    model(X)
    assert calls == ["norm", "block"]
    handle = model[2].conv2.register_full_backward_hook(lambda *_: calls.append("later"))
    model(X).sum().backward()
    assert calls == ["norm", "block"] * 2 + ["later"]
    handle.remove()
    assert same(results(model), results(trained_twice("residual")))


def trained_twice(name: str) -> nn.Module:
    """With the statistics that two steps leave."""
    model = make(name, convert=False)
    model(X)
    model(X)
    return model


class Left(nn.Module):
    """norm, ReLU and convolution, by a forward that must not be rewritten, or not in whole."""

    def __init__(self, how: Callable[["Left", Tensor], Any]) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.register_buffer("count", torch.zeros(4, 1, 1, dtype=torch.float64))
        self.how, self.seen = how, None

    def forward(self, x: Tensor) -> Any:
        return self.how(self, x)


def changes_what_others_use(m: Left, x: Tensor) -> Tensor:
    y = m.inner(x)
    z = y
    y += 1
    return y * z


def changes_a_view(m: Left, x: Tensor) -> Tensor:
    y = m.inner(x)
    y.squeeze(0).mul_(2)
    return y


def changes_by_an_argument(m: Left, x: Tensor) -> Tensor:
    y = m.inner(x)
    return T.relu(y, True) + y


def changes_its_argument(m: Left, x: Tensor) -> Tensor:
    return m.inner(x.add_(1))


def changes_a_buffer(m: Left, x: Tensor) -> Tensor:
    m.count += 1
    return m.inner(x) * m.count


def remembers(m: Left, x: Tensor) -> Tensor:
    m.seen = m.inner(x)
    return m.seen


def depends_on_data(m: Left, x: Tensor) -> Tensor:
    return m.inner(x) if x.sum() > -1e9 else x


def without_gradients(m: Left, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = m.inner(x)
    return m.inner(x + y)


def in_half_precision(m: Left, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return m.inner(x)


def makes_a_tensor(m: Left, x: Tensor) -> Tensor:
    return m.inner(x) + torch.arange(8.0).double()


def at_random(m: Left, x: Tensor) -> Tensor:
    return m.inner(x) * random.random()


def by_checkpoint(m: Left, x: Tensor) -> Tensor:
    return checkpoint(m.inner, x, use_reentrant=False)


def returns_its_own_kind(m: Left, x: Tensor) -> Any:
    class Outputs(dict):
        pass

    return Outputs(y=m.inner(x))


LEFT: list[tuple[Callable[[Left, Tensor], Any], str]] = [
    (changes_what_others_use, "changes in place what others may use"),
    (changes_a_view, "changes in place what others may use"),
    (changes_by_an_argument, "changes in place what others may use"),
    (changes_its_argument, "changes in place what others may use"),
    (changes_a_buffer, "changes what the module holds"),
    (remembers, "changes what the module holds"),
    (depends_on_data, "torch.fx cannot follow it"),
    (without_gradients, "it enters a mode"),
    (in_half_precision, "it enters a mode"),
    (makes_a_tensor, "it makes tensors"),
    (at_random, "it does not do the same each time"),
    (by_checkpoint, ""),
    (returns_its_own_kind, "it returns a Outputs"),
]


@pytest.mark.parametrize(("how", "why"), LEFT, ids=lambda v: getattr(v, "__name__", ""))
def test_what_cannot_be_followed_is_left_with_the_reason(how: Callable[[Left, Tensor], Any], why: str) -> None:
    """Its parts are fused; the numbers are those of the model as it is."""
    torch.manual_seed(0)
    model = Left(how).double()
    expected, held = copy.deepcopy(model), dict(vars(model))
    report = manualbp.fuse(model)
    (row,) = report.left
    assert (row.path, row.kind) == ("", "Left")
    assert row.remark.startswith("left: ")
    assert why in row.remark
    assert [row.path for row in report.converted] == ["inner.0, inner.1", "inner.2"]
    assert vars(model) == held
    assert torch.equal(model.count, expected.count)
    ours, theirs = [], []
    for one, seen in ((model, ours), (expected, theirs)):
        random.seed(0)

        def f(x: Tensor, one: Left = one) -> Tensor:
            y = one(x)
            return y["y"] if isinstance(y, dict) else y

        seen += results(one, f)
    assert same(ours, theirs)


class Modes(nn.Module):
    """A forward that only training allows to follow."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return y if self.training or y.sum() > 0 else 2 * y


def test_a_mode_that_cannot_be_followed_runs_as_it_is() -> None:
    torch.manual_seed(0)
    model = Modes().double()
    expected = copy.deepcopy(model)
    fused(model)
    assert same(results(model), results(expected))
    assert same(results(model.eval()), results(expected.eval()))


def test_optional_arguments() -> None:
    """The graph is that of the defaults; called with more, the model's own forward runs."""
    model, expected = fused(make("functions")).eval(), make("functions", convert=False).eval()
    for args, kwargs in (((X,), {}), ((), {"x": X}), ((X, X), {}), ((X,), {"twice": True}), ((X, None, False), {})):
        assert distance(model(*args, **kwargs), expected(*args, **kwargs)) <= EXACT
    assert "Recorrelate" in manualbp.coverage(model(x=X)).by_hand
    assert "Recorrelate" not in manualbp.coverage(model(X, X)).by_hand


class Sums(nn.Module):
    """What is kept of a sum must not be what the sum is written into."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.conv2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        y = self.conv(x)
        z = self.norm(x)
        y += z
        return OrderedDict(y=self.conv2(torch.relu_(y)))


def test_a_sum_that_is_written_into_what_is_kept() -> None:
    torch.manual_seed(0)
    model = Sums().double()
    expected = copy.deepcopy(model)
    fused(model)
    assert "Recorrelate" in manualbp.coverage(model(X)).by_hand
    assert type(model(X)) is OrderedDict
    expected(X)
    expected(X)
    assert same(results(model, lambda x: model(x)["y"]), results(expected, lambda x: expected(x)["y"]))


class Sum(nn.Module):
    """Sums whose terms are norms, images, numbers of another shape, and sums of their own."""

    def __init__(self, how: Callable[["Sum", Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.norm2, self.how = nn.BatchNorm2d(4), nn.BatchNorm2d(4), how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


def of_two_norms(m: Sum, x: Tensor) -> Tensor:
    y = torch.relu(m.norm(x) + m.norm2(2 * x))
    return m.conv(y) + y


def of_many(m: Sum, x: Tensor) -> Tensor:
    """More terms than a recipe may have."""
    y = torch.relu(m.norm(x) + x)
    for _ in range(3):
        y = torch.relu(m.norm2(m.conv(y)) + y)
        y = torch.relu(y + m.norm(m.conv2(y)))
    return m.conv(y)


def with_a_column(m: Sum, x: Tensor) -> Tensor:
    return m.conv(torch.relu(m.norm(x) + x[:, :1]))


def with_a_parameter(m: Sum, x: Tensor) -> Tensor:
    return m.conv(torch.relu(m.conv2.bias.view(-1, 1, 1) + m.norm(x)))


def with_a_norm_of_one_pixel(m: Sum, x: Tensor) -> Tensor:
    return m.conv(torch.relu(m.norm(x.mean((2, 3), keepdim=True)) + x))


def with_itself(m: Sum, x: Tensor) -> Tensor:
    y = m.norm(x)
    return m.conv(torch.relu(y + y))


@pytest.mark.parametrize(
    "how", [of_two_norms, of_many, with_a_column, with_a_parameter, with_a_norm_of_one_pixel, with_itself]
)
def test_sums(how: Callable[[Sum, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = Sum(how).double()
    expected = copy.deepcopy(model)
    manualbp.convert(model)
    report = manualbp.fuse(model)
    assert bool(report.converted) == (how is not with_itself)
    assert same(results(model), results(expected))
    assert same(results(model.eval()), results(expected.eval()))


def test_a_module_at_several_places() -> None:
    """And one weight in two layers."""
    shared = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    other = nn.Conv2d(4, 4, 3, padding=1)
    other.weight = shared[2].weight
    torch.manual_seed(0)
    model = nn.Sequential(shared, other, shared, nn.GELU(), other).double()
    expected = copy.deepcopy(model)
    assert same(results(fused(model, 5)), results(expected))


def bytes_kept(model: nn.Module, x: Tensor) -> int:
    """Of the distinct storages that the graph keeps, without parameters, buffers and x."""
    there = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), x)}
    y = model(x)
    found: dict[int, int] = {}
    nodes, seen = [y.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
        names = [name for name in dir(node) if name.startswith("_saved_")]
        held = [*getattr(node, "saved_tensors", ()), *(getattr(node, name) for name in names)]
        for t in held:
            if isinstance(t, Tensor) and t.numel():
                found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
    return sum(size for pointer, size in found.items() if pointer not in there)


def test_a_residual_network_keeps_much_less() -> None:
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet18(weights=None)
    theirs.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = nn.Identity()
    mine = copy.deepcopy(theirs)
    manualbp.convert(mine)
    fused(mine)
    x = torch.randn(2, 3, 32, 32)
    assert bytes_kept(mine, x) <= 0.6 * bytes_kept(theirs, x)
