"""The rules, by the names and signatures of torch.nn.functional, and what the lectures have beyond it:

the triple of the convolution, true convolution and connection tables; and two layers in one.
"""

from manualbp.functional.activation.exponential import celu, elu, logsigmoid, selu, softplus
from manualbp.functional.activation.gated import gelu, hardswish, mish, silu
from manualbp.functional.activation.piecewise_linear import hardsigmoid, hardtanh, leaky_relu, prelu, relu6
from manualbp.functional.activation.relu import relu, relu_bits
from manualbp.functional.activation.shrink import hardshrink, softshrink, threshold
from manualbp.functional.activation.sigmoid import sigmoid, softsign, tanh
from manualbp.functional.adaptive import adaptive_avg_pool2d, adaptive_max_pool2d
from manualbp.functional.connection_table import connected_conv2d, gather_kernels, scatter_kernels
from manualbp.functional.conv import conv1d, conv2d, conv3d, correlate, full_convolve, kernel_gradient
from manualbp.functional.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
from manualbp.functional.dropout import dropout
from manualbp.functional.linear import linear
from manualbp.functional.loss_of_classes import cross_entropy, nll_loss
from manualbp.functional.loss_of_numbers import (
    binary_cross_entropy_with_logits,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from manualbp.functional.norm import batch_norm, group_norm, layer_norm
from manualbp.functional.pad import pad
from manualbp.functional.pool import avg_pool2d, max_pool2d
from manualbp.functional.resize import interpolate
from manualbp.functional.softmax import log_softmax, softmax
from manualbp.functional.true_conv import convolve, rotate
from manualbp.functional.unpool import max_unpool2d
from manualbp.fuse.conv_pool import conv2d_avg_pool2d
from manualbp.fuse.norm import activation_conv2d, batch_norm_activation, batch_norm_activation_conv2d
from manualbp.fuse.pool import activation_max_pool2d

__all__ = [
    "activation_conv2d",
    "activation_max_pool2d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "batch_norm",
    "batch_norm_activation",
    "batch_norm_activation_conv2d",
    "binary_cross_entropy_with_logits",
    "celu",
    "connected_conv2d",
    "conv1d",
    "conv2d",
    "conv2d_avg_pool2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolve",
    "correlate",
    "cross_entropy",
    "dropout",
    "elu",
    "full_convolve",
    "gather_kernels",
    "gelu",
    "group_norm",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "interpolate",
    "kernel_gradient",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "max_pool2d",
    "max_unpool2d",
    "mish",
    "mse_loss",
    "nll_loss",
    "pad",
    "prelu",
    "relu",
    "relu6",
    "relu_bits",
    "rotate",
    "scatter_kernels",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "threshold",
]
