"""Where the Triton kernels are tested: on a card, and interpreted on the CPU, in a process of its own (test_triton)."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CUDA = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
on_a_card = pytest.mark.parametrize(
    "device", ["cpu" if INTERPRETED else pytest.param("cuda", marks=CUDA)], indirect=True
)
