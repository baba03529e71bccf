"""The fast kernels against the plain loops, and the loops on numbers that are no floats."""

from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from manualbp.kernels import conv_primitives, pool, reference
from manualbp.kernels.cpu import calls, direct, triple
from manualbp.kernels.geometry import Geometry, convolution, pooling
from tests.cases import Case
from tests.cases.conv import TRIPLE
from tests.cases.pool import AVG_POOL2D, MAX_POOL2D
from tests.checks import EXACT, distance, random_like


def tensor(nested: Any, like: Tensor) -> Tensor:
    return torch.tensor(nested, dtype=like.dtype)


def triple_inputs(case: Case) -> tuple[Tensor, Tensor, Tensor, Geometry]:
    """x, w, delta and the geometry of a case of `correlate`."""
    x, w, *steps = case.inputs()
    s, p, d, g = (*steps, *(1, 0, 1, 1)[len(steps) :])
    geometry = convolution("test", x.shape, w.shape, s, p, d, g)
    x, w = x.detach(), w.detach()
    return x, w, random_like(conv_primitives.correlate(x, w, None, geometry)), geometry


@pytest.mark.parametrize("case", [case for case in TRIPLE if case.op == "correlate"], ids=str)
def test_triple(case: Case) -> None:
    x, w, delta, g = triple_inputs(case)
    lists = x.tolist(), w.tolist(), delta.tolist()
    C, O = x.shape[1], w.shape[0]
    for fast, slow in [
        (conv_primitives.correlate(x, w, None, g), reference.correlate(lists[0], lists[1], g)),
        (conv_primitives.full_convolve(delta, w, None, g), reference.full_convolve(lists[2], lists[1], g)),
        (conv_primitives.kernel_gradient(x, delta, g), reference.kernel_gradient(lists[0], lists[2], C, O, g)),
    ]:
        assert distance(fast, tensor(slow, fast)) <= EXACT


@pytest.mark.skipif(not calls.built(), reason="there are no compiled kernels here")
@pytest.mark.parametrize("case", [case for case in TRIPLE if case.op == "correlate"], ids=str)
def test_compiled_triple(case: Case) -> None:
    """In float32, with as many outputs a tile as there may be."""
    x, w, delta, g = triple_inputs(case)
    lists, C, O = [t.tolist() for t in (x, w, delta)], x.shape[1], w.shape[0]
    y, dx = reference.correlate(lists[0], lists[1], g), reference.full_convolve(lists[2], lists[1], g)
    dw = reference.kernel_gradient(lists[0], lists[2], C, O, g)
    x, w, delta = (t.float().contiguous(memory_format=torch.channels_last) for t in (x, w, delta))
    made: list[tuple[Any, Any]] = [(direct.kernel_gradient(x, delta, g), dw)]
    for m in (2, 4) if triple.fits(g) else ():
        made += [(triple.correlate(x, w, None, g, m), y), (triple.kernel_gradient(x, delta, g, m), dw)]
        made.append((triple.full_convolve(delta, w, None, g, m), dx))
    for fast, slow in made:
        assert distance(fast, tensor(slow, fast)) <= 2e-6


@pytest.mark.parametrize("way", [conv_primitives._maps_first, conv_primitives._maps_last])
@pytest.mark.parametrize("steps", [(1, 0, 1), (1, (2, 1), 1), (2, 1, 1), ((1, 2), 2, (3, 1))], ids=str)
@pytest.mark.parametrize("images", [1, 4, 9])
def test_both_ways_to_the_kernel_gradient(way: Any, steps: Any, images: int) -> None:
    x = random_like(torch.empty(9, 3, 7, 8, dtype=torch.float64))
    g = convolution("test", x.shape, (4, 3, 2, 3), *steps, 1)
    delta = random_like(torch.empty(9, 4, *g.y_size, dtype=torch.float64))
    slow = reference.kernel_gradient(x.tolist(), delta.tolist(), 3, 4, g)
    assert distance(way(x, delta, g, images), tensor(slow, x)) <= EXACT


@pytest.mark.parametrize("rows", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("padding", [0, 1, (2, 1)], ids=str)
@pytest.mark.parametrize("H", [9, 10])
@pytest.mark.parametrize("images", [1, 4])
def test_two_rows_at_a_time(rows: int, padding: Any, H: int, images: int) -> None:
    x = random_like(torch.empty(5, 3, H, 6, dtype=torch.float64))
    g = convolution("test", x.shape, (4, 3, rows, 3), 1, padding, 1, 1)
    delta = random_like(torch.empty(5, 4, *g.y_size, dtype=torch.float64))
    slow = reference.kernel_gradient(x.tolist(), delta.tolist(), 3, 4, g)
    assert distance(conv_primitives._row_pairs(x, delta, g, images), tensor(slow, x)) <= EXACT


@pytest.mark.parametrize(("C", "O"), [(1, 4), (16, 4), (24, 4), (24, 200), (128, 128)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_kernel_gradient_by_products_of_either_library(C: int, O: int, layout: torch.memory_format) -> None:
    """In float32 a product of many numbers is a 1 x 1 convolution; in float64 it is none."""
    x = random_like(torch.empty(5, C, 6, 7, dtype=torch.float64)).contiguous(memory_format=layout)
    g = convolution("test", x.shape, (O, C, 3, 3), 1, 1, 1, 1)
    delta = random_like(torch.empty(5, O, *g.y_size, dtype=torch.float64))
    assert (
        distance(
            conv_primitives.kernel_gradient(x.float(), delta.float(), g), conv_primitives.kernel_gradient(x, delta, g)
        )
        <= 1e-6
    )


def pool_inputs(case: Case) -> tuple[Tensor, Geometry, dict[str, Any]]:
    (x,) = (a.detach() for a in case.inputs())
    k = dict(case.kwargs)
    k.pop("return_indices", None)
    g = pooling(
        "test",
        x.shape,
        k.pop("kernel_size"),
        k.pop("stride", None),
        k.pop("padding", 0),
        k.pop("dilation", 1),
        k.pop("ceil_mode", False),
    )
    return (x if x.ndim == 4 else x[None]), g, k


@pytest.mark.parametrize("case", MAX_POOL2D, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_max_pool(case: Case, layout: torch.memory_format) -> None:
    x, g, _ = pool_inputs(case)
    x = x.contiguous(memory_format=layout)
    y, index = conv_values = pool.max_pool(x, g)
    for fast, slow in zip(conv_values, reference.max_pool(x.tolist(), g), strict=True):
        assert torch.equal(fast, tensor(slow, fast))
    delta = random_like(y).contiguous(memory_format=layout)
    byte = pool.in_window(index, g)
    assert byte.dtype == torch.uint8
    assert torch.equal(pool.in_image(byte, g), index)
    for place in (index, byte):
        dx = pool.put(delta, place, g.places)
        assert distance(dx, tensor(reference.put(delta.tolist(), index.tolist(), g), delta)) <= EXACT
        if y.shape[2:].numel() > 1:  # a single pixel has no layout
            assert dx.is_contiguous(memory_format=layout)
        assert torch.equal(pool.take(x, place, g.places), y)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("width", [9, 127, 128, 255, 256, 257, 300])
@pytest.mark.parametrize(
    ("window", "steps"),
    [
        (2, (2, 0, 1)),
        (3, (2, 1, 1)),
        ((16, 16), ((3, 5), 8, 1)),
        ((3, 2), (1, (1, 0), (2, 3))),
        ((2, 9), (4, (1, 4), 4)),
    ],
    ids=str,
)
def test_bytes_of_wide_images(window: Any, steps: Any, width: int, layout: torch.memory_format) -> None:
    """Where the distance in a window is a byte, and where it is not; images put in pieces and in one."""
    x = random_like(torch.empty(5, 2, 19, max(width, 33))).contiguous(memory_format=layout)
    g = pooling("test", x.shape, window, *steps, False)
    y, index = pool.max_pool(x, g)
    byte = pool.in_window(index, g)
    assert torch.equal(pool.in_image(byte, g), index)
    assert torch.equal(pool.take(x, byte, g.places), y)
    delta = random_like(y).contiguous(memory_format=layout)
    assert torch.equal(pool.put(delta, byte, g.places), pool.put(delta, index, g.places))


def test_pieces_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (8, 300):
        x = random_like(torch.empty(5, 2, 6, width)).contiguous(memory_format=torch.channels_last)
        g = pooling("test", x.shape, 2, 2, 0, 1, False)
        y, index = pool.max_pool(x, g)
        for piece in (1, 2 * y[0].numel(), 2**17):
            monkeypatch.setattr(pool, "PIECE", piece)
            byte = pool.in_window(index, g)
            assert byte.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(pool.in_image(byte, g), index)
            assert torch.equal(pool.put(y, byte, g.places), pool.put(y, index, g.places))


@pytest.mark.parametrize("case", AVG_POOL2D, ids=str)
def test_window_mean(case: Case) -> None:
    x, g, rest = pool_inputs(case)
    how = rest.get("count_include_pad", True), rest.get("divisor_override")
    y = pool.window_mean(x, g, *how)
    assert distance(y, tensor(reference.window_mean(x.tolist(), g, *how), y)) <= EXACT
    delta = random_like(y)
    slow = reference.window_spread(delta.tolist(), g, *how)
    assert distance(pool.window_spread(delta, g, *how), tensor(slow, y)) <= EXACT


def test_reference_on_fractions() -> None:
    """A 3x3 image and a 2x2 kernel of exact fractions: <delta, correlate> = <full_convolve, x> = <dw, w>, exactly."""
    x = [[[[Fraction(3 * h + k + 1, 7) for k in range(3)] for h in range(3)]]]
    w = [[[[Fraction(1, 2), Fraction(-1, 3)], [Fraction(1, 5), Fraction(2)]]]]
    delta = [[[[Fraction(1), Fraction(-2, 3)], [Fraction(1, 4), Fraction(5)]]]]
    g = convolution("test", (1, 1, 3, 3), (1, 1, 2, 2), 1, 0, 1, 1)

    def inner(a: Any, b: Any) -> Any:
        return sum(inner(s, t) for s, t in zip(a, b, strict=True)) if isinstance(a, list) else a * b

    by_y = inner(delta, reference.correlate(x, w, g))
    assert by_y == inner(reference.full_convolve(delta, w, g), x)
    assert by_y == inner(reference.kernel_gradient(x, delta, 1, 1, g), w)


def test_reference_scalars() -> None:
    z, y = [0.3, -1.2, 0.8], [0.2, 0.5, 0.3]
    t = torch.tensor(z, dtype=torch.float64)
    assert reference.softmax(z) == pytest.approx(t.softmax(0).tolist(), rel=EXACT)
    assert reference.sigmoid(z) == pytest.approx(t.sigmoid().tolist(), rel=EXACT)
    loss = torch.nn.functional.cross_entropy(t, torch.tensor(y, dtype=torch.float64))
    assert reference.cross_entropy(z, y) == pytest.approx(loss.item(), rel=EXACT)
    assert reference.linear([[1, 2]], [[3, 4], [5, 6]], [7, 8]) == [[18, 25]]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_max_pool_of_many_windows_takes_some_images_at_a_time(
    layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = random_like(torch.empty(7, 3, 9, 8, dtype=torch.float64)).contiguous(memory_format=layout)
    g = pooling("test", x.shape, 3, 2, 1, 1, False)
    y, byte = pool.max_pool_by_bytes(x, g)
    monkeypatch.setattr(pool, "MOST", 3 * 3 * y[0, 0].numel())
    in_pieces = pool.max_pool_by_bytes(x, g)
    for one, other in zip(in_pieces, (y, byte), strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()
