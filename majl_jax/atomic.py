"""Whole files or none: a file appears under its name once it is complete and on disk; and locks of
folders.
"""

import contextlib
import errno
import os
import pathlib
import re
import socket
from collections.abc import Iterator, Sequence

import filelock

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_FORBIDDEN = {
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "its folder is read-only for this user",
    errno.EPERM: "its folder is read-only for this user",
}
_WRITING = {*_FULL, errno.EROFS, errno.EFBIG}  # what reading a file never fails with
_UNSYNCED = (errno.EINVAL, errno.ENOTSUP)  # some network file systems cannot sync a folder
_LOCKLESS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)


class WriteError(OSError):
    """A file could not be written; what had its name before is whole."""


@contextlib.contextmanager
def draft(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to; what lies there then takes the name `path`, on disk.

    The folder is made if need be. Whatever fails, the draft is removed and what was there stays.
    Where writing fails, a WriteError names `path` and the reason; other errors pass as they are.
    """
    with drafts([path]) as (part,), explained(path, only=part):
        yield part


@contextlib.contextmanager
def drafts(paths: Sequence[pathlib.Path]) -> Iterator[list[pathlib.Path]]:
    """Drafts of files of one folder, see `draft`: once all are on disk they take their names, all
    of them or none. Where one cannot, those that replaced a file before it are removed all the
    same.
    """
    placed: list[pathlib.Path] = []
    parts = [draft_of(path) for path in paths]
    try:
        for path in paths:
            with explained(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                remove_leftovers(path.parent, path.name)
        yield parts
        for path, part in zip(paths, parts, strict=True):
            with explained(path):
                sync(part)
        for path, part in zip(paths, parts, strict=True):
            with explained(path):
                part.replace(path)
            placed.append(path)
        for path in placed[-1:]:
            with explained(path):
                _sync_folder(path.parent)
    finally:
        for path in (*parts, *placed * (len(placed) < len(paths))):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def draft_of(path: pathlib.Path) -> pathlib.Path:
    """Where this process writes what is to become `path`."""
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.part")


def _host() -> str:
    """The name of this host and, where there is one, the number of the space that numbers its
    processes: a container may have the name of its host, or of another one, and numbers of its own.
    """
    space = _process_space()
    return f"{_hostname()}.{space}" if space else _hostname()


def _hostname() -> str:
    """The name of this host, without what has a meaning in names of drafts."""
    return re.sub(r"[^A-Za-z0-9-]", "_", socket.gethostname())


def _process_space() -> str:
    """The number of this process's PID namespace; "" where there are none, or not to be seen."""
    try:
        return "".join(re.findall(r"\d+", os.readlink("/proc/self/ns/pid")))
    except OSError:
        return ""


def remove_leftovers(folder: pathlib.Path, name: str | None = None) -> int:
    """Removes the drafts in a folder, of one name or of all, whose processes are no more; returns
    how many.

    Those of other hosts and containers stay: whether their processes are alive is not to be known
    here.
    """
    removed = 0
    whole = ".+" if name is None else re.escape(name)
    # Versions before named the host alone.
    hosts = "|".join(re.escape(one) for one in (_host(), _hostname()))
    pattern = re.compile(rf"[.]{whole}[.](?:{hosts})[.](\d+)[.]part")
    for path in folder.iterdir():
        found = pattern.fullmatch(path.name)
        if found and not _is_alive(int(found[1])):
            with contextlib.suppress(OSError):
                path.unlink()
                removed += 1
    return removed


def _is_alive(process: int) -> bool:
    """Whether there is such a process; where that is not to be known, whether it is this one."""
    # Windows, where this would end it, keeps open files from being removed.
    if os.name != "posix":
        return process == os.getpid()
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def explained(path: pathlib.Path, *, only: pathlib.Path | None = None) -> Iterator[None]:
    """Turns an OSError into a WriteError about `path`.

    only: the file that is written meanwhile; an error of another one, read perhaps, passes.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        if only is None or _happened_in(only, error):
            raise no_write(path, error) from error
        raise


def _happened_in(path: pathlib.Path, error: OSError) -> bool:
    """Whether the error is of this file; where it names none, whether only writing fails so."""
    if error.filename is None:
        return error.errno in _WRITING
    return os.fspath(error.filename) == os.fspath(path)


def no_write(path: pathlib.Path, error: OSError) -> WriteError:
    """What to raise where writing `path` failed: the file, the reason, and what to do."""
    number = error.errno or 0
    advice = f"check the space and the rights in {path.parent}"
    if number in _FULL:
        advice = f"make room in {path.parent}"
    elif number in _FORBIDDEN:
        advice = "choose another folder or change its rights"
    why = reason(number) if number in _FULL | _FORBIDDEN else error.strerror or str(error)
    return WriteError(
        error.errno,
        f"could not write {path}: {why}. What was saved before is whole: {advice}, then run "
        "the same command again",
    )


def reason(number: int) -> str:
    """Why the system refuses to write, in words."""
    return (_FULL | _FORBIDDEN).get(number) or os.strerror(number)


def write_text(path: pathlib.Path, text: str) -> None:
    """Replace a text file in one go (see `draft`)."""
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Replace a file in one go (see `draft`)."""
    with draft(path) as part:
        part.write_bytes(data)


def lock(path: pathlib.Path) -> filelock.BaseFileLock:
    """Takes a lock that ends with the process; TimeoutError where another process has it.

    Some network file systems have no locks: there, nothing is locked.
    """
    taken = filelock.FileLock(path, timeout=0)
    try:
        taken.acquire()
    except TimeoutError:
        raise
    except OSError as error:
        if error.errno not in _LOCKLESS:
            raise
    return taken


def sync(path: pathlib.Path, flags: int = os.O_RDWR) -> None:
    """What was written to a file is on disk from now on."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: pathlib.Path) -> None:
    """The new name survives a power cut as well; Windows opens no folders."""
    if os.name == "nt":
        return
    try:
        sync(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            raise
