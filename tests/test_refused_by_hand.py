"""What a rule refuses runs as PyTorch's own inside by_hand(), and is named."""

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import manualbp
from manualbp.by_hand import _warn
from tests.checks import EXACT, distance

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
INTEGERS = torch.arange(-4, 12).reshape(1, 1, 4, 4)
COMPLEX = X.to(torch.complex128)
KERNEL = torch.ones(1, 3, 2, 2)


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    """Each test sees the warnings that `by_hand` gives once in a process."""
    _warn.cache_clear()


# (function, how the reason begins, node of PyTorch's, call)
REFUSED: list[tuple[str, str, str, Callable[[Tensor], Tensor]]] = [
    ("interpolate", "interpolate: antialias = ", "UpsampleBicubic2DAa", lambda x: antialiased(x, "bicubic")),
    ("interpolate", "interpolate: antialias = ", "UpsampleBilinear2DAa", lambda x: antialiased(x, "bilinear")),
    ("pad", "pad: input is torch.complex128", "ConstantPadNd", lambda x: T.pad(x * COMPLEX, (1, 1))),
    ("sigmoid", "sigmoid: input is torch.complex128", "Sigmoid", lambda x: torch.sigmoid(x * COMPLEX)),
    (
        "conv2d",
        "conv2d: input is torch.complex128",
        "Convolution",
        lambda x: T.conv2d(x * COMPLEX, torch.ones(1, 3, 2, 2, dtype=COMPLEX.dtype)),
    ),
    ("linear", "linear: input is torch.complex128", "Mm", lambda x: T.linear((x * COMPLEX)[0, 0], COMPLEX[0, 0])),
    ("l1_loss", "l1_loss: input is torch.complex128", "Abs", lambda x: T.l1_loss(x * COMPLEX, COMPLEX)),
    (
        "softmax",
        r"softmax\(\) got an unexpected keyword argument 'axis'",
        "Softmax",
        lambda x: torch.softmax(x, axis=1),  # pyright: ignore[reportCallIssue],
    ),
    ("elu_", "elu_: scale = 2.0 and input_scale = 1.0", "Elu", lambda x: scaled_(x * 1)),
    ("batch_norm", ".* one value a map", "NativeBatchNorm", lambda x: one_value_a_map(x)),
]


def antialiased(x: Tensor, mode: str) -> Tensor:
    return T.interpolate(x, size=3, mode=mode, antialias=True)


def scaled_(x: Tensor) -> Tensor:
    return T.elu_(x, 1.0, 2.0)  # pyright: ignore[reportCallIssue]


def one_value_a_map(x: Tensor) -> Tensor:
    return torch.batch_norm(x[0, :1, :1].view(1, 6), None, None, None, None, True, 0.1, 1e-5, False) + x.sum()


@pytest.mark.parametrize(("function", "reason", "node", "f"), REFUSED)
def test_what_a_rule_refuses_runs_as_pytorchs_own(
    function: str, reason: str, node: str, f: Callable[[Tensor], Tensor]
) -> None:
    """A warning names the function and the reason, `coverage` the node that it left in the graph."""
    x = X.clone().requires_grad_()
    expected = f(x)
    with manualbp.by_hand(), pytest.warns(UserWarning, match=rf"^by_hand: .*{function} ran as PyTorch's own: {reason}"):
        y = f(x)
    assert torch.equal(y, expected)
    seen = manualbp.coverage(y)
    assert node in seen.layers or node in seen.arithmetic
    assert not seen.by_hand
    for a, b in zip(*(torch.autograd.grad(t.abs().sum(), x) for t in (y, expected)), strict=True):
        assert torch.equal(a, b)


WITHOUT_GRADIENT: list[Callable[[], Tensor]] = [
    lambda: T.interpolate(INTEGERS.byte(), scale_factor=2),
    lambda: T.interpolate(INTEGERS.byte(), scale_factor=2, mode="bilinear"),
    lambda: T.pad(INTEGERS, (1, 1, 1, 1)),
    lambda: T.max_pool2d(INTEGERS, 2),
    lambda: T.conv2d(INTEGERS, INTEGERS),
    lambda: T.relu6(INTEGERS),
    lambda: T.relu6(INTEGERS.clone(), inplace=True),
    lambda: T.hardtanh(INTEGERS, -2, 5),
    lambda: torch.relu(INTEGERS),
    lambda: INTEGERS.clone().relu_(),
    lambda: torch.sigmoid(INTEGERS),
    lambda: torch.tanh(INTEGERS > 0),
    lambda: torch.softmax(INTEGERS, 1, dtype=torch.float32),
    lambda: T.l1_loss(INTEGERS, INTEGERS + 1, reduction="sum"),
    lambda: T.mse_loss(X, torch.ones_like(X).long()),
    lambda: T.linear(X, torch.eye(6).double().to_sparse_csr()),
    lambda: T.linear(X[0, 0, 0], X[0, 0, 1]),
    lambda: T.layer_norm(X.bfloat16(), (6,), torch.ones(6), torch.zeros(6)),
    lambda: T.conv2d(X.float().to_mkldnn(), KERNEL.to_mkldnn()).to_dense(),
    lambda: torch.softmax(X.half(), 1, torch.float32),
    lambda: X.half().softmax(1, torch.float32),
    lambda: torch.log_softmax(X.half(), 1, torch.float32),
    lambda: X.half().log_softmax(1, torch.float64),
    lambda: torch.layer_norm(X, [6], None, None, 1e-5, True),
    lambda: torch.layer_norm(X, [6], cudnn_enable=False),
    lambda: torch.group_norm(X, 3, None, None, 1e-5, True),
    lambda: torch.dropout(X, p=0.5, train=False),
]


@pytest.mark.filterwarnings("ignore:by_hand", "ignore:Sparse CSR")
@pytest.mark.parametrize("f", WITHOUT_GRADIENT)
def test_what_pytorch_computes_is_computed(f: Callable[[], Tensor]) -> None:
    """Integers, layouts, half precision: by the rule or as PyTorch's own, values and dtype are PyTorch's."""
    expected = f()
    with manualbp.by_hand():
        y = f()
    assert y.dtype == expected.dtype
    assert distance(y, expected) <= (1e-2 if y.dtype == torch.bfloat16 else 1e-6)


BY_PYTORCH_TOO: list[Callable[[], Tensor]] = [
    lambda: T.conv2d(X, KERNEL),
    lambda: T.conv2d(X.float(), torch.ones(1, 2, 2, 2)),
    lambda: T.interpolate(X, scale_factor=2, mode="cubic"),
    lambda: T.cross_entropy(X[0, 0], torch.tensor([0, 1, 2, 3, 4, 6]), label_smoothing=0.1),
    lambda: torch.sigmoid_(INTEGERS.clone()),
    lambda: T.leaky_relu_(INTEGERS.clone()),
    lambda: T.elu(INTEGERS.clone(), inplace=True),
    lambda: torch.selu_(INTEGERS.clone()),
    lambda: torch.celu_(INTEGERS.clone()),
    lambda: T.silu(INTEGERS.clone(), inplace=True),
    lambda: torch.relu_(X.clone().requires_grad_()),
    lambda: torch.sigmoid_(X.clone().requires_grad_()),
]


@pytest.mark.filterwarnings("error:by_hand")
@pytest.mark.parametrize("f", BY_PYTORCH_TOO)
def test_what_pytorch_refuses_raises_pytorchs_error(f: Callable[[], Tensor]) -> None:
    raised = []
    for context in (torch.enable_grad(), manualbp.by_hand()):
        with context, pytest.raises(Exception) as error:  # noqa: PT011 they are compared
            f()
        raised.append((error.type, str(error.value)))
    assert raised[0] == raised[1]


def test_it_warns_once_for_each_function_and_reason() -> None:
    with warnings.catch_warnings(record=True) as shown, manualbp.by_hand():
        warnings.simplefilter("always")
        for _ in range(2):
            antialiased(X, "bicubic")
            antialiased(X, "bilinear")
            T.pad(COMPLEX, (1, 1))
    assert len({str(w.message) for w in shown}) == len(shown) == 2


def test_a_refused_call_in_place_is_made_once() -> None:
    """The numbers that are there when PyTorch's own begins are the caller's."""
    given = X.clone()
    with manualbp.by_hand(), pytest.warns(UserWarning, match="elu_ ran as PyTorch's own"):
        y = scaled_(given)
    assert y is given
    assert torch.equal(y, 2 * T.elu(X))


def test_nested() -> None:
    """The outer context names what the inner one could not do, as the same."""
    with warnings.catch_warnings(record=True) as shown, manualbp.by_hand(), manualbp.by_hand():
        warnings.simplefilter("always")
        y = antialiased(X, "bicubic")
    assert len(shown) == 1
    assert torch.equal(y, antialiased(X, "bicubic"))


def test_under_checkpoint() -> None:
    """What ends a recomputation early is no refusal."""
    results = []
    with warnings.catch_warnings(), manualbp.by_hand():
        warnings.simplefilter("error")
        for f in (
            lambda x: T.sigmoid(T.relu(x)),
            lambda x: checkpoint(lambda x: T.sigmoid(T.relu(x)), x, use_reentrant=False),
        ):
            x = X.clone().requires_grad_()
            results += torch.autograd.grad(f(x).sum(), x)
    assert torch.equal(*results)


@pytest.mark.parametrize("inside", [False, True])
def test_compiled_code_runs_what_a_rule_refuses(inside: bool) -> None:
    """In one graph, without a warning."""

    def f(x: Tensor) -> Tensor:
        return antialiased(T.sigmoid(x), "bicubic")

    by_hand, full = manualbp.by_hand(), {"fullgraph": True, "backend": "aot_eager"}
    torch._dynamo.reset()
    compiled = torch.compile(by_hand(f), **full) if inside else by_hand(torch.compile(f, **full))
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for run in (compiled, f):
            x = X.clone().requires_grad_()
            results.append((y := run(x), *torch.autograd.grad(y.sum(), x)))
    for a, b in zip(*results, strict=True):
        assert distance(a, b) <= EXACT
