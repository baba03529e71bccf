"""Slopes of activations, each in as few passes over memory as PyTorch's forward primitives allow.

A function with a threshold is told apart by `sign`, `clamp` and `maximum`: `torch.where` and masks of booleans take up
to ten times as long on a CPU. Those that subtract compute half precision in float32 and round once. Those of five
passes and more go through the cache some samples at a time.
"""

import math

import torch
import torch.nn.functional as T
from torch import Tensor

from manualbp.kernels.layout import laid_out, maps_last
from manualbp.kernels.pieces import piecewise
from manualbp.kernels.precision import wide

# exp x = exp2(x log2 e): on a CPU exp2 takes a quarter of exp's time.
LOG2_E = math.log2(math.e)


def sigmoid_slope(delta: Tensor, y: Tensor) -> Tensor:
    """delta y (1 - y) as u - u y with u = delta y, in u's own memory."""
    return _less_times(laid_out(delta, maps_last(y)) * y, y)


def tanh_slope(delta: Tensor, y: Tensor) -> Tensor:
    """delta (1 - y^2) as u - u y with u = delta (1 + y), in u's own memory."""
    delta = laid_out(delta, maps_last(y))
    return _less_times(torch.addcmul(delta, delta, y), y)


def _less_times(u: Tensor, y: Tensor) -> Tensor:
    """u - u y, in u's own memory."""
    return u.addcmul_(u, y, value=-1)


def relu_slope(delta: Tensor, y: Tensor) -> Tensor:
    """delta [y > 0] as delta sign(y), y being positive or zero: a tenth of the time of `torch.where` on a CPU."""
    return y.sign().mul_(delta)


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
    v = s.mul_(d)
    return v.addcmul_(v, u).to(delta.dtype)


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


def softsign_slope(delta: Tensor, x: Tensor) -> Tensor:
    """delta / (1 + |x|)^2."""
    d, x = delta.to(wide(delta.dtype)), x.to(wide(x.dtype))
    return (d / x.abs().add_(1).square_()).to(delta.dtype)


def elu_slope(delta: Tensor, x: Tensor, alpha: float, scale: float, k: float) -> Tensor:
    """delta scale alpha k exp(k x) where x <= 0, else delta scale. exp(k min(x, 0)) is 1 above."""
    d, x = delta.to(wide(delta.dtype)), x.to(wide(x.dtype))
    slope = x.clamp(max=0).mul_(k * LOG2_E).exp2_()
    below = scale * alpha * k
    if below != scale:
        above = _above(x)
        slope.mul_(below)
        slope.addcmul_(slope, above, value=-1).add_(above, alpha=scale)
    elif scale != 1:
        slope.mul_(scale)
    return slope.mul_(d).to(delta.dtype)


def softplus_slope(delta: Tensor, x: Tensor, beta: float, threshold: float) -> Tensor:
    """delta sigmoid(beta x), and delta where beta x > threshold: the larger one of sigmoid and of 0 or 1."""
    d, z = delta.to(wide(delta.dtype)), x.to(wide(x.dtype)) * beta
    if threshold == math.inf:
        return z.sigmoid_().mul_(d).to(delta.dtype)
    above = _above(z - threshold)
    return torch.maximum(z.sigmoid_(), above).mul_(d).to(delta.dtype)


def leaky_slope(delta: Tensor, t: Tensor, negative_slope: float) -> Tensor:
    """delta where t > 0, else delta negative_slope: a leaky ReLU makes the slope of 1 and -1."""
    d, side = delta.to(wide(delta.dtype)), T.threshold(t, 0, -1).sign_().to(wide(t.dtype))
    return T.leaky_relu(side, -negative_slope).mul_(d).to(delta.dtype)


@piecewise
def inside_slope(delta: Tensor, t: Tensor, low: float, high: float, slope: float) -> Tensor:
    """slope delta [low < t < high]: (t - low) (high - t) is 0 for a clamped t at either end, else positive."""
    inside = t.clamp(low, high)
    inside = (inside - low).mul_(high - inside).sign_()
    return inside.mul_(delta) if slope == 1 else inside.mul_(delta).mul_(slope)


@piecewise
def outside_slope(delta: Tensor, t: Tensor, low: float, high: float) -> Tensor:
    """delta, and 0 where low <= t <= high: where t is the same clamped. What is no number lets delta through."""
    return t.clamp(low, high).ne_(t).mul_(delta)


@piecewise
def hardswish_slope(delta: Tensor, x: Tensor) -> Tensor:
    """delta (h + x h'), h = hardsigmoid(x). x is clamped, as 0 is no product of infinity and 0."""
    d, x = delta.to(wide(delta.dtype)), x.to(wide(x.dtype))
    slope = inside_slope(x.clamp(-3, 3), x, -3.0, 3.0, 1 / 6)
    return slope.add_(T.hardsigmoid(x)).mul_(d).to(delta.dtype)


def _above(t: Tensor) -> Tensor:
    """[t > 0] as a number."""
    return t.sign().clamp_(min=0)
