"""Every rule, every case: PyTorch's numbers, finite differences, any delta, no foreign backward, any precision."""

import pytest
import torch

from tests import checks
from tests.cases import CASES, Case

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
def test_value_and_derivatives_equal_pytorchs(case: Case, device: str) -> None:
    checks.equals_pytorch(case, device)


@every_case
def test_gradcheck(case: Case, device: str) -> None:
    checks.passes_gradcheck(case, device)


@every_case
def test_any_delta(case: Case, device: str) -> None:
    checks.takes_any_delta(case, device)


@every_case
def test_no_backward_of_pytorch(case: Case, device: str) -> None:
    checks.is_by_hand(case, device)


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_precision(case: Case, dtype: torch.dtype, device: str) -> None:
    checks.as_precise(case, dtype, device)
