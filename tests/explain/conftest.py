"""A browser and the gallery, for the tests that look at pages as a reader does; what a refusal is."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manualbp.__main__ import main


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium on the path")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m manualbp explain` writes: every page, and the questions."""
    file = tmp_path_factory.mktemp("gallery") / "explain.html"
    subprocess.run([sys.executable, "-m", "manualbp", "explain", "--out", str(file)], check=True)
    return file


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[str, str, Path], None]:
    """One line that begins so, the exit code 2; in the folder nothing is written, nor is old.html written over."""

    def check(arguments: str, message: str, here: Path) -> None:
        assert main(["explain", *arguments.split()]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"manualbp: error: {message}")
        assert err.count("\n") == 1
        assert not (here / "explain.html").exists()
        assert (here / "old.html").read_text() == "old"

    return check
