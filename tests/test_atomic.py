"""Whole files or none, and what is said where a file cannot be written."""

import errno
import os
import pathlib
import socket
import subprocess
import sys

import filelock
import numpy as np
import pytest
from small_disks import small_disk

from majl_jax import atomic
from majl_jax.audio import wav_writer


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic.draft(path) as part:
        part.write_text("half")
        assert part.parent == path.parent and not path.exists()
        part.write_text("whole")
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError("unnamed")])
def test_what_fails_in_between_leaves_the_old_file_and_passes(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(type(error)) as found, atomic.draft(path) as part:
        part.write_text("new")
        raise error
    assert found.value is error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_error_of_another_file_is_not_taken_for_one_of_this(tmp_path):
    with pytest.raises(FileNotFoundError) as found, atomic.draft(tmp_path / "file") as part:
        part.write_bytes((tmp_path / "absent").read_bytes())
    assert not isinstance(found.value, atomic.WriteError)
    assert found.value.filename == str(tmp_path / "absent") and not list(tmp_path.iterdir())


def test_a_full_disk_is_said_as_such(tmp_path):
    with small_disk(tmp_path / "disk", "100k") as disk:
        path = disk / "run" / "file"
        atomic.write_text(path, "old")
        with pytest.raises(atomic.WriteError) as found:
            atomic.write_bytes(path, bytes(2**20))
        said = str(found.value)
        assert f"could not write {path}: the disk is full." in said and ".part" not in said
        assert found.value.errno == errno.ENOSPC
        # Through a file that is written piece by piece as well, also where closing it fails.
        for size in (2**20, 150_000):
            with (
                pytest.raises(atomic.WriteError, match=r"write .*/file: the disk is full"),
                atomic.draft(path) as part,
                part.open("wb", buffering=2**21) as file,
            ):
                file.write(bytes(size))
        assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_a_read_only_folder_is_said_as_such(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        atomic.write_text(disk / "file", "old")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for path in (disk / "file", disk / "new" / "file"):
            with pytest.raises(atomic.WriteError) as found:
                atomic.write_text(path, "new")
            said = str(found.value)
            assert f"could not write {path}: the disk is read-only." in said
            assert "choose another folder" in said and ".part" not in said
        assert (disk / "file").read_text() == "old"


def test_a_folder_without_rights_is_said_as_such(tmp_path):
    said = str(atomic.no_write(tmp_path / "a", PermissionError(errno.EACCES, "x", "draft")))
    assert f"could not write {tmp_path / 'a'}: its folder is read-only for this user" in said
    if os.getuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(atomic.WriteError, match="its folder is read-only for this user"):
        atomic.write_text(tmp_path / "a", "new")


def test_a_file_in_place_of_the_folder_is_said(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(atomic.WriteError, match=r"could not write .*/run/a: "):
        atomic.write_text(tmp_path / "run" / "a", "new")


def test_of_several_drafts_the_one_that_is_written_is_blamed(tmp_path):
    with (
        pytest.raises(atomic.WriteError, match=r"write .*/a: the disk is full"),
        atomic.draft(tmp_path / "a") as first,
        atomic.draft(tmp_path / "b"),
        atomic.explained(tmp_path / "a", only=first),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_both_the_file_and_its_folder_are_synced(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic.write_text(tmp_path / "file", "text")
    assert len(synced) == 2 and synced[0].endswith(".part") and synced[1] == str(tmp_path)


def dead_process():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_drafts_of_a_process_that_was_killed_are_removed_those_of_others_stay(tmp_path):
    host = atomic._host()
    left = tmp_path / f".file.txt.{host}.{dead_process()}.part"
    other = tmp_path / f".other.{host}.{dead_process()}.part"
    alive = tmp_path / f".file.txt.{host}.{os.getppid()}.part"
    for path in (left, other, alive, tmp_path / ".file.txt.part", tmp_path / "file.7.part"):
        path.write_text("half")
    atomic.write_text(tmp_path / "file.txt", "whole")
    assert not left.exists() and other.exists() and alive.exists()
    assert atomic.remove_leftovers(tmp_path) == 1
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"file.txt", ".file.txt.part", "file.7.part", alive.name}


def test_drafts_of_another_host_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", dead_process)
    left = {}
    for host in ("node-1", "x.node-1", "node/1"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        left[host] = atomic.draft_of(tmp_path / "file.txt")
        left[host].write_text("half")
        assert left[host].parent == tmp_path
    monkeypatch.setattr(socket, "gethostname", lambda: "node-1")
    assert atomic.remove_leftovers(tmp_path) == 1 and not left["node-1"].exists()
    assert atomic.remove_leftovers(tmp_path, "file.txt") == 0
    assert left["x.node-1"].exists() and left["node/1"].exists()


def test_drafts_of_another_container_stay(tmp_path, monkeypatch):
    dead = dead_process()
    before = tmp_path / f".file.txt.{atomic._hostname()}.{dead}.part"  # as they were named before
    left = {}
    for space in ("1", "2"):
        monkeypatch.setattr(atomic, "_process_space", lambda space=space: space)
        left[space] = tmp_path / f".file.txt.{atomic._host()}.{dead}.part"
    for path in (before, *left.values()):
        path.write_text("half")
    assert atomic.remove_leftovers(tmp_path) == 2
    assert [*tmp_path.iterdir()] == [left["1"]]


def test_the_space_of_a_process_is_told_where_there_is_one(monkeypatch):
    if os.path.exists("/proc/self/ns/pid"):
        assert str(os.stat("/proc/self/ns/pid").st_ino) == atomic._process_space()
    monkeypatch.setattr(os, "readlink", lambda path: os.stat("/absent"))
    assert atomic._process_space() == "" and atomic._host() == atomic._hostname()


def test_several_files_appear_together_or_not_at_all(tmp_path, monkeypatch):
    paths = [tmp_path / "new" / name for name in "abc"]
    with atomic.drafts(paths) as parts:
        for part in parts:
            part.write_text("whole")
        assert not any(path.exists() for path in paths)
    assert sorted((tmp_path / "new").iterdir()) == paths
    real = os.fsync
    for place, name in ((tmp_path / "one", "fsync"), (tmp_path / "two", "replace")):
        calls = []

        def fail(*given, calls=calls):
            calls.append(given)
            if len(calls) == 2:
                raise OSError(errno.EIO, "Input/output error")
            return real(*given) if isinstance(given[0], int) else os.replace(*given)

        where = os if name == "fsync" else pathlib.Path
        monkeypatch.setattr(where, name, fail)
        with (
            pytest.raises(atomic.WriteError, match=r"could not write .*/b: Input/output error"),
            atomic.drafts([place / one for one in "abc"]) as parts,
        ):
            for part in parts:
                part.write_text("half")
        assert not list(place.iterdir())
        monkeypatch.undo()


def test_a_lock_is_held_by_one_and_ends_with_its_process(tmp_path):
    path = tmp_path / "lock"
    code = (
        "import pathlib, sys, time; from majl_jax import atomic\n"
        "held = atomic.lock(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(TimeoutError):
            atomic.lock(path)
        process.kill()
        process.wait()
        held = atomic.lock(path)
    with pytest.raises(TimeoutError):
        atomic.lock(path)
    held.release()
    atomic.lock(path).release()


def test_where_there_are_no_locks_nothing_is_locked(tmp_path, monkeypatch):
    def acquire(self):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    atomic.lock(tmp_path / "lock").release()


def test_a_wav_file_on_a_disk_that_takes_none_says_why(tmp_path):
    audio = np.zeros((100_000, 1), np.float32)
    with small_disk(tmp_path / "disk", "100k") as disk:
        with pytest.raises(atomic.WriteError, match=r"write .*/x\.wav: the disk is full") as found:
            wav_writer.write_wav(disk / "x.wav", audio, sample_rate_hz=16_000)
        assert ".part" not in str(found.value) and not list(disk.iterdir())
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(atomic.WriteError, match=r"x\.wav: the disk is read-only") as found:
            wav_writer.write_wav(disk / "x.wav", audio, sample_rate_hz=16_000)
        assert "full" not in str(found.value)
