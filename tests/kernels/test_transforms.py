"""Who follows the operations, and the private parts of PyTorch that are asked: each fails by the name of its test."""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from manualbp.kernels import transforms


def test_torch_c_are_functorch_transforms_active() -> None:
    """True inside of each transform of torch.func, and of one inside of another; False outside."""
    seen = []

    def f(x: Tensor) -> Tensor:
        seen.append(torch._C._are_functorch_transforms_active())
        return x * x

    x = torch.ones(2)
    f(x)
    vmap(f)(x)
    grad(f)(x[0])
    jvp(f, (x,), (x,))
    vmap(grad(f))(x)
    f(x)
    assert seen == [False, True, True, True, True, False]


def test_forward_ad_current_level() -> None:
    """-1, and 0 where tangents are carried along: by forward_ad and by torch.func.jvp."""
    assert forward_ad._current_level == -1
    with forward_ad.dual_level():
        assert forward_ad._current_level == 0
    assert forward_ad._current_level == -1
    levels = []

    def f(x: Tensor) -> Tensor:
        levels.append(forward_ad._current_level)
        return x * 2

    jvp(f, (torch.ones(2),), (torch.ones(2),))
    assert levels == [0]
    assert forward_ad._current_level == -1


def test_torch_c_len_torch_dispatch_stack() -> None:
    """0, and more while make_fx or FakeTensorMode sees the operations; there no number is looked at."""
    asked = []

    def f(x: Tensor) -> Tensor:
        asked.append(transforms.in_a_dispatch_mode())
        return x * 2

    f(torch.ones(2))
    make_fx(f)(torch.ones(2))
    with FakeTensorMode():
        f(torch.ones(2))
    assert asked == [False, True, True]


def test_in_place_only_where_nothing_follows_and_nothing_derives() -> None:
    asked = []

    def f(x: Tensor) -> Tensor:
        asked.append((transforms.followed(), transforms.forward_mode(), transforms.in_place()))
        return x * 2

    x = torch.ones(2)
    f(x)
    with torch.no_grad():
        f(x)
        with forward_ad.dual_level():
            f(x)
        vmap(f)(x)
    assert asked == [(False, False, False), (False, False, True), (False, True, False), (True, False, False)]


def test_followed_by_torch_compile() -> None:
    torch._dynamo.reset()

    def f(x: Tensor) -> Tensor:
        return x * 2 if transforms.followed() and not transforms.forward_mode() else x * 3

    assert torch.compile(f, fullgraph=True, backend="eager")(torch.ones(2)).tolist() == [2, 2]


def test_torch_c_disable_torch_function() -> None:
    """A tensor's kind is asked without a call of the mode that is on."""
    asked = []

    class Asked(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            asked.append(func)
            return func(*args, **kwargs or {})

    x = torch.ones(2)
    with Asked():
        assert transforms.kind_of(x) == (torch.float32, True)
        assert asked == []
        assert transforms.kind_of(x.to_sparse()) == (torch.float32, False)
    assert transforms.kind_of(torch.nested.nested_tensor([x])) == (torch.float32, False)


def test_recorded() -> None:
    seen = []

    def f(x: Tensor) -> Tensor:
        seen.append((transforms.recorded(), transforms.jit_traced()))
        return x * 2

    f(torch.ones(2))
    torch.jit.trace(f, torch.ones(2), check_trace=False)
    assert seen == [(False, False), (True, True)]


def test_autocasts() -> None:
    """There are kinds of devices for which PyTorch has no autocast."""
    with torch.autocast("cpu"):
        assert [transforms.autocasts(kind) for kind in ("cpu", "cuda", "meta", "vulkan")] == [True, False, False, False]
    assert not transforms.autocasts("cpu")


def test_torch_c_functorch_is_legacy_batchedtensor_and_the_nesting_of_the_older_vmap() -> None:
    """Batches of deltas, one in the other, are taken apart level by level, and put together again."""
    seen = []

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, delta: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            seen.append(transforms.batched_by_the_older_vmap(delta))
            if not seen[-1]:
                return delta * 2
            with transforms.outside_of_the_older_vmap() as level:
                each = transforms.each_of(delta, level)
                seen.append(tuple(each.shape))
                made = [row * 2 for row in each]
            return transforms.batch_of(made, level)

    x = torch.ones(2, requires_grad=True)
    y: Any = Twice.apply(x)
    (one,) = torch.autograd.grad(y, x, torch.ones(2), retain_graph=True)
    (three,) = torch.autograd.grad(y, x, torch.ones(3, 2), is_grads_batched=True)
    assert seen == [False, True, (3, 2)]
    assert (one.tolist(), three.tolist()) == ([2, 2], [[2, 2]] * 3)


def test_torch_c_autograd_top_saved_tensors_default_hooks_are_a_checkpoints() -> None:
    """What it computes again from can be exchanged."""
    seen = []

    def f(x: Tensor) -> Tensor:
        frame = transforms.checkpoint_frame()
        seen.append(frame is not None)
        if frame is not None:
            once = frame.recompute_fn
            frame.recompute_fn = lambda *args: (seen.append("again"), once(*args))
        return x.sin()

    x = torch.ones(2, requires_grad=True)
    y: Any = checkpoint(f, x, use_reentrant=False)
    y.sum().backward()
    assert transforms.checkpoint_frame() is None
    assert seen == [True, "again", False]
