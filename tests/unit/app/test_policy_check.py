"""`paretoserve policy check`: a folder, a document alone, a document against a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from paretoserve.app.cli import main

LOCAL = Path(__file__).parents[3] / "deployments" / "local"
LONG = "request.prompt_tokens > 4000"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "d"
    shutil.copytree(LOCAL, target, ignore=shutil.ignore_patterns("models", "demo"))
    return target


def write(path: Path, rules: str) -> Path:
    path.write_text(f"version: v\nrules:\n{rules}")
    return path


def test_a_good_folder_says_what_can_be_promised(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", str(LOCAL)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["premium", "max-throughput", "11", "of", "32"] in [line[:5] for line in lines]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("- {name: r, when: 'request.prompt_tokns > 1', forbid: [min-latency]}", "policy.yaml: rule r: when: column 8: 'request.prompt_tokns' is not a fact"),
        ("- {name: r, when: 'true', forbit: [min-latency]}", "policy.yaml: rules.0.forbit: unknown key; did you mean 'forbid'"),
        ("- {name: r, weigh: {min-latency: -1}}", "rules.0.weigh.min-latency: Input should be greater than 0"),
        ("- {name: r, prefer: [min-latncy]}", "rule r of the policy names profile 'min-latncy', which is not defined"),
        ("- {name: r, when: 'tier.priority > 95', prefer: [min-latency]}", "policy.yaml: rule r: never applies"),
        ("- {name: r, when: 'tier.name == \"batch\"', forbid: [max-throughput]}", "policy.yaml: tier batch, model scribe: no profile is left by rule r"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [["policy", "check"], ["check"]])
def test_problems_are_named_by_both_checks(
    folder: Path, command: list[str], rules: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "policy.yaml", rules)
    assert main([*command, str(folder)]) == 1
    assert said in capsys.readouterr().err


SHORT_ANSWERS = "name: quick\ne2e_ms: 100\nprofiles: [min-latency]\n"
IMPOSSIBLE = "name: quick\ntpot_ms: 0.001\nprofiles: [min-latency]\n"


@pytest.mark.parametrize("command", [["policy", "check"], ["check"]])
def test_a_tier_for_short_answers_is_warned_of_and_one_for_none_refused(
    folder: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "models").symlink_to(LOCAL / "models")
    (folder / "tiers/quick.yaml").write_text(SHORT_ANSWERS)
    assert main([*command, str(folder)]) == 0
    out = capsys.readouterr().out
    assert (
        "  warning: tier quick, model scribe: no profile is in time even on an idle replica" in out
    )
    (folder / "tiers/quick.yaml").write_text(IMPOSSIBLE)
    assert main([*command, str(folder)]) == 1
    assert "tier quick, model scribe: no profile is in time" in capsys.readouterr().err


def test_a_document_alone_is_checked_for_what_needs_no_deployment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "new.yaml", f"- {{name: r, when: '{LONG}', forbid: [elsewhere]}}")
    assert main(["policy", "check", str(path)]) == 0
    assert "valid, policy v, 1 rules" in capsys.readouterr().out
    assert main(["policy", "check", str(path), "--deployment", str(LOCAL)]) == 1
    assert "names profile 'elsewhere'" in capsys.readouterr().err
    write(path, "- {name: r, when: '1 > 2', forbid: [elsewhere]}")
    assert main(["policy", "check", str(path)]) == 1
    assert "rule r: never applies" in capsys.readouterr().err


def test_every_problem_is_a_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        folder / "policy.yaml",
        "- {name: a, when: 'tier.nme == \"x\"', forbid: [min-latency]}\n"
        "- {name: b, when: 'tenant.burn > 1', forbid: [min-latency]}",
    )
    assert main(["policy", "check", str(folder)]) == 1
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()] == [
        "rule a",
        "rule b",
    ]


def test_a_path_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", str(tmp_path / "no.yaml")]) == 1
    assert "no.yaml: missing" in capsys.readouterr().err
