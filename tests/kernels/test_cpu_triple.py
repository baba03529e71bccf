"""The triple in C by fewer products, beside the sums in float64 that it stands for, and PyTorch's own float32."""

import math
import random
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp import functional as F
from manualbp.kernels import conv, conv_primitives
from manualbp.kernels.cpu import calls, choice, triple
from manualbp.kernels.geometry import Geometry, convolution
from tests.checks import Recorder, largest

pytestmark = pytest.mark.skipif(not calls.built(), reason="there are no compiled kernels here")

# N, C, O, H, W, P, padding
SHAPES = [
    *[
        (1, 1, 1, 3, 3, 3, 0),
        (1, 1, 1, 1, 1, 3, 1),
        (2, 3, 5, 4, 4, 3, 1),
        (1, 16, 16, 8, 8, 3, 1),
        (3, 16, 33, 7, 9, 3, 1),
    ],
    *[
        (2, 24, 64, 31, 31, 3, 1),
        (2, 64, 24, 13, 6, 3, (0, 2)),
        (1, 40, 7, 10, 11, 3, (2, 0)),
        (2, 100, 70, 6, 5, 3, 2),
    ],
    *[(1, 33, 17, 5, 30, 3, 4), (4, 128, 128, 4, 4, 3, 1), (1, 1, 64, 12, 12, 3, 0), (2, 65, 1, 9, 9, 3, 1)],
    *[
        (1, 1, 1, 6, 7, 5, 0),
        (2, 3, 5, 6, 8, 5, 2),
        (2, 32, 64, 16, 16, 5, 2),
        (1, 17, 48, 9, 7, 5, (1, 3)),
        (2, 70, 35, 5, 6, 5, 4),
    ],
    *[  # sums of kernels of 3 x 3, the last with taps to spare
        (2, 20, 33, 11, 9, 9, 4),
        (1, 3, 16, 14, 13, 9, 0),
        (2, 33, 7, 8, 7, 6, (2, 3)),
        (1, 40, 17, 9, 10, 7, (3, 1)),
        (2, 5, 3, 6, 5, 4, 1),
        (1, 17, 18, 4, 7, 2, (1, 0)),
    ],
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def images(*size: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    t = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return t.to(dtype).contiguous(memory_format=torch.channels_last)


def factors(shape: tuple, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor, Geometry]:
    """x, w, b, delta and their geometry."""
    N, C, O, H, W, P, padding = shape
    x, w, b = images(N, C, H, W, seed=0, dtype=dtype), images(O, C, P, P, seed=1, dtype=dtype), torch.randn(O).to(dtype)
    g = convolution("test", x.shape, w.shape, 1, padding, 1, 1).of(x)
    return x, w, b, images(N, O, *g.y_size, seed=2, dtype=dtype), g


def by_sums(x: Tensor, w: Tensor, b: Tensor, delta: Tensor, g: Geometry) -> list[Tensor]:
    """y, dx and dw by PyTorch's primitives."""
    made = conv_primitives.correlate(x, w, b, g), conv_primitives.full_convolve(delta, w, None, g)
    return [*made, conv_primitives.kernel_gradient(x, delta, g)]


def by_tiles(m: int, x: Tensor, w: Tensor, b: Tensor, delta: Tensor, g: Geometry) -> list[Any]:
    """y, dx and dw by triple."""
    made = triple.correlate(x, w, b, g, m), triple.full_convolve(delta, w, None, g, m)
    return [*made, triple.kernel_gradient(x, delta, g, m)]


def forms(g: Geometry) -> tuple[int, ...]:
    """How many outputs a tile may have an axis."""
    return (2,) if g.w_size == (5, 5) else (4, 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_faces(shape: tuple, dtype: torch.dtype) -> None:
    x, w, b, delta, g = factors(shape, dtype)
    true = by_sums(x.double(), w.double(), b.double(), delta.double(), g)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for m in forms(g):
            for face, exact in zip(by_tiles(m, x, w, b, delta, g), true, strict=True):
                assert (face.shape, face.dtype) == (exact.shape, dtype)
                assert face.is_contiguous(memory_format=torch.channels_last)
                assert largest(face, exact) < max(1e-5, 1.5 * torch.finfo(dtype).eps)
    torch.set_num_threads(1)


def random_shape(n: int) -> tuple:
    draw = random.Random(n)
    P = draw.choice((3, 3, 3, 5, 6, 9))
    C, O = (draw.choice((16, 24, 32, 48, 64, 96, 128, 200)) for _ in range(2))
    H, W = (draw.randint(P, 40) for _ in range(2))
    N = draw.choice((1, 2, 4, 8, 16))
    return N, C, O, H, W, P, (draw.randint(0, P - 1), draw.randint(0, P - 1))


def test_largest_error_over_pytorchs() -> None:
    """Of what the choice gives to them: at most 3 times PyTorch's own in channels_last, and 1.5 times in the median."""
    ratios = []
    for n in range(60):
        shape = random_shape(n)
        x, w, b, delta, g = factors(shape)
        weight = w.clone().requires_grad_()
        image = x.clone().requires_grad_()
        y = T.conv2d(image, weight, b, padding=g.padding)
        own = [y.detach(), *torch.autograd.grad(y, (image, weight), delta)]
        true = by_sums(x.double(), w.double(), b.double(), delta.double(), g)
        made = {name: by_tiles(m, x, w, b, delta, g) for name, m in choice.TILE.items() if m in forms(g)}
        for which, face in enumerate(("correlate", "full_convolve", "kernel_gradient")):
            name = choice.of_convolution(face, x.dtype, g, *shape[:3])
            if name in made:
                errors = [largest(t[which], true[which]) for t in (made[name], own)]
                ratios.append((errors[0] / errors[1], face, name, shape))
    assert len(ratios) > 60
    ratios.sort()
    assert ratios[len(ratios) // 2][0] <= 1.5, ratios[len(ratios) // 2]
    assert ratios[-1][0] <= 3, ratios[-1]


def odd(t: Tensor, number: float, *at: int) -> Tensor:
    t = t.clone(memory_format=torch.preserve_format)
    t[at] = number
    return t


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 3e38, 1e30])
@pytest.mark.parametrize("which", ["x", "w", "delta"])
def test_what_is_no_number_reaches_what_sees_it(which: str, number: float) -> None:
    """The kernels say that they cannot, and who calls them takes the sums."""
    shape = (2, 32, 32, 34, 34, 3, 1)
    x, w, b, delta, g = factors(shape)
    x = odd(x, number, 0, 3, 5, 6) if which == "x" else x
    w = odd(w, number, 2, 3, 0, 1) if which == "w" else w
    delta = odd(delta, number, 1, 3, 7, 0) if which == "delta" else delta
    made = by_tiles(4, x, w, b, delta, g)
    assert [face is None for face in made] == [which != "delta", which != "x", which != "w"]
    mine = conv.correlate(x, w, b, g), conv.full_convolve(delta, w, None, g), conv.kernel_gradient(x, delta, g)
    for face, own in zip(mine, by_sums(x, w, b, delta, g), strict=True):
        assert torch.equal(face.isfinite(), own.isfinite())
        assert torch.equal(face.isnan(), own.isnan())


@pytest.mark.parametrize("layout", ["channels_last", "contiguous", "transposed", "expanded"])
def test_kernels_in_any_order(layout: str) -> None:
    x, w, b, delta, g = factors((2, 32, 48, 9, 10, 3, 1))
    if layout == "contiguous":
        w = w.contiguous()
    elif layout == "transposed":
        w = w.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
    elif layout == "expanded":
        w = w[:, :1].expand(-1, 32, -1, -1)
    true = by_sums(x.double(), w.double(), b.double(), delta.double(), g)
    assert all(largest(*both) < 1e-5 for both in zip(by_tiles(4, x, w, b, delta, g), true, strict=True))


def test_memory_that_is_not_aligned() -> None:
    x, w, b, delta, g = factors((2, 24, 40, 9, 10, 3, 1))

    def shifted(t: Tensor) -> Tensor:
        room = torch.empty(t.numel() + 1, dtype=t.dtype)
        return room[1:].as_strided(t.shape, t.stride()).copy_(t)

    expected = by_tiles(4, x, w, b, delta, g)
    made = by_tiles(4, *map(shifted, (x, w, b, delta)), g)
    assert all(map(torch.equal, made, expected))


def test_a_mode_sees_operators_and_no_convolution_of_pytorchs() -> None:
    """`coverage` and the test of the operators of backward passes see what runs; no vendor's convolution does."""
    x, w, b, delta, g = factors((2, 32, 48, 34, 34, 3, 1))
    with torch.no_grad(), Recorder() as recorder:
        conv.correlate(x, w, b, g), conv.full_convolve(delta, w, None, g), conv.kernel_gradient(x, delta, g)
    assert {name.split(".")[1] for name in recorder.names if name.startswith("manualbp")} == {
        *("correlate", "full_convolve", "kernel_gradient")
    }
    assert not [name for name in recorder.names if "conv" in name and not name.startswith("manualbp")]


@pytest.mark.parametrize("name", ["correlate", "full_convolve", "kernel_gradient"])
def test_operators(name: str) -> None:
    """Schema, fake implementation and what compilation asks."""
    x, w, b, delta, g = factors((2, 32, 48, 20, 22, 3, 1))
    numbers = [*g.x_size, *g.w_size, *g.stride, *g.padding, *g.dilation], 1, True
    tensors = {"correlate": (x, w, b), "full_convolve": (delta, w, None), "kernel_gradient": (x, delta)}[name]
    tests = ["test_schema", "test_faketensor"]
    torch.library.opcheck(getattr(torch.ops.manualbp, name), (*tensors, *numbers), test_utils=tests)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("odd_one", [False, True])
def test_in_place_behind_one_image(layout: torch.memory_format, odd_one: bool) -> None:
    """No output is a view, also where the sums themselves are taken."""
    x = images(1, 64, 32, 32, seed=0).contiguous(memory_format=layout)
    x, w = (odd(x, math.inf, 0, 0, 0, 0) if odd_one else x).requires_grad_(), images(64, 64, 3, 3, seed=1)
    F.conv2d(x, w.requires_grad_(), padding=1).relu_().sum().backward()
