"""What the chart has Ray run, on clusters of this machine: each host a node with an address of its
own, as a pod has; a gateway process beside them that finds executors by name; streams all along.
"""

from __future__ import annotations

import asyncio
import copy
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import RayNodes, ray_folder, ray_nodes
from tests.support.chart import Object, mounted, one, render, serve_config
from toy_platform import (
    Client,
    Program,
    Stream,
    gateway,
    profile_serving,
    until,
    write_deployment,
)

from paretoserve.app.chart_values import chart_values
from paretoserve.app.serve import config_file, up
from paretoserve.executor.control_client import ControlClient

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

TOKENS = 400
FIRST = ("127.0.1.2", "127.0.1.3", "127.0.1.4")
"""Hosts of the first cluster: one for profile fast, two for wide."""
SECOND = ("127.0.2.2", "127.0.2.3")


def free_port(first: int = 0) -> int:
    """Free a moment ago, at every address; the first such from `first` on, if that is said."""
    for port in range(first, first + 1000 if first else 1):
        with suppress(OSError), closing(socket.create_server(("0.0.0.0", port))) as found:
            return int(found.getsockname()[1])
    raise AssertionError(f"no port is free from {first} on")


def _write(folder: Path) -> Path:
    """Profiles fast, wide, and idle, which has no executor; the model where nodes have theirs."""
    write_deployment(folder)
    idle = (folder / "profiles" / "wide.yaml").read_text().replace("name: wide", "name: idle")
    (folder / "profiles" / "idle.yaml").write_text(idle)
    (folder / "model").rename(folder.parent / "model")
    (folder / "model").symlink_to(folder.parent / "model")
    return folder


def _values(folder: Path, port: int) -> Object:
    values = chart_values(folder, str(folder.parent))
    values["documents"]["telemetry"] = {"metrics": "none"}
    return values | {
        "ray": {"executorPort": port, "drainGraceSeconds": 30},
        "profiles": {"wide": {"replicas": 2}, "idle": {"replicas": 0}},
        "modelVolume": {"mountPath": ""},
    }


class Here:
    """The deployment, what the chart makes of it, and the names under which executors are found."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        objects = render(_values(_write(folder / "written"), port))
        cluster = one(objects, "RayService")["spec"]["rayClusterConfig"]
        self._gateways = one(objects, "Deployment")["spec"]["template"]
        self._groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
        self._in_ray, self._in_gateways = folder / "ray", folder / "gateways"
        mounted(objects, self._in_ray, cluster["headGroupSpec"]["template"])
        mounted(objects, self._in_gateways, self._gateways)
        (self._in_gateways / "names").mkdir()
        self._serve = serve_config(objects)

    def name(self, **hosts: list[str]) -> None:
        """From now on a profile's name has these hosts; what its headless Service does."""
        for option in self._discover():
            profile, _, address = option.removeprefix("--discover=").partition("=")
            new = self._in_gateways / "new"
            new.write_text(" ".join(hosts.get(profile, [])))
            new.rename(self._in_gateways / "names" / address.rpartition(":")[0])

    def serve_config(self) -> dict[str, Any]:
        """As rendered, but for where the documents are, and no longer than here suffices."""
        document = copy.deepcopy(self._serve)
        args = document["applications"][0]["args"]
        assert args["deployment"] == "/etc/paretoserve"
        args |= {"deployment": str(self._in_ray), "settle_s": 3.5}
        return document

    def resources(self, profile: str) -> dict[str, float]:
        """Of a pod of the profile's group, as Ray is told."""
        return {name: float(count) for name, count in self._groups[profile]["resources"].items()}

    def gateway(self) -> AbstractContextManager[tuple[Program, str, str]]:
        return gateway(self._in_gateways, *self._discover())

    def pre_stop(self, host: str) -> int:
        """The exit status of the hook of the host's pod."""
        (container,) = self._groups["fast"]["template"]["spec"]["containers"]
        binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.call(
            container["lifecycle"]["preStop"]["exec"]["command"],
            env={**os.environ, "POD_IP": host, "PATH": binaries, "PYTHONPATH": "platform"},
        )

    def executor_at(self, host: str) -> str:
        """Which process it is; empty where none serves."""
        return asyncio.run(_executor_id(f"{host}:{self.port}"))

    def _discover(self) -> list[str]:
        (container,) = self._gateways["spec"]["containers"]
        return [option for option in container["command"] if option.startswith("--discover=")]


async def _executor_id(address: str) -> str:
    control = ControlClient(address)
    try:
        load = await control.load(timeout_s=1)
    finally:
        await control.close()
    return load.executor_id if load is not None else ""


def deploy(cluster: RayNodes, document: dict[str, Any]) -> None:
    with up.existing_cluster(cluster.address):
        up.Platform.deploy(config_file.check(document, base=Path("/"), where="test"), timeout_s=120)


def changed(
    document: dict[str, Any], *, wide: int = 2, fast_cpus: float = 1, **args: Any
) -> dict[str, Any]:
    """A new version of the Serve config: so many replicas of wide, other options of fast, args."""
    document = copy.deepcopy(document)
    (application,) = document["applications"]
    application["args"] |= args
    for deployment in application["deployments"]:
        if deployment["name"] == "wide":
            deployment["num_replicas"] = wide
        if deployment["name"] == "fast":
            deployment["ray_actor_options"]["num_cpus"] = fast_cpus
    return document


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Here:
    port = free_port(9500)  # the chart takes none that Ray or Linux give out at random
    return Here(tmp_path_factory.mktemp("deployment"), port)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with ray_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def first(here: Here, folder: Path) -> Iterator[RayNodes]:
    with ray_nodes("127.0.1.1", free_port()) as cluster:
        for host, profile in zip(FIRST, ("fast", "wide", "wide"), strict=True):
            cluster.add(host, here.resources(profile))
        deploy(cluster, here.serve_config())
        here.name(fast=[FIRST[0]], wide=list(FIRST[1:]))
        yield cluster


@pytest.fixture(scope="module")
def second(here: Here, first: RayNodes, folder: Path) -> Iterator[RayNodes]:
    """Another one, whose head keeps its state where the next head finds it."""
    with ray_nodes("127.0.2.1", free_port(), store=folder / "store") as cluster:
        for host, profile in zip(SECOND, ("fast", "wide"), strict=True):
            cluster.add(host, here.resources(profile))
        yield cluster


@pytest.fixture(scope="module")
def client(here: Here, first: RayNodes) -> Iterator[Client]:
    with here.gateway() as (_, _, address):
        client = Client(address)
        until(lambda: profile_serving(client, "fast-first") == "fast", "fast serves")
        until(lambda: profile_serving(client, "wide-only") == "wide", "wide serves")
        yield client
        client.close()


def run(client: Client, tier: str, count: int, tokens: int = TOKENS) -> list[Stream]:
    streams = [client.generate(tier, max_tokens=tokens) for _ in range(count)]
    for stream in streams:
        stream.wait_flowing()
    return streams


def used(client: Client, tier: str) -> set[str]:
    """The replicas that four requests at a time are spread over."""
    streams = run(client, tier, 4, 10)
    return {stream.started.replica_id for stream in streams if stream.completed()}


def unharmed(streams: list[Stream], tokens: int = TOKENS) -> None:
    """Every stream came to its end where it began, with every token once."""
    for stream in streams:
        end = stream.completed()
        assert (end.usage.completion_tokens, end.moves) == (tokens, 0)
        assert stream.exact(tokens)


@contextmanager
def asked_all_along(client: Client) -> Iterator[None]:
    """Short requests, one after the other, that either profile may serve: every one is served."""
    over, served = threading.Event(), list[Stream]()

    def ask() -> None:
        while not over.is_set():
            stream = client.generate("wide-first", max_tokens=10)
            stream.completed()
            served.append(stream)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            over.set()
        asking.result()
    assert served
    unharmed(served, 10)


def test_the_rendered_application_serves_on_its_own_groups(client: Client, here: Here) -> None:
    unharmed([client.generate(tier, max_tokens=20) for tier in ("fast-first", "wide-only")], 20)
    assert all(map(here.executor_at, FIRST))


def test_a_rolling_upgrade_cuts_no_stream(client: Client, here: Here, first: RayNodes) -> None:
    until(lambda: len(used(client, "wide-only")) == 2, "both are used")
    before = [here.executor_at(host) for host in FIRST]
    streams = [*run(client, "fast-first", 2), *run(client, "wide-only", 4)]
    with asked_all_along(client):
        deploy(first, changed(here.serve_config(), drain_grace_s=29))
    unharmed(streams)
    after = [here.executor_at(host) for host in FIRST]
    assert all(after), "the new ones serve at the same addresses"
    assert not set(before) & set(after)


def test_a_scale_down_cuts_no_stream(client: Client, here: Here, first: RayNodes) -> None:
    until(lambda: len(used(client, "wide-only")) == 2, "both are used")
    streams = run(client, "wide-only", 4)
    assert len({stream.started.replica_id for stream in streams}) == 2
    with asked_all_along(client):
        deploy(first, changed(here.serve_config(), wide=1, drain_grace_s=29))
        unharmed(streams)
        left = [host for host in FIRST[1:] if here.executor_at(host)]
        (gone,) = set(FIRST[1:]) - set(left)
        first.remove(gone)
        here.name(fast=[FIRST[0]], wide=left)


def test_a_second_cluster_takes_over_and_no_stream_is_cut(
    client: Client, here: Here, first: RayNodes, second: RayNodes
) -> None:
    """As KubeRay does for a changed cluster spec: another cluster, the same application on it, then
    the first one's pods end, each after its preStop hook.
    """
    old = [host for host in FIRST if here.executor_at(host)]
    streams = [*run(client, "fast-first", 2), *run(client, "wide-only", 4)]
    with asked_all_along(client):
        deploy(second, changed(here.serve_config(), wide=1))
        here.name(fast=[old[0], SECOND[0]], wide=[old[1], SECOND[1]])
        until(lambda: len(used(client, "wide-only")) == 2, "both clusters are used")
        streams += run(client, "wide-only", 2)
        with ThreadPoolExecutor() as pool:
            assert list(pool.map(here.pre_stop, old)) == [0, 0]
        unharmed(streams)
        here.name(fast=[SECOND[0]], wide=[SECOND[1]])
        for host in old:
            first.remove(host)
    assert not any(map(here.executor_at, old))


def test_the_loss_of_the_head_cuts_no_stream_and_another_one_goes_on(
    client: Client, here: Here, second: RayNodes
) -> None:
    until(lambda: profile_serving(client, "fast-first") == "fast", "fast serves")
    before = [here.executor_at(host) for host in SECOND]
    streams = [*run(client, "fast-first", 2), *run(client, "wide-only", 2)]
    with asked_all_along(client):
        second.lose_head()
        unharmed(streams)
        unharmed(run(client, "fast-first", 2, 50), 50)  # begun while there is no head
        second.restore_head()
        deploy(second, changed(here.serve_config(), wide=1))
        assert [here.executor_at(host) for host in SECOND] == before, "nothing was started again"
        streams = run(client, "fast-first", 2)
        deploy(second, changed(here.serve_config(), wide=1, fast_cpus=0.9))
        unharmed(streams)
        fast, wide = map(here.executor_at, SECOND)
        assert fast not in ("", before[0]), "it can change things: this one was replaced"
        assert wide == before[1]
