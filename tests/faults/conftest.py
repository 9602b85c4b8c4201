"""What tests of the record of runs share."""

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
