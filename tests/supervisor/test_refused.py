"""A child that cannot run here ends the start, at once and with its reason."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from clew.config.schema import Store
from clew.store.engine import open_for_writing
from clew.store.migrate import migrate
from clew.supervisor.run import EXIT_FAILED, READY_PATIENCE_S


def test_a_store_of_a_newer_release_ends_the_start(tmp_path: Path) -> None:
    """One line says what is wrong; nothing is tried again until patience ends."""
    engine = open_for_writing(Store().url, tmp_path)
    migrate(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    command = [sys.executable, "-m", "clew.command", "serve", "--data", str(tmp_path)]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    began = time.monotonic()

    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)

    assert time.monotonic() - began < READY_PATIENCE_S / 2
    assert done.returncode == EXIT_FAILED
    assert done.stderr.count("the store has schema 9999") == 1
    assert "clew ready" not in done.stdout
