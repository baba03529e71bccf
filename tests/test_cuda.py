"""`pytest -m cuda`: every case that takes a device, on CUDA; where there is none, this says so."""

import pytest
import torch


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the cases ran on the CPU alone")
def test_the_cases_run_on_cuda(device: str) -> None:
    assert device in ("cpu", "cuda")
    assert torch.cuda.device_count() > 0
