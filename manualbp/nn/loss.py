"""The losses."""

from torch import Tensor, nn

from manualbp import functional as F


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """torch.nn.CrossEntropyLoss on `manualbp.functional.cross_entropy`.

        L = -sum_c y_c log yhat_c with yhat = softmax(z)    dL/dz = delta (yhat - y), where y sums to 1

    Shapes: z [N, C, ...] or [C], target [N, ...] of classes or [N, C, ...] of probabilities -> a number, or [N, ...].
    Kept for backward: z and the target, not the softmax, which is computed again.
    Read: functional/loss_of_classes.py; lecture 004, eq. 4.2 and 4.3.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(nn.NLLLoss):
    """torch.nn.NLLLoss on `manualbp.functional.nll_loss`.

        L = -v_t for the log-probability v of the class t    dL/dv_c = -delta [c = t]

    Shapes: v [N, C, ...] or [C], target [N, ...] -> a number, or [N, ...]. Kept for backward: the target.
    Read: functional/loss_of_classes.py; lecture 001, eq. 1.8.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(nn.MSELoss):
    """torch.nn.MSELoss on `manualbp.functional.mse_loss`.

        l = (x - t)^2    dL/dx = 2 delta (x - t)    dL/dt = -dL/dx

    Shapes: x and t of any one shape -> a number, or that shape. Kept for backward: x and t.
    Read: functional/loss_of_numbers.py; lecture 003, eq. 3.1, without its 1/2.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(nn.L1Loss):
    """torch.nn.L1Loss on `manualbp.functional.l1_loss`.

        l = |x - t|    dL/dx = delta sign(x - t), and 0 at 0    dL/dt = -dL/dx

    Shapes: x and t of any one shape -> a number, or that shape. Kept for backward: x and t.
    Read: functional/loss_of_numbers.py.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(nn.SmoothL1Loss):
    """torch.nn.SmoothL1Loss on `manualbp.functional.smooth_l1_loss`.

        d = x - t    l = d^2 / (2 beta) for |d| < beta, else |d| - beta / 2
        dL/dx = delta d / beta for |d| < beta, else delta sign(d)    dL/dt = -dL/dx

    Shapes: x and t of any one shape -> a number, or that shape. Kept for backward: x and t.
    Read: functional/loss_of_numbers.py; Girshick 2015, eq. 3.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class BCEWithLogitsLoss(nn.BCEWithLogitsLoss):
    """torch.nn.BCEWithLogitsLoss on `manualbp.functional.binary_cross_entropy_with_logits`.

        l = -p t log s(x) - (1 - t) log(1 - s(x))    s the sigmoid, p the pos_weight
        dL/dx = delta ((p t + 1 - t) s(x) - p t), which is delta (s(x) - t) for p = 1

    Shapes: x and t of any one shape -> a number, or that shape. Kept for backward: x, t and p, not the sigmoid.
    Read: functional/loss_of_numbers.py; lecture 004, eq. 4.2, for two classes.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, pos_weight=self.pos_weight, reduction=self.reduction
        )
