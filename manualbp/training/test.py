"""The accuracy and the loss of a trained network on test images."""

import json
import math
import time
from pathlib import Path

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException

from manualbp.training import UserError
from manualbp.training.checkpoint import load
from manualbp.training.data import ImageData
from manualbp.training.run import brief, quieten
from manualbp.training.sources import NAMES, source_of


def test(checkpoint: str, data: str | None, data_dir: str | None, as_json: bool) -> None:
    """Print the accuracy and the loss of a checkpoint; data, data_dir: those of its run, where None.

    Raises: UserError for an unknown kind of data, and for images of other classes or another shape.
    """
    start = time.perf_counter()
    quieten()
    model = load(Path(checkpoint), "argument CKPT")
    kind, folder = data or model.options["data"], data_dir or model.options["data_dir"]
    if kind not in NAMES:
        raise UserError(f"argument --data: {kind}: it must be one of {', '.join(NAMES)}")
    options = Namespace(model.options | {"data": kind, "data_dir": folder, "val_dir": None})
    if kind not in ("folder", "caltech101"):
        options.image_size = options.channels = None
    if kind != "folder" or (Path(folder) / "test").is_dir():
        options.split = None  # else what the run tested, and did not train on, is set apart again
    source = source_of(options)
    images = ImageData(source, model.options["batch_size"], model.options["seed"], validation=0.0)
    for what in ("shape", "classes"):
        theirs, ours = list(getattr(images, what)), getattr(model, what)
        if theirs != ours:
            raise UserError(
                f"argument --data: {kind} in {folder} has images of {what} {brief(theirs)}, while {checkpoint} is of "
                f"{brief(ours)}"
            )
    try:
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            precision=model.options["precision"],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f"argument CKPT: {checkpoint} has --precision {model.options['precision']}: {error}") from error
    (result,) = trainer.test(model, datamodule=images, verbose=False)
    accuracy, loss = result["test_accuracy"], result["test_loss"]
    if as_json:
        counts = model.confusion_counts.double()
        of_classes = (counts.diag() / counts.sum(1)).tolist()
        found = {"images": len(images.test), "accuracy": accuracy, "loss": loss if math.isfinite(loss) else None}
        print(json.dumps(found | {"classes": dict(zip(model.classes, of_classes, strict=True))}, indent=2))
        return
    what = "mean accuracy of the classes" if source.average == "macro" else "accuracy"
    after = f"of {len(images.test):,} images after {time.perf_counter() - start:.1f} s"
    print(f"test {what} {100 * accuracy:.2f} %, loss {loss:.4f}, {after}")
