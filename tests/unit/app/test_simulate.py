"""`paretoserve simulate`: what it reads, what it refuses, and that it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paretoserve.app import simulation
from paretoserve.app.cli import main
from paretoserve.app.config import ConfigError, load_deployment

ROOT = Path(__file__).parents[3] / "deployments"
SIMULATED = ROOT / "simulated"
DEPLOYMENT = load_deployment(SIMULATED)


@pytest.mark.parametrize("name", ["simulated", "simulated-three"])
def test_the_simulated_deployments_are_whole(name: str) -> None:
    deployment = simulation.read_deployment(ROOT / name, None)
    plan, trace = simulation.read_plan(ROOT / name, deployment)
    assert trace.is_file()
    assert {share.tier for share in plan.mix} == {tier.name for tier in deployment.tiers}


@pytest.mark.parametrize(
    ("text", "loads"),
    [
        ("1", [1.0]),
        ("4,0.5,1,1", [0.5, 1.0, 4.0]),
        ("x2", [2.0]),
        ("x0.5..x4", [0.5, 1.0, 2.0, 4.0]),
        ("1..3", [1.0, 2.0, 3.0]),
        ("2..2", [2.0]),
    ],
)
def test_loads(text: str, loads: list[float]) -> None:
    assert simulation.read_loads(text) == loads


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is no load; write numbers above 0, 1,2,4 or x0.5..x4"),
        ("0,1", "'0' is no load"),
        ("1,-2", "'-2' is no load"),
        ("nan", "'nan' is no load"),
        ("many", "'many' is no load"),
        ("x4..x1", "the first load is above the second"),
        ("1..2.3.4", "'2.3.4' is no load"),
    ],
)
def test_what_is_no_load(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        simulation.read_loads(text)


def test_a_fleet_from_text_and_from_a_file(tmp_path: Path) -> None:
    fleet = {"min-latency": 3, "max-throughput": 5}
    path = tmp_path / "fleet.yaml"
    path.write_text("min-latency: 3\nmax-throughput: 5\n")
    assert simulation.read_fleet("min-latency=3, max-throughput=5", DEPLOYMENT) == fleet
    assert simulation.read_fleet(str(path), DEPLOYMENT) == fleet


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("fast=3", "no profile 'fast'; profiles are max-throughput, min-latency"),
        ("min-latency=0", "min-latency=0: replicas are a whole number above 0"),
        ("min-latency=1.5", "replicas are a whole number above 0"),
        ("min-latency=1,min-latency=2", "min-latency is given twice"),
        ("nothing.yaml", "neither PROFILE=REPLICAS,... nor a file that can be read"),
    ],
)
def test_what_is_no_fleet(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        simulation.read_fleet(text, DEPLOYMENT)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_policies_are_named_by_their_versions_or_paths(tmp_path: Path) -> None:
    first = write(tmp_path, "a.yaml", "version: one\n")
    second = write(tmp_path, "b.yaml", "version: two\n")
    third = write(tmp_path, "c.yaml", "version: two\n")
    assert set(simulation.read_policies([], DEPLOYMENT)) == {DEPLOYMENT.policy.version}
    assert list(simulation.read_policies([first, second], DEPLOYMENT)) == ["one", "two"]
    assert list(simulation.read_policies([second, third], DEPLOYMENT)) == [str(second), str(third)]
    with pytest.raises(ConfigError, match="the same file is given twice"):
        simulation.read_policies([first, first], DEPLOYMENT)


def test_tiers_may_be_replaced(tmp_path: Path) -> None:
    for tier in DEPLOYMENT.tiers:
        text = f"name: {tier.name}\ne2e_ms: 5000\nprofiles: [min-latency]\n"
        write(tmp_path, f"{tier.name}.yaml", text)
    replaced = simulation.read_deployment(SIMULATED, tmp_path)
    assert {tier.e2e_ms for tier in replaced.tiers} == {5000}
    (tmp_path / "batch.yaml").unlink()
    with pytest.raises(ConfigError, match="names tier 'batch', which is not defined"):
        simulation.read_deployment(SIMULATED, tmp_path)
    with pytest.raises(ConfigError, match=r"holds no \*\.yaml file"):
        simulation.read_deployment(SIMULATED, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("clients", "complaint"),
    [
        ("{tenant: acme, tier: premium, share: 0.5}", "must add up to 1, got 0.5"),
        (
            "{tenant: nobody, tier: premium, share: 1}",
            "client nobody is no tenant; tenants are acme",
        ),
        ("{tenant: acme, tier: batch, share: 1}", "tenant acme has not tier batch, only premium"),
        (
            "{tenant: acme, tier: premium, share: 0.5}, {tenant: acme, tier: premium, share: 0.5}",
            "tenant acme has tier premium twice",
        ),
    ],
)
def test_a_plan_that_cannot_be(tmp_path: Path, clients: str, complaint: str) -> None:
    write(tmp_path, "workload.yaml", f"trace: t.csv\nclients: [{clients}]\n")
    with pytest.raises(ConfigError, match=complaint):
        simulation.read_plan(tmp_path, DEPLOYMENT)


def test_a_warm_up_ends_before_the_run_does(tmp_path: Path) -> None:
    clients = "[{tenant: acme, tier: premium, share: 1}]"
    text = f"trace: t.csv\nduration_s: 30\nwarmup_s: 30\nclients: {clients}\n"
    write(tmp_path, "workload.yaml", text)
    with pytest.raises(ConfigError, match=r"warmup_s \(30\) must be less than duration_s \(30\)"):
        simulation.read_plan(tmp_path, DEPLOYMENT)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--baseline", "magic"], "there is no baseline 'magic'; known are all:PROFILE"),
        (["--baseline", "all:slow"], "there is no profile 'slow'"),
        (["--baseline", "static:premium>min-latency=8"], "must map each of the tiers"),
        (
            ["--baseline", "static:premium+pro+agent+standard+batch>min-latency=3"],
            "takes 24 GPUs, the fleet has 16",
        ),
        (["--trace", "nowhere.csv"], "nowhere.csv: cannot be read"),
        (["--policy", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_simulated(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--deployment", str(SIMULATED), "--fleet", "min-latency=1,max-throughput=1"]
    assert main(["simulate", *common, *arguments, "--out", str(tmp_path)]) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "text", "complaint"),
    [
        ("--compress", "0", "'0' is not a number above 0"),
        ("--duration", "soon", "'soon' is not a number above 0"),
        ("--seeds", "0", "'0' is not a whole number of 1 or more"),
        ("--telemetry-s", "-1", "'-1' is not a number 0 or more"),
    ],
)
def test_numbers_out_of_range(
    option: str, text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["simulate", "--fleet", "min-latency=1", "--out", "x", f"{option}={text}"])
    assert complaint in capsys.readouterr().err


def heavy_requests(folder: Path) -> Path:
    """A trace of few and heavy requests, so that a high load needs few of them."""
    rows = [f"2023-11-16 18:00:{at:02d}.0000000,12000,100" for at in range(20)]
    header = "TIMESTAMP,ContextTokens,GeneratedTokens"
    return write(folder, "trace.csv", "\n".join((header, *rows, "")))


def test_a_short_run_with_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "simulate", "--deployment", str(ROOT / "simulated-three"), "--trace",
        str(heavy_requests(tmp_path)), "--fleet", "min-latency=1,max-throughput=1", "--compress", "1",
        "--load", "1,2", "--duration", "1", "--seeds", "2", "--baseline", "least-loaded",
        "--baseline", "best-static", "--search", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main(arguments) == 0
    output = capsys.readouterr()
    results = json.loads((tmp_path / "out/results.json").read_text())
    names = [policy["name"] for policy in results["policies"]]
    assert names[1:] == ["least-loaded", "best-static"]
    assert len(results["runs"]) == 3 * 2 * 2
    assert {(found["policy"], found["goal"]) for found in results["highest_loads"]} == {
        (name, goal) for name in names for goal in (0.99, 0.95)
    }
    assert [one["goal"] for one in results["best_static"]] == [0.99, 0.95]
    assert "Attainment by load" in output.out
    assert "least-loaded at load 1" in output.err
    assert (tmp_path / "out/report.html").read_text().startswith("<!doctype html>")
