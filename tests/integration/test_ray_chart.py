"""The chart's Serve config, as Helm renders it, on a Ray cluster of this machine.

A node for each pod of a worker group, with the resources that the group says it has; the documents
where the pods' volumes would have them; a gateway with the options of the chart's gateways.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import ray_folder, ray_nodes
from test_ray_kubernetes import free_port
from tests.support.chart import Object, mounted, one, render, serve_config
from toy_platform import Client, gateway, profile_serving, until, write_deployment

from paretoserve.app.chart_values import chart_values
from paretoserve.app.serve import config_file, up

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def _values(folder: Path, port: int) -> Object:
    documents = chart_values(folder, str(folder.parent / "models"))
    documents["documents"]["telemetry"] = {"metrics": "none"}
    return {
        **documents,
        "modelVolume": {"mountPath": ""},
        "ray": {"executorPort": port, "settleSeconds": 3, "drainGraceSeconds": 10},
        "profiles": {"wide": {"replicas": 2}, "idle": {"replicas": 0}},
    }


def _folders(objects: list[Object], folder: Path) -> tuple[Path, Path]:
    """What Ray's pods and what the gateways have as /etc/paretoserve."""
    cluster = one(objects, "RayService")["spec"]["rayClusterConfig"]
    mounted(objects, folder / "ray", cluster["headGroupSpec"]["template"])
    mounted(objects, folder / "gateway", one(objects, "Deployment")["spec"]["template"])
    return folder / "ray", folder / "gateway"


def _at(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The config with the documents in `folder`, as they are at /etc/paretoserve in a pod."""
    text = json.dumps(config)
    assert text.count("/etc/paretoserve") == 1
    moved: dict[str, Any] = json.loads(text.replace("/etc/paretoserve", str(folder)))
    return moved


def test_what_helm_renders_serves(tmp_path: Path) -> None:
    port = free_port(9500)  # as the chart wants them: none that is given out at random
    written = write_deployment(tmp_path / "written")
    idle = (written / "profiles" / "wide.yaml").read_text().replace("name: wide", "name: idle")
    (written / "profiles" / "idle.yaml").write_text(idle)
    (tmp_path / "models").mkdir()
    (written / "model").rename(tmp_path / "models" / "model")
    objects = render(_values(written, port))
    in_ray, in_gateways = _folders(objects, tmp_path)
    groups = one(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    command = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["command"]
    (in_gateways / "names").mkdir()

    with ray_folder(), ray_nodes("127.0.3.1", free_port()) as cluster:
        for at, group in enumerate(groups):
            hosts = [f"127.0.3.{10 * (at + 1) + pod}" for pod in range(group["replicas"])]
            resources = {name: float(count) for name, count in group["resources"].items()}
            for host in hosts:
                cluster.add(host, resources)
            service = f"demo-paretoserve-{group['groupName']}"
            (in_gateways / "names" / f"{service}.test").write_text(" ".join(hosts))
        config = config_file.check(
            _at(serve_config(objects), in_ray), base=Path("/"), where="the chart"
        )
        with up.existing_cluster(cluster.address):
            up.Platform.deploy(config, timeout_s=120)

        discover = [a.replace(f":{port}", f".test:{port}") for a in command if "--discover" in a]
        with gateway(in_gateways, *discover) as (_, _, address):
            client = Client(address)
            until(lambda: profile_serving(client, "fast-first") == "fast", "fast serves")
            until(lambda: profile_serving(client, "wide-only") == "wide", "wide serves")
            stream = client.generate("wide-first", max_tokens=50)
            assert stream.completed().usage.completion_tokens == 50
            assert stream.exact(50)
            client.close()
