"""The cases: one list a rule."""

from tests.cases.activation import ELEMENTWISE
from tests.cases.conv import CONNECT, CONV2D, CONVOLVE, LINEAR, TRIPLE
from tests.cases.loss import CROSS_ENTROPY, MSE_LOSS, NLL_LOSS
from tests.cases.make import Case
from tests.cases.pool import AVG_POOL2D, MAX_POOL2D, PAD

CASES = [
    *CONV2D,
    *TRIPLE,
    *CONVOLVE,
    *CONNECT,
    *MAX_POOL2D,
    *AVG_POOL2D,
    *PAD,
    *ELEMENTWISE,
    *LINEAR,
    *CROSS_ENTROPY,
    *NLL_LOSS,
    *MSE_LOSS,
]

ONE_OF_EACH = list({case.op: case for case in CASES}.values())

__all__ = ["CASES", "ONE_OF_EACH", "Case"]
