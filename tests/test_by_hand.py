"""by_hand(): unmodified models on the rules; what the context covers, and where it ends."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor, nn

import manualbp
from manualbp.names import RULES
from tests.cases import CASES, Case
from tests.checks import EXACT, distance, first, random_like, wanted

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# PyTorch's l1_loss loses its weight on the way to any TorchFunctionMode.
NAMESAKES = {case.op: case for case in CASES if hasattr(T, case.op) and (case.op, case.name) != ("l1_loss", "weight")}


def is_by_hand(y: Tensor) -> bool:
    report = manualbp.coverage(y)
    return bool(report.by_hand) and not report.layers


@pytest.mark.parametrize("case", NAMESAKES.values(), ids=str)
def test_every_function_of_torch_nn_functional_that_has_a_rule(case: Case) -> None:
    """The rule's node in the graph, and PyTorch's numbers."""
    inputs, settings = case.inputs(), case.settings()
    with manualbp.by_hand():
        y = first(getattr(T, case.op)(*inputs, **settings))
    expected = first(case.torchs(*inputs, **settings))
    assert is_by_hand(y)
    delta = random_like(y)
    mine, theirs = (torch.autograd.grad(t, wanted(inputs), delta) for t in (y, expected))
    for a, b in zip((y, *mine), (expected, *theirs), strict=True):
        assert distance(a, b) <= EXACT


def test_no_rule_is_forgotten() -> None:
    """Every name that torch.nn.functional shares with manualbp.functional is rerouted."""
    shared = {name for name in manualbp.functional.__all__ if hasattr(T, name)}
    assert {name for name in shared if getattr(T, name) not in RULES} == set()


OTHER_NAMES: list[Callable[[Tensor], Any]] = [
    lambda x: torch.conv2d(x, torch.ones(1, 3, 2, 2).double()),
    lambda x: torch.max_pool2d(x, 2),
    lambda x: T.max_pool2d(x, kernel_size=2, return_indices=True)[0],
    lambda x: T.adaptive_max_pool2d(x, 2, return_indices=True)[0],
    lambda x: x.relu(),
    lambda x: (x * 1).relu_(),
    lambda x: torch.relu(x),
    lambda x: torch.relu_(x * 1),
    lambda x: T.relu(x * 1, inplace=True),
    lambda x: x.sigmoid(),
    lambda x: (x * 1).sigmoid_(),
    lambda x: torch.tanh_(x * 1),
    lambda x: x.tanh(),
    lambda x: x.softmax(1),
    lambda x: torch.log_softmax(x, dim=1),
    lambda x: torch.layer_norm(x, (6, 6)),
    lambda x: torch.group_norm(x, 3),
    lambda x: torch.dropout(x, 0.5, True),
    lambda x: nn.ReLU6()(x),
    lambda x: nn.Upsample(scale_factor=2)(x),
    lambda x: nn.ZeroPad2d(1)(x),
]


@pytest.mark.parametrize("f", OTHER_NAMES)
def test_other_names_of_the_same_functions(f: Callable[[Tensor], Tensor]) -> None:
    results = []
    for context in (manualbp.by_hand(), torch.enable_grad()):
        torch.manual_seed(0)
        x = X.clone().requires_grad_()
        with context:
            y = f(x)
        results.append((y, *torch.autograd.grad(y, x, random_like(y))))
        assert is_by_hand(y) == isinstance(context, manualbp.by_hand)
    for a, b in zip(*results, strict=True):
        assert distance(a, b) <= EXACT


def sigmoid_is_by_hand() -> bool:
    return is_by_hand(T.sigmoid(X.clone().requires_grad_()))


def test_it_ends_where_the_block_ends() -> None:
    assert not sigmoid_is_by_hand()
    with manualbp.by_hand():
        assert sigmoid_is_by_hand()
        with manualbp.by_hand():
            assert sigmoid_is_by_hand()
        assert sigmoid_is_by_hand()
        with pytest.raises(ZeroDivisionError), manualbp.by_hand():
            raise ZeroDivisionError
        assert sigmoid_is_by_hand()
    assert not sigmoid_is_by_hand()


def test_it_decorates() -> None:
    @manualbp.by_hand()
    def f(depth: int) -> bool:
        """Its docstring."""
        return sigmoid_is_by_hand() and (depth == 0 or f(depth - 1))

    assert f(2)
    assert f.__doc__ == "Its docstring."
    assert not sigmoid_is_by_hand()


def test_one_context_may_be_entered_again() -> None:
    context = manualbp.by_hand()
    for _ in range(2):
        with context, context:
            assert sigmoid_is_by_hand()
    assert not sigmoid_is_by_hand()


def test_another_thread_is_not_concerned() -> None:
    seen = []
    with manualbp.by_hand():
        thread = threading.Thread(target=lambda: seen.append(sigmoid_is_by_hand()))
        thread.start()
        thread.join()
        assert sigmoid_is_by_hand()
    assert seen == [False]


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2)).double()


def gradients(f: Callable[[Tensor], Tensor], model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(f(X).square().sum(), list(model.parameters())))


def compiled_inside(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The context in the compiled code."""

    def f(x: Tensor) -> Tensor:
        with manualbp.by_hand():
            return model(x)

    return torch.compile(f, fullgraph=True, backend="aot_eager")


def compiled_decorated(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return torch.compile(manualbp.by_hand()(model.forward), fullgraph=True, backend="aot_eager")


def compiled_outside(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The compiled code in the context."""
    return manualbp.by_hand()(torch.compile(model, fullgraph=True, backend="aot_eager"))


COMPILED = [compiled_inside, compiled_decorated, compiled_outside]


@pytest.mark.parametrize("compiled", COMPILED)
def test_compiled_code_is_by_hand(
    compiled: Callable[[nn.Module], Callable[[Tensor], Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's gradients; and a wrong rule makes them wrong, so it is the rule that runs."""
    model = small()
    expected = gradients(model, model)
    for wrong in (False, True):
        torch._dynamo.reset()
        if wrong:
            monkeypatch.setattr("manualbp.kernels.activation.sigmoid_slope", lambda delta, y: delta * y)
        close = [distance(a, b) <= EXACT for a, b in zip(gradients(compiled(model), model), expected, strict=True)]
        assert close == ([False] * 2 + [True] * 2 if wrong else [True] * 4)


def test_compiled_code_knows_whether_the_context_was_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One compiled function, called outside and inside: each call is what it would be without torch.compile."""
    monkeypatch.setattr("manualbp.kernels.activation.sigmoid_slope", lambda delta, y: delta * y)
    torch._dynamo.reset()
    model = small()
    f = torch.compile(model, backend="aot_eager")
    right = gradients(model, model)
    for inside in (False, True, False, True):
        with manualbp.by_hand() if inside else torch.enable_grad():
            seen = gradients(f, model)
        assert (distance(seen[0], right[0]) <= EXACT) != inside
