"""The surest mistakes of a test."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from PIL import Image

from manualbp.training import figures
from manualbp.training.classifier import Classifier
from manualbp.training.data import ImageData
from manualbp.training.mistakes import MOST, Mistake, Mistakes
from manualbp.training.networks import SquaredError, mlp
from manualbp.training.sources import digits


@pytest.mark.parametrize("squared", [False, True])
def test_they_are_those_of_all_batches(squared: bool, tmp_path: Path) -> None:
    data = ImageData(digits(tmp_path), batch_size=32, seed=0)
    torch.manual_seed(0)
    network = mlp(torch.nn, data.shape, 10)
    loss = SquaredError(torch.nn) if squared else torch.nn.CrossEntropyLoss()
    model, mistakes = Classifier(network, loss, data, {"test_augmentation": "none"}), Mistakes()
    pl.Trainer(
        accelerator="cpu", callbacks=[mistakes], logger=False, enable_progress_bar=False, enable_model_summary=False
    ).test(model, data, verbose=False)
    images, labels = data.source.test
    assert isinstance(images, torch.Tensor)
    with torch.no_grad():
        z = model.eval()(images)
    sure, predicted = (z if squared else z.softmax(1)).max(1)
    expected = sorted((-float(p), int(i)) for i, p in enumerate(sure) if predicted[i] != labels[i])[:MOST]
    assert len(mistakes.found) == MOST < len(labels)
    assert [mistake.sure for mistake in mistakes.found] == pytest.approx([-p for p, _ in expected], rel=1e-4)
    for mistake in mistakes.found:
        (i,) = [i for i in range(len(images)) if torch.equal(images[i], mistake.image)]
        assert (mistake.predicted, mistake.true) == (predicted[i], labels[i])
        assert mistake.predicted != mistake.true
    assert mistakes.sure == ("output" if squared else "probability")


@pytest.mark.parametrize("n", [0, 1, 4, 25])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_number_of_them_is_drawn(channels: int, n: int, tmp_path: Path) -> None:
    image = torch.randint(256, (channels, 20, 30), dtype=torch.uint8)
    names = ["Öl", "Ärztliche Überprüfung im Krankenhaus"]
    figures.mistakes([Mistake(0.9, 0, 1, image)] * n, "probability", names, "a title", tmp_path / "mistakes.png")
    with Image.open(tmp_path / "mistakes.png") as picture:
        assert min(picture.size) > 200
