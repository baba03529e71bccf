"""Checkpoints of networks that were not trained, as train.py would write them: made in a moment."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from manualbp.training.options import build_parser
from manualbp.training.run import build


def checkpoint(path: Path, network: str, shape: tuple[int, int, int], classes: list[str], **options: Any) -> Path:
    """One of random weights, statistics of pixels and running statistics, from a fixed seed."""
    torch.manual_seed(0)
    parser = build_parser()
    parser.set_defaults({"network": network, "lr": 0.1, "epochs": 1, "weight_decay": 0.0, **options})
    data: Any = SimpleNamespace(
        shape=shape,
        classes=classes,
        mean=100 + 50 * torch.rand(shape[0], 1, 1),
        std=30 + 50 * torch.rand(shape[0], 1, 1),
        source=SimpleNamespace(average="micro"),
        smallest_batch=lambda devices: 2,
    )
    model = build(parser.get_defaults(), data, 1)
    for name, buffer in model.network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    found: dict[str, Any] = {"epoch": 0, "state_dict": model.state_dict()}
    model.on_save_checkpoint(found)
    torch.save(found, path)
    return path
