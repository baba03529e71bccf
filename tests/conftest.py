"""One thread in every process of the tests, and the devices on which they run."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; the programs that tests start have it, too

import pytest
import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # where a plugin loaded torch before
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """The same cases on each device that is there; TF32 off, so that float32 means float32."""
    if request.param == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    return request.param


def pytest_collection_finish() -> None:
    """Ten thousand tests are millions of objects: neither the collector nor `manualbp.memory` looks at them again."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pytorch-tests", metavar="DIR", help="the folder test of PyTorch's source, for tests/pytorch")
