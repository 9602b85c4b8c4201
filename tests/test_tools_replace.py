"""Whatever fails or is killed while a file is replaced leaves the old bytes or the new."""

import errno
import os
import resource
import signal
import threading
import time

import pytest

from tools.document.replace import SUFFIX, replace_file
from tools.errors import NotebookError
from tools.notebook import read

OLD, NEW = b"old" * 1000, b"new" * 2000
CALLS = ["open", "write", "fsync", "replace", "unlink", "lstat", "fchmod", "close", "listdir"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_bytes(OLD)
    return path


def strays(path) -> list[str]:
    return sorted(set(os.listdir(path.parent)) - {path.name})


def refusal_of(path) -> str:
    """Why the file was not replaced; empty if it was."""
    try:
        replace_file(path, OLD, NEW)
    except NotebookError as error:
        return str(error)
    return ""


class Fault:
    """A call of the operating system that fails the n-th time, with what it should have done."""

    def __init__(self, call, n: int, number: int) -> None:
        self.call, self.left, self.number = call, n, number
        self.has_struck = False

    def __call__(self, *arguments, **options):
        self.left -= 1
        if self.left == 0:
            self.has_struck = True
            raise OSError(self.number, os.strerror(self.number))
        return self.call(*arguments, **options)


def test_a_file_is_replaced_and_keeps_its_mode(path):
    path.chmod(0o640)
    replace_file(path, OLD, NEW)

    assert path.read_bytes() == NEW
    assert path.stat().st_mode & 0o777 == 0o640
    assert strays(path) == []


def test_a_new_file_is_made_and_an_old_one_not_overwritten(path):
    new = path.with_name("b.ipynb")
    replace_file(new, None, NEW)

    assert new.read_bytes() == NEW
    with pytest.raises(NotebookError, match="changed by another program"):
        replace_file(path, None, NEW)
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("name", CALLS)
def test_a_fault_in_any_call_leaves_the_old_bytes_and_nothing_else(path, monkeypatch, name, number):
    """Removing a temporary file may fail too; what then is left goes with the next write."""
    for n in range(1, 20):
        path.write_bytes(OLD)
        with monkeypatch.context() as patch:
            fault = Fault(getattr(os, name), n, number)
            patch.setattr(os, name, fault)
            refusal = refusal_of(path)
        if not fault.has_struck:
            break
        assert path.read_bytes() == (OLD if refusal else NEW)
        assert refusal or name == "unlink"
        assert "\n" not in refusal
        assert len(strays(path)) <= (name == "unlink")
        for stray in strays(path):
            path.with_name(stray).unlink()

    assert n > 1
    assert path.read_bytes() == NEW


def test_a_disk_that_takes_few_bytes_at_once_is_no_fault(path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    replace_file(path, OLD, NEW)

    assert path.read_bytes() == NEW


def test_a_real_limit_of_size_leaves_the_old_bytes(path):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        try:
            replace_file(path, OLD, NEW)
        except NotebookError:
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 3
    assert path.read_bytes() == OLD
    assert strays(path) == []


def test_killed_at_any_moment_the_file_is_old_or_new(path):
    """What a killed process leaves beside it is removed by the next write."""
    large = [OLD * 300, NEW * 300]
    seen, n_strays = set(), 0
    for n in range(40):
        path.write_bytes(large[0])
        child = os.fork()
        if child == 0:
            replace_file(path, *large)
            os._exit(0)
        time.sleep(n % 20 * 0.0006)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        content = path.read_bytes()
        seen.add(large.index(content))
        n_strays += len(strays(path))
        assert all(name.endswith(SUFFIX) for name in strays(path))
        replace_file(path, content, OLD)
        assert strays(path) == []

    assert seen == {0, 1} or n_strays


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        pytest.param(lambda p: p.write_bytes(b"other"), "changed by another", id="changed"),
        pytest.param(lambda p: p.unlink(), "is gone", id="gone"),
        pytest.param(lambda p: p.chmod(0o444), "read-only", id="read-only file"),
        pytest.param(lambda p: p.parent.chmod(0o555), "read-only folder", id="read-only folder"),
        pytest.param(lambda p: os.link(p, p.with_name("b")), "hard link", id="hard link"),
        pytest.param(
            lambda p: p.symlink_to(p.rename(p.with_name("b")).name), "symbolic link", id="symlink"
        ),
        pytest.param(lambda p: (p.unlink(), p.mkdir()), "not a regular file", id="folder"),
    ],
)
def test_a_file_that_may_not_be_replaced_is_refused_in_one_line(path, prepare, reason):
    prepare(path)
    before = sorted(os.listdir(path.parent))
    try:
        with pytest.raises(NotebookError, match=rf"^[^\n]*{reason}[^\n]* is wanted\. [^\n]+$"):
            replace_file(path, OLD, NEW)
    finally:
        path.parent.chmod(0o755)

    assert sorted(os.listdir(path.parent)) == before
    assert not path.is_file() or path.read_bytes() in (OLD, b"other")


def test_of_two_writers_with_the_same_reading_one_is_refused_or_both_agree(path):
    outcomes = []

    def write(content: bytes) -> None:
        try:
            replace_file(path, OLD, content)
            outcomes.append(content)
        except NotebookError:
            outcomes.append(None)

    threads = [threading.Thread(target=write, args=(bytes([i]) * 5000,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert path.read_bytes() in outcomes
    assert strays(path) == []


def test_what_another_writes_right_after_is_not_taken_back(path, monkeypatch):
    real = os.replace

    def race(source, target):
        real(source, target)
        if os.fspath(target) == os.fspath(path):
            monkeypatch.setattr(os, "replace", real)
            other = path.with_name("other")
            other.write_bytes(b"theirs")
            real(other, path)

    monkeypatch.setattr(os, "replace", race)
    with pytest.raises(NotebookError, match="changed by another program"):
        replace_file(path, OLD, NEW)

    assert path.read_bytes() == b"theirs"
    assert strays(path) == []


def test_a_notebook_saved_by_another_program_meanwhile_is_not_overwritten(path):
    path.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    first, second = read(path), read(path)
    second.metadata["a"] = 1
    second.write()
    saved = path.read_bytes()
    first.metadata["b"] = 2

    with pytest.raises(NotebookError, match="was changed by another program"):
        first.write()
    assert path.read_bytes() == saved == second.raw
    second.metadata["c"] = 3
    second.write()
    assert read(path).metadata == {"a": 1, "c": 3}


def test_writing_an_unedited_notebook_touches_nothing(path):
    path.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    before = path.stat()
    read(path).write()

    assert path.stat() == before
