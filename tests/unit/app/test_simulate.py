"""`paretoserve simulate`: what it reads, what it refuses, and that it runs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from tests.support import decisions

from paretoserve.app import simulation
from paretoserve.app.cli import main
from paretoserve.app.config import ConfigError, load_deployment

ROOT = Path(__file__).parents[3] / "deployments"
SIMULATED = ROOT / "simulated"
DEPLOYMENT = load_deployment(SIMULATED)


@pytest.mark.parametrize("name", ["simulated", "simulated-three", "simulated-servegen"])
def test_the_simulated_deployments_are_whole(name: str) -> None:
    deployment = simulation.read_deployment(ROOT / name, None)
    plan, trace = simulation.read_plan(ROOT / name, deployment)
    assert trace.is_file() is (name != "simulated-servegen"), "its trace is not in this repository"
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


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("{name: r, when: \"fleet['fast'].load > 0.5\", forbid: [min-latency]}", "'fast'"),
        ("{name: r, when: 'true', forbid: [fast]}", "no tier where it may apply allows fast"),
        ("{name: r, when: 'true', forbid: [min-latency, max-throughput]}", "no profile is left"),
    ],
)
def test_a_policy_that_policy_check_refuses_is_not_simulated(
    tmp_path: Path, rule: str, complaint: str
) -> None:
    path = write(tmp_path, "p.yaml", f"version: v\nrules: [{rule}]\n")
    with pytest.raises(ConfigError, match=complaint):
        simulation.read_policies([path], DEPLOYMENT)


def test_a_tier_that_nothing_serves_in_time_is_for_the_simulation_to_show(tmp_path: Path) -> None:
    tiers = tuple(tier.model_copy(update={"tpot_ms": 0.01}) for tier in DEPLOYMENT.tiers)
    hopeless = DEPLOYMENT.model_copy(update={"tiers": tiers})
    path = write(tmp_path, "p.yaml", "version: v\n")
    assert list(simulation.read_policies([path], hopeless)) == ["v"]


def test_without_a_workload_a_deployment_says_what_is_needed() -> None:
    local = load_deployment(ROOT / "local")
    with pytest.raises(ConfigError, match=r"local/workload.yaml: is missing; it says which trace"):
        simulation.read_traffic(ROOT / "local", local)


@pytest.mark.parametrize("name", ["decisions-gw.open.jsonl", "decisions-gw-1.jsonl.gz"])
def test_yesterdays_traffic_is_the_gateways_own_log(tmp_path: Path, name: str) -> None:
    deployment_folder, folder = tmp_path / "deployment", tmp_path / "log"
    folder.mkdir()
    decisions.write_deployment(deployment_folder, decisions.document())
    decisions.write_log(tmp_path / "log.jsonl", decisions.rows(1, 40))
    text = (tmp_path / "log.jsonl").read_bytes()
    (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    for trace in (folder, folder / name):
        deployment = load_deployment(deployment_folder)
        plan, path, rows = simulation.read_traffic(deployment_folder, deployment, trace=trace)
        assert path == trace
        assert len(rows) == 40
        assert {client.tenant for client in plan.clients} == {"acme", "borealis"}
    fleet = ["--fleet", "fast=1,slow=1", "--duration", "60", "--out", str(tmp_path / "out")]
    given = ["--deployment", str(deployment_folder), "--trace", str(folder)]
    assert main(["simulate", *given, *fleet]) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert {tenant["tenant"] for tenant in results["runs"][0]["tenants"]} <= {"acme", "borealis"}


def test_a_log_of_tenants_that_are_gone_is_refused(tmp_path: Path) -> None:
    decisions.write_log(tmp_path / "log.jsonl", decisions.rows(1, 5))
    with pytest.raises(ConfigError, match="'m'; 'llama-4-maverick' is simulated"):
        simulation.read_traffic(SIMULATED, DEPLOYMENT, trace=tmp_path / "log.jsonl")
    torn = write(tmp_path, "decisions-x.jsonl", '{"v": 9, "request": {}, "candidates": []}\n')
    with pytest.raises(ConfigError, match="row of schema version 9"):
        simulation.read_traffic(SIMULATED, DEPLOYMENT, trace=torn)


def test_what_goes_wrong_is_played_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [
        "simulate", "--deployment", str(SIMULATED), "--fleet", "min-latency=1,max-throughput=1",
        "--duration", "10", "--fault", "2:max-throughput-00:lost", "--fault",
        "4:max-throughput-00:back", "--startup-s", "3", "--detection-s", "0.5",
        "--fault", "5:min-latency-00:slowed=1.5", "--slowdown", "max-throughput=1.25",
        "--baseline", "all:max-throughput",
    ]  # fmt: skip
    assert main(arguments) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "max-throughput takes 1.25 times its curve; max-throughput-00 lost at 2 s" in output
    assert "a loss is noticed after 0.5 s and a start takes 3 s" in output
    assert "Wrote out/simulation/results.json" in output
    results = json.loads((tmp_path / "out/simulation/results.json").read_text())
    assert results["inputs"]["faults"][0] == {
        "at_s": 2.0, "replica": "max-throughput-00", "change": "lost", "factor": 1.0,
    }  # fmt: skip
    assert results["inputs"]["slowdown"] == {"max-throughput": 1.25}
    assert all(run["moves"] > 0 for run in results["runs"])


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
        (["--compare", "simulated-1", "it"], "there is no 'it' here, only simulated-1"),
        (["--trace", "nowhere.csv"], "nowhere.csv: cannot be read"),
        (["--policy", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["--telemetry-s", "5"], "believes no state that is older than 5 s (max_state_age_s)"),
        (["--fault", "60:max-throughput-00"], "write SECONDS:REPLICA:lost, back, drained or slow"),
        (["--fault", "300:max-throughput-00:lost"], "'300' is no time of a run of 300 s"),
        (["--fault", "soon:max-throughput-00:lost"], "'soon' is no time of a run"),
        (["--fault", "6:max-throughput-01:lost"], "no replica 'max-throughput-01'; it has min-l"),
        (["--fault", "6:max-throughput-00:gone"], "'gone' is not lost, back, drained or slowed="),
        (["--fault", "6:max-throughput-00:slowed"], "'slowed' is not lost, back, drained or sl"),
        (["--fault", "6:max-throughput-00:slowed=0"], "'0' is no factor; it must be a number abo"),
        (["--fault", "6:max-throughput-00:back"], "it is neither lost nor drained by then"),
        (
            ["--fault", "8:max-throughput-00:lost", "--fault", "6:max-throughput-00:lost"],
            "--fault 8:max-throughput-00:lost: it is lost already",
        ),
        (["--slowdown", "max-throughput"], "write PROFILE=FACTOR"),
        (["--slowdown", "fast=2"], "there is no profile 'fast'; profiles are max-throughput"),
        (["--slowdown", "min-latency=x"], "'x' is no factor"),
        (["--duration", "0.001"], "no request arrives after the warm-up: simulate for longer"),
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


def test_the_same_arguments_give_the_same_files(tmp_path: Path) -> None:
    arguments = [
        "simulate", "--deployment", str(SIMULATED), "--fleet", "min-latency=1,max-throughput=1",
        "--duration", "5", "--seeds", "2", "--load", "2",
    ]  # fmt: skip
    for folder in ("a", "b"):
        assert main([*arguments, "--out", str(tmp_path / folder)]) == 0
    for name in ("results.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
