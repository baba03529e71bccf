"""Files that are there whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from manualbp.training import UserError


@contextmanager
def whole(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write to, which appears under its name when all of it is written; a file of that name stays until then.

    Raises: UserError where it cannot be written, as on a full disk; what was written is removed.
    """
    part = Path(f"{path}.part")
    try:
        with open(part, "wb") as file:
            yield file
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
        raise
