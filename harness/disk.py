"""Writing that survives crashes, full disks and second processes."""

import errno
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ahabench.harness.errors import UsageError

_log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock that belongs to a file or folder of a run, until the block or the process ends.

    The lock is a hidden file beside it, which stays: the file itself may be replaced while it is locked.

    Raises:
        UsageError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        _log.warning("this system has no file locks: let no second process write %s", path)
        yield
        return
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{path} is being written by another process; wait for it, or use another --out"
            ) from error
        except OSError as error:
            # Some network file systems have no locks; a run there must still be possible.
            _log.warning("%s cannot be locked (%s): let no second process write it", path, error.strerror)
        yield
    finally:
        os.close(descriptor)


def replace_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file in whole and put it in the place of the old one; it is on the disk when this returns.

    Readers see the old file or the new one. The folder is made if need be.

    Raises:
        UsageError: the disk is full or refuses; the old file is then still there.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    with refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new.open("wb") as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except BaseException:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Some systems cannot: the rename is then as durable as they make it.
        _log.debug("%s cannot be synchronised: %s", folder, error.strerror)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes to a file descriptor, in as many pieces as the system takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn what a disk refuses into an error with its next step.

    Raises:
        UsageError: the block raised `OSError`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise UsageError(
                f"the disk is full: {path} cannot be written ({error.strerror}). What is written stays. "
                "Make room and run the same command again to go on."
            ) from error
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
