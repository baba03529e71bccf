"""One run, from the options to the pictures."""

import logging
import re
import shutil
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_only

import manualbp
from manualbp.training import NotFiniteError, UserError, figures, torch_layers, vision
from manualbp.training.callbacks import BestCheckpoint, WholeFiles, last_checkpoint
from manualbp.training.check import GradientCheck
from manualbp.training.checkpoint import read_checkpoint
from manualbp.training.classifier import Classifier
from manualbp.training.data import ImageData
from manualbp.training.finite import FiniteCheck
from manualbp.training.mistakes import Mistakes
from manualbp.training.networks import NETWORKS, loss_of, whiten
from manualbp.training.progress import EventFile, Progress, Record, hush_thread
from manualbp.training.sources import source_of
from manualbp.training.whole import whole

LAYERS: dict[str, ModuleType] = {"manualbp": manualbp.nn, "torch": torch_layers}
KEPT = (
    *("data", "data_dir", "network", "activation", "pooling", "stem", "epochs", "batch_size", "lr", "optimizer"),
    *("weight_decay", "label_smoothing", "validation", "precision", "seed", "backward", "fuse"),
    *("schedule", "augmentation", "crop_padding", "test_augmentation", "ema", "patience", "clip", "deterministic"),
    *("lr_matrices", "lr_vectors", "val_dir", "split", "image_size", "channels", "compile"),
)

# What an error of PyTorch says where one of these options is to blame.
BLAMED = {"compile": "InductorError|BackendCompilerFailed|Unsupported", "deterministic": "deterministic"}


def run(options: Namespace, config: str, command: str = "train.py") -> None:
    """Train, test the best checkpoint (without validation the last), draw, and print one line.

    Raises: UserError for what the user can mend; KeyboardInterrupt, saying how to go on, when interrupted;
    NotFiniteError where the training went wrong, naming the last good checkpoint.
    """
    start = time.perf_counter()
    quieten()
    manualbp.keep_freed_memory()
    vision.require_options(options)
    mistakes = Mistakes()
    trainer = build_trainer(options, mistakes)
    if not trainer.is_global_zero:
        # An interrupt reaches all processes. The first one hears it, and ends the others; until then they go on, as it
        # may be waiting for them.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    # In the process that was started first, before it starts one for every other device: they find the download.
    data = ImageData(
        source_of(options),
        options.batch_size,
        options.seed,
        options.validation,
        options.augmentation,
        options.crop_padding,
    )
    if len(data.test) < trainer.world_size:
        raise UserError(f"argument --devices: {trainer.world_size}, for {len(data.test)} test images: take fewer")
    pl.seed_everything(options.seed, workers=True, verbose=False)
    model = build(options, data, trainer.world_size)
    if options.resume is not None:
        require_fit(options, model)
    if options.network == "airbench94":
        images = data.train.__getitems__(range(min(5000, len(data.train))))[0]
        whiten(model.network.get_submodule("whiten"), (images - data.mean) / data.std)
    places = len(manualbp.fuse(model.network).converted) if options.fuse else None
    if options.compile:
        model.network.compile()
    folder = new_folder(Path(options.output_dir) / f"{options.data}-{options.network}")
    try:
        send_to(folder, trainer, model)
        if trainer.is_global_zero:
            with whole(folder / "config.yaml") as file:
                file.write(config.encode())
            if options.resume is not None and (before := Path(options.resume).parent / "best.ckpt").exists():
                with whole(folder / "best.ckpt") as file:
                    file.write(before.read_bytes())
            print(summary(options, data, model, trainer.world_size, places), flush=True)
        fit(trainer, model, data, options)
        history = model.history  # the checkpoint that is tested has one of its own
        # Only the first process knows the folder.
        chosen = trainer.strategy.broadcast(str(folder / ("best.ckpt" if options.validation else "last.ckpt")))
        (result,) = trainer.test(model, datamodule=data, ckpt_path=chosen, weights_only=True, verbose=False)
        if trainer.is_global_zero:
            accuracy = 100 * result["test_accuracy"]
            kind = "mean accuracy of the classes" if data.source.average == "macro" else "accuracy"
            title = f"{options.network} on {options.data}, {options.backward}: test {kind} {accuracy:.2f} %"
            tested = len(model.history) if options.validation else None
            figures.curves(history, tested, title, folder / "curves.png")
            figures.confusion(model.confusion_counts, data.classes, title, folder / "confusion.png")
            figures.mistakes(mistakes.found, mistakes.sure, data.classes, title, folder / "mistakes.png")
            name, weight = next((name, p) for name, p in model.network.named_parameters() if p.dim() in (2, 4))
            figures.filters(weight, data.shape, f"{options.network} on {options.data}: {name}", folder / "filters.png")
            print(f"test {kind} {accuracy:.2f} % after {time.perf_counter() - start:.1f} s, in {folder}")
    except UserError as error:
        if not trainer.is_global_zero:
            raise
        end_others(trainer)
        if trainer.global_step == 0:
            shutil.rmtree(folder, ignore_errors=True)  # made a moment ago, for a run that never began
        if (last := folder / "last.ckpt").exists():
            raise UserError(f"{str(error).strip()}; go on with: {command} --resume {last}") from error
        raise
    except NotFiniteError as error:
        good = next((p for p in (folder / "last.ckpt", options.resume) if p and Path(p).exists()), None)
        kept = f"the last good checkpoint is {good}" if good else "no epoch was finished, and no checkpoint is kept"
        raise NotFiniteError(f"{error}; {kept}") from error
    except SystemExit as stop:
        # What Lightning makes of an interrupt.
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        last = folder / "last.ckpt"
        how = f"; go on with: {command} --resume {last}" if last.exists() else " in the first epoch, nothing is kept"
        raise KeyboardInterrupt(how) from None


def end_others(trainer: pl.Trainer) -> None:
    """Of several processes the first one may be alone with its error, and the others wait for it."""
    if isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
        trainer.strategy.launcher.kill(signal.SIGKILL)


def fit(trainer: pl.Trainer, model: Classifier, data: ImageData, options: Namespace) -> None:
    """Train; what --compile or --deterministic cannot do here is a UserError."""
    try:
        trainer.fit(model, datamodule=data, ckpt_path=options.resume, weights_only=True)
    except RuntimeError as error:
        option = next((name for name, words in BLAMED.items() if options[name] and re.search(words, repr(error))), None)
        if option is None:
            raise
        raise UserError(f"argument --{option}: {str(error).strip().splitlines()[0]}: leave it out") from error


def build_trainer(options: Namespace, mistakes: Mistakes) -> pl.Trainer:
    best = [BestCheckpoint()] if options.validation else []
    average = [] if options.ema is None else [EMAWeightAveraging(decay=plain(options.ema))]
    patience = [] if options.patience is None else [EarlyStopping("val_loss", patience=plain(options.patience))]
    watched = sys.stdout.isatty()
    bar = [Progress()] if watched else []
    checks = [GradientCheck(), FiniteCheck()]
    try:
        trainer = pl.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            strategy=options.strategy,
            precision=options.precision,
            max_epochs=options.epochs,
            logger=False,
            callbacks=[*checks, Record(not watched), mistakes, *bar, *average, *patience, *best, last_checkpoint()],
            enable_progress_bar=watched,
            gradient_clip_val=options.clip,
            deterministic=options.deterministic or None,
            plugins=[WholeFiles()],
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            limit_val_batches=None if options.validation else 0,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"argument --accelerator {options.accelerator}, --devices {options.devices}, "
            f"--strategy {options.strategy} or --precision {options.precision}: {error}"
        ) from error
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        # Its processes end with the training, and the trained network and its figures with them.
        raise UserError(f"argument --strategy: {options.strategy} starts copies of this process: choose ddp")
    return trainer


def build(options: Namespace, data: ImageData, devices: int) -> Classifier:
    layers = LAYERS[options.backward]
    kinds = {name: options[name] for name in ("activation", "pooling") if options[name] is not None}
    if options.network in NETWORKS:
        network = NETWORKS[options.network](layers, data.shape, len(data.classes), **kinds)
    else:
        network = vision.network_of(options.network, data.shape, len(data.classes), options.stem)
        vision.require_size(network, options.network, data.shape, data.smallest_batch(devices))
        if options.backward == "manualbp":
            manualbp.convert(network)
    # Plain values only: a checkpoint must load with torch.load(weights_only=True).
    kept = {name: plain(options[name]) for name in KEPT}
    return Classifier(network, loss_of(options.network, layers, options.label_smoothing), data, kept)


def plain(value: Any) -> Any:
    """The int or float that a restricted number is."""
    if isinstance(value, bool):
        return value
    return next((kind(value) for kind in (int, float) if isinstance(value, kind)), value)


def send_to(folder: Path, trainer: pl.Trainer, model: Classifier) -> None:
    """Have everything that the trainer writes go into the folder."""
    place = {"save_dir": folder.parent.parent, "name": folder.parent.name, "version": folder.name}
    trainer.logger = EventFile(**place, default_hp_metric=False)
    trainer.logger.log_hyperparams(model.options)
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.dirpath = str(folder.resolve())


def require_fit(options: Namespace, model: Classifier) -> None:
    """UserError where the checkpoint to resume is one of other images, of another network, or of a longer run."""
    checkpoint = read_checkpoint(options.resume)
    for what in ("shape", "classes"):
        theirs, ours = checkpoint["run"][what], getattr(model, what)
        if theirs != ours:
            raise UserError(
                f"argument --resume: {options.resume} is of images of {what} {brief(theirs)}, "
                f"while --data {options.data} has {brief(ours)}"
            )
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise UserError(f"argument --resume: {options.resume} is of another network than {options.network}") from error
    if (done := checkpoint["epoch"] + 1) > options.epochs:
        raise UserError(f"argument --epochs: {options.epochs}, but {options.resume} has {done} behind it")


def brief(values: list[Any]) -> str:
    return ", ".join(map(str, values[:5])) + (f", ... ({len(values)})" if len(values) > 5 else "")


def summary(options: Namespace, data: ImageData, model: Classifier, devices: int, places: int | None) -> str:
    parts = f"{len(data.train):,} training, {len(data.validation):,} validation, {len(data.test):,} test images"
    size = sum(p.numel() for p in model.network.parameters())
    shape = " x ".join(map(str, data.shape))
    whose = "by hand" if options.backward == "manualbp" else "by PyTorch"
    if options.network not in NETWORKS and options.backward == "manualbp":
        left = vision.left_to_pytorch(model.network, data.shape)
        whose += f" but for PyTorch's {', '.join(left)}" if left else ""
    together = "" if places is None else f"fused in {places} place{'s' * (places != 1)}, "
    where = f" on {devices} devices" if devices > 1 else ""
    notes = "".join(f"{options.data}: {note}\n" for note in data.source.notes)
    return (
        f"{notes}{options.data}: {parts} of {shape}, {len(data.classes)} classes\n"
        f"{options.network}: {size:,} parameters, gradients {whose}, {together}"
        f"{options.epochs} epochs of {options.optimizer}{where}"
    )


def new_folder(parent: Path) -> Path:
    """The first free parent/version_N, made here, so that no other run can take it."""
    n = -1
    while True:
        n += 1
        folder = parent / f"version_{n}"
        if not is_first_process():
            return folder  # told by the first process later
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"argument --output-dir: {folder}: cannot be made ({error.strerror})") from error


def is_first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


def quieten() -> None:
    """Keep from the terminal what Lightning has to say about itself, and Pillow about EXIF."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.|PIL\.")
    threading.excepthook = hush_thread
