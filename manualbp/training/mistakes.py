"""The images of the test that a network was surest about, and wrong."""

from typing import Any, NamedTuple

import lightning.pytorch as pl
from torch import Tensor

from manualbp.training.classifier import Classifier
from manualbp.training.data import Batch
from manualbp.training.finite import gathered
from manualbp.training.networks import SquaredError

MOST = 25


class Mistake(NamedTuple):
    sure: float  # of the predicted class, the probability or the output
    predicted: int
    true: int
    image: Tensor  # uint8 (channels, height, width)


class Mistakes(pl.Callback):
    """`found`: the MOST surest mistakes of a test, the surest first, of all processes together.

    `sure`, what that is measured by: the probability, or with the squared error, which knows none, the output.
    """

    def on_test_start(self, trainer: pl.Trainer, pl_module: Classifier) -> None:
        self.found: list[Mistake] = []
        self.sure = "output" if isinstance(pl_module.loss, SquaredError) else "probability"

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Classifier,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        x, labels = batch
        z = outputs.float()
        sure, predicted = (z if self.sure == "output" else z.softmax(1)).max(1)
        (wrong,) = (predicted != labels).nonzero(as_tuple=True)
        wrong = wrong[sure[wrong].argsort(descending=True)[:MOST]]
        columns = (sure[wrong].tolist(), predicted[wrong].tolist(), labels[wrong].tolist(), x[wrong].cpu())
        self.found = surest([*self.found, *map(Mistake, *columns)])

    def on_test_end(self, trainer: pl.Trainer, pl_module: Classifier) -> None:
        self.found = surest([mistake for found in gathered(trainer, self.found) for mistake in found])


def surest(found: list[Mistake]) -> list[Mistake]:
    return sorted(found, key=lambda mistake: -mistake.sure)[:MOST]
