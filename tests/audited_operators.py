"""PyTorch's own operators, audited at their first sample inputs: the audit must find nothing.

Run as a program of its own, `python -m tests.audited_operators`: importing torch.testing._internal changes global
settings. Prints a line an operator; exits with 1 where one is not right, unless WRONG says why PyTorch is not, and
where one of WRONG is right.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db

from manualbp.audit import audit

# Of op_db, with their variants: elementwise with and without kinks, sums, ties, matrices, windows, copies, losses.
OPERATORS = [
    "exp",
    "log",
    "rsqrt",
    "reciprocal",
    "lgamma",
    "logit",
    "square",
    "erfc",
    "log2",
    "acos",
    "cosh",
    "sinc",
    "xlogy",
    "hypot",
    "atan2",
    "pow",
    "mul",
    "div_no_rounding_mode",
    "nn_functional_gelu",
    "nn_functional_mish",
    "nn_functional_prelu",
    "nn_functional_relu",
    "nn_functional_hardshrink",
    "nn_functional_glu",
    "clamp_min",
    "maximum",
    "topk",
    "mean",
    "nanmean",
    "var_unbiased",
    "amax",
    "median",
    "logsumexp",
    "norm_inf",
    "prod",
    "masked_cumprod",
    "softmax",
    "kthvalue",
    "einsum",
    "linalg_det",
    "linalg_inv",
    "linalg_eigvalsh",
    "linalg_svdvals",
    "linalg_cholesky",
    "trace",
    "diag_embed",
    "gather",
    "index_select",
    "masked_fill",
    "take",
    "tril",
    "repeat",
    "nn_functional_max_pool1d",
    "nn_functional_avg_pool3d",
    "nn_functional_pad_replicate",
    "nn_functional_cross_entropy",
    "nn_functional_gaussian_nll_loss",
    "nn_functional_margin_ranking_loss",
    "nn_functional_hardsigmoid",
    "nn_functional_poisson_nll_loss",
    "nn_functional_softshrink",
    "digamma",
    "scatter",
    "logcumsumexp",
    "as_strided_scatter",
]

# Where PyTorch is not right, and where the audit must say so.
WRONG = {
    "as_strided_scatter": "the gradient of a number that is written over is 1 where the source has no axes",
    "digamma": "its derivative, trigamma, is a series cut short: the ninth digit is wrong",
    "logcumsumexp": "at an input of 1e4 the float32 gradient, of exponents as large, has three digits",
    "nn_functional_hardsigmoid": "1/6 is one of float32",
    "nn_functional_poisson_nll_loss": "at a target of 0 its derivative by it is 0 * inf",
    "nn_functional_softshrink": "with lambd = 0 it is the identity, and its derivative at 0 is given as 0",
}

NUMBERS = 200  # an operator's inputs may have


def taken_out(a: Any, tensors: list[Tensor]) -> Callable[[tuple[Tensor, ...]], Any]:
    """Moves the floating tensors of a into the list; gives what makes a of others in their places."""
    if isinstance(a, Tensor) and a.is_floating_point():
        tensors.append(a)
        place = len(tensors) - 1
        return lambda values: values[place]
    if type(a) in (list, tuple):
        parts = [taken_out(b, tensors) for b in a]
        return lambda values: type(a)(part(values) for part in parts)
    if type(a) is dict:
        named = {name: taken_out(b, tensors) for name, b in a.items()}
        return lambda values: {name: part(values) for name, part in named.items()}
    return lambda values: a


def samples(op: Any) -> Iterator[tuple[Callable[..., Any], list[Tensor]]]:
    """A function of floating tensors, and these."""
    for sample in op.sample_inputs("cpu", torch.float64, requires_grad=True):
        tensors: list[Tensor] = []
        call = taken_out([[sample.input, *sample.args], sample.kwargs], tensors)

        def f(*values: Tensor, call: Any = call, sample: Any = sample) -> Any:
            args, kwargs = call(values)
            return sample.output_process_fn_grad(op.gradcheck_wrapper(op.op, *args, **kwargs))

        if any(t.requires_grad for t in tensors) and 0 < sum(t.numel() for t in tensors) <= NUMBERS:
            yield f, tensors


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = {op.formatted_name: op for op in op_db}
    failed = False
    for name in OPERATORS:
        f, tensors = next(samples(found[name]))
        report = audit(f, *tensors, skip=("memory left",))
        bad = bool(report) == (name in WRONG)
        print(f"{name}: {report.verdict}{', ' + WRONG[name] if name in WRONG else ''}")
        if bad:
            print("   ", str(report).replace("\n", "\n    "))
        failed = failed or bad
    print(f"{len(OPERATORS)} operators")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
