"""linear, the triple without space, and softmax with cross-entropy, whose gradient is yhat - y."""

import torch
from torch import Tensor, nn

from manualbp import functional as F
from manualbp.explain.data import LIMIT, Draft, Grid, Term
from manualbp.explain.source import code_of
from manualbp.functional.conv import over_all_but_maps
from manualbp.functional.linear import Linear
from manualbp.functional.loss_of_classes import CrossEntropy
from manualbp.functional.softmax import Softmax
from manualbp.kernels import reference
from manualbp.kernels.geometry import convolution


def linear(layer: nn.Linear, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    products = x.shape[0] * w.numel()
    if products > LIMIT:
        raise ValueError(
            f"explain: linear of an input {[*x.shape]} and a weight {[*w.shape]} has {products:,} products; a page "
            f"shows at most {LIMIT:,}: take fewer numbers"
        )
    return F.linear(x, w, b)


def cross_entropy(layer: nn.CrossEntropyLoss, x: Tensor, target: Tensor, b: None) -> Tensor:
    if layer.weight is not None or layer.label_smoothing or layer.reduction == "none":
        raise ValueError("explain: CrossEntropyLoss with weight, label_smoothing or reduction 'none' has no page")
    if x.ndim != 2 or target.shape != x.shape[:1] or target.dtype != torch.int64 or target.numel() == 0:
        raise ValueError(
            f"explain: the scores have shape {[*x.shape]} and target is {target.dtype} of shape {[*target.shape]}; the "
            "scores must be [N, C], and target int64 classes [N]"
        )
    if target.min() < 0 or target.max() >= x.shape[1]:
        raise ValueError(f"explain: target = {target.tolist()}; the classes are 0 to {x.shape[1] - 1}")
    return F.cross_entropy(x, target, reduction=layer.reduction).reshape(1)


def describe_linear(draft: Draft, layer: nn.Linear, t: dict[str, Grid]) -> None:
    """The products are those of a convolution whose images and kernels are of one pixel."""
    x, w, y, delta, dx, dw = (t[name] for name in ("x", "w", "y", "delta", "dx", "dw"))
    (N, I), O = x.shape, w.shape[0]
    forth, back, kernel = ([[] for _ in range(t[name].values.numel())] for name in ("y", "dx", "dw"))
    for n, o, _, _, i, *_ in reference.trilinear(
        convolution("linear", (N, I, 1, 1), (O, I, 1, 1), 1, 0, 1, 1), N, I, O
    ):
        a, v, d = n * I + i, o * I + i, n * O + o
        forth[d].append((1, [(x.id, a), (w.id, v)]))
        back[a].append((1, [(delta.id, d), (w.id, v)]))
        kernel[v].append((1, [(delta.id, d), (x.id, a)]))
    for cell in range(N * O if "b" in t else 0):
        forth[cell].append((1, [(t["b"].id, cell % O)]))
    general = f"y[n,o] = sum_{{i}} x[n,i] w[o,i]{' + b[o]' if 'b' in t else ''}"
    source, code = "lecture 003; lecture 004, eq. 4.5", code_of(Linear.forward)
    draft.panel("forward", "Forward: a row of w for each output", [x, w, t.get("b"), y], general, source, code, forth)
    general, source, code = (
        "dx[n,i] = sum_{o} delta[n,o] w[o,i]",
        "lecture 003, eq. 3.2",
        code_of(Linear.backward, "dx = run"),
    )
    draft.panel(
        "local-gradient", "Local gradient: a column of w for each input", [delta, w, dx], general, source, code, back
    )
    general, source, code = (
        "dw[o,i] = sum_{n} delta[n,o] x[n,i]",
        "lecture 003, eq. 3.3",
        code_of(Linear.backward, "dw ="),
    )
    draft.panel("kernel-gradient", "Gradient of w: an outer product", [delta, x, dw], general, source, code, kernel)
    bias_gradient(draft, t)


def bias_gradient(draft: Draft, t: dict[str, Grid]) -> None:
    """db, where there is a bias: the sum of delta over all but its axis 1."""
    if "db" in t:
        delta, db = t["delta"], t["db"]
        terms: list[list[Term]] = [
            [(1, [(delta.id, k)]) for k in own.flatten().tolist()] for own in delta.cells.unbind(1)
        ]
        draft.panel(
            "bias-gradient",
            "Bias gradient: delta is summed",
            [delta, db],
            "db[o] = sum_{n,i,j} delta[n,o,i,j]" if delta.values.ndim == 4 else "db[o] = sum_{n} delta[n,o]",
            "lecture 003, eq. 3.4",
            code_of(over_all_but_maps) if delta.values.ndim == 4 else code_of(Linear.backward, "db ="),
            terms,
        )


def describe_cross_entropy(draft: Draft, layer: nn.CrossEntropyLoss, t: dict[str, Grid]) -> None:
    """The panels: probabilities, the loss, and yhat - y, over the number of samples where the loss is their mean."""
    z, loss, dz, target = (t[name] for name in ("x", "y", "dx", "target"))
    (N, C), classes = z.shape, target.values.tolist()
    if draft.alone:
        z.stem, dz.stem = "z", "dz"
    yhat = draft.grid("y", F.softmax(z.values, 1), "probabilities", "output", 1, "yhat")
    one = torch.nn.functional.one_hot(target.values, C).to(z.values.dtype)
    y = draft.grid("truth", one, "1 for the true class", "other", 1, "y")
    draft.more["bars"] = {"label": "yhat - y", "values": yhat.id, "target": y.id}
    rows = [f"exp({own}) over the sum of the exponentials of its row" for own in z.symbols()]
    general, code = "yhat[n,i] = exp(z[n,i]) / sum_{k} exp(z[n,k])", code_of(Softmax.forward)
    over = z, [row for row in z.cells for _ in range(C)]
    draft.panel("softmax", "Forward: softmax", [z, yhat], general, "lecture 004, eq. 4.1", code, None, over, say=rows)
    what = "the mean of" if layer.reduction == "mean" and N > 1 else "the sum of" if N > 1 else ""
    of = ", ".join(f"-log {yhat.symbols()[n * C + k]}" for n, k in enumerate(classes))
    draft.panel(
        "loss",
        "Forward: the loss",
        [yhat, y, loss],
        f"L = {'1/N ' if layer.reduction == 'mean' else ''}sum_{{n}} -log yhat[n,t]",
        "lecture 004, eq. 4.2; lecture 001, eq. 1.8",
        code_of(CrossEntropy.forward),
        windows=(yhat, [target.values + C * torch.arange(N)]),
        say=[f"L is {what} {of}.".replace("  ", " ")],
    )
    c = 1 / N if layer.reduction == "mean" else 1.0
    terms: list[list[Term]] = [[(c, [(yhat.id, k)]), (-c, [(y.id, k)])] for k in range(N * C)]
    draft.panel(
        "local-gradient",
        "Local gradient: yhat - y",
        [yhat, y, dz],
        f"dL/dz = {'1/N ' if c != 1 else ''}(yhat - y)",
        "lecture 004, eq. 4.2; in numbers eq. 4.3",
        code_of(CrossEntropy.backward),
        terms,
    )
