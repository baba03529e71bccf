"""The optimizers of `train.py`: torch.optim's by their names, and Muon for the kernels of convolutions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: a step of all singular values about 1, for every kernel of a convolution.

        b <- m b + g;  u = g + m b                            (Nesterov's momentum, m = 0.6)
        w <- sqrt(O) w / |w|;  w <- w - lr (u u^T)^(-1/2) u   (w and u as matrices of O rows, one for each output map)

    The other parameters take steps of gradient descent with Nesterov's momentum, m = 0.85: matrices at the learning
    rate `lr_matrices`, biases and the like at `lr_vectors`. `weight_decay` is the part of them that goes with each step
    at the highest learning rate. torch.optim.Muon takes matrices only, and leaves the norm of the weights as it is.
    Source: K. Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", and its use on CIFAR-10.
    """

    def __init__(self, params: Any, lr: float, weight_decay: float, lr_matrices: float, lr_vectors: float) -> None:
        params = list(params)
        kernels, matrices = ([p for p in params if p.dim() == n] for n in (4, 2))
        others = [p for p in params if p.dim() not in (4, 2)]
        groups = [
            {"params": kernels, "lr": lr, "momentum": 0.6, "weight_decay": 0.0},
            *(
                {"params": group, "lr": rate, "momentum": 0.85, "weight_decay": weight_decay / rate}
                for group, rate in ((matrices, lr_matrices), (others, lr_vectors))
            ),
        ]
        super().__init__([group for group in groups if group["params"]], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    self._move(w, w.grad.add(w, alpha=group["weight_decay"]), group["lr"], group["momentum"])
        return loss

    def _move(self, w: Tensor, g: Tensor, lr: float, m: float) -> None:
        if not (state := self.state[w]):
            state["momentum_buffer"] = torch.zeros_like(w)
        b = state["momentum_buffer"].mul_(m).add_(g)
        u = g.add(b, alpha=m)
        if w.dim() == 4:
            w.mul_(len(w) ** 0.5 / w.norm().clamp(min=1e-7))
            u = orthogonal(u.flatten(1)).view(u.shape)
        w.sub_(u, alpha=lr)


def orthogonal(u: Tensor, steps: int = 3) -> Tensor:
    """u (rows, columns) with singular values near 1, its singular vectors as they are.

    Of x = u / |u|, a step of Newton and Schulz's iteration, x <- a x + b (x x^T) x + c (x x^T)^2 x, takes each singular
    value s to a s + b s^3 + c s^5: three steps have them between 0.7 and 1.2, but for the smallest ones.
    """
    x = u.T if u.shape[0] > u.shape[1] else u  # x x^T is the smaller one
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        s2 = x @ x.T
        x = 3.4445 * x + (-4.775 * s2 + 2.0315 * s2 @ s2) @ x
    return x.T if u.shape[0] > u.shape[1] else x


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "muon": Muon,
}
