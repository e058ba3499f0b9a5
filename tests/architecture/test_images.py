"""What the Dockerfiles promise each other and the project. None is built here: docs/images.md."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
DOCKERFILES = {path.name.removesuffix(".Dockerfile"): path for path in IMAGES.glob("*.Dockerfile")}
PINNED = re.compile(
    r"(?m)^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+) \\\n((?:    --hash=\S+(?: \\)?\n)+)"
)


def text(image: str) -> str:
    """A Dockerfile without comments, each instruction in a line."""
    lines = DOCKERFILES[image].read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")


def instructions(image: str, word: str) -> list[str]:
    return re.findall(rf"(?m)^{word} (.*)$", text(image))


def locked(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and hashes by package."""
    return {
        name: (version, frozenset(re.findall(r"--hash=(\S+)", hashes)))
        for name, version, hashes in PINNED.findall(path.read_text())
    }


def argument(image: str, name: str) -> str:
    (value,) = set(re.findall(rf"(?m)^ARG {name}=(\S+)$", text(image)))
    return value


def test_there_are_those_that_the_chart_needs() -> None:
    assert set(DOCKERFILES) == {"gateway", "ray", "executor"}


@pytest.mark.parametrize("image", ["gateway", "ray"])
def test_what_an_image_locks_is_what_the_project_locks(image: str) -> None:
    project, own = locked(ROOT / "requirements.lock"), locked(IMAGES / f"{image}.lock")
    assert own
    assert {name: project.get(name) for name in own} == own


@pytest.mark.parametrize("image", ["gateway", "ray"])
def test_what_an_image_locks_is_all_that_it_needs(image: str) -> None:
    spec = importlib.util.spec_from_file_location("lock", IMAGES / "lock.py")
    lock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lock)
    needed = {lock._name(requirement) for requirement in lock.needed(image)}
    own = set(locked(IMAGES / f"{image}.lock"))
    assert needed <= own
    assert not lock.WITHOUT[image] & own
    assert needed | lock.WITHOUT[image] == {lock._name(r) for r in lock.needed("ray")} | {"torch"}
    assert argument("ray", "PYTHON") == lock.PYTHON


def test_head_and_workers_have_the_same_ray_and_python() -> None:
    for image in ("ray", "executor"):
        copied = " ".join(instructions(image, "COPY"))
        assert "images/ray.lock" in copied
        assert re.search(r"--require-hashes --no-deps -r /src/ray\.lock", text(image))
        assert "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor" in text(image)
    assert len({argument(image, "PYTHON") for image in DOCKERFILES}) == 1
    assert "sys.version_info[:2] != '${PYTHON}'" in text("executor"), "NVIDIA's is checked"


def test_a_gateway_has_no_ray_and_no_torch() -> None:
    own = set(locked(IMAGES / "gateway.lock"))
    assert not {name for name in own if name in {"ray", "torch"} or name.startswith("nvidia")}


def test_ray_and_torch_are_the_projects_own() -> None:
    version, _ = locked(ROOT / "requirements.lock")["ray"]
    least = re.search(r"ray\[serve\]>=([\d.]+)", (ROOT / "pyproject.toml").read_text())
    assert version.startswith(least.group(1))
    made = re.search(r"(?m)^TORCH \?= (\S+)$", (ROOT / "Makefile").read_text())
    assert argument("ray", "TORCH") == made.group(1)


def test_the_tensorrt_llm_that_is_built_on_is_the_one_that_was_resolved_against() -> None:
    version = argument("executor", "TENSORRT_LLM")
    assert f"tensorrt-llm {version}" in (ROOT / "docs/tensorrt-llm.md").read_text()


@pytest.mark.parametrize("image", DOCKERFILES)
def test_it_runs_as_anybody_but_root(image: str) -> None:
    assert instructions(image, "USER")[-1] == "65532:65532"
    assert "HOME=/tmp" in text(image)


@pytest.mark.parametrize("image", ["ray", "executor"])
def test_what_kuberay_runs_is_on_every_shells_path(image: str) -> None:
    """A login shell sets PATH anew; /usr/local/bin is on it in any case."""
    assert "wget" in text(image)
    linked = re.search(r"ln -s (.*?) /usr/local/bin/", text(image)).group(1)
    assert {Path(name).name for name in linked.split()} == {"ray", "serve", "paretoserve"}


def test_python_is_rays_on_the_head_in_a_login_shell_too() -> None:
    """KubeRay's Job that cleans Redis runs `python` in the head's image, and imports Ray."""
    assert r'echo "PATH=/opt/ray/bin:\$PATH" > /etc/profile.d/ray.sh' in text("ray")


@pytest.mark.parametrize("image", DOCKERFILES)
def test_what_it_copies_is_there_and_is_sent_to_the_builder(image: str) -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    sent = [rule[1:] for rule in rules if rule.startswith("!")]
    assert "*" in rules
    for line in instructions(image, "COPY"):
        if line.startswith("--from="):
            continue
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch(source, rule) for rule in sent), source


@pytest.mark.parametrize("image", DOCKERFILES)
def test_hadolint_finds_nothing(image: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    hadolint = shutil.which("hadolint", path=path)
    if hadolint is None:
        pytest.skip("hadolint is not in this environment; `make setup` installs it")
    done = subprocess.run(
        [hadolint, str(DOCKERFILES[image])], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
