"""Bad input is refused by a ValueError or TypeError that names the operation, the argument and both values."""

from typing import Any

import pytest
import torch

import manualbp.functional as F


def r(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


X, W = r(2, 4, 6, 5), r(6, 4, 3, 3)
o, c = torch.tensor([0, 1]), torch.tensor([1, 0])
T = torch.zeros(5, dtype=torch.int64)
Z = r(5, 4)
REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], list[str]]] = [
    ("conv2d", (r(4, 6), W), {}, ["input", "[4, 6]", "[N, C, H, W]"]),
    ("conv2d", (X, r(6, 4, 3)), {}, ["kernel", "[6, 4, 3]"]),
    ("conv2d", (X, r(6, 3, 3, 3)), {}, ["4 maps", "[6, 3, 3, 3]", "3;"]),
    ("conv2d", (X, r(6, 2, 3, 3)), {"groups": 4}, ["groups = 4", "6 output maps"]),
    ("conv2d", (X, r(6, 2, 3, 3)), {"groups": 3}, ["groups = 3", "6;"]),
    ("conv2d", (X, W), {"groups": 0}, ["groups = 0"]),
    ("conv2d", (X, W, r(5)), {}, ["bias", "[5]", "[6, 4, 3, 3]", "[O]"]),
    ("conv2d", (X, W), {"stride": 0}, ["stride = 0", "at least 1"]),
    ("conv2d", (X, W), {"stride": (1, 2, 3)}, ["stride = (1, 2, 3)", "one int or two"]),
    ("conv2d", (X, W), {"padding": -1}, ["padding = -1", "at least 0"]),
    ("conv2d", (X, W), {"padding": "full"}, ["padding = 'full'", "'same'"]),
    ("conv2d", (X, W), {"padding": "same", "stride": 2}, ["'same'", "stride = 2"]),
    ("conv2d", (X, W), {"dilation": 0}, ["dilation = 0"]),
    ("conv2d", (X, W), {"dilation": 3}, ["[7, 7]", "[6, 5]"]),
    ("conv2d", (X, W.double()), {}, ["float32", "float64"]),
    ("conv2d", (X.to(torch.complex64), W.to(torch.complex64)), {}, ["input", "complex64"]),
    ("conv2d", (X, W.to("meta")), {}, ["weight", "meta", "cpu"]),
    ("conv2d", (r(2, 4, 0, 5), W), {"padding": 2}, ["input", "[2, 4, 0, 5]", "not be 0"]),
    ("correlate", (X[:, :0], W[:, :0]), {}, ["kernel", "[6, 0, 3, 3]", "none of them 0"]),
    ("conv2d", (X.int(), W.int()), {}, ["input", "int32", "floating"]),
    ("conv1d", (r(2, 4, 6, 5), r(6, 4, 3)), {}, ["input", "[2, 4, 6, 5]", "[N, C, H] or [C, H]"]),
    ("conv1d", (r(2, 4, 6), W), {}, ["kernel", "[6, 4, 3, 3]", "[O, C / groups, P]"]),
    ("conv1d", (r(2, 4, 6), r(6, 4, 3)), {"stride": (1, 1)}, ["stride = (1, 1)", "one int"]),
    ("conv1d", (r(2, 4, 6), r(6, 4, 3)), {"padding": "full"}, ["padding = 'full'", "one int, 'valid' or 'same'"]),
    ("conv1d", (r(2, 4, 6), r(6, 4, 7)), {}, ["[7]", "[6]"]),
    ("conv3d", (r(4, 6), r(6, 4, 3, 3, 3)), {}, ["input", "[4, 6]", "[N, C, D, H, W]"]),
    ("conv3d", (r(4, 6, 5, 4), r(6, 2, 3, 3, 3)), {}, ["4 maps", "[6, 2, 3, 3, 3]", "2;"]),
    ("conv3d", (r(4, 6, 5, 4), r(6, 4, 3, 3, 3)), {"dilation": (1, 2)}, ["dilation = (1, 2)", "one int or three"]),
    ("conv3d", (r(4, 6, 5, 4), r(6, 4, 3, 3, 3)), {"padding": "same", "stride": (1, 2, 1)}, ["'same'", "(1, 2, 1)"]),
    ("conv_transpose1d", (X, r(4, 6, 3)), {}, ["input", "[2, 4, 6, 5]", "[N, C, H] or [C, H]"]),
    ("conv_transpose1d", (r(4, 6), r(4, 6, 3)), {"padding": 5}, ["padding = 5", "[6]", "[3]", "[-2]"]),
    ("conv_transpose2d", (X, r(6, 4, 3, 3)), {}, ["[2, 4, 6, 5]", "[6, 4, 3, 3]", "6 maps"]),
    ("conv_transpose2d", (X, r(4, 6, 3)), {}, ["kernel", "[4, 6, 3]", "[C_in, C_out / groups, P, Q]"]),
    ("conv_transpose2d", (r(2, 4, 0, 5), r(4, 6, 3, 3)), {}, ["[2, 4, 0, 5]", "not 0"]),
    ("conv_transpose2d", (X, r(4, 6, 3, 3)), {"groups": 3}, ["groups = 3", "4 input maps"]),
    ("conv_transpose2d", (X, r(4, 3, 3, 3), r(3)), {"groups": 2}, ["bias", "[3]", "groups = 2", "[6]"]),
    (
        "conv_transpose2d",
        (X, r(4, 6, 3, 3)),
        {"output_padding": 1},
        ["output_padding = 1", "stride = 1", "dilation = 1"],
    ),
    (
        "conv_transpose2d",
        (X, r(4, 6, 3, 3)),
        {"stride": 2, "dilation": (1, 3), "output_padding": (2, 2)},
        ["output_padding = (2, 2)", "stride = 2", "dilation = (1, 3)"],
    ),
    ("conv_transpose2d", (X, r(4, 6, 3, 3)), {"output_padding": -1}, ["output_padding = -1", "at least 0"]),
    ("conv_transpose2d", (X, r(4, 6, 3, 3)), {"padding": "same"}, ["padding = 'same'", "one int or two"]),
    ("conv_transpose2d", (X, r(4, 6, 3, 3).double()), {}, ["float32", "float64"]),
    ("conv_transpose3d", (r(4, 6, 5, 4).to(torch.complex64), r(4, 6, 3, 3, 3)), {}, ["input", "complex64"]),
    ("conv_transpose3d", (r(4, 6, 5, 4), r(4, 6, 3, 3, 3)), {"stride": 0}, ["stride = 0", "at least 1"]),
    ("correlate", (r(4, 6, 5), W), {}, ["x", "[4, 6, 5]"]),
    ("full_convolve", (r(2, 6, 4, 3), W, (7, 5)), {}, ["delta", "[4, 3]", "[5, 3]"]),
    ("full_convolve", (r(2, 5, 4, 3), W, (6, 5)), {}, ["delta", "[2, 5, 4, 3]", "6"]),
    ("kernel_gradient", (X, r(3, 6, 4, 3), (3, 3)), {}, ["2 images", "3"]),
    ("kernel_gradient", (X, r(2, 6, 4, 3), (2, 3)), {}, ["delta", "[4, 3]", "[5, 3]"]),
    ("convolve", (X, r(6, 4, 3)), {}, ["kernel", "[6, 4, 3]"]),
    ("convolve", (X, W, r(5)), {}, ["bias", "[5]", "[6, 4, 3, 3]"]),
    ("convolve", (X, W), {"padding": "same", "stride": 2}, ["'same'", "stride = 2"]),
    ("convolve", (X.to(torch.complex64), W.to(torch.complex64)), {}, ["input", "complex64"]),
    ("rotate", (r(3),), {}, ["w", "[3]", "[..., P, Q]"]),
    ("scatter_kernels", (r(3, 2, 2), o, c, (2, 3)), {}, ["weight", "[3, 2, 2]", "[2]"]),
    ("scatter_kernels", (r(2, 2), o, c, (2, 3)), {}, ["weight", "[2, 2]", "[K, P, Q]"]),
    ("scatter_kernels", (r(2, 3, 3), o, c.float(), (2, 3)), {}, ["c is", "float32", "int64"]),
    ("scatter_kernels", (r(2, 3, 3), o, c[:1], (2, 3)), {}, ["o", "[2]", "c [1]", "[K]"]),
    ("scatter_kernels", (r(2, 3, 3), o + 2, c, (2, 3)), {}, ["o holds output maps", "2 to 3", "[2, 3]", "0 to 1"]),
    ("connected_conv2d", (X, r(2, 3, 3), o, c + 3, (6, 4)), {}, ["c holds input maps", "3 to 4", "[6, 4]", "0 to 3"]),
    ("connected_conv2d", (X, r(2, 3, 3), o, c, (6, 3)), {}, ["4 maps", "[6, 3, 3, 3]", "3;"]),
    ("connected_conv2d", (X, r(2, 3, 3), o, c, (6, 4), r(5)), {}, ["bias", "[5]", "[6, 4, 3, 3]"]),
    ("connected_conv2d", (X, r(2, 3, 3).double(), o, c, (6, 4)), {}, ["float32", "float64"]),
    ("gather_kernels", (r(2, 3, 3), o, c), {}, ["w", "[2, 3, 3]", "[O, C, P, Q]"]),
    ("gather_kernels", (r(2, 3, 3, 3), o - 4, c), {}, ["output maps", "-4 to -3", "0 to 1"]),
    ("max_pool2d", (r(6, 5), 2), {}, ["input", "[6, 5]"]),
    ("max_pool2d", (r(2, 0, 6, 5), 2), {}, ["input", "[2, 0, 6, 5]"]),
    ("max_pool2d", (X, 2), {"padding": 2}, ["padding = [2, 2]", "half"]),
    ("max_pool2d", (X, 2), {"padding": 2, "dilation": 4}, ["padding = [2, 2]", "half"]),
    ("max_pool2d", (r(2, 3, 1, 7), 2), {"padding": 1, "dilation": 3, "ceil_mode": True}, ["[1, 7]", "padding only"]),
    ("max_pool2d", (X.bool(), 2), {}, ["input", "bool", "floating"]),
    ("max_pool2d", (X, 7), {}, ["[7, 7]", "[6, 5]"]),
    ("max_pool2d", (X, 0), {}, ["kernel_size = 0"]),
    ("max_pool2d", (X.to(torch.complex64), 2), {}, ["input", "complex64"]),
    ("activation_max_pool2d", (X, "gelu", 2), {}, ["activation = 'gelu'", "'sigmoid'", "'relu'"]),
    ("activation_max_pool2d", (X.long(), "relu", 2), {}, ["input", "int64", "floating"]),
    ("activation_max_pool2d", (X.to(torch.complex64), "tanh", 2), {}, ["input", "complex64"]),
    ("conv2d_avg_pool2d", (X, W), {"kernel_size": 5}, ["[5, 5]", "[4, 3]"]),
    ("conv2d_avg_pool2d", (X, W), {"pool_stride": 0}, ["stride = 0"]),
    ("conv2d_avg_pool2d", (X, W, r(5)), {}, ["bias", "[5]", "[6, 4, 3, 3]"]),
    ("conv2d_avg_pool2d", (X, W.double()), {}, ["float32", "float64"]),
    ("avg_pool2d", (X.int(), 2), {}, ["input", "int32", "int64"]),
    ("avg_pool2d", (X, 2), {"divisor_override": 0}, ["divisor_override = 0"]),
    ("avg_pool2d", (X, (2, 2, 2)), {}, ["kernel_size = (2, 2, 2)"]),
    ("avg_pool2d", (X, 2), {"stride": -1}, ["stride = -1"]),
    ("adaptive_avg_pool2d", (r(6, 5), 2), {}, ["input", "[6, 5]", "[N, C, H, W]"]),
    ("adaptive_avg_pool2d", (X, (2, 3, 4)), {}, ["output_size = (2, 3, 4)"]),
    ("adaptive_avg_pool2d", (X, (2, -1)), {}, ["output_size = (2, -1)", "below 0"]),
    ("adaptive_avg_pool2d", (X.to(torch.complex64), 2), {}, ["input", "complex64"]),
    ("adaptive_max_pool2d", (r(2, 0, 6, 5), 2), {}, ["input", "[2, 0, 6, 5]"]),
    ("adaptive_max_pool2d", (X.long(), 2), {}, ["input", "int64", "floating"]),
    ("max_unpool2d", (r(6, 5), r(6, 5).long(), 2), {}, ["input", "[6, 5]", "[N, C, I, J]"]),
    ("max_unpool2d", (X, X, 2), {}, ["indices", "float32", "int64"]),
    ("max_unpool2d", (X, X[:1].long(), 2), {}, ["indices", "[1, 4, 6, 5]", "[2, 4, 6, 5]"]),
    ("max_unpool2d", (X, X.long() + 120, 2), {}, ["indices", "0 to 119"]),
    ("max_unpool2d", (X, X.long() - 1, 2), {}, ["indices", "0 to 119"]),
    ("max_unpool2d", (X, X.long(), 2), {"output_size": (14, 10)}, ["[14, 10]", "[12, 10]", "less than a stride"]),
    ("max_unpool2d", (X, X.long(), 2), {"output_size": (12,)}, ["output_size = [12]"]),
    ("max_unpool2d", (X, X.long(), 1), {"padding": 3}, ["[0, -1]", "larger than 0"]),
    ("interpolate", (X, 3), {"mode": "cubic"}, ["mode = 'cubic'", "'bicubic'"]),
    ("interpolate", (X, 3), {"mode": "bilinear", "antialias": True}, ["antialias = True"]),
    ("interpolate", (X, 3), {"align_corners": False}, ["align_corners = False", "'nearest'"]),
    ("interpolate", (r(4, 6, 5), 3), {"mode": "bilinear"}, ["input", "[4, 6, 5]", "'bilinear'", "2 axes"]),
    ("interpolate", (r(4, 6, 5), (3, 3)), {}, ["size = (3, 3)", "[5]"]),
    ("interpolate", (r(6, 5), 3), {}, ["input", "[6, 5]", "1 or 2 or 3 axes"]),
    ("interpolate", (X.long(), 3), {}, ["input", "int64", "uint8"]),
    ("interpolate", (X,), {}, ["size = None", "scale_factor = None"]),
    ("interpolate", (X, 3, 2.0), {}, ["size = 3", "scale_factor = 2.0"]),
    ("interpolate", (X, (3, 3, 3)), {}, ["size = (3, 3, 3)"]),
    ("interpolate", (X, None, 0.1), {}, ["scale_factor = 0.1", "[0, 0]", "[6, 5]"]),
    ("interpolate", (X, 3), {"recompute_scale_factor": True}, ["recompute_scale_factor = True", "size = 3"]),
    ("pad", (X, (1, 2, 3)), {}, ["pad = [1, 2, 3]"]),
    ("pad", (X, (-3, -3)), {}, ["[-3, -3]", "[2, 4, 6, 5]"]),
    ("pad", (r(2, 3, 0, 4), (3, 2, -1, 3)), {}, ["[3, 2, -1, 3]", "[2, 3, 0, 4]", "crops more"]),
    ("pad", (r(2, 0, 3, 2), (1, 1, 1, 1)), {"mode": "replicate"}, ["'replicate'", "[2, 0, 3, 2]", "empty"]),
    ("pad", (X.bool(), (1, 1, 1, 1)), {"mode": "replicate"}, ["input", "bool"]),
    ("pad", (X, (5, 0, 0, 0)), {"mode": "reflect"}, ["margins 5 and 0", "5 pixels", "4"]),
    ("pad", (X, (6, 0, 0, 0)), {"mode": "circular"}, ["margins 6 and 0"]),
    ("pad", (X, (1, 1)), {"mode": "reflect"}, ["mode = 'reflect'", "[2, 4, 6, 5]"]),
    ("pad", (X, (1, 1)), {"mode": "mirror"}, ["mode = 'mirror'"]),
    ("pad", (X, (1, 1, 1, 1)), {"mode": "reflect", "value": 1.0}, ["value = 1.0"]),
    ("sigmoid", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("tanh", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("relu", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("gelu", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("gelu", (r(3),), {"approximate": "erf"}, ["approximate = 'erf'", "'none'", "'tanh'"]),
    ("silu", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("elu", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("softplus", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("hardtanh", (X, 2, 1), {}, ["min_val = 2", "max_val = 1"]),
    ("relu6", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("leaky_relu", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("hardsigmoid", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("hardswish", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("dropout", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("dropout", (r(3), -0.1), {}, ["p = -0.1", "0 to 1"]),
    ("dropout", (r(3), 1.5), {"training": False}, ["p = 1.5", "0 to 1"]),
    ("linear", (r(3, 4), r(5, 3)), {}, ["[3, 4]", "[5, 3]"]),
    ("linear", (r(3, 4), r(5, 4), r(4)), {}, ["bias", "[4]", "[5, 4]"]),
    ("linear", (r(3, 4).bool(), r(5, 4).bool()), {}, ["input", "bool", "floating"]),
    ("linear", (r(3, 4), r(5, 4).double()), {}, ["float32", "float64"]),
    ("softmax", (r(3, 4), 2), {}, ["dim = 2", "[3, 4]", "-2 to 1"]),
    ("log_softmax", (r(3, 4, dtype=torch.complex64), 1), {}, ["complex64"]),
    ("cross_entropy", (Z, T[:3]), {}, ["[5, 4]", "[3]"]),
    ("cross_entropy", (Z, T + 4), {}, ["target", "0 to 3"]),
    ("cross_entropy", (Z, T - 1), {}, ["target", "0 to 3"]),
    ("cross_entropy", (Z, T.float()), {}, ["target", "float32", "int64"]),
    ("cross_entropy", (Z, Z.long()), {}, ["target", "int64", "probabilities"]),
    ("cross_entropy", (Z, T), {"weight": r(5)}, ["weight", "[5]", "[4]"]),
    ("cross_entropy", (Z, T), {"weight": r(4).requires_grad_()}, ["weight", "gradient"]),
    ("cross_entropy", (Z, T), {"label_smoothing": 1.5}, ["label_smoothing = 1.5"]),
    ("cross_entropy", (Z, T), {"reduction": "max"}, ["reduction = 'max'"]),
    ("cross_entropy", (Z, Z), {"ignore_index": 2}, ["ignore_index = 2"]),
    ("cross_entropy", (Z.long(), T), {}, ["input", "int64"]),
    ("nll_loss", (Z, T + 4), {}, ["target", "0 to 3"]),
    ("nll_loss", (Z, Z), {}, ["target", "[5, 4]", "classes"]),
    ("nll_loss", (Z, T), {"reduction": "avg"}, ["reduction = 'avg'"]),
    ("mse_loss", (Z, r(5, 4)), {"weight": r(4)}, ["weight", "[4]", "[5, 4]"]),
    ("mse_loss", (Z, r(5, 4)), {"reduction": ""}, ["reduction = ''"]),
    ("mse_loss", (Z, r(3, 4)), {}, ["[5, 4]", "[3, 4]", "broadcast"]),
    ("mse_loss", (Z.long(), Z.long()), {}, ["int64", "floating"]),
    ("l1_loss", (Z, r(5, 4)), {"weight": r(5)}, ["weight", "[5]", "[5, 4]"]),
    ("l1_loss", (Z, Z.to(torch.complex64)), {}, ["target", "complex64"]),
    ("l1_loss", (Z.long(), Z.long()), {}, ["int64", "floating"]),
    ("smooth_l1_loss", (Z, Z), {"beta": -0.5}, ["beta = -0.5"]),
    ("smooth_l1_loss", (Z, r(3, 4)), {}, ["[5, 4]", "[3, 4]", "broadcast"]),
    ("smooth_l1_loss", (Z, Z), {"reduction": "max"}, ["reduction = 'max'"]),
    ("binary_cross_entropy_with_logits", (Z, r(5, 1)), {}, ["target", "[5, 1]", "[5, 4]"]),
    ("binary_cross_entropy_with_logits", (Z, Z.long()), {}, ["target", "int64"]),
    ("binary_cross_entropy_with_logits", (Z, Z, r(5)), {}, ["weight", "[5]", "[5, 4]"]),
    ("binary_cross_entropy_with_logits", (Z, Z), {"pos_weight": r(2, 5, 4)}, ["pos_weight", "[2, 5, 4]", "[5, 4]"]),
    ("binary_cross_entropy_with_logits", (Z, Z, r(4).requires_grad_()), {}, ["weight", "gradient"]),
    ("softmax", (T, 0), {}, ["input", "int64", "dtype = None"]),
    ("log_softmax", (Z, 1), {"dtype": torch.int32}, ["float32", "dtype = torch.int32"]),
    ("batch_norm", (r(4), r(4), r(4)), {}, ["input", "[4]", "[N, C]"]),
    ("batch_norm", (X, r(3), r(4)), {}, ["running_mean", "[3]", "[4]"]),
    ("batch_norm", (X, None, r(4)), {}, ["running_mean = None", "training = False"]),
    ("batch_norm", (X, r(4), None), {"training": True}, ["running_var = None", "both"]),
    ("batch_norm", (X, None, None, r(5)), {"training": True}, ["weight", "[5]", "[4]"]),
    ("batch_norm", (X, None, None, r(4).double()), {"training": True}, ["weight", "float64", "float32"]),
    ("batch_norm", (X, None, None), {"training": True, "eps": 0.0}, ["eps = 0.0"]),
    ("batch_norm", (r(1, 4), None, None), {"training": True}, ["[1, 4]", "one value"]),
    ("batch_norm", (X.long(), r(4), r(4)), {}, ["input", "int64"]),
    ("layer_norm", (X, (4, 5)), {}, ["[2, 4, 6, 5]", "[4, 5]"]),
    ("layer_norm", (X, ()), {}, ["normalized_shape = []", "one axis"]),
    ("layer_norm", (X, 5), {}, ["normalized_shape = 5", "sequence"]),
    ("layer_norm", (X, (6, 5), r(5)), {}, ["weight", "[5]", "[6, 5]"]),
    ("layer_norm", (X.to(torch.complex64), (5,)), {}, ["input", "complex64"]),
    ("group_norm", (X, 3), {}, ["num_groups = 3", "4 maps"]),
    ("group_norm", (X, 2, None, r(2)), {}, ["bias", "[2]", "[4]"]),
    ("group_norm", (r(1, 4), 4), {}, ["[1, 4]", "num_groups = 4", "more than one value"]),
    ("group_norm", (r(4), 2), {}, ["input", "[4]", "[N, C]"]),
    ("relu_bits", (r(3, dtype=torch.complex64),), {}, ["input", "complex64"]),
    ("relu_bits", (r(2, 3, dtype=torch.complex128),), {}, ["input", "complex128", "real numbers"]),
    ("batch_norm_activation", (X, r(4), r(4)), {"activation": "rrelu"}, ["activation = 'rrelu'", "relu", "hardswish"]),
    ("batch_norm_activation", (r(4), r(4), r(4)), {}, ["input", "[4]", "[N, C]"]),
    ("batch_norm_activation", (r(0), r(4), r(4)), {}, ["input", "[0]", "[N, C]"]),
    ("batch_norm_activation", (X, None, r(4)), {}, ["running_mean = None", "training = False"]),
    ("batch_norm_activation", (X.to(torch.complex64), r(4), r(4)), {}, ["input", "complex64"]),
    ("batch_norm_activation_conv2d", (X[0], r(4), r(4), None, None, W), {}, ["input", "[4, 6, 5]", "[N, C, H, W]"]),
    ("batch_norm_activation_conv2d", (X, r(3), r(4), None, None, W), {}, ["running_mean", "[3]", "[4]"]),
    ("batch_norm_activation_conv2d", (X, r(4), r(4), None, None, r(6, 3, 3, 3)), {}, ["4 maps", "[6, 3, 3, 3]"]),
    ("batch_norm_activation_conv2d", (X, r(4), r(4), None, None, W.double()), {}, ["float32", "float64"]),
    ("activation_conv2d", (X, "rrelu", W), {}, ["activation = 'rrelu'", "'"]),
    ("activation_conv2d", (r(6, 5), "gelu", W), {}, ["input", "[6, 5]"]),
    ("activation_conv2d", (X, "gelu", W), {"padding": "same", "stride": 2}, ["'same'", "stride = 2"]),
    ("activation_conv2d", (X.to(torch.complex64), "relu", W), {}, ["input", "complex64"]),
]


@pytest.mark.parametrize(("op", "args", "kwargs", "words"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.filterwarnings("ignore:.*broadcasting them")
def test_refused_by_name(op: str, args: Any, kwargs: Any, words: list[str]) -> None:
    with pytest.raises((ValueError, TypeError)) as info:
        getattr(F, op)(*args, **kwargs)
    for word in [op, *words]:
        assert word in str(info.value)


@pytest.mark.parametrize("op", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize(("flags", "name"), [((False, None), "sum"), ((None, False), "none"), ((True, True), "mean")])
def test_deprecated_flags_mean_what_they_meant(op: str, flags: Any, name: str) -> None:
    size_average, reduce = flags
    with pytest.warns(UserWarning, match=f"reduction='{name}'"):
        old = getattr(F, op)(Z, T, size_average=size_average, reduce=reduce)
    assert torch.equal(old, getattr(F, op)(Z, T, reduction=name))


def test_softmax_without_an_axis_warns_and_does_what_pytorch_does() -> None:
    for shape in [(3,), (3, 4), (2, 3, 4), (2, 3, 4, 5)]:
        x = torch.randn(shape)
        with pytest.warns(UserWarning, match="dim"):
            y = F.softmax(x)
        with pytest.warns(UserWarning, match="dim"):
            assert torch.equal(y, torch.nn.functional.softmax(x))


@pytest.mark.parametrize(("op", "value"), [("mse_loss", 1), ("l1_loss", 1), ("smooth_l1_loss", 0.5)])
def test_losses_of_different_shapes_warn(op: str, value: float) -> None:
    with pytest.warns(UserWarning, match=rf"{op}.*\[5, 1\].*\[5, 4\]"):
        loss = getattr(F, op)(torch.ones(5, 4), torch.zeros(5, 1))
    assert loss == value


def test_relu_in_place() -> None:
    x = torch.randn(3, 4)
    leaf = x.clone().requires_grad_()
    twice = leaf * 2
    y = F.relu(twice, inplace=True)
    assert y is twice
    assert torch.equal(twice, (2 * x).relu())
    y.sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, 2.0 * (x > 0))
