"""The demo's platform: Ray Serve from the deployment's own config file, on free ports.

A new latency curve comes into force by what an operator would do: a deployment folder with the
new documents, named in the gateway's `user_config`. No replica restarts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ray import serve
from ray.serve.schema import DeploymentSchema, ServeDeploySchema

from paretoserve.app.serve import config_file
from paretoserve.app.serve.args import GATEWAY
from paretoserve.app.serve.up import Platform, Progress
from paretoserve.domain.errors import Unavailable

FREE_PORTS = {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0"}
UP_WITHIN_S = 120.0
DESCRIBE_TIMEOUT_S = 30.0
RECONFIGURED_WITHIN_S = 30.0


@dataclass(frozen=True)
class Executor:
    """A profile's executor: its address, its process, how often it had to be restarted."""

    address: str
    pid: int
    restarts: int


class DemoPlatform:
    """The application of a Serve config file, deployed. Needs a connected Ray cluster."""

    def __init__(self, config: ServeDeploySchema, platform: Platform) -> None:
        self._config = config
        self.platform = platform

    @classmethod
    def deploy(cls, folder: Path, progress: Progress) -> DemoPlatform:
        """Bring up `folder`/serve.yaml. Raises ConfigError, or Unavailable with Serve's message."""
        config = config_file.read(folder / "serve.yaml", FREE_PORTS)
        return cls(config, Platform.deploy(config, progress, UP_WITHIN_S))

    def executors(self, profiles: Iterable[str]) -> dict[str, Executor]:
        """The executors of these profiles, as their replicas describe them."""
        return {profile: self._executor(profile) for profile in profiles}

    def take_over(self, folder: Path, revision: str) -> None:
        """Put the documents of another folder in force, live.

        Raises Unavailable when the gateway refuses them or does not take them over in time.
        """
        application = self._config.applications[0]
        user_config = {"deployment": str(folder.resolve()), "revision": revision}
        gateway = next((d for d in application.deployments if d.name == GATEWAY), None)
        if gateway is None:
            gateway = DeploymentSchema(name=GATEWAY)
            application.deployments.append(gateway)
        gateway.user_config = user_config
        self.platform = Platform.deploy(self._config)
        self._wait_for(revision)

    def _wait_for(self, revision: str) -> None:
        deadline = time.monotonic() + RECONFIGURED_WITHIN_S
        while (said := self.platform.gateway())["revision"] != revision:
            if said["config_error"] or time.monotonic() > deadline:
                raise Unavailable(f"the gateway did not take over: {said['config_error'] or said}")
            time.sleep(0.1)

    def _executor(self, profile: str) -> Executor:
        handle = serve.get_deployment_handle(profile, self.platform.application)
        said = handle.describe.remote().result(timeout_s=DESCRIBE_TIMEOUT_S)
        return Executor(str(said["address"]), int(said["pid"]), int(said["restarts"]))
