"""What tests of the record of runs share."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.tracking import writer


@pytest.fixture
def path(tmp_path) -> Path:
    """Where a database of runs is to be."""
    return tmp_path / "experiments.db"


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Batches and retries come soon."""
    monkeypatch.setattr(writer, "BATCH_S", 0.05)
    monkeypatch.setattr(writer, "RETRY_S", (0.05, 0.2))


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of an empty database of a PostgreSQL server that lives as long as the tests.

    With TRAINBOOK_POSTGRES set it is that one.
    """
    given = os.environ.get("TRAINBOOK_POSTGRES")
    if given:
        yield given
        return
    programs = [Path(shutil.which("initdb") or "").parent, *_server_folders()]
    folder = next(
        (p for p in programs if (p / "pg_ctl").exists() and (p / "initdb").exists()), None
    )
    if folder is None:
        pytest.skip("PostgreSQL is not installed")
    # It refuses to run as root, and wants a folder that its own user may read.
    account = {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}
    home = Path(tempfile.mkdtemp(prefix="trainbook-postgres-"))
    if account:
        shutil.chown(home, account["user"], account["group"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def call(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(folder / program), "-D", str(home / "data"), *arguments],
            check=True, cwd=home, stdout=subprocess.DEVNULL, timeout=120, **account,
        )  # fmt: skip

    try:
        call("initdb", "-A", "trust", "-U", "runs", "-N")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home}"
        call("pg_ctl", "-o", options, "-l", str(home / "log"), "-w", "start")
        try:
            yield f"postgresql+psycopg://runs@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _server_folders() -> list[Path]:
    """Where Debian keeps the programs of its servers, newest first."""
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
