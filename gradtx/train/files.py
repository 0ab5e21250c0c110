"""Files and folders of runs: reading only regular files, writing atomically, one writer at a time.

A folder is locked by the operating system, through the open file `.lock` in it. The lock
ends with its process, even if that is killed, so that the run can be resumed at once.
"""

import os
import platform
import re
import secrets
import stat
import sys
import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from gradtx.train.errors import TrainingError

if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        file.seek(2**20)  # others cannot read a locked byte, so lock one beyond the text
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_LOCK = ".lock"


@contextmanager
def reading(path: str | Path, error: type[TrainingError], damage: str) -> Iterator[BinaryIO]:
    """Opens a file for reading; any error in reading it becomes one error that names the file.

    Only regular files are opened, and links to them: a pipe could block forever, and a device
    might never end.

    Args:
      path: the file.
      error: the class of the error.
      damage: what is wrong with the file if its content cannot be decoded, for the message.

    Raises:
      TrainingError: of the class `error`, if the file cannot be opened or decoded, or does not fit
        in memory.

    Example:
      >>> from gradtx.train import DataError, files
      >>> with files.reading("/dev/null", DataError, "damaged") as file:
      ...     file.read()
      Traceback (most recent call last):
      ...
      gradtx.train.errors.DataError: /dev/null: must be a regular file, is a device
    """
    try:
        with _opened(path) as file:
            kind = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(kind):
                what = "a pipe" if stat.S_ISFIFO(kind) else "a device"
                raise error(f"{path}: must be a regular file, is {what}")
            yield file
    except TrainingError:
        raise
    except MemoryError:
        raise error(f"{path}: does not fit in memory") from None
    # Decoders of zip, gzip, npy and JSON raise exceptions of many types for damaged files; some
    # are an `OSError` without a number.
    except Exception as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise error(f"{path}: cannot be read: {problem.strerror}") from None
        # Some of their messages quote the file's content, which may be long.
        text = " ".join(str(problem).split())
        shown = text if len(text) <= 400 else f"{text[:400]}..."
        raise error(f"{path}: {damage}: {shown}") from None


def _opened(path: str | Path) -> BinaryIO:
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    return open(
        path, "rb", opener=lambda p, flags: os.open(p, flags | getattr(os, "O_NONBLOCK", 0))
    )


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes a file atomically: after a crash it has either the old or the new content.

    Of several writers, each writes the whole file, and the last one wins.

    Args:
      path: the file.
      content: the new content.

    Example:
      >>> import pathlib, tempfile
      >>> from gradtx.train import files
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
      >>> files.write_atomically(path, b"whole or not at all")
      >>> path.read_text()
      'whole or not at all'
    """
    path = Path(path)
    # A name of its own for every write: two writers of one temporary file would mix their contents.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere folders cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename is durable once the folder is synced
        finally:
            os.close(folder)


@contextmanager
def locked(folder: str | Path, names: Container[str]) -> Iterator[None]:
    """Locks a folder, which is created if necessary, so that no other run writes in it.

    Args:
      folder: the folder.
      names: the files that are written only under the lock. Their temporary files that killed
        runs left behind are deleted.

    Raises:
      TrainingError: another run holds the lock, or the folder cannot be created or written to.

    Example:
      >>> import tempfile
      >>> from gradtx.train import files
      >>> folder = tempfile.mkdtemp()
      >>> with files.locked(folder, ()), files.locked(folder, ()):
      ...     pass
      Traceback (most recent call last):
      ...
      gradtx.train.errors.TrainingError: /...: another run writes in this folder, process ...
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot create the folder: {error.strerror}") from None
    file = _locked_file(folder)
    try:
        for path in folder.iterdir():
            written = re.fullmatch(r"\.(.+)\.\d+-[0-9a-f]{8}\.tmp", path.name)
            if written and written[1] in names:
                path.unlink(missing_ok=True)
        yield
    finally:
        with suppress(OSError):  # Windows does not delete open files
            (folder / _LOCK).unlink()
        file.close()


def _locked_file(folder: Path) -> BinaryIO:
    """Returns the open lock file of a folder; it is locked until it is closed."""
    path = folder / _LOCK
    while True:
        try:
            file = open(path, "a+b")  # noqa: SIM115 -- it stays open with the lock
        except OSError as error:
            raise TrainingError(f"{folder}: cannot write in the folder: {error.strerror}") from None
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            with file:
                raise TrainingError(_in_use(folder, file)) from None
        except OSError as error:
            warnings.warn(
                f"{folder} cannot be locked ({error.strerror}): start no second run in it",
                stacklevel=4,
            )
        # The holder before may have deleted the file between `open` and `_lock`.
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            break
        file.close()
    file.truncate(0)
    file.write(f"{os.getpid()} on {platform.node()}".encode())
    file.flush()
    return file


def _in_use(folder: Path, file: BinaryIO) -> str:
    file.seek(0)
    holder = file.read(100).decode(errors="replace")
    return (
        f"{folder}: another run writes in this folder, process {holder or 'unknown'}; wait until "
        "it ends, or choose another folder"
    )
