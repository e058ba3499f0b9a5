"""The command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DEPLOYMENT = Path(__file__).parents[3] / "deployments" / "local"


def test_a_reader_that_is_gone_ends_a_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "paretoserve.app.cli", "values", str(DEPLOYMENT)]
    ended = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")
