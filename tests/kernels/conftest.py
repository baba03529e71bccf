"""Without a card the tests of the Triton kernels are collected in the interpreter's process alone: test_triton."""

from importlib.util import find_spec

import torch

from tests.kernels.cards import INTERPRETED

runs = INTERPRETED or (torch.cuda.is_available() and find_spec("triton"))
collect_ignore_glob = [] if runs else ["test_cuda_*.py"]
