"""The check of every backward before the first step."""

import copy
import time
from contextlib import suppress
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.func import functional_call

import manualbp
from manualbp.audit import CannotAuditError
from manualbp.audit.report import UNKNOWN, WRONG
from manualbp.convert import Fused
from manualbp.training import UserError
from manualbp.training.classifier import Classifier

# What takes long, and what is another question than whether this network trains on right gradients.
SKIPPED = (
    *("values", "extents", "result", "memory left", "ctx", "precision", "forward mode", "vmap"),
    *("NaN and infinity", "autocast", "torch.compile"),
)
CORNER = 32  # pixels
# Of a layer that is checked: it takes up to 8 s there, and the first Linear of vgg11 has 25 times as many.
MOST_WEIGHTS = 2**22


class GradientCheck(pl.Callback):
    """Audits the backward of each kind of layer, and of the loss, before the first step (manualbp.audit).

    In float64, on the shapes that the layer meets in the network, in the first and in the second derivative; of images
    of more than 32 x 32 pixels on a corner of that size. The network and the global random generator are left as they
    were. Each layer is called by itself: one that calls torch.nn.functional in a forward of its own (LayerNorm2d of
    torchvision) is checked on PyTorch's. Where the network is fused, its layers are checked apart, and its gradients
    are compared with those that it has when they run apart.
    Raises: UserError, and nothing is trained, where one is wrong: it says where, and by how much.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Classifier) -> None:
        start = time.perf_counter()
        # MPS knows no float64.
        device = pl_module.device if pl_module.device.type == "cuda" else torch.device("cpu")
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            network = copy.deepcopy(pl_module.network).to(device, torch.float64)
            x = distinct((2, *pl_module.shape), device)
            fused = any(isinstance(layer, Fused) for layer in network.modules())
            together = gradients(network, x) if fused else {}
            manualbp.unfuse(network)  # else its layers are not called
            calls = first_of_each_kind(network, x)
            try:
                kinds = []
                for layer, shape, others in calls:
                    kinds.append(check(layer, cut(layer, distinct(shape, device), *others), *others))
                scores = distinct((2, len(pl_module.classes)), device)
                kinds.append(check(pl_module.loss.to(device), scores, torch.tensor([0, 1], device=device)))
                if fused:
                    require_equal(together, gradients(network, x))
            except UserError:
                if trainer.is_global_zero:
                    raise
                raise SystemExit(2) from None  # every process finds the same, one says so
            kinds += ["the fused network"] * fused
        if trainer.is_global_zero:
            print(f"audit: {', '.join(kinds)} ok (float64, {time.perf_counter() - start:.1f} s)", flush=True)


def first_of_each_kind(network: torch.nn.Module, x: Tensor) -> list[tuple[torch.nn.Module, tuple[int, ...], list[Any]]]:
    """The first layer of every class that x meets in the network, the shape of its input, and what else it is given.

    In place of one with more than `MOST_WEIGHTS` a later, smaller one.
    """
    first: dict[str, tuple[torch.nn.Module, tuple[int, ...], list[Any]]] = {}

    def note(layer: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        before = first.get(type(layer).__name__)
        if before is None or MOST_WEIGHTS < weights(before[0]) > weights(layer):
            first[type(layer).__name__] = layer, tuple(inputs[0].shape), list(inputs[1:])

    layers = [layer for layer in network.modules() if not list(layer.children())]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    return list(first.values())


def weights(layer: torch.nn.Module) -> int:
    return sum(p.numel() for p in layer.parameters())


def distinct(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Values in (-2, 2), no two equal and none zero: no maximum has a tie, no ReLU is at its kink."""
    n = torch.Size(shape).numel()
    return ((torch.randperm(n, device=device).double() + 0.5) * (4 / n) - 2).view(shape)


def check(layer: torch.nn.Module, x: Tensor, *others: Any) -> str:
    """Audit the layer at x, and at its parameters; `others` follow x in the call. Returns what is to be printed.

    First y(t) = layer(x + t_0 v_0; w + t_1 v_1, ...), of as many numbers as the layer has tensors, whatever their size;
    where that is wrong the layer itself, which takes longer and says where.
    """
    name = type(layer).__name__
    layer = copy.deepcopy(layer)
    layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(), *inputs[1:]))  # it may work in place
    at = {"": x, **{path: p.detach() for path, p in layer.named_parameters()}}
    directions = [2 * torch.rand_like(tensor) - 1 for tensor in at.values()]

    def y(t: Tensor) -> Any:
        moved = {path: a + s * v for (path, a), s, v in zip(at.items(), t, directions, strict=True)}
        return functional_call(layer, moved, (moved.pop(""), *others))

    try:
        report = manualbp.audit(y, x.new_zeros(len(at)), skip=SKIPPED)
        if report:
            return name
        found = manualbp.audit(layer, x, *others, skip=SKIPPED).findings + report.findings
    except CannotAuditError:
        return f"{name} (not audited)"
    wrong = next((f for f in found if f.kind == WRONG and f.cause != "precision lost"), None)
    if wrong is None:  # PyTorch's Hardsigmoid has a 1/6 of float32
        return f"{name} ({'cannot tell' if report.verdict == UNKNOWN else 'not to the precision of float64'})"
    of, cause = (f"{words}: " if words else "" for words in (wrong.input, wrong.cause))
    raise UserError(
        f"audit: the backward of {name} is wrong (float64, input {' x '.join(map(str, x.shape))}): {of}{wrong.what}; "
        f"{cause}nothing was trained"
    )


def cut(layer: torch.nn.Module, x: Tensor, *others: Any) -> Tensor:
    """x, or of images as large as photographs the upper left corner, if the layer takes it."""
    corner = x[..., :CORNER, :CORNER] if x.ndim == 4 else x
    with torch.no_grad(), suppress(Exception):
        layer(corner.clone(), *others)
        return corner
    return x


def gradients(network: torch.nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Those of all parameters, for one delta at the scores; what is drawn at random is drawn from one seed."""
    torch.manual_seed(0)
    z = network(x.clone())
    network.zero_grad()
    z.backward(torch.randn_like(z))
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in network.named_parameters()}


def require_equal(together: dict[str, Tensor], apart: dict[str, Tensor]) -> None:
    """UserError where the fused network's gradients are not those of its layers apart.

    Rounding is relative to the largest gradient of all: one may be zero but for that (a bias before batch norm).
    """
    largest = max(float(d.abs().max()) for d in apart.values())
    for name, d in apart.items():
        if not (together[name] - d).abs().max() <= 1e-6 * d.abs().max() + 1e-9 * largest:  # a NaN is none of these
            raise UserError(
                f"audit: the fused network's gradient of {name} is not that of its layers apart (float64): "
                "nothing was trained"
            )
