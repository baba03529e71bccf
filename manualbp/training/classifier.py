"""The Lightning module: a network and its loss, the optimizer, the figures that are logged, and what is kept."""

from functools import partial
from math import cos, nan, pi
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as T
from lightning.pytorch.core.saving import _default_map_location
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from manualbp.training.checkpoint import build_from, read_checkpoint
from manualbp.training.data import Batch, ImageData, position
from manualbp.training.optimizers import OPTIMIZERS

WARM_UP, RISE = 0.05, 0.3  # of all steps: before the cosine, and of one cycle


def rate(schedule: str, step: int, steps: int) -> float:
    """The learning rate of a step, the first being 0, as a part of the highest one."""
    part = min(1.0, step / steps)
    match schedule:
        case "linear":
            return 1 - part
        case "one-cycle":
            return min(1.0, (part + 1 / steps) / RISE, (1 - part) / (1 - RISE))
        case "cosine":
            rise = min(1.0, (step + 1) / max(1, round(WARM_UP * steps)))
            return rise * (1 + cos(pi * part)) / 2
    return 1.0


class Classifier(pl.LightningModule):
    """Trains `network` (images to class scores) under `loss` (scores and labels to a number).

    Each step is the summary of lecture 002, eq. 2.5: forward, error, local gradients, update; with `sgd` the update is
    lecture 003, eq. 3.5 (and lecture 001, eq. 1.8), with momentum.

    A checkpoint also holds the pixel statistics of the training images and, under "run", what is needed to go on:
    `options` (of the command line, plain values), `shape` (of an image), `classes` (their names) and `history` (the
    figures of every epoch from the first, also after a resume). After a test `confusion_counts` has a row for each
    true class.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: torch.nn.Module, loss: torch.nn.Module, data: ImageData, options: dict[str, Any]
    ) -> None:
        super().__init__()
        # The layout in which convolutions are fastest, on CPU and GPU.
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.loss = loss
        self.options, self.shape, self.classes = options, list(data.shape), list(data.classes)
        self.history: list[dict[str, float]] = []
        self.register_buffer("mean", data.mean)
        self.register_buffer("std", data.std)
        classes, average = len(data.classes), data.source.average
        self.train_accuracy, self.val_accuracy, self.test_accuracy = (
            MulticlassAccuracy(classes, average=average, validate_args=False) for _ in range(3)
        )
        # Lightning's own mean over several processes rounds the number of images: it is wrong where they have unequal
        # shares. A loss that is no number stays one.
        self.val_loss, self.test_loss = (MeanMetric(nan_strategy=nan) for _ in range(2))
        self.confusion = MulticlassConfusionMatrix(classes, validate_args=False)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, map_location: Any = None) -> "Classifier":
        """The module of a checkpoint alone, in evaluation mode: by its options, on the layers of its --backward.

        map_location: as torch.load has it; None: where the tensors were, on the CPU where there is no such device.
        Raises: UserError for what is no checkpoint.
        """
        name = "load_from_checkpoint: checkpoint_path"
        checkpoint = read_checkpoint(checkpoint_path, name, map_location or _default_map_location)
        return build_from(checkpoint, f"{name}: {checkpoint_path}")

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.normalised(x))

    def normalised(self, x: Tensor) -> Tensor:
        x = (x.to(self.mean.dtype) - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)

    def scores(self, x: Tensor) -> Tensor:
        """Those that are tested and predicted: the mean over the views that --test-augmentation asks for.

        mirror: the image and its mirror image. mirror-shift: half of that, and half of two that are shifted by a
        pixel, up and left, down and right, each with its mirror image, too.
        """
        views, kind = [x], self.options["test_augmentation"]
        if kind == "mirror-shift":
            height, width = x.shape[2:]
            padded = T.pad(x, (1, 1, 1, 1), mode="reflect")
            views += [padded[..., :height, :width], padded[..., 2:, 2:]]
        z = [self(view) if kind == "none" else (self(view) + self(view.flip(3))) / 2 for view in views]
        return z[0] if len(z) == 1 else z[0] / 2 + (z[1] + z[2]) / 4

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout draws from the global generator: another mask in every process, the same one after a resume.
        torch.manual_seed((self.options["seed"] << 31) + (1 << 30) + position(self.trainer))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, labels = batch
        z = self(x)
        loss = self.loss(z, labels)
        self.train_accuracy(z, labels if labels.dim() == 1 else labels.argmax(1))  # of mixed images the larger part
        self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=len(x), sync_dist=True)
        self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        z = self._evaluate("test", batch)
        self.confusion.update(z, batch[1])
        return z

    def on_test_epoch_end(self) -> None:
        self.confusion_counts = self.confusion.compute()

    def _evaluate(self, stage: str, batch: Batch) -> Tensor:
        x, labels = batch
        z = self.scores(x) if stage == "test" else self(x)
        loss, accuracy = getattr(self, f"{stage}_loss"), getattr(self, f"{stage}_accuracy")
        loss(self.loss(z, labels), len(x))
        accuracy(z, labels)
        self.log(f"{stage}_loss", loss)
        self.log(f"{stage}_accuracy", accuracy)
        return z

    def on_train_epoch_end(self) -> None:
        self.history.append(figures_of_epoch(self.trainer))

    def configure_optimizers(self) -> Any:
        how = {"lr": self.options["lr"], "weight_decay": self.options["weight_decay"]}
        if self.options["optimizer"] == "muon":
            how |= {name: self.options[name] for name in ("lr_matrices", "lr_vectors")}
        optimizer = OPTIMIZERS[self.options["optimizer"]](self.network.parameters(), **how)
        steps = int(self.trainer.estimated_stepping_batches)
        # A function of the step alone: nothing to restore, and a resumed run may be given more epochs.
        of_step = partial(rate, self.options["schedule"], steps=steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, of_step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        names = ("options", "shape", "classes", "history")
        checkpoint["run"] = {name: getattr(self, name) for name in names}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["run"]["history"])


def figures_of_epoch(trainer: pl.Trainer) -> dict[str, float]:
    """Loss and accuracy of the epoch that just ended, of training and, where there was one, of validation."""
    figures = trainer.callback_metrics
    names = ("train_loss_epoch", "train_accuracy", "val_loss", "val_accuracy")
    return {name.removesuffix("_epoch"): float(figures[name]) for name in names if name in figures}
