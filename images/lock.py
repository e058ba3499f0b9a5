"""Lock files of the images: what each needs of the project's dependencies, at the versions of
requirements.lock. Run by `make lock`; needs a package index.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = "3.12"
WITHOUT = {
    "gateway": {"ray", "torch", "safetensors", "rich"},  # it places no process and computes nothing
    "ray": {"torch"},  # chosen by build argument, as in the Makefile
}
"""By image: the dependencies that it does without."""


def needed(image: str) -> list[str]:
    """The requirements of an image, as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [line for line in project["dependencies"] if _name(line) not in WITHOUT[image]]


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return found.group()


def _lock(image: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    command = [
        *(str(uv), "pip", "compile", "-", "--quiet", "--no-header", "--no-annotate"),
        *("--python-version", PYTHON, "--python-platform", "linux", "--generate-hashes"),
        *("--constraint", "requirements.lock", "--output-file", f"images/{image}.lock"),
    ]
    subprocess.run(command, cwd=ROOT, input="\n".join(needed(image)), text=True, check=True)  # noqa: S603


if __name__ == "__main__":
    for name in WITHOUT:
        _lock(name)
