"""Who follows the operations, and the private parts of PyTorch that are asked: each fails by the name of its test."""

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, jvp, vmap

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
