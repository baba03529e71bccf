"""fuse: what must be left as it is, or run as it is: hooks, modes, changes in place, sums of what is kept."""

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import manualbp
from tests.checks import distance
from tests.fusing import EXACT, X, fused, make, results, same


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
    assert "FactorAgain" in manualbp.coverage(model(x=X)).by_hand
    assert "FactorAgain" not in manualbp.coverage(model(X, X)).by_hand


def test_a_sum_in_place_has_the_layout_of_what_it_is_written_into() -> None:
    """Of one map two layouts are the same but for their strides; behind it dropout draws in the order of memory."""

    class Layouts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.conv = nn.LayerNorm(1), nn.Conv2d(1, 4, 3)
            self.rest = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(4, 2, 1))

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            y += x
            return self.rest(self.conv(y))

    model, x = Layouts().double(), torch.randn(3, 1, 6, 6, dtype=torch.float64)
    expected = copy.deepcopy(model)
    assert manualbp.fuse(model).converted
    ours, theirs = (seeded(m, x) for m in (model, expected))
    assert distance(ours, theirs) <= EXACT


def seeded(model: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return model(x)


def test_a_norm_that_runs_twice() -> None:
    """One of its passes would be PyTorch's, which keeps the running statistics that the other one updates."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.relu, self.conv = nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(self.relu(self.norm(x))))

    model = Twice().double()
    expected = copy.deepcopy(model)
    report = manualbp.fuse(model)
    assert [row.remark for row in report.left] == ["left: it runs more than once"] * 2
    assert same(results(model), results(expected))


def test_a_module_at_several_places() -> None:
    """And one weight in two layers."""
    shared = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    other = nn.Conv2d(4, 4, 3, padding=1)
    other.weight = shared[2].weight
    torch.manual_seed(0)
    model = nn.Sequential(shared, other, shared, nn.GELU(), other).double()
    expected = copy.deepcopy(model)
    manualbp.convert(model)
    assert same(results(fused(model, 5)), results(expected))
