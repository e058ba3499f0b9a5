"""What `helm test` runs, run: the script of the chart's test pod, against a gateway of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support.chart import case, one, render
from toy_platform import KEY, executor, gateway, write_deployment

FOLDER = "/run/smoke"
"""Where the pod has its key."""


def _script() -> tuple[str, dict[str, str]]:
    """The test pod's script and its environment."""
    values = case("smallest")
    values["smoke"] = {"model": "toy"}
    container = one(render(values), "Pod")["spec"]["containers"][0]
    shell, options, script = container["command"]
    assert (shell, options) == ("bash", "-euc")
    return script, {variable["name"]: variable["value"] for variable in container["env"]}


def _programs(folder: Path) -> str:
    """A PATH on which `paretoserve` and `python3` are this environment's, as they are in the image."""
    folder.mkdir()
    for name, module in (("paretoserve", "-m paretoserve.app.cli"), ("python3", "")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@contextmanager
def _asking(tmp_path: Path, http: str, grpc: str) -> Iterator[subprocess.Popen[str]]:
    """The script, running against a gateway."""
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "api-key").write_text(KEY)
    script, environment = _script()
    assert script.count(FOLDER) == 2
    host, _, http_port = http.removeprefix("http://").rpartition(":")
    environment |= {"GATEWAY": host, "HTTP_PORT": http_port, "GRPC_PORT": grpc.rpartition(":")[2]}
    process = subprocess.Popen(
        ["bash", "-euc", script.replace(FOLDER, str(tmp_path / "smoke"))],
        env=os.environ | environment | {"PATH": _programs(tmp_path / "bin")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_it_asks_over_both_apis_as_soon_as_an_executor_serves(tmp_path: Path) -> None:
    folder = write_deployment(tmp_path / "deployment")
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        address = f"127.0.0.1:{found.getsockname()[1]}"
    with (
        gateway(folder, "--executor", f"fast={address}") as (_, http, grpc),
        _asking(tmp_path, http, grpc) as asking,
    ):
        assert asking.stdout is not None
        said = next(line for line in asking.stdout if "not yet; asking again" in line)
        with executor(folder, "fast", address):
            said += asking.stdout.read()
            assert asking.wait() == 0, said
    assert "answered over gRPC and HTTP" in said
    assert KEY not in said
