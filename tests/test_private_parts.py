"""The private parts of PyTorch and Lightning that are leaned on: where one is gone, the test of its name fails.

Those that tell who follows the operations are in tests/kernels/test_transforms.py.
"""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules import module as torch_module
from torch.overrides import TorchFunctionMode


def test_forward_signature() -> None:
    """A Function's apply asks inspect.signature for `forward`'s, which is `forward.__signature__`, and binds by it."""
    asked = []

    class Recording(inspect.Signature):
        def bind(self, *args: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return SimpleNamespace(args=args, kwargs={}, apply_defaults=lambda: asked.append(args))

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor, times: int) -> Tensor:
            return x * times

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

        @staticmethod
        def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
            return delta * 2, None

    Twice.forward.__signature__ = Recording(list(inspect.signature(Twice.forward).parameters.values()))
    x = torch.ones(2, requires_grad=True)
    y: Any = Twice.apply(x, 2)
    assert [(a is x, times) for a, times in asked] == [(True, 2)]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [2, 2]


def test_backward_c_function_forward_cls() -> None:
    """The node of a Function names it, and calls the `backward` that it has at that time."""

    class Same(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, delta: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return delta

    y: Any = Same.apply(torch.ones(2, requires_grad=True))
    assert isinstance(y.grad_fn, torch.autograd.function.BackwardCFunction)
    assert type(y.grad_fn)._forward_cls is Same  # pyright: ignore[reportAttributeAccessIssue]


def test_torch_c_len_torch_function_stack() -> None:
    count = torch._C._len_torch_function_stack
    before = count()
    with TorchFunctionMode():
        assert count() == before + 1
        with TorchFunctionMode():
            assert count() == before + 2
    assert count() == before


def test_torch_c_top_saved_tensors_default_hooks() -> None:
    """None, or the pair of the innermost saved_tensors_hooks."""
    top: Callable[[bool], Any] = torch._C._autograd._top_saved_tensors_default_hooks  # pyright: ignore
    assert top(True) is None

    def pack(t: Tensor) -> Tensor:
        return t

    with saved_tensors_hooks(pack, pack):
        assert top(True) == (pack, pack)
    assert top(True) is None


def test_fx_node_erased() -> None:
    """Nodes that were taken out of a graph are still met where its nodes were listed before; `_erased` tells them."""
    graph = fx.symbolic_trace(nn.Sequential(nn.ReLU(), nn.Identity())).graph
    _, relu, identity, _ = nodes = list(graph.nodes)
    identity.replace_all_uses_with(relu)
    graph.erase_node(identity)
    assert [node._erased for node in nodes] == [False, False, True, False]


HOOKS = {
    "_forward_hooks": "register_forward_hook",
    "_forward_pre_hooks": "register_forward_pre_hook",
    "_backward_hooks": "register_full_backward_hook",
    "_backward_pre_hooks": "register_full_backward_pre_hook",
}
OF_ALL_MODULES = ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"]


@pytest.mark.parametrize("name", HOOKS)
def test_module_hooks(name: str) -> None:
    """Each kind is held in the attribute of its name, which is empty without one."""
    module = nn.ReLU()
    assert not getattr(module, name)
    handle = getattr(module, HOOKS[name])(lambda *_: None)
    assert [other for other in HOOKS if getattr(module, other)] == [name]
    handle.remove()
    assert not getattr(module, name)


@pytest.mark.parametrize("kind", OF_ALL_MODULES)
def test_has_any_global_hook(kind: str) -> None:
    """torch.nn.modules.module._has_any_global_hook knows of every kind that is called for all modules."""
    assert not torch_module._has_any_global_hook()
    handle = getattr(torch_module, f"register_module_{kind}")(lambda *_: None)
    try:
        assert torch_module._has_any_global_hook()
    finally:
        handle.remove()
    assert not torch_module._has_any_global_hook()


def test_module_modules_and_buffers() -> None:
    """The dicts that hold a module's children and buffers in order, None among them."""
    module = nn.BatchNorm1d(2, track_running_stats=False)
    assert list(module._buffers.items()) == [(name, None) for name in module._buffers] != []
    model = nn.Sequential(module, nn.ReLU())
    assert list(model._modules.items()) == [("0", model[0]), ("1", model[1])]


@pytest.mark.parametrize("name", ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "CircularPad2d"])
def test_check_input_dim(name: str) -> None:
    """It raises for an input of the wrong number of axes, and only for that."""
    layer: Any = getattr(nn, name)(2)
    right = {"BatchNorm1d": 3, "BatchNorm2d": 4, "BatchNorm3d": 5, "CircularPad2d": 4}[name]
    layer._check_input_dim(torch.ones([2] * right))
    with pytest.raises(ValueError, match="input"):
        layer._check_input_dim(torch.ones(2))


def test_batch_norm_and_convolution_base_classes() -> None:
    for axes in (1, 2, 3):
        assert issubclass(getattr(nn, f"BatchNorm{axes}d"), nn.modules.batchnorm._BatchNorm)
        for kind in ("Conv", "ConvTranspose"):
            assert issubclass(getattr(nn, f"{kind}{axes}d"), nn.modules.conv._ConvNd)


def test_conv_reversed_padding_repeated_twice() -> None:
    """What torch.nn.functional.pad takes: the last axis first, each margin on both sides; `same` is told apart."""
    layer = nn.Conv2d(1, 1, (3, 4), padding=(1, 2), padding_mode="circular")
    assert list(layer._reversed_padding_repeated_twice) == [2, 2, 1, 1]
    layer = nn.Conv2d(1, 1, (3, 4), padding="same", padding_mode="circular")
    assert list(layer._reversed_padding_repeated_twice) == [1, 2, 1, 1]


def test_conv_forward() -> None:
    """The convolution with another kernel and bias than the layer's own."""
    layer, x = nn.Conv2d(2, 3, 3, padding=1), torch.ones(1, 2, 4, 4)
    w, b = torch.ones(3, 2, 3, 3), torch.ones(3)
    assert torch.equal(layer._conv_forward(x, w, b), nn.functional.conv2d(x, w, b, padding=1))


def test_conv_transpose_output_padding() -> None:
    """The pixels behind that make the output of the size that is asked for."""
    layer = nn.ConvTranspose2d(1, 1, 2, stride=3, padding=1)
    how: Any = (3, 3), (1, 1), (2, 2), 2, (1, 1)
    assert list(layer._output_padding(torch.ones(1, 1, 4, 4), [9, 11], *how)) == [0, 2]


def test_lightning_multi_processing_launcher() -> None:
    """Strategies that start copies of the process are told by their launcher; ddp starts a program anew."""
    pl = pytest.importorskip("lightning.pytorch")
    launchers = pytest.importorskip("lightning.pytorch.strategies.launchers")

    def launcher(strategy: str) -> Any:
        made = pl.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False, enable_checkpointing=False)
        return made.strategy.launcher

    assert isinstance(launcher("ddp_spawn"), launchers._MultiProcessingLauncher)
    assert not isinstance(launcher("ddp"), launchers._MultiProcessingLauncher)


def test_numbers_of_nodes_and_what_they_saved() -> None:
    """A node has the number that was the next one; what its hooks packed, and the hook, can be had."""
    following = torch.autograd._get_sequence_nr  # pyright: ignore[reportPrivateImportUsage]
    x = torch.ones(2, requires_grad=True)
    number = following()
    with saved_tensors_hooks(lambda t: ("packed", t), lambda held: held[1]):
        node: Any = x.exp().grad_fn
    assert (node._sequence_nr(), following()) == (number, number + 1)
    assert node._raw_saved_result.data[0] == "packed"
    assert node._raw_saved_result.unpack_hook(("packed", 3)) == 3
    number_of_python: Any = (x * 2).grad_fn
    assert number_of_python._raw_saved_other.unpack_hook is None
    assert float(number_of_python._raw_saved_other.data) == 2
