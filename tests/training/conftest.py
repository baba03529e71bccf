import urllib.error
import urllib.request
from pathlib import Path

import pytest

from manualbp.training.cli import main


@pytest.fixture(autouse=True)
def _away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test in a folder of its own, without a network."""

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch on digits."""
    parent = tmp_path_factory.mktemp("finished")
    assert main(["--epochs", "1", "--output-dir", str(parent)]) == 0
    return parent / "digits-lecture004" / "version_0"
