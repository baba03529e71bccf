"""The options of `train` and train.py, and which go together."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import yaml
from jsonargparse import ActionYesNo, ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveInt, restricted_number_type

from manualbp.commands import Narrow
from manualbp.training import UserError

EPOCHS = {"digits": 100, "cifar10": 20, "caltech101": 40, "folder": 20}
LEARNING_RATES = {"sgd": 0.1, "adam": 0.001, "adamw": 0.001, "muon": 0.24}
WEIGHT_DECAYS = {"sgd": 0.0, "adam": 0.0, "adamw": 0.01, "muon": 0.0}
# Of the options that a checkpoint keeps.
MAY_CHANGE = ("data_dir", "val_dir", "epochs", "backward", "fuse", "compile")
RECIPES = Path(__file__).parent / "recipes"
AUGMENTATIONS = ("none", "flip", "crop", "warp", "randaugment", "cutout", "mixup")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")

Rate = restricted_number_type("Rate", float, [(">", 0), ("<", math.inf)])
Decay = restricted_number_type("Decay", float, [(">=", 0), ("<", math.inf)])
Share = restricted_number_type("Share", float, [(">=", 0), ("<", 1)])
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])


def build_parser(command: str = "train.py") -> ArgumentParser:
    epochs = ", ".join(f"{n} for {data}" for data, n in EPOCHS.items())
    rates = ", ".join(f"{rate} for {optimizer}" for optimizer, rate in LEARNING_RATES.items())
    parser = ArgumentParser(
        prog=command,
        description="Train a convolutional network on gradients derived by hand. Without options: on handwritten "
        "digits, in less than a minute. Everything that a run makes goes into one new folder.",
        formatter_class=Narrow,
        exit_on_error=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--recipe",
        metavar="NAME",
        choices=recipes(),
        help=f"options that go together: {', '.join(recipes())}; others beside it change them; with --print_config it "
        "is printed, to be copied, changed, and given to --config",
    )
    add("--config", action="config", metavar="FILE", help="YAML file of options, such as a run's config.yaml")
    add(
        "--data",
        choices=list(EPOCHS),
        default="digits",
        help="digits come with scikit-learn; cifar10 and caltech101 are downloaded where they are not in the data "
        "directory; folder is any tree DIR/train/CLASS/*, DIR/test/CLASS/* of images, or DIR/CLASS/* (colour "
        "images are shifted and mirrored at random, all are brought to the size of the first one) "
        "(default: digits)",
    )
    add("--data-dir", metavar="DIR", default="data", help="where the images are (default: data)")
    add(
        "--val-dir",
        metavar="DIR",
        help="of --data folder: DIR/CLASS/* are the images that choose the checkpoint, in place of --validation",
    )
    add(
        "--split",
        metavar="SHARE",
        type=OpenUnitInterval,
        help="of --data folder: of every class, set apart for the test where there is no test/ (default: 0.2)",
    )
    add(
        "--image-size",
        metavar="PIXELS",
        type=PositiveInt,
        help="longer side of the images of folder, which are scaled down to it (default: 64); side of those of "
        "caltech101 (default: 83)",
    )
    add(
        "--channels",
        type=int,
        choices=[1, 3],
        help="1: grey, 3: colour (default: colour where a training image of folder is; grey for caltech101)",
    )
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
    add("--lr", metavar="RATE", type=Rate, help=f"highest learning rate (default: {rates})")
    add(
        "--schedule",
        choices=["cosine", "linear", "one-cycle", "constant"],
        default="cosine",
        help="of the learning rate: cosine rises in a twentieth of the steps and falls to zero by a half cosine, "
        "linear falls from the first step, one-cycle rises in 3 of 10 steps and falls, both in straight lines "
        "(default: cosine)",
    )
    add(
        "--optimizer",
        choices=list(LEARNING_RATES),
        default="sgd",
        help="sgd has momentum 0.9; muon has orthogonalised steps for the kernels of convolutions, and gradient "
        "descent for other parameters (default: sgd)",
    )
    for name, what, default in (("matrices", "matrices", 0.02), ("vectors", "biases and the like", 0.1)):
        add(
            f"--lr-{name}",
            metavar="RATE",
            type=Rate,
            default=default,
            help=f"that of muon for {what}, of the mean loss (default: {default})",
        )
    add(
        "--weight-decay",
        metavar="RATE",
        type=Decay,
        help="as the optimizer of torch.optim has it; of muon the part of what is no kernel that goes with each step "
        "(default: 0.01 for adamw, else 0)",
    )
    add(
        "--label-smoothing",
        metavar="SHARE",
        type=Share,
        default=0.0,
        help="of the target that goes to all classes alike (default: 0)",
    )
    add(
        "--augmentation",
        nargs="+",
        metavar="KIND",
        choices=AUGMENTATIONS,
        help="what is done to training images at random, one or more of: flip (mirrored in every second epoch), "
        "crop (shifted), warp (scaled, turned and shifted), randaugment, cutout (a black quarter), mixup; or none "
        "(default: crop; flip, too, for colour images; warp and flip for caltech101)",
    )
    add(
        "--crop-padding",
        metavar="PIXELS",
        type=NonNegativeInt,
        help="crop shifts by that many at most (default: an eighth of height and width)",
    )
    add(
        "--test-augmentation",
        choices=["none", "mirror", "mirror-shift"],
        default="none",
        help="the scores of a test image are the mean over it and its mirror image; and over these shifted by a pixel "
        "(default: none)",
    )
    add("--ema", metavar="DECAY", type=Share, help="validate, test and keep the moving average of the weights")
    add("--patience", metavar="N", type=PositiveInt, help="stop after N epochs without a lower validation loss")
    add("--clip", metavar="NORM", type=Rate, help="scale gradients down to this norm, over all parameters")
    add(
        "--validation",
        metavar="SHARE",
        type=Share,
        default=0.1,
        help="of the training images, set apart to choose the checkpoint that is tested; 0: train on all of them and "
        "test the last (default: 0.1)",
    )
    add(
        "--precision",
        metavar="KIND",
        choices=PRECISIONS,
        default="32-true",
        help=f"of the arithmetic: {', '.join(PRECISIONS)} (default: 32-true)",
    )
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
        "--deterministic",
        action=ActionYesNo(no_prefix="no-"),
        default=False,
        help="use deterministic algorithms only, and fail where there is none (default: no)",
    )
    add(
        "--compile",
        action=ActionYesNo(no_prefix="no-"),
        default=False,
        help="have torch.compile compile the network (default: no)",
    )
    add(
        "--resume",
        metavar="CKPT",
        help="go on from a run's last.ckpt, in a new folder, with that run's options; --epochs, --data-dir, "
        "--val-dir, --accelerator, --devices, --strategy, --backward, --fuse, --compile (or --no-fuse, --no-compile) "
        "and --output-dir may be given anew",
    )
    add("--output-dir", metavar="DIR", default="runs", help="runs go to DIR/DATA-NETWORK/version_N (default: runs)")
    return parser


def recipes() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def follow(recipe: str | None, parser: ArgumentParser) -> None:
    if recipe in recipes():  # else the parser says so
        parser.set_defaults(yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text()))


def parse(argv: Sequence[str] | None, command: str = "train.py") -> tuple[ArgumentParser, Namespace]:
    parser = build_parser(command)
    # Before all others: they are parsed with its options in place of the defaults, and --print_config prints these.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", nargs="?")
    name = first.parse_known_args(argv)[0].recipe
    follow(name, parser)
    options = parser.parse_args(argv)
    if options.recipe != name:  # in a file that --config names
        follow(options.recipe, parser)
        options = parser.parse_args(argv)
    if options.resume is not None:
        from manualbp.training.checkpoint import read_checkpoint
        from manualbp.training.run import KEPT

        kept = read_checkpoint(options.resume)["run"]["options"]
        parser.set_defaults(kept)
        options = parser.parse_args(argv)
        for name in KEPT:
            if name in MAY_CHANGE and not (name == "val_dir" and kept.get(name) is None):
                continue
            before = kept.get(name, parser.get_defaults()[name])  # older checkpoints lack newer options
            if options[name] != before:
                made_with = "the default" if before is None else before
                raise UserError(
                    f"argument --{name.replace('_', '-')}: {options[name]}, but {options.resume} was made with "
                    f"{made_with}: leave it out, or start a new run"
                )
    kinds = options.augmentation or ["crop"]
    if options.fuse and options.backward == "torch":
        raise UserError(
            "argument --fuse: it is for layers derived by hand, but --backward is torch: leave it out (or, of a run "
            "that is resumed, give --no-fuse)"
        )
    for wrong, option, why in (
        (options.patience and not options.validation, "patience", "there is no validation loss with --validation 0"),
        (options.crop_padding is not None and "crop" not in kinds, "crop-padding", "--augmentation has no crop"),
        ("none" in kinds and len(kinds) > 1, "augmentation", "none goes with no other"),
        ("mixup" in kinds and options.network == "mlp", "augmentation", "mixup is for the cross-entropy, not for mlp"),
    ):
        if wrong:
            raise UserError(f"argument --{option}: {options[option.replace('-', '_')]}: {why}")
    if options.epochs is None:
        options.epochs = EPOCHS[options.data]
    if options.lr is None:
        options.lr = LEARNING_RATES[options.optimizer]
    if options.weight_decay is None:
        options.weight_decay = WEIGHT_DECAYS[options.optimizer]
    return parser, options
