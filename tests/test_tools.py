"""Tools that look at a model's layers: lazy layers, quantisation, hooks, torch.func, Opacus, BackPACK."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx
from torch.func import functional_call, grad, vmap

import manualbp

pytestmark = pytest.mark.filterwarnings("ignore")
X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([0, 1, 2, 3])
LAZY: list[tuple[type[nn.Module], tuple[Any, ...], tuple[int, ...]]] = [
    (nn.LazyLinear, (5,), (2, 4)),
    *((getattr(nn, f"LazyConv{axes}d"), (5, 2), (2, 4, 5, 6, 7)[: axes + 2]) for axes in (1, 2, 3)),
    *((getattr(nn, f"LazyConvTranspose{axes}d"), (5, 2), (2, 4, 5, 6, 7)[: axes + 2]) for axes in (1, 2, 3)),
    *((getattr(nn, f"LazyBatchNorm{axes}d"), (), (2, 4, 5, 6, 7)[: axes + 2]) for axes in (1, 2, 3)),
]


def through_pickle(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def as_it_is(model: nn.Module) -> nn.Module:
    return model


@pytest.mark.parametrize(("kind", "args", "shape"), LAZY)
@pytest.mark.parametrize("copied", [as_it_is, copy.deepcopy, through_pickle])
def test_lazy_layers(kind: type, args: Any, shape: Any, copied: Callable[[nn.Module], nn.Module]) -> None:
    """By hand when they have seen their first input; `restore` gives torch.nn's before it and after it."""
    name = kind.__name__.removeprefix("Lazy")
    model = nn.Sequential(kind(*args))
    report = manualbp.convert(model)
    assert str(report.rows[0].remark) == f"-> manualbp.nn.{name} once it has run"
    assert {row.remark for row in manualbp.convert(model).rows} == {"is by hand already"}
    x = torch.ones(shape)
    if copied is not copy.deepcopy or "BatchNorm" not in name:  # PyTorch cannot copy that before it has run
        model = copied(model)
    model(x)
    assert type(model[0]) is getattr(manualbp.nn, name)
    assert not manualbp.coverage(model(x)).layers
    run = copied(model)
    manualbp.restore(run)
    assert type(run[0]) is getattr(nn, name)
    assert {"cls_to_become", "_manualbp_was"}.isdisjoint(vars(run[0]))
    early = nn.Sequential(kind(*args))
    manualbp.convert(early)
    assert len(manualbp.restore(early).converted) == 1
    assert type(early[0]) is kind
    early(x)
    assert type(early[0]) is getattr(nn, name)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 5)),
    )


def converted() -> nn.Sequential:
    model = network()
    manualbp.convert(model)
    return model


def fused() -> nn.Sequential:
    model = converted()
    manualbp.fuse(model)
    return model


def test_quantisation_names_restore() -> None:
    """Passed over in silence, the layers would train without the rounding that they are to learn."""
    for prepare in (quantization.prepare_qat, quantization.prepare):
        model = converted()
        model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
        with pytest.raises(TypeError, match=r"Conv2d is by hand.*manualbp\.restore\(model\) first"):
            prepare(model)
    mapping = quantization.get_default_qat_qconfig_mapping("fbgemm")
    for model in (converted(), fused()):
        with pytest.raises(TypeError, match=r"manualbp\.restore\(model\) first"):
            quantize_fx.prepare_qat_fx(model, mapping, (X,))
    model = converted()
    manualbp.restore(model)
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    assert "qat" in type(quantization.prepare_qat(model)[0]).__module__


def test_hooks() -> None:
    """Of forward and backward, on every layer: what they see is what they see on torch.nn's."""
    seen: list[list[Tensor]] = []
    for model in (network(), converted()):
        found: list[Tensor] = []
        for module in model:
            module.register_forward_hook(lambda _, x, y, found=found: found.extend([*x, y.detach()]))
            module.register_full_backward_hook(
                lambda _, dx, dy, found=found: found.extend([*filter(None.__ne__, dx), *dy])
            )
        T.cross_entropy(model(X.clone().requires_grad_()), CLASSES).backward()
        seen.append(found)
    for a, b in zip(*seen, strict=True):
        torch.testing.assert_close(a, b)


def loss(model: nn.Module, p: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
    return T.cross_entropy(functional_call(model, p, (x[None],)), t[None])


def per_sample(model: nn.Module, compiled: bool = False) -> dict[str, Tensor]:
    f = vmap(grad(lambda p, x, t: loss(model, p, x, t)), (None, 0, 0))
    torch._dynamo.reset()
    f = torch.compile(f, backend="aot_eager") if compiled else f
    return f({name: p.detach() for name, p in model.named_parameters()}, X, CLASSES)


@pytest.mark.parametrize("make", [converted, fused, network])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_of_each_sample(make: Callable[[], nn.Module], compiled: bool) -> None:
    with manualbp.by_hand():
        ours = per_sample(make(), compiled)
    for name, theirs in per_sample(network()).items():
        torch.testing.assert_close(ours[name], theirs)


@pytest.mark.parametrize("make", [converted, fused, network])
@pytest.mark.parametrize("functorch", [False, True])
def test_opacus(make: Callable[[], nn.Module], functorch: bool) -> None:
    opacus = pytest.importorskip("opacus")
    model = make()
    assert opacus.validators.ModuleValidator.validate(model) == []
    expected = per_sample(network())
    with manualbp.by_hand():
        sampled = opacus.GradSampleModule(model, loss_reduction="sum", force_functorch=functorch)
        T.cross_entropy(sampled(X), CLASSES, reduction="sum").backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad_sample, expected[name])


def test_backpack() -> None:
    """It looks for its own rules by the class of the layer: `by_hand()` leaves these, `convert` does not."""
    pack = pytest.importorskip("backpack")
    extensions = pytest.importorskip("backpack.extensions")

    def run(model: nn.Module) -> list[Tensor]:
        model, criterion = pack.extend(model), pack.extend(nn.CrossEntropyLoss(reduction="sum"))
        with pack.backpack(extensions.BatchGrad(), extensions.DiagGGNExact()):
            criterion(model(X), CLASSES).backward()
        return [a for p in model.parameters() for a in (p.grad_batch, p.diag_ggn_exact)]

    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))

    expected, model = run(network()), network()
    with manualbp.by_hand():
        ours = run(network())
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)
    manualbp.convert(model)
    with pytest.raises(NotImplementedError, match="manualbp"):
        run(model)
