"""What the layout promises."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_import_platform_is_the_standard_librarys_from_the_repository_root() -> None:
    where = python("import platform; print(platform.__file__); platform.system()")
    assert not Path(where.strip()).is_relative_to(ROOT)
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_deciding_imports_no_transport_and_no_cluster() -> None:
    loaded = python("import sys, paretoserve.policy.policy; print(*sys.modules)").split()
    assert not {"grpc", "ray", "torch", "starlette"} & set(loaded)


def test_demo_weights_fit_in_sixteen_mebibytes() -> None:
    weights = list((ROOT / "deployments/local/models").rglob("*.safetensors"))
    assert weights
    assert sum(path.stat().st_size for path in weights) <= 16 * 2**20


def test_an_executors_requirements_are_the_projects_own() -> None:
    """And they are all that it imports: tests/integration/test_trtllm_process.py."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements-executor.txt").read_text().splitlines()
    needed = {line for line in lines if not line.startswith("#")}
    assert needed <= set(project["dependencies"])
