"""PyTorch's own sample inputs and error inputs for our operators.

Run as a program of its own, `python -m tests.functional.opinfo_process`: importing torch.testing._internal changes
global settings. Every sample must give PyTorch's value and gradients, every error input a ValueError or TypeError.
Prints a line an operator; exits with 1 if anything differs.
"""

import sys
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db

import manualbp.functional as F
from tests.checks import EXACT, distance, first, random_like

# Operator of op_db, with its variant, and our function.
OPERATORS = {
    ("nn.functional.conv1d", ""): F.conv1d,
    ("nn.functional.conv2d", ""): F.conv2d,
    ("nn.functional.conv3d", ""): F.conv3d,
    ("nn.functional.conv_transpose1d", ""): F.conv_transpose1d,
    ("nn.functional.conv_transpose2d", ""): F.conv_transpose2d,
    ("nn.functional.conv_transpose3d", ""): F.conv_transpose3d,
    ("nn.functional.max_pool2d", ""): F.max_pool2d,
    ("nn.functional.avg_pool2d", ""): F.avg_pool2d,
    ("nn.functional.adaptive_avg_pool2d", ""): F.adaptive_avg_pool2d,
    ("nn.functional.adaptive_max_pool2d", ""): F.adaptive_max_pool2d,
    ("nn.functional.max_unpool2d", ""): F.max_unpool2d,
    ("nn.functional.max_unpool2d", "grad"): F.max_unpool2d,
    ("nn.functional.interpolate", "bilinear"): F.interpolate,
    ("sigmoid", ""): F.sigmoid,
    ("tanh", ""): F.tanh,
    ("nn.functional.relu", ""): F.relu,
    ("nn.functional.gelu", ""): F.gelu,
    ("nn.functional.silu", ""): F.silu,
    ("nn.functional.elu", ""): F.elu,
    ("nn.functional.softplus", ""): F.softplus,
    ("nn.functional.hardtanh", ""): F.hardtanh,
    ("nn.functional.relu6", ""): F.relu6,
    ("nn.functional.leaky_relu", ""): F.leaky_relu,
    ("nn.functional.hardsigmoid", ""): F.hardsigmoid,
    ("nn.functional.hardswish", ""): F.hardswish,
    ("nn.functional.dropout", ""): F.dropout,
    ("nn.functional.linear", ""): F.linear,
    ("softmax", ""): F.softmax,
    ("softmax", "with_dtype"): F.softmax,
    ("log_softmax", ""): F.log_softmax,
    ("log_softmax", "with_dtype"): F.log_softmax,
    ("nn.functional.cross_entropy", ""): F.cross_entropy,
    ("nn.functional.nll_loss", ""): F.nll_loss,
    ("nn.functional.mse_loss", ""): F.mse_loss,
    ("nn.functional.l1_loss", ""): F.l1_loss,
    ("nn.functional.smooth_l1_loss", ""): F.smooth_l1_loss,
    ("nn.functional.binary_cross_entropy_with_logits", ""): F.binary_cross_entropy_with_logits,
    ("nn.functional.pad", "constant"): F.pad,
    ("nn.functional.pad", "reflect"): F.pad,
    ("nn.functional.pad", "replicate"): F.pad,
    ("nn.functional.pad", "circular"): F.pad,
    ("nn.functional.batch_norm", ""): F.batch_norm,
    ("nn.functional.layer_norm", ""): F.layer_norm,
    ("nn.functional.group_norm", ""): F.group_norm,
}

# PyTorch's hardsigmoid_backward takes 1/6 in float32, also in float64.
LIMITS = {"nn.functional.hardsigmoid": 1e-7}


def differentiated(f: Any, sample: Any) -> list[Tensor]:
    tensors = [t for t in [sample.input, *sample.args, *sample.kwargs.values()] if isinstance(t, Tensor)]
    wanted = [t for t in tensors if t.requires_grad]
    torch.manual_seed(42)  # the seed that op_db sets before its dropout
    y = first(f(sample.input, *sample.args, **sample.kwargs))
    gradients = torch.autograd.grad(y, wanted, random_like(y), allow_unused=True, materialize_grads=True)
    return [y.detach(), *gradients]


def same(a: Tensor, b: Tensor, limit: float) -> bool:
    """Up to rounding; a gradient whose terms cancel (that of a mean of one or two numbers) has only an absolute one."""
    a, b, nans = a.nan_to_num(), b.nan_to_num(), torch.equal(a.isnan(), b.isnan())
    return nans and (distance(a, b) <= limit or (a - b).abs().max().item() <= limit)


def compare(op: Any, ours: Any) -> tuple[int, list[str]]:
    """(samples, what is wrong)."""
    wrong, samples = [], 0
    for sample in op.sample_inputs("cpu", torch.float64, requires_grad=True):
        samples += 1
        try:
            mine = differentiated(ours, sample)
        except (ValueError, TypeError) as error:
            wrong.append(f"{sample.summary()}: refused: {error}")
            continue
        for which, (a, b) in enumerate(zip(mine, differentiated(op.op, sample), strict=True)):
            if a.shape != b.shape or not same(a, b, LIMITS.get(op.name, EXACT)):
                wrong.append(f"{sample.summary()}: number {which} differs")
    return samples, wrong


def provoke(name: str, op: Any, ours: Any) -> tuple[int, list[str]]:
    """(error inputs, what is wrong)."""
    wrong, errors = [], 0
    for error_input in op.error_inputs("cpu") if op.error_inputs_func else ():
        errors += 1
        sample = error_input.sample_input
        try:
            ours(sample.input, *sample.args, **sample.kwargs)
            wrong.append(f"{sample.summary()}: accepted, where PyTorch says {error_input.error_regex}")
        except (ValueError, TypeError) as error:
            if not str(error).startswith(name.rpartition(".")[2]):
                wrong.append(f"{sample.summary()}: does not name the operation: {error}")
        except Exception as error:
            wrong.append(f"{sample.summary()}: {type(error).__name__}: {error}")
    return errors, wrong


def main() -> int:
    warnings.simplefilter("ignore")
    found = {(op.name, op.variant_test_name): op for op in op_db}
    failed = False
    for key, ours in OPERATORS.items():
        samples, wrong = compare(found[key], ours)
        errors, accepted = provoke(key[0], found[key], ours)
        print(f"{' '.join(key).strip()}: {samples} samples, {errors} error inputs")
        for line in wrong + accepted:
            print("   ", line[:400])
        failed = failed or bool(wrong + accepted) or samples == 0
    print(f"{len(OPERATORS)} operators")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
