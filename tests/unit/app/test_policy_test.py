"""`paretoserve policy test`: passes, differences, mistakes in cases, no cases."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from paretoserve.app.cli import main

CASES = Path(__file__).parents[2] / "cases"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CASES, tmp_path / "d"))


def only(folder: Path, text: str) -> None:
    for path in (folder / "policy.cases").iterdir():
        path.unlink()
    (folder / "policy.cases" / "mine.yaml").write_text(text)


CASE = "cases:\n- {description: mine, tier: premium, fleet: {fast-0: {}}, expect: {outcome: %s}}"


def test_all_pass(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only(folder, CASE % "placed")
    assert main(["policy", "test", str(folder)]) == 0
    assert capsys.readouterr().out == "ok   mine.yaml: mine\npolicy test-1: 1 cases, 0 failed\n"


def test_a_failure_shows_what_differs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only(folder, CASE % "held")
    assert main(["policy", "test", str(folder)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAIL mine.yaml: mine\n       outcome\n       - held\n       + placed\n")
    assert out.endswith("policy test-1: 1 cases, 1 failed\n")


def test_another_document_is_played_on_the_same_cases(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only(folder, CASE % "placed")
    (tmp_path / "new.yaml").write_text("version: new-1")
    assert main(["policy", "test", str(folder), "--policy", str(tmp_path / "new.yaml")]) == 0
    assert "policy new-1: 1 cases" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cases: []", "mine.yaml: cases: Tuple should have at least 1 item"),
        (CASE % "plced", "mine.yaml: cases.0.expect.outcome: Input should be 'placed'"),
        ((CASE % "placed").replace("fast-0: {}", "fast-0: {runing: 1}"), "cases.0.fleet.fast-0.runing: unknown key; did you mean 'running'?"),
        ((CASE % "placed").replace("tier", "teir"), "cases.0.teir: unknown key; did you mean 'tier'?"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_case_is_named(
    folder: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    only(folder, text)
    assert main(["policy", "test", str(folder)]) == 1
    assert said in capsys.readouterr().err


def test_no_case_is_a_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(folder / "policy.cases")
    assert main(["policy", "test", str(folder)]) == 1
    assert "holds no *.yaml file with golden cases" in capsys.readouterr().err
