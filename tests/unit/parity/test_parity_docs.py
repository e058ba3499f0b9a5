"""What docs/parity.md shows is what the format takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from paretoserve.app.config import parse_document
from paretoserve.domain.model import Model
from paretoserve.domain.parity import ParityRecord, Score, Tolerance, shortfalls
from paretoserve.parity.compare import limited
from paretoserve.parity.tasks import read_tasks

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "parity.md"
TEXT = PAGE.read_text(encoding="utf-8")


def block(kind: str, holding: str) -> str:
    (found,) = [b for b in re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL) if holding in b]
    return str(found)


def test_the_published_table_is_a_record() -> None:
    record = parse_document(PAGE, block("yaml", "MATH-500"), ParityRecord)
    assert record.source == "published"
    assert [score.name for score in record.figures.scores] == [
        "LiveCodeBench",
        "AIME 2024",
        "GPQA Diamond",
        "MATH-500",
    ]
    assert shortfalls(record.figures, record.tolerance) == []
    strict = record.tolerance.model_copy(update={"scores": 0.0135})
    assert len(shortfalls(record.figures, strict)) == 1


@pytest.mark.parametrize(
    ("profile", "reference", "n", "fall"), [(0.876, 0.889, 500, 0.046), (0.40, 0.39, 30, 0.2)]
)
def test_what_single_runs_would_bound(
    profile: float, reference: float, n: int, fall: float
) -> None:
    low = limited(Score(name="", profile=profile, reference=reference, n=n), 0.95).low
    assert low == pytest.approx(-fall, abs=5e-4)


def test_the_block_of_models_yaml_and_the_task_are_valid() -> None:
    (model,) = yaml.safe_load(block("yaml", "unchecked"))["models"]
    parity = Model.model_validate(model).parity
    assert parity is not None
    assert parity.unchecked == ("experiment",)
    (task,) = read_tasks(block("json", "word-768"))
    assert task.sample


def test_the_defaults_in_the_table_are_the_defaults() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (null|[\d.]+) \|", TEXT, re.MULTILINE))
    defaults = Tolerance().model_dump(exclude={"confidence"})
    assert {name: json.loads(value) for name, value in told.items()} == defaults


@pytest.mark.parametrize("record", ["local/parity/min-latency", "local-int8/parity/compact"])
def test_the_figures_shown_are_those_of_the_records(record: str) -> None:
    path = ROOT / "deployments" / f"{record}.yaml"
    figures = parse_document(path, path.read_text(encoding="utf-8"), ParityRecord).figures
    assert figures.outputs is not None
    assert figures.samples is not None
    assert figures.log_likelihood is not None
    shown = (
        f"{figures.outputs.same} of {figures.outputs.tasks}",
        f"at least {figures.outputs.low:.1%}",
        f"{figures.log_likelihood.tokens:,} tokens",
        f"{abs(figures.log_likelihood.difference):.5f}",
        f"{figures.log_likelihood.divergence:.5f}",
        f"{figures.samples.distance:.4f}, at most {figures.samples.high:.3f}",
        f"p = {figures.samples.p:.3f}",
    )
    assert [figure for figure in shown if figure not in TEXT] == []
