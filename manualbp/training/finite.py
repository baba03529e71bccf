"""The end of a run whose loss, gradients or weights are no longer finite, and the layer where that began."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

import manualbp
from manualbp.training import NotFiniteError
from manualbp.training.classifier import Classifier
from manualbp.training.data import Batch

# In a row, of 16-mixed: each halves the scale of the loss, which begins at 2^16.
MOST_SKIPPED = 40


class FiniteCheck(pl.Callback):
    """Ends the run at the first step whose loss, gradients or update are not finite, and says where that began.

    A step costs a look at the loss, which is logged anyway, and at the norm of the gradients; an epoch, before its
    checkpoint, a look at the weights. Only then the step is taken again, on a copy of the network whose fused layers
    run apart, and every layer is watched: the one that makes of finite numbers others is named.
    Raises: NotFiniteError, in each of several processes, which all have the same loss and the same gradients.
    """

    def __init__(self) -> None:
        self.skipped = 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Classifier, batch: Batch, batch_idx: int) -> None:
        self.batch, self.index = batch, batch_idx

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Classifier, loss: Tensor) -> None:
        loss = trainer.callback_metrics["train_loss_step"]  # the mean over all processes
        if loss.isfinite():
            return
        done = trainer.global_step
        begin = f"step {done + 1}: the loss is {loss.item()}"
        name = not_finite(pl_module.network.named_parameters())
        if name is not None:
            # With finite gradients: the step before looked at them.
            stop(pl_module, f"{begin}, as {name} is not finite after step {done}: an update made it so")
        stop(pl_module, f"{begin}: {self.search(trainer, pl_module, backward=False)}")

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Classifier, optimizer: Any) -> None:
        gradients = {name: p.grad for name, p in pl_module.network.named_parameters() if p.grad is not None}
        # The norm is the quickest look. It may overflow where they do not.
        norm = torch.nn.utils.get_total_norm(gradients.values())
        if norm.isfinite() or (name := not_finite(gradients.items())) is None:
            self.skipped = 0
            return
        # With a GradScaler this is how it finds the scale of the loss: it leaves out the step.
        self.skipped += 1
        if getattr(trainer.precision_plugin, "scaler", None) is not None and self.skipped < MOST_SKIPPED:
            return
        begin = f"step {trainer.global_step + 1}: the gradient of {name} is not finite, though the loss is"
        stop(pl_module, f"{begin}: {self.search(trainer, pl_module, backward=True)}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Classifier, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.is_last_batch and (name := not_finite(pl_module.network.named_parameters())):
            stop(pl_module, f"{name} is not finite after step {trainer.global_step}: an update made it so")

    def search(self, trainer: pl.Trainer, model: Classifier, backward: bool) -> str:
        """Where the step's forward pass, or its backward pass, first is not finite; in any of the processes."""
        network = copy.deepcopy(model.network)
        manualbp.unfuse(network)
        network.zero_grad()
        loss = copy.deepcopy(model.loss)
        layers = [(f"{name} ({type(layer).__name__})", layer) for name, layer in network.named_modules() if name]
        layers += [("the network", network), (f"the loss ({type(loss).__name__})", loss)]
        found: list[str] = []
        for name, layer in layers:
            if not backward:
                watch_forward(name, layer, found)
            elif layer is loss or not list(layer.children()):
                watch_backward(name, layer, found)
        x, labels = self.batch
        model.on_train_batch_start(self.batch, self.index)  # for the same masks of dropout
        with trainer.precision_plugin.train_step_context():
            result = loss(network(model.normalised(x)), labels)
        if backward:
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            (result if scaler is None else scaler.scale(result)).backward()
        first = next(filter(None, gathered(trainer, found[0] if found else "")), None)
        return first or "taken again, the step is finite"


def not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first that is not."""
    return next((name for name, tensor in named if not tensor.isfinite().all()), None)


def watch_forward(name: str, layer: torch.nn.Module, found: list[str]) -> None:
    """Have `found` told when the layer's output is not finite."""

    def look(_: torch.nn.Module, inputs: Any, output: Any) -> None:
        if not found and not finite(output):
            found.append(f"the first value that is not finite comes {'out of' if finite(inputs) else 'into'} {name}")

    layer.register_forward_hook(look)


def watch_backward(name: str, layer: torch.nn.Module, found: list[str]) -> None:
    """Have `found` told when a gradient that the layer gets, or one that it makes, is not finite.

    Hooks of tensors, as those of modules do not allow a layer to work in place.
    """

    def told(way: str) -> Any:
        def look(delta: Tensor) -> None:
            if not found and not delta.isfinite().all():
                found.append(f"the first gradient that is not finite comes {way} the backward of {name}")

        return look

    def before(_: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        # A copy has the gradient of this layer alone, where the input goes to others, too.
        copies = tuple(x.clone() if isinstance(x, Tensor) and x.requires_grad else x for x in inputs)
        for x in copies:
            if isinstance(x, Tensor) and x.requires_grad:
                x.register_hook(told("out of"))
        return copies

    def after(_: torch.nn.Module, inputs: Any, output: Any) -> None:
        for y in tensors(output):
            if y.requires_grad:
                y.register_hook(told("into"))

    layer.register_forward_pre_hook(before)
    layer.register_forward_hook(after)
    for p in filter(lambda p: p.requires_grad, layer.parameters()):
        p.register_hook(told("out of"))


def tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict | list | tuple):
        for value in values.values() if isinstance(values, dict) else values:
            yield from tensors(value)


def finite(values: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors(values))


def gathered(trainer: pl.Trainer, value: Any) -> list[Any]:
    """What each process has, in all of them."""
    if trainer.world_size == 1:
        return [value]
    values = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def stop(model: Classifier, what: str) -> None:
    """NotFiniteError, with what to try."""
    rate = model.options["lr"]
    precision = str(model.trainer.precision)  # not the option: on a CPU 16-mixed is bf16-mixed
    hints = [f"--lr {rate / 10:g} in place of {rate:g}"] if model.trainer.global_step else []
    if precision.startswith("16"):
        hints.append(f"--precision bf16-mixed or 32-true in place of {precision}")
    raise NotFiniteError(f"{what}; try {', or '.join(hints)}" if hints else f"{what}, before any update of the weights")
