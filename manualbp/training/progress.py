"""What a run tells while it trains: a bar or a line an epoch, metrics.csv and the event file of TensorBoard."""

import csv
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from manualbp.training import UserError
from manualbp.training.classifier import Classifier, figures_of_epoch
from manualbp.training.data import Batch
from manualbp.training.whole import whole

COLUMNS = (
    *("epoch", "step", "lr", "seconds", "images_per_second"),
    *("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"),
)


class Progress(RichProgressBar):
    """Lightning's bar with one figure beside it, short enough for a line of 80 characters. Its epochs count from 1."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.is_disabled or self.progress is None:
            return
        total, words = self.total_train_batches, f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        if self.train_progress_bar_id is None:
            self.train_progress_bar_id = self.progress.add_task(words, total=total)
        else:
            self.progress.reset(self.train_progress_bar_id, total=total, description=words, visible=True)
        self.refresh()

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        accuracy = trainer.callback_metrics.get("val_accuracy")
        return {} if accuracy is None else {"val": f"{100 * float(accuracy):.1f} %"}


class Record(pl.Callback):
    """metrics.csv, where a row appears when its epoch is over; with `lines`, also a printed line.

    `lr` is the rate of the epoch's last step, `step` counts the steps to there, `seconds` are those of training,
    without validation. The figures of the test stand in the row of the epoch whose checkpoint was tested. Of epochs
    before a resume the row has what the checkpoint knows: loss and accuracy.
    """

    def __init__(self, lines: bool) -> None:
        self.lines = lines
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Classifier) -> None:
        self.rows = [{"epoch": epoch, **figures} for epoch, figures in enumerate(pl_module.history, 1)]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Classifier) -> None:
        self.start, self.seconds, self.images = time.perf_counter(), 0.0, 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Classifier, batch: Batch, batch_idx: int) -> None:
        self.rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Classifier, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.images += len(batch[1]) * trainer.world_size
        self.seconds = time.perf_counter() - self.start

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Classifier) -> None:
        speed = self.images / self.seconds
        how = {"lr": self.rate, "seconds": self.seconds, "images_per_second": speed}
        pl_module.log_dict(how)  # for TensorBoard
        if not trainer.is_global_zero:
            return
        epoch, figures = trainer.current_epoch + 1, figures_of_epoch(trainer)
        self.rows.append({"epoch": epoch, "step": trainer.global_step, **how, **figures})
        self.write(trainer)
        if self.lines:
            part = "val" if "val_accuracy" in figures else "train"
            print(
                f"epoch {epoch}/{trainer.max_epochs}: loss {figures['train_loss']:.4f}, "
                f"{part} accuracy {100 * figures[f'{part}_accuracy']:.1f} %, "
                f"{self.seconds:.1f} s, {speed:,.0f} images/s",
                flush=True,
            )

    def on_test_end(self, trainer: pl.Trainer, pl_module: Classifier) -> None:
        if trainer.is_global_zero:
            tested = {name: float(trainer.callback_metrics[name]) for name in ("test_loss", "test_accuracy")}
            self.rows[len(pl_module.history) - 1].update(tested)  # a checkpoint has the history to its epoch
            self.write(trainer)

    def write(self, trainer: pl.Trainer) -> None:
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, COLUMNS)
        table.writeheader()
        table.writerows(self.rows)
        with whole(Path(str(trainer.loggers[0].log_dir)) / "metrics.csv") as file:
            file.write(text.getvalue().encode())


class EventFile(TensorBoardLogger):
    """TensorBoard's, over steps. Its writer is a thread, whose errors come with the next call.

    An interrupt waits for the end of a call. In the midst of one it could leave the lock of the writer's queue locked,
    for which the end of the run then waits without an end.
    """

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        with self._writing():
            super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    @rank_zero_only
    def save(self) -> None:
        with self._writing():
            super().save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        try:
            with self._writing():
                super().finalize(status)
        except UserError:
            if status != "failed":  # else it would hide the error that is on its way
                raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            os.stat(self.log_dir)  # else its writer would make the folder anew
            with uninterrupted():
                yield
        except OSError as error:
            raise UserError(f"{self.log_dir}: TensorBoard's file cannot be written ({error.strerror})") from error


@contextmanager
def uninterrupted() -> Iterator[None]:
    """An interrupt that comes meanwhile is handled at the end.

    Python hands interrupts to its main thread alone, and cannot put back a handler that is not its own.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    came: list[tuple[int, Any]] = []
    handler = signal.signal(signal.SIGINT, lambda *interrupt: came.append(interrupt))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came and callable(handler):
            handler(*came[0])


def hush_thread(failed: threading.ExceptHookArgs) -> None:
    """A `threading.excepthook` without the traceback of the event file's writer: the run says that in one line."""
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)
