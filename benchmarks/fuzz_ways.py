"""A random network by PyTorch and in five ways by hand: the same outputs, gradients and buffers.

And the same again after `restore` and `unfuse`. A difference that PyTorch's own numbers show as well when every layer's
output moves in the 14th digit is none: a kink, or a norm of equal numbers.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import manualbp
from benchmarks.fuzz_blocks import Gate
from benchmarks.fuzz_compare import EXACT, Verdict, said, size
from benchmarks.fuzz_draw import weights
from benchmarks.fuzz_networks import drawn

Numbers = dict[str, Tensor]


def numbers(model: nn.Module, x: Tensor, run: Callable[..., Any]) -> Numbers | Exception:
    """What run(model, x) gives, and the buffers after it; or the error."""
    torch.manual_seed(5)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = run(model, x.detach().clone().requires_grad_(x.requires_grad))
    except Exception as error:
        return error
    return found | {name: b.detach().clone() for name, b in model.named_buffers()}


def step(model: nn.Module, x: Tensor, call: Callable[[Tensor], Tensor] | None = None) -> Numbers:
    y = (call or model)(x * 1)
    asked = {"dx": x} if x.requires_grad else {}
    asked |= {f"d{name}": p for name, p in model.named_parameters() if p.requires_grad}
    found = {"y": y.detach().clone()}
    if asked and y.requires_grad:
        deltas = weights(y.shape, y.dtype)
        gradients = torch.autograd.grad(y, list(asked.values()), deltas, allow_unused=True, materialize_grads=True)
        found |= dict(zip(asked, gradients, strict=True))
    return found


def by_hand(model: nn.Module, x: Tensor) -> Numbers:
    with manualbp.by_hand():
        return step(model, x)


def compiled(model: nn.Module, x: Tensor) -> Numbers:
    torch._dynamo.reset()
    return step(model, x, torch.compile(model, backend="aot_eager"))


def each_image(model: nn.Module, x: Tensor) -> Numbers:
    """vmap(grad(functional_call)): the gradients of each image."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        y = torch.func.functional_call(model, parameters, (image[None] * 1,))
        return (y * weights(y.shape, y.dtype)).sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0), randomness="same")(parameters, x.detach())
    return {f"d{name}": g for name, g in found.items()}


def converted(model: nn.Module) -> None:
    manualbp.convert(model)


def fused(model: nn.Module) -> None:
    manualbp.fuse(model)


def both(model: nn.Module) -> None:
    manualbp.convert(model)
    manualbp.fuse(model)


def back(model: nn.Module) -> None:
    manualbp.unfuse(model)
    manualbp.restore(model)


def exact(model: nn.Module) -> float:
    """PyTorch's hardsigmoid has 1 / 6 in float32 in its backward pass, 3e-8 from the truth."""
    inexact = any(isinstance(m, nn.Hardsigmoid) or (isinstance(m, Gate) and m.form == 1) for m in model.modules())
    return 1e-6 if inexact else EXACT


def apart(ours: Numbers, theirs: Numbers, allowed: float) -> tuple[float, str]:
    """The largest difference, as a multiple of what is allowed, and the number's name."""
    least = 1e-3 * max((size(b) for b in theirs.values()), default=0.0)
    found = [(0.0, "")]
    if ours.keys() != theirs.keys():
        return float("inf"), f"{', '.join(sorted(ours.keys() ^ theirs.keys())[:3])}: on one side alone"
    for name, b in theirs.items():
        a = ours[name]
        if a.shape != b.shape or a.dtype != b.dtype or not torch.equal(a.isfinite(), b.isfinite()):
            return float("inf"), f"{name}: {list(a.shape)} {a.dtype} for {list(b.shape)} {b.dtype}, or not finite"
        far = size(a.double() - b.double()) / (allowed * max(size(b), least, 1e-6))
        found.append((far, f"{name}: off by {far * allowed:.1e}"))
    return max(found)


def moved(model: nn.Module, x: Tensor, run: Callable[..., Any]) -> Numbers | Exception:
    """PyTorch's numbers where the output of every layer is moved in the 14th digit."""

    def move(module: nn.Module, given: Any, y: Any) -> None:
        y.data.mul_(1 + 1e-14 * weights(y.shape, y.dtype, len(given)))

    for module in model.modules():
        if not module._modules:
            module.register_forward_hook(move)
    return numbers(model, x, run)


def check(case: str, tell: Callable[[str], None] = lambda side: None) -> Verdict:
    """The verdict on the network of this name."""
    model, x, d = drawn(case)
    state = copy.deepcopy(model.state_dict())
    run: Callable[..., Any] = step
    ways: dict[str, tuple[Callable[[nn.Module], None], Callable[..., Any]]] = {
        "by_hand": (lambda model: None, by_hand),
        "convert": (converted, step),
        "fuse": (fused, step),
        "convert, fuse": (both, step),
    }
    share = d.random()
    if share < 0.01:
        ways = {"convert, fuse, compile": (both, compiled)}
    elif share < 0.12:
        run = each_image
        model.eval()  # PyTorch's vmap does not update running statistics
        ways = {f"{way}, vmap": (change, each_image) for way, (change, _) in ways.items() if change is not both}
    tell("PyTorch")
    theirs = numbers(copy.deepcopy(model), x, run)
    if isinstance(theirs, Exception):
        return Verdict("PyTorch refuses", "a network" if run is step else "a network under vmap")
    tell("manualbp")
    for way, (change, run_ours) in ways.items():
        other = copy.deepcopy(model)
        why = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                change(other)
        except Exception as error:
            return Verdict("FAILED", f"{way}: {said(error)}")
        for what, undo in ((way, None), (f"{way}, and back", back)):
            if undo is not None:
                undo(other)
                other.load_state_dict(state)
                if [type(m) for m in other.modules()] != [type(m) for m in model.modules()]:
                    return Verdict("FAILED", f"{what}: other classes")
            ours = numbers(other, x, run_ours if undo is None else run)
            if isinstance(ours, Exception):
                if run_ours is compiled and isinstance(numbers(copy.deepcopy(model), x, compiled), Exception):
                    return Verdict("PyTorch refuses", "a network under torch.compile")
                return Verdict("FAILED", f"{what}: {said(ours)}")
            far, why = apart(ours, theirs, exact(model))
            if far > 1:
                shaken = moved(copy.deepcopy(model), x, run)
                if isinstance(shaken, Exception) or 100 * apart(shaken, theirs, exact(model))[0] < far:
                    return Verdict("FAILED", f"{what}: {why}")
                return Verdict("unstable in PyTorch, too")
            if d.chance(0.7):
                break  # back is tried for some alone
    return Verdict("same")


def keeps_more(case: str) -> str:
    """A remark where a fused network keeps more than PyTorch, by `manualbp.memory`."""
    model, x, _ = drawn(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = manualbp.memory(model, x).totals
    ratio = kept["fused"] / max(1, kept["pytorch"])
    return f"keeps {ratio:.2f} of what PyTorch keeps, fused" if ratio > 1.02 else ""
