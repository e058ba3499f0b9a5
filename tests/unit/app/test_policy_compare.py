"""`paretoserve policy evaluate` and `policy diff`: what they print and how they end."""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from tests.support.decisions import document, policy, rows, write_deployment, write_log

from paretoserve.app.commands import policy_diff, policy_evaluate
from paretoserve.app.config import ConfigError
from paretoserve.app.difference import Pair, Side, compare, report

LOGGED = rows(31, 300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A deployment with policy v1, a log of it, and other policies."""
    write_deployment(tmp_path / "deployment", document())
    write_log(tmp_path / "log.jsonl", LOGGED)
    for name, found in {
        "v2": document("v2", group=0.0),
        "bold": document("bold", protect=math.inf),
        "lazy": document("lazy", reserve=0.9, explore=0.0, max_state_age_s=0.2),
    }.items():
        text = yaml.safe_dump(found.model_dump(mode="json", exclude_defaults=True))
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def run(command: ModuleType, *arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return int(command.run(parser.parse_args([str(argument) for argument in arguments])))


def sources(folder: Path) -> tuple[object, ...]:
    return "--log", folder / "log.jsonl", "--deployment", folder / "deployment"


def test_evaluate_prints_estimates_by_tier(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(policy_evaluate, folder / "v2.yaml", *sources(folder)) == 0
    out = capsys.readouterr().out
    assert "attainment of v2 from 300 decisions of v1, 95% intervals" in out
    assert [line.split()[0] for line in out.splitlines()[2:7]] == [
        "tier", "all", "batch", "premium", "standard",
    ]  # fmt: skip
    assert "prefer different profiles for" in out
    assert "single decisions in the states that were logged" in out


def test_evaluate_gives_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = (folder / "v2.yaml", *sources(folder), "--json", "--reward", "cost")
    assert run(policy_evaluate, *given) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["serving"], value["new"], value["reward"]) == ("v1", "v2", "cost")
    assert set(value["tiers"]) == {"batch", "premium", "standard"}
    estimate = value["all"]["doubly_robust"]
    assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert value["support"]["rows"] == 300


def test_evaluate_refuses_with_status_2_and_reasons(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(policy_evaluate, folder / "lazy.yaml", *sources(folder), "--json") == 2
    printed = capsys.readouterr()
    refusal = r"no estimate: \d+\.\d% of the new policy's choices were never open"
    assert re.search(refusal, printed.err)
    assert "at most 2% may be" in json.loads(printed.out)["refused"][0]


def test_evaluate_of_one_version_by_the_document_that_wrote_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(folder / "log.jsonl", LOGGED + rows(33, 50, by=policy("v0", explore=0.1)))
    assert run(policy_evaluate, folder / "v2.yaml", *sources(folder)) == 2
    assert "mixes policy versions" in capsys.readouterr().err
    chosen = ("--version", "v1", "--serving", folder / "deployment/policy.yaml")
    assert run(policy_evaluate, folder / "v2.yaml", *sources(folder), *chosen) == 0


def test_diff_tells_what_changes_why_and_what_it_costs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (folder / "deployment/policy.yaml", folder / "bold.yaml", *sources(folder))
    assert run(policy_diff, *given, "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert 0 < value["tiers"]["all"]["changed"] < 100
    change = value["changes"][0]
    assert (change["tier"], change["a"], change["b"]) == ("standard", "fast", "slow")
    assert "prompt tokens" in change["examples"][0]["features"]
    assert change["examples"][0]["a"] != change["examples"][0]["b"]
    assert run(policy_diff, *given) == 0
    out = capsys.readouterr().out
    assert "of 300 requests" in out
    assert "    bold: " in out


def test_diff_of_a_policy_with_itself_is_empty(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "v2.yaml"
    assert run(policy_diff, path, path, *sources(folder)) == 0
    assert "0 of 300 requests (0.0%) change" in capsys.readouterr().out


def test_diff_on_a_trace_plays_both_on_the_same_requests(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"2023-11-16 00:00:{at % 60:02d}.0000000,{500 + 40 * at},{40 + at}" for at in range(60)]
    trace = "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows])
    (folder / "trace.csv").write_text(trace, encoding="utf-8")
    clients = [{"tenant": "acme", "tier": tier, "share": 0.5} for tier in ("premium", "standard")]
    plan = {"trace": "trace.csv", "duration_s": 30, "warmup_s": 3, "clients": clients}
    (folder / "deployment/workload.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    text = yaml.safe_dump({"version": "slow-first", "switch_cost": 0.0, "explore": 0.2})
    (folder / "other.yaml").write_text(text, encoding="utf-8")
    given = (
        folder / "deployment/policy.yaml", folder / "other.yaml", "--json",
        "--trace", folder / "trace.csv", "--deployment", folder / "deployment",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="--trace needs --fleet"):
        run(policy_diff, *given)
    assert run(policy_diff, *given, "--fleet", "fast=1,slow=1", "--load", "8") == 0
    value = json.loads(capsys.readouterr().out)
    assert set(value["tiers"]) == {"all", "premium", "standard"}
    requests = value["tiers"]["all"]["requests"]
    assert 150 < requests < 300
    assert run(policy_diff, *given, "--fleet", "fast=1", "--load", "8") == 0
    assert json.loads(capsys.readouterr().out)["tiers"]["all"]["requests"] == requests


def test_files_that_are_not_there_are_named(folder: Path) -> None:
    missing = folder / "none.yaml"
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        run(policy_diff, missing, missing, *sources(folder))
    with pytest.raises(ConfigError, match="no decision log"):
        run(policy_evaluate, folder / "v2.yaml", "--log", folder / "no", *sources(folder)[2:])


def test_costs_are_means_over_requests_and_weights() -> None:
    cheap, dear = Side("slow", "cheap", 0.1, 0.9), Side("fast", "in time", 0.3, 1.0)
    pairs = [Pair("pro", "acme", "x", dear, dear)] * 2
    pairs += [Pair("pro", "acme", "y", dear, cheap, weight=2.0)]
    found = compare(pairs)
    assert found.tiers[""].changed == 2
    assert found.tiers["pro"].mean(found.tiers["pro"].gpu_seconds) == pytest.approx((0.3, 0.2))
    text = "\n".join(report(found, "v1", "v2"))
    assert "2 of 4 requests (50.0%) change" in text
    assert "0.3000 -> 0.2000 (-33.3%)" in text
    assert "100.00% -> 95.00% (-5.00 points)" in text
    assert "fast -> slow, -0.2000 GPU-seconds and -10.00 points in time each" in text
