"""Slopes of activations, each in as few passes over memory as PyTorch's forward primitives allow.

A function with a threshold is told apart by comparisons to numbers, `threshold` and products: `torch.where` and masks
of booleans take up to ten times as long on a CPU. Where PyTorch lets nothing through, an infinite delta gives 0, too.
An x that is no number has the slope that PyTorch gives it: where there are pieces, mostly that of the upper one.
Those that subtract compute half precision in float32 and round once. Those of five passes and more go through the cache
some samples at a time.
"""

import math

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.kernels.bits import INTEGER, above, beyond, compared, nonzero, not_clamped, sloped
from manualbp.kernels.pieces import in_one_order, piecewise
from manualbp.kernels.precision import wide
from manualbp.kernels.transforms import in_place

# exp x = exp2(x log2 e): on a CPU exp2 takes a quarter of exp's time.
LOG2_E = math.log2(math.e)


@in_one_order
def sigmoid_slope(delta: Tensor, y: Tensor) -> Tensor:
    """delta y (1 - y) as (y - y y) delta: what is infinite is not subtracted."""
    return torch.addcmul(y, y, y, value=-1).mul_(delta)


@in_one_order
def tanh_slope(delta: Tensor, y: Tensor) -> Tensor:
    """delta (1 - y^2)."""
    return torch.addcmul(y.new_ones(()), y, y, value=-1).mul_(delta)


def relu_slope(delta: Tensor, y: Tensor) -> Tensor:
    """delta where y is not 0, which holds of what is no number; else 0."""
    dx = sloped(nonzero, delta, y)
    return _where(y.abs(), delta) if dx is None else dx


def _where(yes: Tensor, delta: Tensor) -> Tensor:
    """delta where yes is not 0, else 0, whatever delta is, in the memory of `yes`, which holds no -0.

    As a product of integers, 0 or 1 with the number's pattern, a fifth of the time of `torch.where` on a CPU.
    """
    if not (in_place() and yes.device.type == "cpu"):
        return torch.where(yes != 0, delta, 0)
    integer = INTEGER[yes.itemsize]
    return yes.view(integer).ne_(0).mul_(delta.view(integer)).view(delta.dtype)


def _chosen(yes: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """p where yes is not 0, else q, whatever the other one is: q + yes (p - q), as above, in the memory of q."""
    if not (in_place() and yes.device.type == "cpu"):
        return torch.where(yes != 0, p, q)
    integer = INTEGER[yes.itemsize]
    p, into = p.view(integer), q.view(integer)
    into.addcmul_(yes.view(integer).ne_(0), p - into)
    return q


@piecewise
def gelu_slope(delta: Tensor, x: Tensor) -> Tensor:
    """delta (Phi + x phi) as delta (1 + u) / 2 with u = erf(x / sqrt 2) + 2 x phi(x)."""
    d, x = delta.to(wide(delta.dtype)), x.to(wide(x.dtype))
    bell = (x * x).mul_(-0.5 * LOG2_E).exp2_()
    u = (x * math.sqrt(0.5)).erf_().addcmul_(x, bell, value=math.sqrt(2 / math.pi))
    return u.add_(1).mul_(d).mul_(0.5).to(delta.dtype)


@piecewise
def gate_slope(delta: Tensor, x: Tensor, a: float, b: float) -> Tensor:
    """delta s (1 + u) with s = sigmoid(z), u = (1 - s) x z', z = a x + b x^3.

    For SiLU z = x z' = x, and u = x - x s. Where x z' is large, 1 - s is too little of a difference: sigmoid(-z).
    """
    d, x = delta.to(wide(delta.dtype)), x.to(wide(x.dtype))
    if (a, b) == (1, 0):
        s = x.sigmoid()
        u = torch.addcmul(x, x, s, value=-1)
    else:
        square = x * x
        z = square.mul(b).add_(a).mul_(x)
        s = z.sigmoid()
        u = z.neg_().sigmoid_().mul_(square.mul_(3 * b).add_(a).mul_(x))
    return s.addcmul_(s, u).mul_(d).to(delta.dtype)


@piecewise
def mish_slope(delta: Tensor, x: Tensor) -> Tensor:
    """delta (t + x t') of one exponential, e = exp x, with n = e^2 + 2 e and q = 1 / (n + 2).

    t = tanh(log(1 + e)) = n q, as tanh(log u) = (u^2 - 1) / (u^2 + 1)        t' = 4 e (1 + e) q^2 = 4 (n - e) q^2
    Above 40, where n would overflow, the slope is 1 in every precision.
    """
    d, z = delta.to(wide(delta.dtype)), x.to(wide(x.dtype)).clamp(max=40)
    e = (z * LOG2_E).exp2_()
    n = (e + 2).mul_(e)
    q = (n + 2).reciprocal_()
    return e.neg_().add_(n).mul_(z).mul_(q).mul_(4).add_(n).mul_(q).mul_(d).to(delta.dtype)


@in_one_order
def softsign_slope(delta: Tensor, x: Tensor) -> Tensor:
    """delta / (1 + |x|)^2."""
    d, x = delta.to(wide(delta.dtype)), x.to(wide(x.dtype))
    return (d / x.abs().add_(1).square_()).to(delta.dtype)


@in_one_order
def elu_slope(delta: Tensor, x: Tensor, alpha: float, scale: float, k: float) -> Tensor:
    """delta scale alpha k exp(k x) where x <= 0, else delta scale. exp(k min(x, 0)) is 1 above."""
    d, x = delta.to(wide(delta.dtype)), x.to(wide(x.dtype))
    below = scale * alpha * k
    slope = _negative(x).mul_(k * LOG2_E).exp2_()
    return _scaled_above(slope if below == 1 else slope.mul_(below), x, below, scale).mul_(d).to(delta.dtype)


@in_one_order
def elu_slope_of_output(delta: Tensor, y: Tensor, alpha: float, scale: float, k: float) -> Tensor:
    """delta k (y + scale alpha) where y <= 0, else delta scale."""
    d, y = delta.to(wide(delta.dtype)), y.to(wide(y.dtype))
    below = scale * alpha * k
    return _scaled_above(_negative(y).mul_(k).add_(below), y, below, scale).mul_(d).to(delta.dtype)


def _negative(t: Tensor) -> Tensor:
    """min(t, 0), and 0 of what is no number."""
    return t.clamp(max=0).nan_to_num_(0.0, neginf=-math.inf)


def _scaled_above(slope: Tensor, t: Tensor, below: float, scale: float) -> Tensor:
    """The slope, which is `below` at 0 and above, where t <= 0, else `scale`; in its own memory."""
    if below == scale:
        return slope
    above = compared(torch.le, t, 0).eq_(0)
    return slope.addcmul_(slope, above, value=-1).add_(above, alpha=scale)


@in_one_order
def softplus_slope(delta: Tensor, x: Tensor, beta: float, threshold: float) -> Tensor:
    """delta sigmoid(beta x), and delta where beta x > threshold: the larger one of sigmoid and of 0 or 1."""
    d, z = delta.to(wide(delta.dtype)), x.to(wide(x.dtype)) * beta
    if threshold == math.inf:
        return z.sigmoid_().mul_(d).to(delta.dtype)
    above = _above(z - threshold)
    return torch.maximum(z.sigmoid_(), above).mul_(d).to(delta.dtype)


@in_one_order
def leaky_slope(delta: Tensor, t: Tensor, negative_slope: float) -> Tensor:
    """delta where t > 0, else delta negative_slope."""
    if (dx := sloped(above, delta, t, 0, off=negative_slope)) is not None:
        return dx
    d, yes = delta.to(wide(delta.dtype)), compared(torch.gt, t, 0).to(wide(t.dtype))
    return torch.threshold_(yes, 0.5, negative_slope).mul_(d).to(delta.dtype)


@piecewise
def prelu_slope(delta: Tensor, x: Tensor, a: Tensor) -> Tensor:
    """delta where x > 0, else a delta; a is one number, or one a map."""
    return _chosen(compared(torch.gt, x, 0), delta, delta * a)


@piecewise
def prelu_share(delta: Tensor, x: Tensor) -> Tensor:
    """delta min(x, 0); 0 above, of an infinite delta, too."""
    return _where(compared(torch.gt, x, 0).eq_(0), delta).mul_(x.clamp(max=0))


@piecewise
def inside_slope(delta: Tensor, t: Tensor, low: float, high: float, slope: float) -> Tensor:
    """slope delta where low < t < high or t is no number, else 0."""
    dx = sloped(not_clamped, delta, t, low, high)
    dx = _where(beyond(t, low, high).eq_(0), delta) if dx is None else dx
    return dx if slope == 1 else dx.mul_(slope)


@piecewise
def hardswish_slope(delta: Tensor, x: Tensor) -> Tensor:
    """delta (1/2 - u/3) with u = -x inside (-3, 3), 3/2 below, -3/2 above; 0 below, of an infinite delta, too."""
    d, x = _where(compared(torch.le, x, -3).eq_(0), delta), x.to(wide(x.dtype))
    u = T.threshold(T.threshold(x, -3, -1.5).neg_(), -3, -1.5).nan_to_num_(-1.5)
    return u.mul_(-1 / 3).add_(0.5).mul_(d).to(delta.dtype)


def _above(t: Tensor) -> Tensor:
    """[t > 0] as a number."""
    return t.sign().clamp_(min=0)
