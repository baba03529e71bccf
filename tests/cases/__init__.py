"""The cases: one list a rule."""

from tests.cases.activation import ELEMENTWISE
from tests.cases.conv import CONNECT, CONV1D, CONV2D, CONV3D, CONVOLVE, LINEAR, TRANSPOSED, TRIPLE
from tests.cases.fused import (
    ACTIVATION_CONV2D,
    ACTIVATION_MAX_POOL2D,
    BATCH_NORM_ACTIVATION,
    BATCH_NORM_ACTIVATION_CONV2D,
    CONV2D_AVG_POOL2D,
    RELU_BITS,
)
from tests.cases.loss import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, L1_LOSS, MSE_LOSS, NLL_LOSS, SMOOTH_L1_LOSS
from tests.cases.make import Case
from tests.cases.norm import BATCH_NORM, GROUP_NORM, LAYER_NORM
from tests.cases.pool import AVG_POOL2D, MAX_POOL2D, PAD
from tests.cases.resize import ADAPTIVE_AVG_POOL2D, ADAPTIVE_MAX_POOL2D, INTERPOLATE, MAX_UNPOOL2D

CASES = [
    *CONV2D,
    *CONV1D,
    *CONV3D,
    *TRANSPOSED,
    *TRIPLE,
    *CONVOLVE,
    *CONNECT,
    *MAX_POOL2D,
    *ACTIVATION_MAX_POOL2D,
    *CONV2D_AVG_POOL2D,
    *AVG_POOL2D,
    *PAD,
    *ADAPTIVE_AVG_POOL2D,
    *ADAPTIVE_MAX_POOL2D,
    *MAX_UNPOOL2D,
    *INTERPOLATE,
    *ELEMENTWISE,
    *LINEAR,
    *CROSS_ENTROPY,
    *NLL_LOSS,
    *MSE_LOSS,
    *L1_LOSS,
    *SMOOTH_L1_LOSS,
    *BINARY_CROSS_ENTROPY,
    *BATCH_NORM,
    *LAYER_NORM,
    *GROUP_NORM,
    *BATCH_NORM_ACTIVATION,
    *BATCH_NORM_ACTIVATION_CONV2D,
    *ACTIVATION_CONV2D,
    *RELU_BITS,
]

ONE_OF_EACH = list({case.op: case for case in CASES}.values())

__all__ = ["CASES", "ONE_OF_EACH", "Case"]
