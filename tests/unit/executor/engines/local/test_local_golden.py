"""The trained model, against what Hugging Face transformers computes in float32."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from conftest import Driver, make_profile

from paretoserve.domain.model import Model

FOLDER = Path(__file__).parents[5] / "deployments" / "local" / "models" / "scribe"
CASES = json.loads((Path(__file__).parent / "golden.json").read_text())["cases"]

pytestmark = pytest.mark.skipif(
    not (FOLDER / "model.safetensors").exists(), reason="the demo model's weights are not here"
)


@pytest.fixture(scope="module", params=[None, {"draft": "draft", "tokens": 3}])
def scribe(request: pytest.FixtureRequest) -> Driver:
    model = Model(name="scribe", path=str(FOLDER), context_tokens=256)
    return Driver(make_profile(speculation=request.param, prefix_cache=False), model)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_equals_transformers(scribe: Driver, case: dict[str, Any]) -> None:
    name, expected = case["name"], case["greedy_token_ids"]
    scribe.add(name, case["prompt_token_ids"], max_tokens=len(expected), logprobs=5)
    scribe.run()
    assert scribe.tokens(name) == expected
    first = next(logprob for chunk in scribe.chunks[name] for logprob in chunk.logprobs)
    top = case["top5"]
    assert [token for token, _ in first.top] == [entry["token_id"] for entry in top]
    # Differences of logits do not depend on the normaliser, which the golden file does not hold.
    for (_, logprob), entry in zip(first.top, top, strict=True):
        difference = entry["logit"] - top[0]["logit"]
        assert math.isclose(logprob - first.top[0][1], difference, abs_tol=2e-4)


def test_drafts_what_the_reference_head_drafts(scribe: Driver) -> None:
    if not scribe.core.options.speculation:
        pytest.skip("drafts nothing")
    for case in CASES:
        name = f"drafts of {case['name']}"
        chains = {chain["after_tokens"]: chain["draft"] for chain in case["eagle3_chains_3"]}
        scribe.add(name, case["prompt_token_ids"], max_tokens=24)
        compared = 0
        while scribe.core.busy:
            scribe.step()
            for sequence in scribe.core._scheduler.running:
                expected = chains.get(len(sequence.tokens))
                if expected:
                    compared += 1
                    assert sequence.drafts == expected
        assert compared >= 2
