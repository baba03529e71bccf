"""The rules, by the names and signatures of torch.nn.functional, and what the lectures have beyond it:

the triple of the convolution, true convolution and connection tables.
"""

from manualbp.functional.activation import relu, sigmoid, tanh
from manualbp.functional.connect import connected_conv2d, gather_kernels, scatter_kernels
from manualbp.functional.conv import conv2d, correlate, full_convolve, kernel_gradient
from manualbp.functional.convolve import convolve, rotate
from manualbp.functional.linear import linear
from manualbp.functional.loss import cross_entropy, mse_loss, nll_loss
from manualbp.functional.pad import pad
from manualbp.functional.pool import avg_pool2d, max_pool2d
from manualbp.functional.softmax import log_softmax, softmax

__all__ = [
    "avg_pool2d",
    "connected_conv2d",
    "conv2d",
    "convolve",
    "correlate",
    "cross_entropy",
    "full_convolve",
    "gather_kernels",
    "kernel_gradient",
    "linear",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "pad",
    "relu",
    "rotate",
    "scatter_kernels",
    "sigmoid",
    "softmax",
    "tanh",
]
