"""Activations and softmax."""

import torch

from tests.cases.make import Case, normal

ELEMENTWISE = [
    *[Case(op, "matrix", normal(4, 5)) for op in ("sigmoid", "tanh", "relu")],
    *[Case(op, "images", normal(2, 3, 4, 2)) for op in ("sigmoid", "tanh", "relu")],
    *[Case(op, "number", normal()) for op in ("sigmoid", "tanh", "relu")],
    *[Case(op, f"dim {dim}", normal(3, 4, 2), {"dim": dim}) for op in ("softmax", "log_softmax") for dim in (0, 1, -1)],
    *[Case(op, "dtype", normal(3, 4), {"dim": 1, "dtype": torch.float64}) for op in ("softmax", "log_softmax")],
    *[Case(op, "number", normal(), {"dim": 0}) for op in ("softmax", "log_softmax")],
]
