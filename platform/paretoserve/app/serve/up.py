"""The platform on a Ray cluster: bring it up from a Serve config file, change it, take it down.

    with local_cluster() as cluster:          # or: with existing_cluster("auto") as cluster:
        platform = Platform.deploy(config_file.read(path), print)
        ... platform.http, platform.grpc ...

Deploying by config is what `serve deploy` does: a later config changes only what differs, where an
imperative `serve.run` would restart every replica.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray._private import auto_init_hook, ray_constants
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatusOverview, ServeDeploySchema

from paretoserve.app.config import ConfigError
from paretoserve.app.serve import processes
from paretoserve.domain.errors import Unavailable

Progress = Callable[[str], None]
"""Receives one line whenever something has changed."""

_POLL_S = 0.2
_BROKEN = {"DEPLOY_FAILED", "UNHEALTHY"}


def _silent(_: str) -> None:
    return


@contextlib.contextmanager
def local_cluster(
    *, num_cpus: int | None = None, object_store_mb: int = 100, progress: Progress = _silent
) -> Iterator[Path]:
    """A one-node Ray cluster on the loopback address, and nothing left of it afterwards.

    Gives Ray's temporary folder, where its logs are while it runs.
    `num_cpus` are logical: they only count what may be placed on this node; by default the number
    of cores, 4 at least. Ray's own ports ask for Ray's token, which a new cluster has on.
    """
    folder = Path(tempfile.mkdtemp(prefix="pserve-"))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A handle that outlives the cluster must not make Ray start another one behind our back.
    auto_init_hook.enable_auto_connect = False
    progress("starting Ray on 127.0.0.1")
    try:
        with _loopback_stays_loopback(), _sigterm_stays_ours():
            ray.init(
                address="local",
                num_cpus=num_cpus or max(4, os.cpu_count() or 1),
                object_store_memory=object_store_mb << 20,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(folder),
                # Ray nices its workers by 15, and the executors would inherit it: on a machine
                # that also runs clients they would starve.
                _system_config={"worker_niceness": 0},
            )
        yield folder
    finally:
        progress("stopping Serve and Ray")
        started = processes.family(folder)
        _shut_down()
        processes.wait_gone(started, timeout_s=20.0)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _loopback_stays_loopback() -> Iterator[None]:
    """Ray takes the host's address where 127.0.0.1 is asked for, unless it believes that this
    platform has no multi-node clusters; it has read that from the environment when imported.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _sigterm_stays_ours() -> Iterator[None]:
    """Ray takes SIGTERM over, to print a stack trace and exit; give it back to the caller."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def existing_cluster(address: str = "auto") -> Iterator[None]:
    """A cluster that runs already, of any number of nodes. It, and what is deployed, stay up."""
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        _let_go_of_handles()
        ray.shutdown()


@dataclass(frozen=True)
class Platform:
    """A deployed application and where its gateway listens: nowhere, if it has none in Ray."""

    application: str
    http: str
    grpc: str

    @classmethod
    def deploy(
        cls, config: ServeDeploySchema, progress: Progress = _silent, timeout_s: float = 600.0
    ) -> Platform:
        """Deploy `config`, or change what runs to it; returns when every replica is healthy.

        Raises Unavailable with Serve's own message when it does not come up, and ConfigError when
        the gateway refused its new user_config and goes on with the last good one.
        """
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(
            proxy_location=config.proxy_location, http_options=config.http_options.model_dump()
        )
        # The one private call: Ray's only public way to deploy a config is its dashboard's REST
        # API, and a laptop needs no dashboard. `serve run FILE` does the same.
        client: Any = _get_global_client()
        client.deploy_apps(config)
        name = config.applications[0].name
        _wait_healthy(name, progress, timeout_s)
        if not config.applications[0].args.get("gateway", True):
            return cls(name, "", "")
        gateway = _describe(name)
        if gateway["config_error"]:
            raise ConfigError(f"the last good configuration stays: {gateway['config_error']}")
        return cls(name, gateway["http"], gateway["grpc"])

    def gateway(self) -> dict[str, str]:
        """The gateway's own account: addresses, config revision, the error of a refused one."""
        return _describe(self.application)


def _describe(application: str) -> dict[str, str]:
    answer: dict[str, str] = (
        serve.get_app_handle(application).describe.remote().result(timeout_s=30)
    )
    return answer


def _wait_healthy(application: str, progress: Progress, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    told: dict[str, str] = {}
    while time.monotonic() < deadline:
        overview = serve.status().applications.get(application)
        if overview is not None:
            _tell_changes(overview, told, progress)
            if overview.status == "RUNNING":
                return
            if overview.status in _BROKEN:
                raise Unavailable(f"{application} is {overview.status}: {_why(overview)}")
        time.sleep(_POLL_S)
    raise Unavailable(f"{application} did not come up within {timeout_s:g} s: {told}")


def _tell_changes(
    overview: ApplicationStatusOverview, told: dict[str, str], progress: Progress
) -> None:
    for name, deployment in overview.deployments.items():
        replicas = ", ".join(
            f"{count} {state.lower()}" for state, count in deployment.replica_states.items()
        )
        line = f"{name}: {deployment.status.value.lower()}" + (f" ({replicas})" if replicas else "")
        if told.get(name) != line:
            told[name] = line
            progress(line)


def _why(overview: ApplicationStatusOverview) -> str:
    broken = (
        f"{name}: {deployment.message}"
        for name, deployment in overview.deployments.items()
        if deployment.status.value in _BROKEN
    )
    return "\n".join([overview.message, *broken]).strip()


def _shut_down() -> None:
    if not ray.is_initialized():
        return
    try:
        for name in serve.status().applications:
            serve.delete(name)
        _let_go_of_handles()
    finally:
        ray.shutdown()


def _let_go_of_handles() -> None:
    """End the threads that this process's deployment handles have for themselves."""
    client: Any = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        client.shutdown_cached_handles()
