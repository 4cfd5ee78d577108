"""Locks of the operating system: they end with the process that holds them, however it ends."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_CONTENTION = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_FAR = 2**30
"""Windows locks bytes, and a locked byte cannot be read: one that no file of ours has."""

_held: set[int] = set()


def claim(path: Path) -> int | None:
    """Make a file at `path`, open and locked, and return its handle; None where another holder has it.

    What nobody holds gives way: a file that a killed process left, or a link that somebody put there, which is neither
    followed nor written to. Where the file system has no locks, nothing is held.

    Raises:
        OSError: if the file cannot be made.
    """
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o666)
        except FileExistsError:
            if not _removed(path):
                return None
            continue
        if _lock(handle) and _is_at(handle, path):
            _held.add(handle)
            return handle
        os.close(handle)  # somebody took it for a file that was left


def release(handle: int, path: Path) -> None:
    """Close a claimed file, and remove it if it is still at `path`."""
    if handle not in _held:
        return
    if os.name == "nt":  # where an open file cannot be removed
        close(handle)
        path.unlink(missing_ok=True)
    elif _is_at(handle, path):
        path.unlink(missing_ok=True)
    close(handle)


def close(handle: int) -> None:
    """Let a claimed file go, and leave it where it is."""
    if handle in _held:
        _held.remove(handle)
        os.close(handle)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the operating system say which file could not be written, and what to do."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror or error}: cannot write `path`; choose a folder that can be written to"
        raise OSError(error.errno, reason, str(path)) from error


@contextmanager
def waiting_for(path: Path, seconds: float = 60.0) -> Iterator[None]:
    """Hold the lock of a file while it is read and written anew; another holder is waited for.

    Raises:
        TimeoutError: with the holder, if it takes longer than this.
        OSError: if the folder cannot be written to.
    """
    lock, deadline = path.with_name(f".{path.name}.lock"), time.monotonic() + seconds
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        while (handle := claim(lock)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"{path.name} is held by {_holder(lock)}", str(path))
            time.sleep(0.01)
    try:
        _sign(handle)
        yield
    finally:
        release(handle, lock)


class RunLock:
    """One run at a time writes a file: held from `acquire` to `release`, or to the end of the process."""

    def __init__(self) -> None:
        self._held: tuple[int, Path] | None = None

    def acquire(self, path: Path) -> str | None:
        """Hold the lock of the file at `path`; returns who holds it, in words, where that is somebody else.

        Raises:
            OSError: if the folder cannot be written to.
        """
        self.release()
        lock = path.with_name(f".{path.name}.run")
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = claim(lock)
        if handle is None:
            return _holder(lock)
        self._held = (handle, lock)
        _sign(handle)
        return None

    def release(self) -> None:
        """Let it go; a folder that was made for it and has nothing in it goes too."""
        if self._held is not None:
            with suppress(OSError):
                release(*self._held)
                self._held[1].parent.rmdir()
            self._held = None


def _sign(handle: int) -> None:
    with suppress(OSError):  # a full disk has room for the lock, not for the name
        now = datetime.now().isoformat(" ", "seconds")
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()} since {now}".encode())


def _holder(lock: Path) -> str:
    with suppress(OSError):
        handle = os.open(lock, os.O_RDONLY | _NOFOLLOW)
        try:
            return os.read(handle, 500).decode(errors="replace") or "another process"
        finally:
            os.close(handle)
    return "another process"


def _removed(path: Path) -> bool:
    """Remove the file at `path`, unless somebody holds it."""
    try:
        handle = os.open(path, os.O_RDWR | _NOFOLLOW | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK):
            raise
        path.unlink(missing_ok=True)  # the link, not what it points to
        return True
    try:
        if not _lock(handle):
            return False
        if _is_at(handle, path) and os.name != "nt":
            path.unlink(missing_ok=True)  # while it is locked: nobody else takes it for his
    finally:
        os.close(handle)
    if os.name == "nt":
        path.unlink(missing_ok=True)
    return True


def _lock(handle: int) -> bool:
    """Whether nobody else holds the file."""
    try:
        if os.name == "nt":
            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _CONTENTION  # others say that there are no locks here
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _forget() -> None:
    """A process that was forked off does not keep its parent's locks, which would outlive the parent in it."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
