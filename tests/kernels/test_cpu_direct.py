"""The direct kernel gradient in C, beside PyTorch's own in float64, and the error beside that of its float32."""

import random
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.kernels.cpu import calls, direct
from manualbp.kernels.geometry import Geometry, convolution
from tests.checks import largest

pytestmark = pytest.mark.skipif(not calls.built(), reason="there are no compiled kernels here")

# x [N, C, H, W], w [O, C / groups, P, Q]; stride, padding, dilation, groups
SMALL = [
    ((1, 1, 4, 5), (1, 1, 3, 3)),
    ((2, 3, 5, 4), (6, 3, 3, 3), 1, 1),
    ((3, 1, 6, 7), (16, 1, 5, 5), 1, 2),
    ((1, 5, 3, 3), (6, 5, 5, 5), 1, 2),  # a kernel larger than the image
    ((1, 2, 2, 3), (3, 2, 2, 2), 1, (2, 3)),  # outputs that see padding only
    ((2, 3, 9, 8), (4, 3, 3, 3), 2, 1),
    ((2, 3, 8, 10), (5, 3, 3, 2), (2, 3), (0, 1)),  # pixels behind the last window
    ((1, 3, 7, 6), (4, 3, 2, 3), 3),  # stride > kernel: pixels that nothing sees
    ((1, 3, 7, 6), (4, 3, 3, 3), 2, 2, 3),
    ((1, 2, 11, 10), (3, 2, 3, 3), 4, 2, 2),
    ((2, 2, 9, 9), (3, 2, 3, 2), (2, 3), (2, 1), (3, 2)),
    ((2, 3, 6, 5), (4, 3, 1, 1), 3, 0),
    ((2, 3, 6, 5), (4, 3, 1, 1), 2, 1),
    ((3, 4, 5, 4), (6, 4, 1, 1)),
    ((2, 4, 5, 6), (6, 2, 3, 3), 1, 1, 1, 2),
    ((2, 6, 5, 5), (12, 1, 3, 2), 2, 1, 1, 6),  # each map has two kernels of its own
    ((2, 5, 6, 7), (5, 1, 3, 3), 1, 1, 1, 5),
    ((2, 5, 8, 7), (5, 1, 3, 5), (2, 1), (1, 3), (1, 2), 5),
]
LARGE = [
    ((3, 24, 13, 17), (40, 24, 3, 3), 1, 1),
    ((3, 33, 9, 31), (64, 33, 3, 2), (1, 2), (2, 0)),
    ((2, 64, 16, 15), (33, 64, 3, 3), 2, 1),
    ((17, 64, 4, 4), (48, 64, 3, 3), 2, 1),  # more images than outputs of one
    ((1, 64, 30, 20), (130, 64, 1, 1)),
    ((2, 64, 15, 20), (64, 64, 1, 1), 2),
    ((1, 3, 40, 33), (64, 3, 7, 7), 2, 3),
    ((2, 1, 31, 40), (64, 1, 9, 9)),
    ((2, 64, 14, 14), (40, 64, 9, 9)),  # long sums
    ((2, 33, 20, 21), (33, 1, 3, 3), 1, 1, 1, 33),
    ((3, 64, 12, 25), (64, 1, 5, 3), 2, (2, 1), 1, 64),
    ((2, 40, 9, 9), (40, 1, 7, 7), 1, 3, 1, 40),
    ((2, 33, 9, 9), (66, 1, 3, 3), 2, 1, 1, 33),
    ((2, 64, 12, 13), (64, 4, 3, 3), 1, 1, 1, 16),
    ((2, 40, 12, 13), (80, 20, 3, 3), 1, 1, 1, 2),
    ((2, 33, 3, 300), (17, 33, 2, 40), 1, 0, (1, 2)),
    ((1, 256, 4, 4), (256, 256, 3, 3), 1, 1),  # one block of outputs
]


def images(*size: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random ones in channels_last; their memory begins one number behind an address that is a multiple of 64."""
    N, C, *extents = size
    t = torch.randn(N, *extents, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    shifted = torch.empty(t.numel() + 1, dtype=dtype)[1:].view(t.shape).copy_(t)
    return shifted.movedim(-1, 1)


def factors(case: tuple, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Geometry]:
    """x, delta and their geometry."""
    x_size, w_size, *steps = case
    s, pad, d, groups = (*steps, *(1, 0, 1, 1)[len(steps) :])
    g = convolution("test", x_size, w_size, s, pad, d, groups)
    return images(*x_size, seed=0, dtype=dtype), images(x_size[0], w_size[0], *g.y_size, seed=2, dtype=dtype), g


def by_torch(x: Tensor, delta: Tensor, g: Geometry) -> Tensor:
    """PyTorch's own derivative, in channels_last, of the dtype of x."""
    w = torch.zeros(delta.shape[1], x.shape[1] // g.groups, *g.w_size, dtype=x.dtype)
    w = w.contiguous(memory_format=torch.channels_last).requires_grad_()
    return torch.autograd.grad(T.conv2d(x, w, None, g.stride, g.padding, g.dilation, g.groups), w, delta)[0]


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", SMALL + LARGE, ids=str)
def test_kernel_gradient(case: tuple, dtype: torch.dtype, threads: int) -> None:
    x, delta, g = factors(case, dtype)
    dw, true = direct.kernel_gradient(x, delta, g), by_torch(x.double(), delta.double(), g)
    assert (dw.shape, dw.dtype) == (true.shape, dtype)
    assert dw.is_contiguous(memory_format=torch.channels_last)
    assert largest(dw, true) < max(3e-6, 1.01 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("case", SMALL + LARGE[:9], ids=str)
@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
def test_what_is_no_number_reaches_what_sees_it(case: tuple, odd: float) -> None:
    """One number of x or of delta is not finite: so are the sums that it is in, and no others."""
    x, delta, g = factors(case)
    for which, t in enumerate((x, delta)):
        for position in (0, random.Random(which).randrange(t.numel()), t.numel() - 1):
            pair, marks = [x.clone(), delta.clone()], [torch.ones_like(x), torch.ones_like(delta)]
            pair[which].movedim(1, -1).view(-1)[position] = odd
            marks[which].zero_().movedim(1, -1).view(-1)[position] = 1
            expected = by_torch(*marks, g) > 0.5
            assert torch.equal(~direct.kernel_gradient(*pair, g).isfinite(), expected), (which, position)


def test_nothing_is_left_in_the_memory() -> None:
    """The same of the same, and whatever the memory held before."""
    x, delta, g = factors(LARGE[2])
    expected = direct.kernel_gradient(x, delta, g)
    for n in range(3):
        torch.full((2**20,), torch.nan if n % 2 else 1e30)
        assert torch.equal(direct.kernel_gradient(x, delta, g), expected)


def random_case(n: int) -> tuple:
    draw = random.Random(n)
    groups = draw.choice((1, 1, 1, 2, 4))
    C, O = groups * draw.choice((1, 3, 4, 8, 16, 24, 33, 64)), groups * draw.choice((1, 6, 8, 16, 32, 40, 64))
    if draw.random() < 0.15:
        C = O = groups = draw.choice((16, 33, 64, 128))
    P, Q = (draw.choice((1, 2, 3, 3, 5, 7)) for _ in range(2))
    H, W = (draw.randint(7, 40) for _ in range(2))
    steps = draw.choice((1, 1, 2, 3)), (draw.randint(0, P // 2), draw.randint(0, Q // 2)), 1, groups
    return (draw.choice((1, 4, 16)), C, H, W), (O, C // groups, P, Q), *steps


def test_largest_error_over_pytorchs() -> None:
    """At most 3 times PyTorch's own in channels_last, and 1.5 times in the median."""
    ratios = []
    for n in range(60):
        x, delta, g = factors(random_case(n))
        true = by_torch(x.double(), delta.double(), g)
        made, own = direct.kernel_gradient(x, delta, g), by_torch(x, delta, g)
        ratios.append(largest(made, true) / max(largest(own, true), 2e-8))
    ratios.sort()
    assert ratios[len(ratios) // 2] <= 1.5
    assert ratios[-1] <= 3
