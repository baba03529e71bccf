"""The command line of `train.py`: its options, and how it ends: 0 done, 2 something to mend, 3 a loss,
a gradient or a weight that is not finite, 130 interrupted.
"""

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from jsonargparse import ActionYesNo, ArgumentError, ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt, restricted_number_type

from manualbp.training import NotFiniteError, UserError

EPOCHS = {"digits": 100, "cifar10": 20, "caltech101": 40, "folder": 20}
LEARNING_RATES = {"sgd": 0.1, "adam": 0.001, "adamw": 0.001}
WEIGHT_DECAYS = {"sgd": 0.0, "adam": 0.0, "adamw": 0.01}
MAY_CHANGE = ("data_dir", "epochs", "backward", "fuse")  # of the options that a checkpoint keeps
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")

Rate = restricted_number_type("Rate", float, [(">", 0), ("<", math.inf)])
Decay = restricted_number_type("Decay", float, [(">=", 0), ("<", math.inf)])
Share = restricted_number_type("Share", float, [(">=", 0), ("<", 1)])
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])


def build_parser() -> ArgumentParser:
    epochs = ", ".join(f"{n} for {data}" for data, n in EPOCHS.items())
    rates = ", ".join(f"{rate} for {optimizer}" for optimizer, rate in LEARNING_RATES.items())
    parser = ArgumentParser(
        prog="train.py",
        description="Train a convolutional network on gradients derived by hand. Without options: on handwritten "
        "digits, in less than a minute. Everything that a run makes goes into one new folder.",
        formatter_class=argparse.HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", action="config", metavar="FILE", help="YAML file of options, such as a run's config.yaml")
    add(
        "--data",
        choices=list(EPOCHS),
        default="digits",
        help="digits come with scikit-learn; cifar10 and caltech101 are downloaded where they are not in the data "
        "directory; folder is any tree DIR/train/CLASS/*, DIR/test/CLASS/* of grey or of colour images (colour "
        "images are shifted and mirrored at random, all are brought to the size of the first one, 64 pixels at "
        "most) (default: digits)",
    )
    add("--data-dir", metavar="DIR", default="data", help="where the images are (default: data)")
    add(
        "--network",
        metavar="NAME",
        default="lecture004",
        help="one of the lectures: caltech of 001 (images of 1 x 83 x 83 only), block of 000 and 002 (true "
        "convolution), mlp of 003 (squared error), lecture004; or any classification network of torchvision.models, as "
        "resnet18, vgg11_bn or mobilenet_v3_small: without its weights, googlenet and inception_v3 without auxiliary "
        "outputs, grey images given as three equal channels (default: lecture004)",
    )
    add(
        "--activation",
        choices=["sigmoid", "tanh", "relu"],
        help="of a lecture's network (default: the lecture's; relu for block, else sigmoid)",
    )
    add(
        "--pooling",
        choices=["max", "avg", "avg-max"],
        help="of a lecture's network; avg-max: the first avg, the second max (default: the lecture's; avg for "
        "caltech, else max)",
    )
    add(
        "--stem",
        choices=["3x3"],
        help="of a resnet, resnext or wide_resnet, for small images: a 3 x 3 convolution of stride 1 without pooling, "
        "in place of 7 x 7 of stride 2 and pooling (default: torchvision's)",
    )
    add("--epochs", metavar="N", type=PositiveInt, help=f"passes over the training images (default: {epochs})")
    add("--batch-size", metavar="N", type=PositiveInt, default=128, help="images a step of each device (default: 128)")
    add("--lr", metavar="RATE", type=Rate, help=f"highest learning rate, then falling to zero (default: {rates})")
    add("--optimizer", choices=list(LEARNING_RATES), default="sgd", help="sgd has momentum 0.9 (default: sgd)")
    add(
        "--weight-decay",
        metavar="RATE",
        type=Decay,
        help="as the optimizer of torch.optim has it (default: 0.01 for adamw, else 0)",
    )
    add(
        "--label-smoothing",
        metavar="SHARE",
        type=Share,
        default=0.0,
        help="of the target that goes to all classes alike (default: 0)",
    )
    add(
        "--validation",
        metavar="SHARE",
        type=Share,
        default=0.1,
        help="of the training images, set apart to choose the checkpoint that is tested; 0: train on all of them and "
        "test the last (default: 0.1)",
    )
    add("--precision", choices=PRECISIONS, default="32-true", help="of the arithmetic (default: 32-true)")
    add("--accelerator", metavar="KIND", default="auto", help="kind of device, as cpu, gpu or mps (default: auto)")
    add(
        "--devices",
        metavar="N",
        default="auto",
        help="how many, each with a process of its own, or which, as in 0,2; each normalises its batches by itself "
        "where the network has batch normalisation (default: auto)",
    )
    add("--strategy", metavar="NAME", default="auto", help="of Lightning for several devices, as ddp (default: auto)")
    add("--seed", metavar="N", type=Seed, default=0, help="of weights, order and augmentation (default: 0)")
    add(
        "--backward",
        choices=["manualbp", "torch"],
        default="manualbp",
        help="whose layers: derived by hand, or torch.nn's for comparison (default: manualbp)",
    )
    add(
        "--fuse",
        action=ActionYesNo(no_prefix="no-"),
        default=False,
        help="have neighbouring layers run together where that keeps less memory for the backward pass: the same "
        "numbers to rounding, and the same checkpoints (default: no)",
    )
    add(
        "--resume",
        metavar="CKPT",
        help="go on from a run's last.ckpt, in a new folder, with that run's options; --epochs, --data-dir, "
        "--accelerator, --devices, --strategy, --backward, --fuse or --no-fuse, and --output-dir may be given anew",
    )
    add("--output-dir", metavar="DIR", default="runs", help="runs go to DIR/DATA-NETWORK/version_N (default: runs)")
    return parser


def parse(argv: Sequence[str] | None) -> tuple[ArgumentParser, Namespace]:
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.resume is not None:
        from manualbp.training.run import KEPT, read_checkpoint

        kept = read_checkpoint(options.resume)["run"]["options"]
        parser.set_defaults(kept)
        options = parser.parse_args(argv)
        for name in KEPT:
            if name in MAY_CHANGE:
                continue
            before = kept.get(name, parser.get_defaults()[name])  # older checkpoints lack newer options
            if options[name] != before:
                made_with = "the default" if before is None else before
                raise UserError(
                    f"argument --{name.replace('_', '-')}: {options[name]}, but {options.resume} was made with "
                    f"{made_with}: leave it out, or start a new run"
                )
    if options.fuse and options.backward == "torch":
        raise UserError(
            "argument --fuse: it is for layers derived by hand, but --backward is torch: leave it out (or, of a run "
            "that is resumed, give --no-fuse)"
        )
    if options.epochs is None:
        options.epochs = EPOCHS[options.data]
    if options.lr is None:
        options.lr = LEARNING_RATES[options.optimizer]
    if options.weight_decay is None:
        options.weight_decay = WEIGHT_DECAYS[options.optimizer]
    return parser, options


def main(argv: Sequence[str] | None = None) -> int:
    """Run `train.py` with these arguments (the process's own where None) and return its exit code."""
    try:
        parser, options = parse(argv)
        # Only now, as it takes seconds to import: a wrong option is answered at once.
        from manualbp.training.run import run

        run(options, parser.dump(options))
    except ArgumentError as error:
        return fail(named(str(error)))
    except UserError as error:
        # One raised in a process that reads data comes with that process's traceback, itself in the last line.
        return fail(str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.UserError: "))
    except NotFiniteError as error:
        return fail(str(error), 3) if is_first() else 3
    except KeyboardInterrupt as interrupt:
        if is_first():
            print(f"\ntrain.py: interrupted{interrupt}", file=sys.stderr)
        return 130
    return 0


def is_first() -> bool:
    """Whether this process is the one of several that says what all of them met."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def leave(code: int) -> NoReturn:
    """End the process. One of several does so at once: PyTorch's threads may abort it while Python tidies up."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def named(message: str) -> str:
    """jsonargparse's message with the argument as it is written on the command line."""
    message = re.sub(r'^Parser key "(\w+)"', lambda m: f"argument --{m[1].replace('_', '-')}", message)
    return re.sub(r"^(?=Problems parsing config|Option ')", "argument --config: ", message)


def fail(message: str, code: int = 2) -> int:
    print("train.py: error:", " ".join(message.split()), file=sys.stderr)
    return code
