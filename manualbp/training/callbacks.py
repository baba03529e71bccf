"""The checkpoints of a run, each written whole."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from manualbp.training.whole import whole


class BestCheckpoint(ModelCheckpoint):
    """best.ckpt, of the epoch with the lowest validation loss.

    A resumed run writes to its own folder, and Lightning's class then forgets the best so far. Here it is known by
    the file of that name, which is copied into the folder before.
    """

    def __init__(self) -> None:
        super().__init__(None, "best", "val_loss", save_on_train_epoch_end=True, enable_version_counter=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        path = str(Path(str(self.dirpath)) / "best.ckpt")
        if Path(path).exists():
            here = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path}
            super().load_state_dict(state_dict | here | {"best_k_models": {path: state_dict["best_model_score"]}})


def last_checkpoint() -> ModelCheckpoint:
    """last.ckpt, after every epoch; ModelCheckpoint(save_last=True) writes it only where best.ckpt is written too."""
    # All of them are kept, under one name: with the newest alone kept, a resumed run would remove the file that it
    # was resumed from.
    return ModelCheckpoint(None, "last", save_top_k=-1, save_on_train_epoch_end=True, enable_version_counter=False)


class WholeFiles(TorchCheckpointIO):
    """A checkpoint appears under its name when all of it is written: a run that is killed leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        content = io.BytesIO()  # what torch.save makes of a full disk is a RuntimeError about positions in the file
        torch.save(checkpoint, content)
        with whole(path) as file:
            file.write(content.getbuffer())
