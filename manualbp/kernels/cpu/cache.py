"""The folder in which the library of the C kernels is kept.

What is loaded runs with all rights of the user. So nothing is loaded that anybody else could have written.
"""

import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = "build-"
DIGEST = hashlib.sha256().digest_size


def folder() -> Path:
    """$XDG_CACHE_HOME/manualbp, or ~/.cache/manualbp; it need not be there. Raises: OSError where there is no home."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path(os.path.expanduser("~")) / ".cache"
    if not base.is_absolute():
        raise FileNotFoundError("this user has no home folder")
    return base / "manualbp"


def made_folder() -> Path:
    """The folder, made where it is not there. Raises: OSError, where it cannot be made or is not this user's alone."""
    path = folder()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    require_own(path)
    for above in path.resolve().parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:  # anybody could put another folder in the place of this one
            raise PermissionError(f"everybody may write to {above}")
    return path


def require_own(path: Path) -> None:
    """PermissionError where somebody else could have written this file or folder."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise PermissionError(f"{path} is a symbolic link")
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others may write to {path}")


def digest(key: str, content: bytes) -> bytes:
    """What stands behind the content of a library: it says that the file is whole, and what it was built from.

    A file that was cut short must not be loaded: the process would be killed (SIGBUS) where the rest is missing.
    """
    return hashlib.sha256(key.encode() + content).digest()


def whole(path: Path, key: str) -> bool:
    """Whether there is a library, whole and of this key. Raises: OSError, where it is not this user's alone."""
    try:
        require_own(path)
    except FileNotFoundError:
        return False
    content = path.read_bytes()
    return content[-DIGEST:] == digest(key, content[:-DIGEST])


@contextmanager
def locked(path: Path, seconds: float) -> Iterator[bool]:
    """One process at a time has this folder's lock: True. False after so long, or where the file system has no locks.

    The system takes the lock back from a process that dies.
    """
    import fcntl  # Linux has it; this file is imported everywhere

    end = time.monotonic() + seconds
    got = False
    with os.fdopen(os.open(path / "lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w") as file:
        while not got:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                got = True
            except BlockingIOError:
                if time.monotonic() > end:
                    break
                time.sleep(0.05)
            except OSError:
                break
        try:
            yield got
        finally:
            if got:
                fcntl.flock(file, fcntl.LOCK_UN)  # at once, also where a forked child holds the file open


def libraries(path: Path) -> list[Path]:
    return [file for file in sorted(path.glob("*.so")) if re.fullmatch(r"[0-9a-f]{32}\.so", file.name)]


def remove_unfinished(path: Path) -> None:
    """Remove what builds left that were killed. Only the process that has the lock may do this."""
    for left in path.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


def clear() -> tuple[int, int]:
    """Remove all libraries, and what killed builds left. Returns how many libraries there were, and their bytes."""
    if not folder().exists():
        return 0, 0
    path = made_folder()
    with locked(path, 10) as alone:
        if alone:
            remove_unfinished(path)
        sizes = []
        for file in libraries(path):
            sizes.append(file.lstat().st_size)
            file.unlink()
    return len(sizes), sum(sizes)
