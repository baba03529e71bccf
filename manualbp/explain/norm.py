"""batch_norm: x reaches y directly, through the mean and through the variance, and so delta has three ways back.

The rule has mu and r = 1 / sqrt(variance + eps) as outputs, too, so each way is its own backward pass: the direct one
with mu and r as constants, the others with the errors of mu and r, dL/dmu = -r w db and dL/dr = w dw / r.
"""

import torch
from torch import Tensor, nn

from manualbp import functional as F
from manualbp.explain.data import Draft, Grid, Term, pulled_back
from manualbp.explain.source import code_of
from manualbp.functional.norm import Normalise, batch_sharing, gradients
from manualbp.functional.norm_given import NormaliseBy
from manualbp.functional.rule import run

SOURCE = "Ioffe and Szegedy 2015, sec. 3"


def forward(layer: nn.BatchNorm2d, x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
    if not layer.training:
        raise ValueError("explain: BatchNorm2d is in evaluation; only training, by the batch's own numbers, has a page")
    return F.batch_norm(x, None, None, w, b, True, 0.0, layer.eps)


def describe(draft: Draft, layer: nn.BatchNorm2d, t: dict[str, Grid]) -> None:
    """The panels: mean, scale, output; the sums of delta; the three ways back and their sum."""
    t = t | _statistics(draft, layer, t)
    _describe_forward(draft, layer, t)
    x, r, xhat, delta, dw, db, w = *(t[name] for name in ("x", "r", "xhat", "delta", "dw", "db")), t.get("w")
    m, maps = x.values.numel() // x.shape[1], _maps(x)
    sums: list[list[Term]] = [[(1, [(delta.id, k)]) for k in own] for own in maps]
    products: list[list[Term]] = [[(1, [(delta.id, k), (xhat.id, k)]) for k in own] for own in maps]
    code = code_of(gradients, "s, q = kernels.sums")
    panel = draft.panel
    panel("bias-gradient", "Sum of delta", [delta, db], "db[c] = sum_{n,i,j} delta[n,c,i,j]", SOURCE, code, sums)
    formula = "dw[c] = sum_{n,i,j} delta[n,c,i,j] xhat[n,c,i,j]"
    panel("kernel-gradient", "Sum of delta times xhat", [delta, xhat, dw], formula, SOURCE, code, products)

    def each(c: float, *factors: Grid) -> list[list[Term]]:
        """c times the factors, those of the pixel or of its map, and w where there is one."""
        of_map = {k: c for c, own in enumerate(maps) for k in own}
        used = [*factors, *([w] if w else []), r]
        return [[(c, [(f.id, k if f.shape == x.shape else of_map[k]) for f in used])] for k in range(len(of_map))]

    direct, mean, variance = (t[name] for name in ("direct", "through_mean", "through_variance"))
    ways: list[tuple[str, str, list[Grid | None], str, list[list[Term]]]] = [
        ("direct", "Back directly", [delta, w, r, direct], "delta w r", each(1, delta)),
        ("through-mean", "Back through the mean", [db, w, r, mean], "-1/m db w r", each(-1 / m, db)),
        (
            "through-variance",
            "Back through the variance",
            [xhat, dw, w, r, variance],
            "-1/m xhat dw w r",
            each(-1 / m, xhat, dw),
        ),
    ]
    needles = ("e = (eps", "c = r * r", "dx = kernels.combined")
    codes = [code_of(NormaliseBy.backward, "dx = (d"), *(code_of(gradients, needle) for needle in needles)]
    for (id, title, shows, formula, terms), code in zip(ways, codes[:3], strict=True):
        panel(id, title, shows, f"dx = {formula}" if w else f"dx = {formula.replace(' w', '')}", SOURCE, code, terms)
    draft.more["ways"] = [draft.prefix + id for id, *_ in ways]
    three = [direct, mean, variance]
    terms = [[(1.0, [(g.id, k)]) for g in three] for k in range(x.values.numel())]
    formula = "dx = w r (delta - 1/m db - 1/m xhat dw)" if w else "dx = r (delta - 1/m db - 1/m xhat dw)"
    panel(
        "local-gradient", "Local gradient: the three ways added up", [*three, t["dx"]], formula, SOURCE, codes[3], terms
    )


def _describe_forward(draft: Draft, layer: nn.BatchNorm2d, t: dict[str, Grid]) -> None:
    x, mu, r, xhat, y = (t[name] for name in ("x", "mu", "r", "xhat", "y"))
    maps, code, panel = _maps(x), code_of(Normalise.forward), draft.panel
    means: list[list[Term]] = [[(1 / len(own), [(x.id, k)]) for k in own] for own in maps]
    formula = "mu[c] = 1/m sum_{n,i,j} x[n,c,i,j]"
    panel("mean", "Forward: the mean of a map, over all images", [x, mu], formula, SOURCE, code, means)
    says = [f"{own} is 1 / sqrt(the variance of the map + {layer.eps:g})." for own in r.symbols()]
    formula = "r[c] = 1 / sqrt(1/m sum_{n,i,j} (x[n,c,i,j] - mu[c])^2 + eps)"
    panel(
        "scale",
        "Forward: one over the standard deviation",
        [x, mu, r],
        formula,
        SOURCE,
        code,
        None,
        (x, [torch.tensor(own) for own in maps]),
        say=says,
    )
    of_map = {k: c for c, own in enumerate(maps) for k in own}
    cells = range(x.values.numel())
    terms: list[list[Term]] = [
        [(1, [(x.id, k), (r.id, of_map[k])]), (-1, [(mu.id, of_map[k]), (r.id, of_map[k])])] for k in cells
    ]
    panel(
        "normalise", "Forward: without mean, of variance 1", [x, mu, r, xhat], "xhat = (x - mu) r", SOURCE, code, terms
    )
    terms = [[(1, [(xhat.id, k), *([(t["w"].id, of_map[k])] if "w" in t else [])])] for k in cells]
    for k in cells if "b" in t else ():
        terms[k].append((1, [(t["b"].id, of_map[k])]))
    formula = "y = xhat w + b" if "w" in t else "y = xhat"
    panel(
        "forward", "Forward: a scale and a shift a map", [xhat, t.get("w"), t.get("b"), y], formula, SOURCE, code, terms
    )


def _statistics(draft: Draft, layer: nn.BatchNorm2d, t: dict[str, Grid]) -> dict[str, Grid]:
    """What stands between x and y, and the three parts of dx, each by the rule."""
    x, delta = t["x"].values, t["delta"].values
    w = t["w"].values if "w" in t else torch.ones(x.shape[1], dtype=x.dtype)
    leaf, weight, bias = (v.clone().requires_grad_() for v in (x, w, torch.zeros_like(w)))
    how = batch_sharing("batch_norm", leaf, None, None, weight, bias, True, 0.0, layer.eps)
    y, mu, r = run(Normalise, leaf, weight, bias, None, None, how)
    dw, db = pulled_back(y, delta, weight, bias)
    mean, scale = mu.detach().flatten(), r.detach().flatten()
    given = F.batch_norm(leaf, mean, scale**-2 - layer.eps, w, None, False, 0.0, layer.eps)
    (direct,) = pulled_back(given, delta, leaf)
    (through_mean,) = pulled_back(mu, (-scale * w * db).view(mu.shape), leaf)
    (through_variance,) = pulled_back(r, (w * dw / scale).view(r.shape), leaf)
    of = "" if draft.alone else f"_{t['y'].id}"
    made = {
        "mu": draft.grid(f"mu{of}", mean, "mean of each map", "other", 1, "mu"),
        "r": draft.grid(f"r{of}", scale, "one over the standard deviation", "other", 1, "r"),
        "xhat": draft.grid(f"xhat{of}", forward(layer, x, None, None), "normalised input", "other", 2, "xhat"),
        "direct": draft.grid(f"direct{of}", direct, "directly", "gradient", 2, "d'"),
        "through_mean": draft.grid(f"through_mean{of}", through_mean, "through the mean", "gradient", 2, "m'"),
        "through_variance": draft.grid(
            f"through_variance{of}", through_variance, "through the variance", "gradient", 2, "v'"
        ),
    }
    if "dw" not in t:
        made["dw"] = draft.grid(f"q{of}", dw, "sum of delta times xhat", "other", 1, "q")
    if "db" not in t:
        made["db"] = draft.grid(f"s{of}", db, "sum of delta", "other", 1, "s")
    return made


def _maps(x: Grid) -> list[list[int]]:
    """The cells of each map, in all images."""
    return x.cells.movedim(1, 0).flatten(1).tolist()
