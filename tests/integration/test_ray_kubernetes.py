"""What the chart has Ray run, on clusters of this machine: each host a node with an address of its
own, as a pod has; a gateway process beside them that finds executors by name; streams all along.
"""

from __future__ import annotations

import asyncio
import copy
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import RayNodes, ray_folder, ray_nodes
from toy_platform import Client, Stream, gateway, profile_serving, until, write_deployment

from paretoserve.app.serve import config_file, up
from paretoserve.executor.control_client import ControlClient

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

TOKENS = 400
FIRST = ("127.0.1.2", "127.0.1.3", "127.0.1.4")
"""Hosts of the first cluster: one for profile fast, two for wide."""
SECOND = ("127.0.2.2", "127.0.2.3")


def free_port() -> int:
    """Free a moment ago, at every address."""
    with closing(socket.create_server(("0.0.0.0", 0))) as found:
        return int(found.getsockname()[1])


class Here:
    """The deployment, the names under which its executors are found, and what serves it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._named: dict[str, list[str]] = {"fast": [], "wide": []}
        (folder / "names").mkdir()
        self.name()

    def name(self, **hosts: list[str]) -> None:
        """From now on a profile's name has these hosts; what a headless Service does."""
        self._named |= hosts
        for profile, named in self._named.items():
            (self.folder / "new").write_text(" ".join(named))
            (self.folder / "new").rename(self.folder / "names" / f"{profile}.test")

    def rendered(self) -> dict[str, Any]:
        deployments = [
            {
                "name": name,
                "num_replicas": count,
                "ray_actor_options": {"num_cpus": 1, "resources": {f"profile-{name}": 1}},
            }
            for name, count in (("fast", 1), ("wide", 2))
        ]
        args = {
            "deployment": str(self.folder),
            "gateway": False,
            "executor_port": self.port,
            "drain_grace_s": 30,
            "settle_s": 3.5,
            "executors": {"fast": {}, "wide": {}},
        }
        application = {
            "name": "paretoserve",
            "route_prefix": None,
            "import_path": "paretoserve.app.serve.builder:build",
            "args": args,
            "deployments": deployments,
        }
        return {"proxy_location": "Disabled", "applications": [application]}

    def drain(self, host: str) -> int:
        """The preStop hook of the host's pod."""
        command = ("drain", f"{host}:{self.port}", "--grace", "60")
        return subprocess.call([sys.executable, "-m", "paretoserve.app.cli", *command])

    def executor_at(self, host: str) -> str:
        """Which process it is; empty where none serves."""
        return asyncio.run(_executor_id(f"{host}:{self.port}"))


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
        else:
            deployment["ray_actor_options"]["num_cpus"] = fast_cpus
    return document


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Here:
    return Here(write_deployment(tmp_path_factory.mktemp("deployment")), free_port())


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with ray_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def first(here: Here, folder: Path) -> Iterator[RayNodes]:
    with ray_nodes("127.0.1.1", free_port()) as cluster:
        for host, profile in zip(FIRST, ("fast", "wide", "wide"), strict=True):
            cluster.add(host, **{f"profile-{profile}": 1})
        deploy(cluster, here.rendered())
        here.name(fast=[FIRST[0]], wide=list(FIRST[1:]))
        yield cluster


@pytest.fixture(scope="module")
def second(first: RayNodes, folder: Path) -> Iterator[RayNodes]:
    """Another one, whose head keeps its state where the next head finds it."""
    with ray_nodes("127.0.2.1", free_port(), store=folder / "store") as cluster:
        for host, profile in zip(SECOND, ("fast", "wide"), strict=True):
            cluster.add(host, **{f"profile-{profile}": 1})
        yield cluster


@pytest.fixture(scope="module")
def client(here: Here, first: RayNodes) -> Iterator[Client]:
    discover = [f"--discover={p}={p}.test:{here.port}" for p in ("fast", "wide")]
    with gateway(here.folder, *discover) as (_, _, address):
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
        deploy(first, changed(here.rendered(), drain_grace_s=29))
    unharmed(streams)
    after = [here.executor_at(host) for host in FIRST]
    assert all(after), "the new ones serve at the same addresses"
    assert not set(before) & set(after)


def test_a_scale_down_cuts_no_stream(client: Client, here: Here, first: RayNodes) -> None:
    until(lambda: len(used(client, "wide-only")) == 2, "both are used")
    streams = run(client, "wide-only", 4)
    assert len({stream.started.replica_id for stream in streams}) == 2
    with asked_all_along(client):
        deploy(first, changed(here.rendered(), wide=1, drain_grace_s=29))
        unharmed(streams)
        left = [host for host in FIRST[1:] if here.executor_at(host)]
        (gone,) = set(FIRST[1:]) - set(left)
        first.remove(gone)
        here.name(wide=left)


def test_a_second_cluster_takes_over_and_no_stream_is_cut(
    client: Client, here: Here, first: RayNodes, second: RayNodes
) -> None:
    """As KubeRay does for a changed cluster spec: another cluster, the same application on it, then
    the first one's pods end, each after its preStop hook.
    """
    old = [host for host in FIRST if here.executor_at(host)]
    streams = [*run(client, "fast-first", 2), *run(client, "wide-only", 4)]
    with asked_all_along(client):
        deploy(second, changed(here.rendered(), wide=1))
        here.name(fast=[old[0], SECOND[0]], wide=[old[1], SECOND[1]])
        until(lambda: len(used(client, "wide-only")) == 2, "both clusters are used")
        streams += run(client, "wide-only", 2)
        with ThreadPoolExecutor() as pool:
            assert list(pool.map(here.drain, old)) == [0, 0]
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
        deploy(second, changed(here.rendered(), wide=1))
        assert [here.executor_at(host) for host in SECOND] == before, "nothing was started again"
        streams = run(client, "fast-first", 2)
        deploy(second, changed(here.rendered(), wide=1, fast_cpus=0.9))
        unharmed(streams)
        fast, wide = map(here.executor_at, SECOND)
        assert fast not in ("", before[0]), "it can change things: this one was replaced"
        assert wide == before[1]
