"""A checkpoint read alone: the module that it is of, built by the options that it keeps, without its data."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from manualbp.training import UserError

if TYPE_CHECKING:
    from manualbp.training.classifier import Classifier


def read_checkpoint(path: Any, argument: str = "argument --resume", map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint of `train.py`, or UserError; path: a file, or its name."""
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except OSError as error:
        raise UserError(f"{argument}: {path}: cannot be read ({error.strerror})") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{argument}: {path}: not a checkpoint, or a damaged one") from error
    if not isinstance(checkpoint, dict) or not {"run", "state_dict", "epoch"} <= checkpoint.keys():
        raise UserError(f"{argument}: {path}: not a checkpoint of train.py")
    return checkpoint


def load(path: Path, argument: str, backward: str | None = None) -> "Classifier":
    """The module of a checkpoint, on the CPU, for a command; backward: whose layers, if not those of its run."""
    return build_from(read_checkpoint(path, argument), f"{argument}: {path}", backward)


def build_from(checkpoint: dict[str, Any], name: str, backward: str | None = None) -> "Classifier":
    """The module of a checkpoint, in evaluation mode, its tensors those of the checkpoint: their device and dtype.

    Options that are newer than the checkpoint have their defaults. The global random generator is left as it was.
    Raises: UserError, which begins with `name`, where it is none.
    """
    from manualbp.training.options import build_parser
    from manualbp.training.run import build

    try:
        run, parser = checkpoint["run"], build_parser()
        parser.set_defaults(run["options"] | ({} if backward is None else {"backward": backward}))
        C, H, W = run["shape"]
        data: Any = SimpleNamespace(  # what `build` asks of a run's images; the checkpoint has their statistics
            shape=(C, H, W),
            classes=run["classes"],
            mean=torch.zeros(C, 1, 1),
            std=torch.ones(C, 1, 1),
            source=SimpleNamespace(average="macro" if run["options"]["data"] == "caltech101" else "micro"),
            smallest_batch=lambda devices: 2,
        )
        with torch.random.fork_rng(devices=[]):
            model = build(parser.get_defaults(), data, 1).eval()
        model.load_state_dict(checkpoint["state_dict"], assign=True)
        model.on_load_checkpoint(checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{name}: not a checkpoint of train.py, or a damaged one") from error
    return model
