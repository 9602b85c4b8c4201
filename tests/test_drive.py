"""Google Drive: the table of mounts decides, nothing is asked where nobody answers, waits end."""

import sys
import time

import pytest

from helpers.notebook import drive as drive_module
from helpers.notebook.drive import flush_drive, is_drive_mounted, mount_drive

MOUNTED = "overlay / overlay rw 0 0\ndrive /content/drive fuse.drive rw,nosuid 0 0\n"
COLAB = """
calls = []
def mount(folder):
    calls.append(folder)
    open({mounts!r}, "a").write({entry!r})
def flush_and_unmount(timeout_ms):
    calls.append(timeout_ms)
    {flushing}
"""


@pytest.fixture
def mounts(tmp_path):
    path = tmp_path / "mounts"
    path.write_text("overlay / overlay rw 0 0\n")
    return path


@pytest.fixture
def colab(tmp_path, mounts, monkeypatch):
    """A Colab with a page that answers, or with none; mounting it writes the table of mounts."""

    def make(*, answer="{}", flushing="pass", entry=MOUNTED):
        package = tmp_path / "packages" / "google" / "colab"
        package.mkdir(parents=True)
        (package.parent / "__init__.py").touch()
        (package / "__init__.py").touch()
        (package / "drive.py").write_text(
            COLAB.format(mounts=str(mounts), entry=entry, flushing=flushing)
        )
        (package / "_message.py").write_text(
            f"def blocking_request(kind, request='', timeout_sec=None): return {answer}"
        )
        monkeypatch.syspath_prepend(str(package.parents[1]))
        monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
        monkeypatch.delenv("TRAINBOOK_HEADLESS", raising=False)
        monkeypatch.setattr(drive_module, "in_notebook", lambda: True)

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "google"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("table", "is_there"),
    [
        pytest.param(MOUNTED, True, id="mounted"),
        pytest.param("drive /content/drive fuse rw 0 0\n", True, id="as plain fuse"),
        pytest.param("/dev/sda /content ext4 rw 0 0\n", False, id="a local folder of its name"),
        pytest.param("drive /content/drive2 fuse.drive rw 0 0\n", False, id="elsewhere"),
        pytest.param("", False, id="empty table"),
        pytest.param("drive\n", False, id="torn table"),
    ],
)
def test_the_table_of_mounts_decides_whether_drive_is_there(mounts, table, is_there):
    mounts.write_text(table)

    assert is_drive_mounted(mounts) == is_there


def test_without_a_table_of_mounts_there_is_no_drive(tmp_path):
    assert not is_drive_mounted(tmp_path / "none")


def test_outside_colab_nothing_is_mounted(mounts, monkeypatch):
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)

    assert "this is not Colab" in mount_drive(mounts)


@pytest.mark.parametrize(
    ("answer", "is_headless", "words"),
    [
        pytest.param("{}", True, "a program runs this notebook", id="a runner that says so"),
        pytest.param("None", False, "no page of Colab answers", id="a runner that does not"),
    ],
)
def test_under_a_runner_nobody_is_asked(colab, mounts, monkeypatch, answer, is_headless, words):
    colab(answer=answer)
    if is_headless:
        monkeypatch.setenv("TRAINBOOK_HEADLESS", "1")
    said = mount_drive(mounts)

    assert words in said
    assert "Everything stays on the local disk" in said
    assert "google.colab.drive" not in sys.modules


def test_in_colab_drive_is_mounted_once(colab, mounts):
    colab()
    first, second = mount_drive(mounts), mount_drive(mounts)

    assert first == second == "Google Drive is mounted at /content/drive."
    assert sys.modules["google.colab.drive"].calls == ["/content/drive"]


def test_a_mounting_that_was_not_allowed_is_said(colab, mounts):
    colab(entry="")

    assert "Run the cell again to allow it" in mount_drive(mounts)


@pytest.mark.parametrize(
    ("flushing", "words"),
    [
        pytest.param("pass", "has uploaded everything", id="done"),
        pytest.param("import time; time.sleep(5)", "had not uploaded everything after", id="slow"),
        pytest.param("raise ValueError('flush failed')", "not flushed: flush failed", id="failed"),
    ],
)
def test_flushing_ends_in_time_and_says_what_came_of_it(colab, mounts, flushing, words):
    colab(flushing=flushing)
    mount_drive(mounts)
    began = time.monotonic()
    said = flush_drive(limit_s=0.3, mounts=mounts)

    assert words in said
    assert time.monotonic() - began < 2


def test_without_drive_there_is_nothing_to_flush(mounts):
    assert "nothing to flush" in flush_drive(mounts=mounts)
