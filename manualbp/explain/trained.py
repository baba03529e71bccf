"""What a trained network does with one image: the activation, the delta and the kernel gradient of every layer.

The network is copied, and the copy runs on the rules (`manualbp.convert`), in evaluation mode. Forward hooks take each
layer's activation y, hooks on these tensors delta = dL/dy; dL/dw is the copy's `weight.grad`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import manualbp
from manualbp.convert import NO_ARITHMETIC, kind_of
from manualbp.coverage import coverage

MOST = 16  # maps of a layer that are shown
INPUTS = 8  # input maps whose kernels are shown
SILENT = (*NO_ARITHMETIC, nn.Dropout, nn.Dropout2d)  # what has nothing to show
WITH_KERNELS = (nn.Conv2d, nn.Linear)


@dataclass
class Seen:
    """One call of a layer. activation: y; delta: dL/dy, None where the loss does not depend on y."""

    name: str
    kind: str
    layer: nn.Module
    activation: Tensor
    delta: Tensor | None = None
    call: int = 1
    calls: int = 1

    @property
    def title(self) -> str:
        return self.name if self.calls == 1 else f"{self.name}, call {self.call} of {self.calls}"

    def maps_of(self, t: Tensor) -> Tensor:
        """`maps_of` the activation or the delta. Linear's features, and LayerNorm's of one axis, stand last."""
        size = getattr(self.layer, "normalized_shape", ())
        last = isinstance(self.layer, nn.Linear) or (len(size) == 1 and size[0] == t.shape[-1])
        return maps_of(t.movedim(-1, 1) if last and t.dim() == 4 else t)

    @property
    def w(self) -> Tensor | None:
        """The layer's weight, at its first call: its gradient is a sum over all of them."""
        w = getattr(self.layer, "weight", None)
        return w if self.call == 1 and isinstance(w, Tensor) else None

    @property
    def dw(self) -> Tensor | None:
        return None if self.w is None else self.w.grad


@dataclass(frozen=True)
class Look:
    """layers: in the order in which they ran. left: the backward nodes that are PyTorch's own."""

    x: Tensor
    delta: Tensor | None
    scores: Tensor
    target: int
    loss: float
    layers: list[Seen]
    left: list[str]


def look(
    network: nn.Module, x: Tensor, target: int | None = None, loss: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Look:
    """Run a copy of the network forwards and backwards on one image.

    Shapes: x [1, ...] float, of the network's dtype; its scores must be [1, K]. target: the class, from 0 to K - 1,
    what the network predicts where it is not given. loss: of scores and target, cross-entropy where it is not given.
    Raises ValueError where the network fails, gives no scores, or has no such class.
    """
    network = copy.deepcopy(network).eval().requires_grad_(True)
    network.zero_grad()
    manualbp.convert(network)
    x = x.detach().clone().requires_grad_(True)
    layers = watch(network)
    try:
        scores = network(x)
    except Exception as error:
        size = " x ".join(map(str, x.shape))
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"the network fails on an image of {size}: {why}") from error
    if not isinstance(scores, Tensor) or scores.dim() != 2 or len(scores) != 1:
        what = f"a tensor {list(scores.shape)}" if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        raise ValueError(f"the network gives {what}; it must be the scores of classes, [1, K]")
    if not scores.requires_grad:
        raise ValueError("the network gives scores that depend neither on the image nor on its weights")
    K = scores.shape[1]
    target = int(scores.argmax()) if target is None else target
    if not 0 <= target < K:
        raise ValueError(f"argument --target: {target}; the network has {K} classes, 0 to {K - 1}")
    value = (loss or manualbp.nn.CrossEntropyLoss())(scores, torch.tensor([target]))
    left = sorted(coverage(value).layers)
    value.backward()
    return Look(x.detach(), x.grad, scores.detach()[0], target, value.item(), layers, left)


def watch(network: nn.Module) -> list[Seen]:
    """The list that the network's next run fills: a call of a module in which no other one was called is a layer."""
    seen: list[Seen] = []
    names = {module: name for name, module in network.named_modules()}
    before: list[int] = []
    done = 0

    def enter(module: nn.Module, _: Any) -> None:
        before.append(done)

    def leave(module: nn.Module, _: Any, y: Any) -> None:
        nonlocal done
        inside, done = done - before.pop(), done + 1
        y = y[0] if isinstance(y, tuple) and y else y
        if inside or isinstance(module, SILENT) or not isinstance(y, Tensor) or not y.is_floating_point():
            return
        earlier = [other for other in seen if other.layer is module]
        name = names[module] or "(the network)"
        own = Seen(name, kind_of(module), module, y.detach().clone(), call=len(earlier) + 1)
        seen.append(own)
        for other in (*earlier, own):
            other.calls = own.call
        if y.requires_grad:
            y.register_hook(lambda delta: setattr(own, "delta", delta.detach().clone()))

    for module in names:
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
    return seen


def maps_of(t: Tensor) -> Tensor:
    """[1, C, h, w] as its maps [C, h, w]; [1, K] as [K, 1], maps of one number; [1, N, C], features last, as [C, N]."""
    t = t[0] if t.dim() > 1 else t
    if t.dim() == 2:
        t = t.T
    return t.reshape(len(t), *(t.shape[1:] if t.dim() == 3 else (-1,)))


def largest(t: Tensor, most: int = MOST) -> Tensor:
    """The numbers of the maps [C, ...] of largest norm, in their order."""
    norms = t.flatten(1).double().norm(dim=1).nan_to_num(torch.inf)
    return norms.topk(min(most, len(norms))).indices.sort().values


def kernels_of(seen: Seen, maps: Tensor) -> tuple[Tensor, Tensor, int] | None:
    """(kernels, their gradients, how many a map), of these output maps: [n * maps, p, q], or [maps, inputs] of Linear.

    Of a convolution n input maps, at most 8, whose kernels are the largest there: first all kernels of the first one.
    """
    w, dw = seen.w, seen.dw
    if w is None or dw is None or not isinstance(seen.layer, WITH_KERNELS):
        return None
    pair = torch.stack([w.detach(), dw])
    if pair.dim() == 4:  # ConnectedConv2d: a kernel a connection
        of_map = [pair[:, seen.layer.get_buffer("output_map") == o] for o in maps.tolist()]
        n = min(INPUTS, *(kernels.shape[1] for kernels in of_map))
        chosen = torch.stack([kernels[:, :n] for kernels in of_map], 2)
    else:
        if int(maps.max()) >= pair.shape[1]:
            return None
        chosen = pair[:, maps]
        if chosen.dim() == 3:
            return chosen[0], chosen[1], 1
        chosen = chosen.transpose(1, 2)
        chosen = chosen[:, largest(chosen[0], INPUTS)]
    w, dw = chosen.flatten(1, 2)
    return w, dw, chosen.shape[1]
