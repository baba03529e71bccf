"""The ends of the domain: nothing in an axis, integers, NaN. What PyTorch computes is computed, or refused by name."""

from typing import Any

import pytest
import torch
import torch.nn.functional as T
from torch import Tensor

import manualbp.functional as F
from tests.cases.make import ORACLES
from tests.checks import EXACT, first, random_like

INF, NAN = float("inf"), float("nan")


def r(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return (10 * random_like(torch.empty(shape, dtype=torch.float64), sum(shape))).to(dtype)


def both(op: str, args: list[Any], kwargs: dict[str, Any], delta: Tensor | None = None) -> list[list[Tensor]]:
    """The outputs, the gradients, and the gradients of these: PyTorch's and ours."""
    results = []
    for f in (ORACLES.get(op) or getattr(T, op), getattr(F, op)):
        inputs = [a.clone() if isinstance(a, Tensor) else a for a in args]
        wanted = [a.requires_grad_() for a in inputs if isinstance(a, Tensor) and a.is_floating_point()]
        y = f(*inputs, **kwargs)
        outputs = list(y) if isinstance(y, tuple) else [y]
        if wanted:
            d = random_like(outputs[0]).requires_grad_() if delta is None else delta
            gradients = torch.autograd.grad(outputs[0], wanted, d, create_graph=delta is None)
            outputs += gradients
            if delta is None:
                total = torch.stack([(g**2).sum() for g in gradients]).sum()
                outputs += torch.autograd.grad(total, [d, *wanted], allow_unused=True, materialize_grads=True)
        results.append([t.detach() for t in outputs])
    return results


LONG, BYTE, BOOL = torch.int64, torch.uint8, torch.bool
ENDS: list[tuple[str, list[Any], dict[str, Any]]] = [
    *[("linear", [r(4), r(4), b], {}) for b in (None, r())],
    *[("linear", [r(*x, 4), r(3, 4), b], {}) for x in ((), (0,), (2, 0)) for b in (None, r(3))],
    *[("linear", [r(2, 0), r(3, 0), b], {}) for b in (None, r(3))],
    ("linear", [r(2, 4), r(0, 4), r(0)], {}),
    ("linear", [r(2, 3, 4), r(4), None], {}),
    ("linear", [r(2, 4, dtype=LONG), r(3, 4, dtype=LONG), None], {}),
    ("conv2d", [r(0, 2, 5, 4), r(3, 2, 3, 3), r(3)], {"padding": 1}),
    ("conv2d", [r(0, 2, 0, 4), r(3, 2, 3, 3), r(3)], {"padding": 2}),
    ("conv2d", [r(2, 0, 5, 4), r(3, 0, 3, 3), None], {"padding": 1}),
    ("conv1d", [r(0, 5), r(3, 0, 3)], {}),
    ("conv2d", [r(2, 2, 5, 4), r(3, 2, 3, 3), r(3)], {"stride": 9}),
    ("conv2d", [r(2, 2, 1, 1), r(3, 2, 3, 3), r(3)], {"padding": 5, "dilation": 4}),
    ("conv2d", [r(1, 2, 5, 4, dtype=LONG), r(3, 2, 3, 3, dtype=LONG), None], {"groups": 1}),
    ("conv_transpose2d", [r(0, 2, 5, 4), r(2, 3, 3, 3), r(3)], {"stride": 2}),
    ("conv_transpose1d", [r(2, 2, 5, dtype=LONG), r(2, 3, 3, dtype=LONG)], {}),
    *[("conv_transpose1d", [r(0, 2, 5), r(2, 3, 3), r(3)], {"output_padding": n, "dilation": 2}) for n in (1, 4)],
    ("conv_transpose2d", [r(0, 2, 0, 4), r(2, 3, 3, 3), r(3)], {}),
    ("conv2d_avg_pool2d", [r(1, 2, 5, 4, dtype=LONG), r(3, 2, 2, 2, dtype=LONG)], {}),
    ("avg_pool2d", [r(1, 2, 5, 4, dtype=LONG), 2], {}),
    ("avg_pool2d", [r(0, 2, 5, 4), 2], {"ceil_mode": True}),
    ("avg_pool2d", [r(2, 2, 4, 1), (3, 2)], {"padding": 1, "stride": 9, "ceil_mode": True}),
    ("max_pool2d", [r(1, 2, 5, 4, dtype=BYTE), 2], {"return_indices": True}),
    ("max_pool2d", [r(0, 2, 5, 4), 2], {}),
    ("max_pool2d", [r(2, 2, 2, 7), 2], {"padding": 1, "stride": 9, "ceil_mode": True, "return_indices": True}),
    ("max_pool2d", [r(2, 2, 4, 4), 2], {"padding": 1, "dilation": 3, "return_indices": True}),
    ("max_pool2d", [torch.full((1, 1, 3, 3), -INF, dtype=torch.float64), 2], {"padding": 1, "return_indices": True}),
    ("adaptive_avg_pool2d", [r(2, 0, 5, 4), 1], {}),  # with more windows PyTorch's has no gradient
    *[("adaptive_avg_pool2d", [r(*x), n], {}) for x in ((0, 5, 4), (0, 2, 5, 4)) for n in (1, 2, (5, 2), 3)],
    *[("adaptive_max_pool2d", [r(*x), n], {}) for x in ((0, 5, 4), (0, 2, 5, 4)) for n in (1, 2, 3)],
    *[("adaptive_avg_pool2d", [r(*x), 1], {}) for x in ((2, 3, 0, 4), (3, 4, 0))],
    *[("interpolate", [r(*x), 1], {"mode": "area"}) for x in ((2, 0, 4), (2, 0, 4, 4), (2, 3, 0, 4), (0, 3, 4, 4, 4))],
    *[("l1_loss", [r(2, 3, dtype=LONG), r(3, 2, dtype=LONG).T], {"reduction": how}) for how in ("none", "sum")],
    ("smooth_l1_loss", [r(4, dtype=LONG), r(5, dtype=LONG)[:4]], {"reduction": "sum", "beta": 0.0}),
    *[(op, [r(2, 0, 3), r(2, 0, 3)], {}) for op in ("mse_loss", "l1_loss", "smooth_l1_loss")],
    ("interpolate", [r(0, 2, 5, 4), 3], {"mode": "bilinear"}),
    ("interpolate", [r(2, 2, 5, 4, dtype=BYTE), 3], {}),
    *[("pad", [r(*x), [1, 2, 3, 1]], {}) for x in ((2, 0, 3, 2), (0, 2, 3, 2), (2, 2, 0, 2), (0, 0))],
    *[("pad", [r(0, 2, 3, 2), [1, 1, 2, 1]], {"mode": mode}) for mode in ("reflect", "replicate", "circular")],
    ("pad", [r(2, 0, 3, 2), [1, 1, 2, 1]], {"mode": "circular"}),
    *[("pad", [r(2, 3, 2).to(dtype), [1, 1]], {"value": 1}) for dtype in (LONG, BYTE, BOOL)],
    ("pad", [r(2, 3, 2, dtype=LONG), [1, 1]], {"mode": "reflect"}),
]


@pytest.mark.parametrize(("op", "args", "kwargs"), ENDS, ids=lambda v: v if isinstance(v, str) else "")
def test_computed_as_by_pytorch(op: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    if op == "conv2d_avg_pool2d":
        assert torch.equal(F.conv2d_avg_pool2d(*args), T.avg_pool2d(T.conv2d(*args), 2))
        return
    for theirs, ours in zip(*both(op, args, kwargs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=EXACT, atol=EXACT, equal_nan=True)


NONE_LEFT: list[tuple[str, list[Any], dict[str, Any]]] = [
    *[("conv_transpose1d", [r(*x, 2), r(4, 3, 1), b], {"padding": 1}) for x in ((2, 4), (4,)) for b in (None, r(3))],
    ("conv_transpose2d", [r(2, 4, 1, 2), r(4, 3, 2, 2), r(6)], {"padding": 1, "groups": 2}),
    ("conv_transpose3d", [r(2, 4, 2, 1, 2), r(4, 3, 1, 2, 3)], {"padding": (1, 0, 0)}),
    *[("adaptive_avg_pool2d", [r(2, 3, 4, 4), n], {}) for n in (0, (0, 2))],
    *[("interpolate", [r(*x), 0], {"mode": "area"}) for x in ((2, 3, 4), (2, 0, 4, 4), (2, 3, 4, 4, 4))],
    ("interpolate", [r(2, 3, 4, 4)], {"scale_factor": 0.2, "mode": "area"}),
]


@pytest.mark.parametrize(("op", "args", "kwargs"), NONE_LEFT, ids=lambda v: v if isinstance(v, str) else "")
def test_outputs_without_numbers(op: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """PyTorch has no gradient of most of these, and of the convolutions in float32 alone: every gradient is 0."""
    inputs = [a.float().requires_grad_() if isinstance(a, Tensor) else a for a in args]
    y = getattr(F, op)(*inputs, **kwargs)
    wanted = [a for a in inputs if isinstance(a, Tensor)]
    assert y.numel() == 0
    for a, g in zip(wanted, torch.autograd.grad(y.sum(), wanted), strict=True):
        assert g.shape == a.shape
        assert not g.any()
    if not op.startswith("conv"):
        assert y.shape == getattr(T, op)(*inputs, **kwargs).shape


@pytest.mark.parametrize("shape", [(0, 5, 4), (0, 2, 5, 4)])
def test_nothing_unpooled(shape: tuple[int, ...]) -> None:
    x, index = r(*shape).requires_grad_(), r(*shape).long()
    y = F.max_unpool2d(x, index, 2)
    assert y.shape == T.max_unpool2d(x, index, [2, 2]).shape == (*shape[:-2], 10, 8)
    assert torch.autograd.grad(y.sum(), x)[0].shape == shape  # PyTorch's has no gradient here


SEEN: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("conv2d", [r(3, 2, 6, 5), r(4, 2, 3, 3)], {"padding": 1}),
    ("conv2d", [r(3, 2, 6, 5), r(4, 1, 3, 2)], {"padding": 2, "stride": 2, "groups": 2}),
    ("conv2d", [r(4, 130, 5, 4), r(130, 130, 3, 2)], {"padding": (1, 0)}),  # two rows at a time
    ("conv2d", [r(4, 20, 5, 4), r(16, 20, 3, 2)], {"padding": 1, "stride": 2}),
    ("conv_transpose2d", [r(3, 2, 4, 5), r(2, 3, 3, 3)], {"padding": 1, "stride": 2}),
    ("linear", [r(4, 3), r(5, 3)], {}),
    *[("max_pool2d", [r(2, 2, 6, 5), P], {"stride": s, "padding": 1}) for P, s in ((2, 2), (3, 2), (3, 1))],
    *[("avg_pool2d", [r(2, 2, 8, 6), P], {"stride": s}) for P, s in ((2, 2), (4, 2), (3, 2), (3, 1))],
    *[("adaptive_avg_pool2d", [r(2, 2, 7, 6), n], {}) for n in (1, 3, (7, 2), 9)],
    ("adaptive_max_pool2d", [r(2, 2, 7, 6), 4], {}),
    ("interpolate", [r(2, 2, 4, 5)], {"scale_factor": 2}),
    ("interpolate", [r(2, 2, 4, 5)], {"size": (7, 3)}),
    *[
        ("interpolate", [r(2, 2, 4, 5)], {"size": (7, 3), "mode": "bilinear", "align_corners": a})
        for a in (False, True)
    ],
    *[
        ("pad", [r(2, 2, 4, 5), [1, 2, 0, 1]], {"mode": mode})
        for mode in ("constant", "reflect", "replicate", "circular")
    ],
]


@pytest.mark.parametrize("odd", [NAN, INF, -INF])
@pytest.mark.parametrize(("op", "args", "kwargs"), SEEN, ids=lambda v: v if isinstance(v, str) else "")
def test_one_odd_number_spreads_no_further_than_in_pytorch(
    op: str, args: list[Any], kwargs: dict[str, Any], odd: float
) -> None:
    """In the input, in the weight, in delta; in a corner, beside the padding, or inside."""
    delta = random_like(first(getattr(T, op)(*args, **kwargs)))
    tensors = [a for a in args if isinstance(a, Tensor)]
    for which in range(len(tensors) + 1):
        for corner in (True, False):
            inputs = [a.clone() if isinstance(a, Tensor) else a for a in args]
            d = delta.clone()
            t = [a for a in (*inputs, d) if isinstance(a, Tensor)][which]
            t[tuple([0 if corner else n // 2 for n in t.shape])] = odd
            for theirs, ours in zip(*both(op, inputs, kwargs, d), strict=True):
                assert not (theirs.isfinite() & ~ours.isfinite()).any()
                torch.testing.assert_close(
                    ours.where(ours.isfinite() & theirs.isfinite(), 0),
                    theirs.where(ours.isfinite() & theirs.isfinite(), 0),
                )
