"""Who calls the pooling of pool.c: threads, torch.compile, transforms, and rules whose passes are of two kinds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import grad

import manualbp.functional as F
from manualbp.kernels.cpu import pool as compiled
from manualbp.kernels.cpu.calls import built
from manualbp.kernels.geometry import pooling
from tests.checks import random_like
from tests.kernels.test_cpu_pool import LAYOUTS, by_torch, image, same

pytestmark = pytest.mark.skipif(not built(), reason="there are no compiled kernels here")

RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "maximum": lambda x: F.max_pool2d(x, 3, 2, 1),
    "sigmoid": lambda x: F.activation_max_pool2d(x, "sigmoid", (2, 3), 2),
    "relu": lambda x: F.activation_max_pool2d(x, "relu", 3, 2, 1, 1, True),
    "mean": lambda x: F.avg_pool2d(x, 3, 2, 1, True, False),
}


@pytest.mark.parametrize("rule", RULES)
def test_as_many_threads_as_pytorch_has(rule: str) -> None:
    x = random_like(torch.empty(8, 24, 19, 21)).contiguous(memory_format=torch.channels_last).requires_grad_()
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 3, 2, 1):
            torch.set_num_threads(count)
            y = RULES[rule](x)
            results.append((y.detach(), *grad(y, x, random_like(y))))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_nothing_depends_on_what_memory_held(rule: str) -> None:
    """PyTorch fills new memory with what is no number where it has to be deterministic."""
    for C in (1, 5, 24):
        x = random_like(torch.empty(2, C, 9, 8)).requires_grad_()
        results = []
        for strict in (False, True):
            torch.use_deterministic_algorithms(strict)
            try:
                y = RULES[rule](x)
                results.append((y.detach(), *grad(y, x, random_like(y))))
            finally:
                torch.use_deterministic_algorithms(False)
        assert all(map(torch.equal, *results))


@pytest.mark.parametrize("layout", ["maps last", "maps first"])
@pytest.mark.parametrize("rule", RULES)
def test_compiled_by_torch(rule: str, layout: str) -> None:
    """The operators are in one graph, and make what the functions make, in the same order of memory."""
    for dtype in (torch.float32, torch.bfloat16):
        x = LAYOUTS[layout](random_like(torch.empty(2, 5, 9, 8, dtype=dtype)))
        results = []
        for f in (RULES[rule], torch.compile(RULES[rule], fullgraph=True, backend="aot_eager")):
            leaf = x.clone().requires_grad_()
            y = f(leaf)
            results.append((y.detach(), *grad(y, leaf, random_like(y))))
        for a, b in zip(*results, strict=True):
            same(a, b)


@pytest.mark.parametrize("layout", ["maps last", "maps first"])
def test_operators_say_what_they_make(layout: str) -> None:
    g, n = pooling("test", (2, 5, 9, 8), 3, 2, 1, 1, False), ["test_schema", "test_faketensor"]
    x, last, numbers = LAYOUTS[layout](image((2, 5, 9, 8), torch.float32)), layout == "maps last", compiled._numbers(g)
    y, byte = compiled.max_pool(x, g, "tanh")
    operators: list[tuple[Any, tuple[Any, ...]]] = [
        (torch.ops.manualbp.max_pool, (x, compiled.PHI["tanh"], numbers, last)),
        (torch.ops.manualbp.take, (x, byte, numbers, last)),
        (torch.ops.manualbp.put, (y, byte, y, compiled.PHI["tanh"], numbers, last)),
        (torch.ops.manualbp.put, (y, byte, None, 0, numbers, last)),
        (torch.ops.manualbp.window_mean, (x, compiled.OF_PIXELS, 1, numbers, last)),
        (torch.ops.manualbp.window_spread, (y, compiled.GIVEN, 7, numbers, last)),
    ]
    for operator, args in operators:
        torch.library.opcheck(operator, args, test_utils=n)


@pytest.mark.parametrize("rule", RULES)
def test_a_pass_of_each_kind(rule: str) -> None:
    """Forward by one kind of kernels and backward by the other; second derivatives, which take PyTorch's."""
    x = random_like(torch.empty(2, 5, 9, 8)).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = RULES[rule](x)
    delta = random_like(y).requires_grad_()
    with by_torch():
        expected = RULES[rule](x)
        torchs = grad(y, x, delta, retain_graph=True)[0]
    ours = grad(expected, x, delta, retain_graph=True)[0]
    torch.testing.assert_close(y, expected, rtol=3e-7, atol=0)
    torch.testing.assert_close(ours, torchs, rtol=1e-6, atol=1e-7)
    wide = x.detach().double().requires_grad_()
    second = []
    for leaf, d in ((x, delta), (wide, delta.detach().double().requires_grad_())):
        (dx,) = grad(RULES[rule](leaf), leaf, d, create_graph=True)
        second.append(grad((dx * dx.detach().cos()).sum(), [leaf, d], allow_unused=True, materialize_grads=True))
    for a, b in zip(*second, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_transforms_take_pytorchs(rule: str) -> None:
    x = random_like(torch.empty(3, 2, 5, 9, 8))
    one_by_one = torch.stack([torch.func.jacrev(lambda x: RULES[rule](x).sum((2, 3)))(part) for part in x])
    batched = torch.func.vmap(torch.func.jacrev(lambda x: RULES[rule](x).sum((2, 3))))(x)
    torch.testing.assert_close(one_by_one, batched, rtol=1e-6, atol=1e-7)
    y, tangent = torch.func.jvp(RULES[rule], (x[0],), (x[1],))  # pyright: ignore[reportAssignmentType]
    torch.testing.assert_close(y, RULES[rule](x[0]), rtol=1e-6, atol=1e-7)
    delta = random_like(y)
    (dx,) = torch.func.vjp(RULES[rule], x[0])[1](delta)
    torch.testing.assert_close((tangent * delta).sum(), (dx * x[1]).sum(), rtol=1e-4, atol=1e-4)
