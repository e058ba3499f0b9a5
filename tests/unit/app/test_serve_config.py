"""The Serve config file, the application's args, and what the builder makes of a profile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from paretoserve.app.config import ConfigError, load_deployment
from paretoserve.app.serve import config_file
from paretoserve.app.serve.builder import build, parse_args, resources

LOCAL = Path(__file__).parents[3] / "deployments" / "local"


def test_the_local_file_is_good_and_names_the_profiles_that_exist():
    config = config_file.read(LOCAL / "serve.yaml")
    application = config.applications[0]
    assert application.args["deployment"] == str(LOCAL)
    parse_args(application.args)
    profiles = {profile.name for profile in load_deployment(LOCAL).profiles}
    assert {d.name for d in application.deployments} == profiles | {"gateway"}
    assert config.proxy_location == "Disabled"


def test_args_can_be_replaced_and_a_user_configs_folder_is_seen_from_the_file(tmp_path):
    document = yaml.safe_load((LOCAL / "serve.yaml").read_text())
    document["applications"][0]["deployments"][0]["user_config"] = {"deployment": "other"}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(document))
    config = config_file.read(tmp_path / "serve.yaml", {"http": "127.0.0.1:0"})
    application = config.applications[0]
    assert application.args["http"] == "127.0.0.1:0"
    assert application.args["grpc"] == "127.0.0.1:9000"
    assert application.deployments[0].user_config == {"deployment": str(tmp_path / "other")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("applications: [", "not valid YAML"),
        ("applications: []", "expected one, got 0"),
        ("applications: [{name: x}]", r"applications\.0\.import_path"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path, text, message):
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        config_file.read(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        config_file.read(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "deployment"),
        ({"deployment": str(LOCAL), "htp": "127.0.0.1:1"}, "htp"),
        ({"deployment": str(LOCAL), "executors": {"fastest": {}}}, "fastest"),
        ({"deployment": str(LOCAL), "executor_port": 70000}, "executor_port"),
        ({"deployment": str(LOCAL), "gateway": "elsewhere"}, "gateway"),
        ({"deployment": str(LOCAL), "http": "127.0.0.1"}, "HOST:PORT"),
        ({"deployment": str(LOCAL), "grpc": "127.0.0.1:99999"}, "HOST:PORT"),
        ({"deployment": str(LOCAL), "drain_grace_s": 3601}, "drain_grace_s"),
        ({"deployment": "/no/such/folder"}, "/no/such/folder"),
    ],
)
def test_the_builder_says_what_is_wrong_in_its_args(args, message):
    with pytest.raises(ConfigError, match=message):
        build(args)


def test_a_gpu_profile_takes_one_bundle_of_one_host():
    profile = load_deployment(LOCAL).profile("min-latency")
    tp8 = profile.model_copy(update={"engine": "trtllm", "engine_args": {}, "gpus": 8.0})
    assert resources(tp8) == {
        "ray_actor_options": {"num_cpus": 1, "num_gpus": 8.0},
        "placement_group_bundles": [{"CPU": 1, "GPU": 8.0}],
        "placement_group_strategy": "STRICT_PACK",
    }
    for engine in ("emulator", "trtllm-grpc"):
        other = tp8.model_copy(update={"engine": engine})
        assert resources(other) == {"ray_actor_options": {"num_cpus": 1.0}}


@pytest.mark.parametrize(
    ("args", "ingress"),
    [({}, "gateway"), ({"gateway": True}, "gateway"), ({"gateway": False}, "fleet")],
)
def test_the_ingress_is_the_gateway_or_what_stands_in_its_place(args, ingress):
    application = build({"deployment": str(LOCAL), **args})
    assert application._bound_deployment.name == ingress


def test_no_profile_has_the_ingress_name(tmp_path):
    shutil.copytree(LOCAL, tmp_path / "d", ignore=shutil.ignore_patterns("demo"))
    models = tmp_path / "d/models.yaml"
    models.write_text(models.read_text().partition("    parity:")[0])
    for path in (tmp_path / "d").glob("*/*.yaml"):
        path.write_text(path.read_text().replace("min-latency", "fleet"))
    build({"deployment": str(tmp_path / "d")})
    with pytest.raises(ConfigError, match="may not be called 'fleet'"):
        build({"deployment": str(tmp_path / "d"), "gateway": False})


def test_an_executors_port_is_its_profiles_else_that_of_all():
    executors = {"min-latency": {"port": 50052}, "max-throughput": {}}
    application = build({"deployment": str(LOCAL), "executor_port": 50051, "executors": executors})
    _, handles = application._bound_deployment.init_args
    ports = {name: handle._bound_deployment.init_args[0].port for name, handle in handles.items()}
    assert ports == {"min-latency": 50052, "max-throughput": 50051}


def test_without_a_gateway_no_tenant_is_needed(tmp_path):
    folder = shutil.copytree(LOCAL, tmp_path / "d", ignore=shutil.ignore_patterns("demo"))
    shutil.rmtree(folder / "tenants")
    build({"deployment": str(folder), "gateway": False})
    with pytest.raises(ConfigError, match="at least one Tenant is needed"):
        build({"deployment": str(folder)})
    (folder / "parity/min-latency.yaml").unlink()
    with pytest.raises(ConfigError, match="min-latency may not serve"):
        build({"deployment": str(folder), "gateway": False})
