"""Files of runs: only regular files are read, and of two writers none damages the other's file."""

import errno
import os
import runpy
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from gradtx.train import DataError, TrainingError, files

ROOT = Path(__file__).parents[2]


def read(path):
    with files.reading(path, DataError, "damaged") as file:
        return file.read()


# ---- Reading ----------------------------------------------------------------------------------


def test_regular_files_and_links_to_them_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read(tmp_path / "a") == read(tmp_path / "b") == b"content"


def test_a_pipe_does_not_hang_and_an_endless_device_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, words in (
        ("pipe", "must be a regular file, is a pipe"),
        ("zeros", "must be a regular file, is a device"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
        ("none", "cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
    ):
        with pytest.raises(DataError) as caught:
            read(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {words}"


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (ValueError("no header"), "damaged: no header"),
        (RecursionError("too deep"), "damaged: too deep"),
        (MemoryError(), "does not fit in memory"),
        (OSError(errno.EIO, "Input/output error"), "cannot be read: Input/output error"),
        (OSError("Not a gzipped file"), "damaged: Not a gzipped file"),
        (ValueError("long\n" * 1000), "damaged: " + "long " * 80 + "..."),
        (DataError("as it is"), "as it is"),
    ],
)
def test_whatever_the_content_raises_names_the_file(tmp_path, problem, words):
    path = tmp_path / "file"
    path.touch()
    with (
        pytest.raises(DataError) as caught,
        files.reading(path, DataError, "damaged"),
    ):
        raise problem
    assert str(caught.value) in (f"{path}: {words}", words)


# ---- Writing ----------------------------------------------------------------------------------


def test_two_writers_of_one_file_do_not_share_a_temporary_one(tmp_path, monkeypatch):
    path, replace = tmp_path / "file", os.replace

    def replace_after_the_other(source, target):
        monkeypatch.setattr(os, "replace", replace)
        files.write_atomically(path, b"of the other")
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_after_the_other)
    files.write_atomically(path, b"mine")
    assert path.read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_threads_that_write_and_read_one_file(tmp_path):
    path, size, failed = tmp_path / "file", 20_000, []
    path.write_bytes(b"0" * size)

    def write(digit):
        try:
            for _ in range(20):
                files.write_atomically(path, digit * size)
        except OSError as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(digit,)) for digit in (b"1", b"2")]
    for writer in writers:
        writer.start()
    for _ in range(50):
        content = read(path)
        assert content == content[:1] * size
    for writer in writers:
        writer.join()
    assert not failed and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_new_file_can_be_read_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        files.write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


# ---- The lock ---------------------------------------------------------------------------------


def test_one_run_at_a_time(tmp_path):
    folder = tmp_path / "new" / "run"
    with files.locked(folder, ()):
        with pytest.raises(TrainingError) as caught, files.locked(folder, ()):
            pass
        assert str(caught.value).startswith(
            f"{folder}: another run writes in this folder, process {os.getpid()} on "
        )
        assert str(caught.value).endswith("; wait until it ends, or choose another folder")
        with files.locked(tmp_path / "other", ()):
            pass
    with pytest.raises(KeyError), files.locked(folder, ()):
        raise KeyError
    with files.locked(folder, ()):
        pass
    assert not [*folder.iterdir()]


HOLDER = """
import sys, time
from gradtx.train import files
with files.locked(sys.argv[1], ()):
    print("locked", flush=True)
    time.sleep(1000)
"""


def test_the_lock_ends_with_its_process(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with (
            pytest.raises(TrainingError, match=f"process {holder.pid} on "),
            files.locked(tmp_path, ()),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
    assert (tmp_path / ".lock").exists()
    with files.locked(tmp_path, ()):
        pass
    assert not (tmp_path / ".lock").exists()


def test_a_lock_file_that_its_holder_deletes_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    """The holder may delete it after it was opened, and before it is locked."""
    lock = files._lock

    def lock_too_late(file):
        monkeypatch.setattr(files, "_lock", lock)
        (tmp_path / ".lock").unlink()
        lock(file)

    monkeypatch.setattr(files, "_lock", lock_too_late)
    with files.locked(tmp_path, ()):
        assert (tmp_path / ".lock").exists()
        with pytest.raises(TrainingError, match="another run"), files.locked(tmp_path, ()):
            pass


def test_what_killed_runs_left_is_deleted_and_nothing_else(tmp_path):
    left = ".file.npz.123-0123abcd.tmp"
    others = {".other.npz.123-0123abcd.tmp", ".file.npz.tmp", "file.npz.123-0123abcd.tmp", "mine"}
    for name in (left, *others):
        (tmp_path / name).touch()
    with files.locked(tmp_path, {"file.npz"}):
        pass
    assert {p.name for p in tmp_path.iterdir()} == others


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(TrainingError, match="file: cannot create the folder: File exists"),
        files.locked(tmp_path / "file", ()),
    ):
        pass
    (tmp_path / "folder" / ".lock").mkdir(parents=True)
    with (
        pytest.raises(TrainingError, match="folder: cannot write in the folder: Is a directory"),
        files.locked(tmp_path / "folder", ()),
    ):
        pass


def test_file_systems_without_locks_are_used_with_a_warning(tmp_path, monkeypatch):
    def unsupported(file):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "_lock", unsupported)
    with (
        pytest.warns(UserWarning, match="cannot be locked .No locks available.: start no second"),
        files.locked(tmp_path, ()),
    ):
        pass


def test_without_fcntl_a_byte_is_locked(tmp_path, monkeypatch):
    """On Windows, with an `msvcrt` that refuses a byte which is locked already."""
    taken = set()

    def locking(number, mode, count):
        place = os.fstat(number).st_ino, os.lseek(number, 0, os.SEEK_CUR)
        if place in taken:
            raise PermissionError(errno.EACCES, "Permission denied")
        taken.add(place)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    of_windows = runpy.run_path(files.__file__)
    assert "fcntl" not in of_windows
    with (
        of_windows["locked"](tmp_path, ()),
        pytest.raises(TrainingError, match=f"another run writes .* process {os.getpid()} on "),
        of_windows["locked"](tmp_path, ()),
    ):
        pass
