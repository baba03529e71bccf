"""Every case under torch.func, torch.compile and autocast, against PyTorch's own function under the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import manualbp.functional as F
from tests.cases import CASES, ONE_OF_EACH, Case
from tests.cases.conv import CONV2D, LINEAR
from tests.cases.make import fixed, normal, together
from tests.checks import EXACT, derivatives, distance, first, random_like, wanted

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def on_tensors(case: Case, f: Callable[..., Any], device: str) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """f as a function of the differentiable inputs alone, and these, detached."""
    inputs, settings = case.inputs(device), case.settings(device)
    places = [i for i, a in enumerate(inputs) if isinstance(a, Tensor) and a.requires_grad]
    detached = [a.detach() if isinstance(a, Tensor) else a for a in inputs]

    def g(*tensors: Tensor) -> Tensor:
        args = list(detached)
        for place, t in zip(places, tensors, strict=True):
            args[place] = t
        return first(f(*args, **settings))

    return g, [a.detach() for a in wanted(inputs)]


def transformed(f: Callable[..., Tensor], inputs: list[Tensor]) -> dict[str, Any]:
    every = tuple(range(len(inputs)))
    tangents = tuple(random_like(a, seed=i + 4) for i, a in enumerate(inputs))
    stacks = [torch.stack([a, random_like(a, seed=i + 9), 2 * a]) for i, a in enumerate(inputs)]
    ahead, *rest = inputs
    batched_first = (0, *[None] * len(rest))

    weights = random_like(f(*inputs), seed=3)

    def loss(*a: Tensor) -> Tensor:
        return (f(*a) ** 2 * weights).sum()

    return {
        "vmap": vmap(f)(*stacks),
        "vmap of one": vmap(f, in_dims=batched_first)(stacks[0], *rest),
        "vmap, last axis": vmap(f, in_dims=-1, out_dims=-1)(*[s.movedim(0, -1) for s in stacks]),
        "grad": grad(loss, argnums=every)(*inputs),
        "vmap of grad": vmap(grad(loss, argnums=every))(*stacks),
        "vmap of grad of one": vmap(grad(loss, argnums=every), in_dims=batched_first)(stacks[0], *rest),
        "vjp": vjp(f, *inputs)[1](random_like(f(*inputs))),
        "jvp": jvp(f, tuple(inputs), tangents)[1],
        "jvp of one": jvp(lambda a: f(a, *rest), (ahead,), tangents[:1])[1],
        "vmap of jvp": vmap(lambda *t: jvp(f, tuple(inputs), t)[1])(*stacks),
        "jacrev": jacrev(f, argnums=every)(*inputs),
        "jacfwd": jacfwd(f, argnums=len(inputs) - 1)(*inputs),
        "hessian": hessian(loss, argnums=0)(*inputs),
        "jacrev of jacrev": jacrev(jacrev(loss, argnums=len(inputs) - 1), argnums=0)(*inputs),
    }


@every_case
def test_torch_func(case: Case, device: str) -> None:
    if case.name == "one-element settings":
        pytest.skip("PyTorch's own conv2d fails under vmap with settings of one element")
    ours = transformed(*on_tensors(case, case.ours, device))
    torchs = transformed(*on_tensors(case, case.torchs, device))
    for name, a in ours.items():
        b = torchs[name]
        pairs = zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]
        for mine, theirs in pairs:
            assert distance(mine, theirs) <= 10 * EXACT, f"{case}: {name} is off by {distance(mine, theirs):.1e}"


@every_case
def test_batches_of_deltas(case: Case, device: str) -> None:
    """torch.autograd.grad's own, by PyTorch's older vmap: each delta's gradients, and once more of these."""
    inputs, settings = case.inputs(device), case.settings(device)
    y = first(case.ours(*inputs, **settings))
    deltas = torch.stack([random_like(y, seed).detach() for seed in (5, 6, 7)])
    each = [torch.autograd.grad(y, wanted(inputs), delta, retain_graph=True) for delta in deltas]
    batch = torch.autograd.grad(y, wanted(inputs), deltas, is_grads_batched=True, retain_graph=True)
    for a, *some in zip(batch, *each, strict=True):
        assert torch.equal(a, torch.stack(some))


@every_case
def test_compile(case: Case, device: str) -> None:
    """One graph without a break; first derivatives inside it, as torch.compile takes no second ones."""
    torch._dynamo.reset()
    compiled = torch.compile(case.ours, fullgraph=True, backend="aot_eager")
    inputs, settings = case.inputs(device), case.settings(device)
    y = first(compiled(*inputs, **settings))
    expected = first(case.torchs(*inputs, **settings))
    delta = random_like(y)
    mine, theirs = (torch.autograd.grad(t, wanted(inputs), delta) for t in (y, expected))
    for a, b in zip((y, *mine), (expected, *theirs), strict=True):
        assert distance(a, b) <= EXACT


def test_compile_of_any_size(device: str) -> None:
    """Right for images and batches of any extents, in however many graphs (a convolution makes one for each)."""
    torch._dynamo.reset()

    def f(x: Tensor, w: Tensor) -> Tensor:
        y = F.conv2d(x, w, None, (2, 1), "valid", 1, 2)
        return F.avg_pool2d(F.max_pool2d(F.sigmoid(y), 2, 1), 2, ceil_mode=True)

    compiled = torch.compile(f, fullgraph=True, dynamic=True, backend="aot_eager")
    for n, size in ((2, 9), (3, 12), (5, 17)):
        x = random_like(torch.empty(n, 4, size, size + 1, dtype=torch.float64, device=device)).requires_grad_()
        w = random_like(torch.empty(6, 2, 3, 2, dtype=torch.float64, device=device)).requires_grad_()
        y, expected = compiled(x, w), f(x, w)
        delta = random_like(y)
        mine, theirs = (torch.autograd.grad(t, (x, w), delta) for t in (y, expected))
        for a, b in zip((y, *mine), (expected, *theirs), strict=True):
            assert distance(a, b) <= EXACT


def test_compile_from_any_size_to_fixed_extents(device: str) -> None:
    """Then only the backward pass has use for the image's extents: torch.compile must find them there."""
    torch._dynamo.reset()

    def f(x: Tensor) -> Tensor:
        y = F.interpolate(x, scale_factor=1.5, mode="bilinear")
        y = F.adaptive_avg_pool2d(y, 1) + F.adaptive_avg_pool2d(x, (5, 4)) + F.adaptive_max_pool2d(x, (5, 4))
        z = F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, output_size=x.shape)
        return F.interpolate(y, (7, 9), mode="bilinear") + F.interpolate(z, (7, 9), mode="bilinear")

    compiled = torch.compile(f, fullgraph=True, dynamic=True, backend="aot_eager")
    for n, size in ((2, 9), (3, 12)):
        x = random_like(torch.empty(n, 3, size, size + 1, dtype=torch.float64, device=device)).requires_grad_()
        y, expected = compiled(x), f(x)
        delta = random_like(y)
        mine, theirs = (torch.autograd.grad(t, x, delta)[0] for t in (y, expected))
        assert distance(y, expected) <= EXACT
        assert distance(mine, theirs) <= EXACT


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_autocast(case: Case, device: str) -> None:
    """The dtypes of PyTorch's function under autocast, and its numbers up to their precision."""
    inputs = case.inputs(device, torch.float32)
    settings = {k: a for k, a in case.settings(device, torch.float32).items() if k != "dtype"}

    def run(f: Callable[..., Any], backward_inside: bool) -> list[Tensor]:
        with torch.autocast(device, torch.bfloat16):
            y = first(f(*inputs, **settings))
            delta = random_like(y)
            if backward_inside:
                return [y, *torch.autograd.grad(y, wanted(inputs), delta)]
        return [y, *torch.autograd.grad(y, wanted(inputs), delta)]

    if case.op in ("correlate", "full_convolve", "kernel_gradient"):  # no names of torch.nn.functional: never cast
        assert run(case.ours, False)[0].dtype == torch.float32
        return
    for inside in (False, True):
        for a, b in zip(run(case.ours, inside), run(case.torchs, inside), strict=True):
            assert a.dtype == b.dtype
            assert distance(a, b) <= 1e-2


@pytest.mark.parametrize("case", [CONV2D[0], LINEAR[0]], ids=str)
def test_backward_under_autocast_keeps_the_precision_of_forward(case: Case, device: str) -> None:
    inputs = case.inputs(device, torch.float32)
    y, expected = case.ours(*inputs), case.torchs(*inputs)
    delta = random_like(y)
    with torch.autocast(device, torch.bfloat16):
        ours = torch.autograd.grad(y, wanted(inputs), delta)
    for a, b in zip(ours, torch.autograd.grad(expected, wanted(inputs), delta), strict=True):
        assert distance(a, b) <= 1e-6


# No case has a batch of images, or its output is a number or no image.
NO_IMAGE = (
    *("cross_entropy", "nll_loss", "mse_loss", "l1_loss", "binary_cross_entropy_with_logits"),
    *("gather_kernels", "scatter_kernels", "kernel_gradient", "conv1d", "conv_transpose1d", "linear"),
    *("hardtanh", "threshold", "softmax", "log_softmax"),
)


@pytest.mark.parametrize("op", [case.op for case in ONE_OF_EACH if case.op not in NO_IMAGE])
def test_channels_last(op: str, device: str) -> None:
    """Where PyTorch's outputs and input gradients are channels_last, so are ours; every case of a batch of images."""
    layout, compared = torch.channels_last, 0
    for case in (case for case in CASES if case.op == op):
        x, *rest = case.inputs(device)
        settings = case.settings(device)
        # A gradient of one pixel a map has no layout.
        if x.ndim != 4 or first(case.ours(x, *rest, **settings)).shape[2:].numel() == 1:
            continue
        x = x.detach().contiguous(memory_format=layout).requires_grad_()

        def run(f: Callable[..., Any], x: Tensor = x, rest: Any = rest, settings: Any = settings) -> tuple[Tensor, ...]:
            y = first(f(x, *rest, **settings))
            return y, torch.autograd.grad(y, x, random_like(y).contiguous(memory_format=layout))[0]

        for ours, torchs in zip(run(case.ours), run(case.torchs), strict=True):
            assert ours.is_contiguous(memory_format=layout) or not torchs.is_contiguous(memory_format=layout), str(case)
        compared += 1
    assert compared, f"no case of {op} is a batch of images: add one, or add it to NO_IMAGE"


EMPTY = [
    ("conv2d", ((0, 3, 6, 5), (4, 3, 3, 3), (4,)), {"padding": 1, "stride": 2}),
    ("conv1d", ((0, 3, 6), (4, 3, 3), (4,)), {"padding": "same"}),
    ("conv3d", ((0, 2, 4, 3, 3), (4, 2, 3, 2, 1), (4,)), {"stride": 2}),
    ("conv_transpose1d", ((0, 3, 4), (3, 2, 2), (2,)), {"dilation": 2, "output_padding": 1}),
    ("conv_transpose2d", ((0, 3, 4, 3), (3, 2, 3, 3), (2,)), {"padding": 1, "stride": 2, "output_padding": 1}),
    ("conv_transpose3d", ((0, 2, 2, 3, 2), (2, 3, 1, 2, 3), (3,)), {}),
    ("max_pool2d", ((0, 3, 6, 5),), {"kernel_size": 2}),
    ("max_pool2d", ((0, 3, 6, 5),), {"kernel_size": 3, "stride": 1}),
    ("avg_pool2d", ((0, 3, 6, 5),), {"kernel_size": 3, "stride": 1, "padding": 1}),
    ("activation_max_pool2d", ((0, 3, 6, 5),), {"activation": "tanh", "kernel_size": 2}),
    ("conv2d_avg_pool2d", ((0, 3, 8, 7), (4, 3, 3, 2), (4,)), {"stride": 2, "padding": 1}),
    ("adaptive_avg_pool2d", ((0, 3, 6, 5),), {"output_size": 1}),
    ("adaptive_avg_pool2d", ((0, 3, 6, 5),), {"output_size": (3, 4)}),
    ("adaptive_max_pool2d", ((0, 3, 6, 5),), {"output_size": (3, 5)}),
    ("interpolate", ((0, 3, 6, 5),), {"scale_factor": 2}),
    ("interpolate", ((0, 3, 6, 5),), {"size": (4, 7), "mode": "bilinear"}),
    ("pad", ((0, 3, 6, 5),), {"pad": (1, 2, 0, 1)}),
    ("sigmoid", ((0, 3),), {}),
    ("tanh", ((0, 3),), {}),
    ("relu", ((0, 3),), {}),
    ("gelu", ((0, 3),), {}),
    ("gelu", ((0, 3),), {"approximate": "tanh"}),
    ("silu", ((0, 3),), {}),
    ("elu", ((0, 3),), {"alpha": 2.0}),
    ("softplus", ((0, 3),), {}),
    ("relu6", ((0, 3),), {}),
    ("leaky_relu", ((0, 3),), {}),
    ("hardsigmoid", ((0, 3),), {}),
    ("hardswish", ((0, 3),), {}),
    ("dropout", ((0, 3),), {}),
    ("linear", ((0, 3), (4, 3), (4,)), {}),
    ("linear", ((0, 2, 3), (4, 3), (4,)), {}),
    ("softmax", ((0, 3),), {"dim": 1}),
    ("log_softmax", ((0, 3),), {"dim": 1}),
    *[
        (op, ((0, 3), (0, 3)), {"reduction": reduction})
        for op in ("mse_loss", "l1_loss", "smooth_l1_loss", "binary_cross_entropy_with_logits")
        for reduction in ("none", "sum")
    ],
    ("layer_norm", ((0, 3),), {"normalized_shape": (3,)}),
    ("group_norm", ((0, 4, 3, 2),), {"num_groups": 2}),
    ("batch_norm", ((0, 3, 2, 2),), {"running_mean": None, "running_var": None, "training": True}),
    ("relu_bits", ((0, 3),), {}),
    ("relu_bits", ((0, 3, 4, 2),), {}),
]


@pytest.mark.parametrize(("op", "shapes", "kwargs"), EMPTY, ids=lambda v: str(v))
def test_empty_batch(op: str, shapes: Any, kwargs: Any, device: str) -> None:
    case = Case(op, "empty", together(*(normal(*s) for s in shapes)), kwargs)
    for a, b in zip(derivatives(case.ours, case, device), derivatives(case.torchs, case, device), strict=True):
        assert a.shape == b.shape
        assert torch.equal(a, b)


def test_empty_batch_of_neighbours(device: str) -> None:
    """Their functions take more than tensors first."""
    weights, kernel = together(fixed(None, None), normal(3), normal(3)), together(normal(4, 3, 3, 3), normal(4))
    x = normal(0, 3, 6, 5)
    for case in (
        Case("batch_norm", "empty", together(x, weights), {"training": True}),
        Case("batch_norm_activation", "empty", together(x, weights), {"training": True}),
        Case("batch_norm_activation_conv2d", "empty", together(x, weights, kernel), {"training": True, "padding": 1}),
        Case("activation_conv2d", "empty", together(x, fixed("gelu"), kernel)),
    ):
        for a, b in zip(derivatives(case.ours, case, device), derivatives(case.torchs, case, device), strict=True):
            assert a.shape == b.shape
            assert torch.equal(a, b)


@pytest.mark.parametrize("op", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_empty_classes(op: str, reduction: str, device: str) -> None:
    """No sample: as in PyTorch, the sum is 0 and the mean no number."""
    z = torch.zeros(0, 3, device=device, requires_grad=True)
    t = torch.zeros(0, dtype=torch.int64, device=device)
    ours, torchs = (getattr(m, op)(z, t, reduction=reduction) for m in (F, torch.nn.functional))
    assert torch.equal(ours, torchs) or (ours.isnan().all() and torchs.isnan().all())
    assert torch.autograd.grad(ours.sum(), z)[0].shape == z.shape
