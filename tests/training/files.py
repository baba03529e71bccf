"""Small data sets in the real formats, made where a test wants them."""

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10


def image(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., :3]).convert(mode).save(path)


def tree(
    root: Path, classes: str = "ab", suffix: str = "png", mode: str = "RGB", size: tuple[int, int] = (8, 8)
) -> Path:
    """root/train/<class>/ with 4 images, root/test/<class>/ with 2."""
    for part, n in (("train", 4), ("test", 2)):
        for name in classes:
            for i in range(n):
                image(root / part / name / f"{i}.{suffix}", 10 * ord(name) + i, mode, size)
    return root


def caltech101(root: Path, per_category: int = 32) -> Path:
    """root/caltech101/101_ObjectCategories/<category>/image_0001.jpg, background class too."""
    for c, category in enumerate(("BACKGROUND_Google", "Faces", "ant")):
        for i in range(1, per_category + 1):
            path = root / "caltech101" / "101_ObjectCategories" / category / f"image_{i:04d}.jpg"
            size = (12 + i % 5, 10)  # faces are wide, ants are high: a difference that can be learned
            image(path, 1000 * c + i, "L" if i % 9 == 0 else "RGB", size if c < 2 else size[::-1])
    return root


def cifar10(root: Path, monkeypatch: pytest.MonkeyPatch, per_batch: int = 20) -> Path:
    """root/cifar-10-python.tar.gz: six pickles and their meta, with the checksums that torchvision then asks for."""
    folder = root / "made" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    md5s = {}
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    contents: dict[str, dict] = {
        name: {"data": rng.integers(0, 256, (per_batch, 3072), np.uint8), "labels": [i % 10 for i in range(per_batch)]}
        for name in names
    }
    contents["batches.meta"] = {"label_names": CIFAR10_NAMES}
    for name, content in contents.items():
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        md5s[name] = hashlib.md5(data).hexdigest()
    archive = root / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5s[name]] for name in names[:-1]])
    monkeypatch.setattr(CIFAR10, "test_list", [[names[-1], md5s[names[-1]]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5s["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return root


CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
