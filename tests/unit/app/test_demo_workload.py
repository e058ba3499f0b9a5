"""From a trace and a text to the requests of a replay."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from paretoserve.app.config import ConfigError, load_deployment
from paretoserve.app.demo.plan import Client, Plan, read_plan
from paretoserve.app.demo.prompts import PromptSource, read_prompts
from paretoserve.app.demo.trace import Arrival, read_trace
from paretoserve.app.demo.workload import build_workload, pace, scale
from paretoserve.domain.profile import CurvePoint, LatencyCurve

LOCAL = Path(__file__).parents[3] / "deployments/local"
PLAN = LOCAL / "demo/plan.yaml"
CONTEXT = 2048
CURVE = LatencyCurve(
    source="measured",
    hardware="none",
    points=(CurvePoint(batch=1, tpot_ms=2), CurvePoint(batch=10, tpot_ms=10)),
    prefill_tokens_per_s=1000,
)
CLIENTS = (
    Client(tenant="a", tier="premium", share=0.25, key="ka"),
    Client(tenant="b", tier="batch", share=0.75, key="kb"),
)
arrivals = st.lists(
    st.builds(
        Arrival,
        at_s=st.floats(0, 1000),
        prompt_tokens=st.integers(0, 20_000),
        output_tokens=st.integers(0, 5_000),
    ),
    min_size=2,
    max_size=40,
).map(lambda rows: sorted(rows, key=lambda row: row.at_s))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(LOCAL / "models/scribe/tokenizer.json"))


def trace_file(folder: Path, *lines: str) -> Path:
    path = folder / "trace.csv"
    path.write_text("\n".join(("TIMESTAMP,ContextTokens,GeneratedTokens", *lines)) + "\n")
    return path


def test_a_trace_is_read_in_order_of_time_from_its_first_request(tmp_path: Path) -> None:
    path = trace_file(
        tmp_path,
        "2023-11-16 18:15:50.9951690,396,109",
        "2023-11-16 18:15:46.6805900,374,44",
    )
    assert read_trace(path) == (Arrival(0.0, 374, 44), Arrival(4.314579, 396, 109))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("2023-11-16 18:15:46.68,374",), "line 2"),
        (("2023-11-16 18:15:46.68,374,4", "yesterday,1,2"), "line 3"),
        ((), "holds no request"),
    ],
)
def test_a_bad_trace_is_named_with_its_line(
    tmp_path: Path, lines: tuple[str, ...], says: str
) -> None:
    path = trace_file(tmp_path, *lines)
    with pytest.raises(ConfigError, match=says) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.csv: cannot be read"):
        read_trace(tmp_path / "nowhere.csv")


@given(arrivals, st.floats(0.5, 16))
def test_scaled_requests_fit_the_context(rows: list[Arrival], divisor: float) -> None:
    for before, after in zip(rows, scale(rows, CONTEXT, prompt_divisor=divisor), strict=True):
        assert after.prompt_tokens >= 1
        assert after.output_tokens >= 1
        assert after.prompt_tokens + after.output_tokens < CONTEXT
        assert after.at_s == before.at_s


def test_lengths_are_divided() -> None:
    row = Arrival(1.0, 400, 40)
    scaled = scale([row], CONTEXT, prompt_divisor=8, output_divisor=2)
    assert scaled == (Arrival(1.0, 50, 20),)


def test_the_pace_offers_the_wanted_share_of_the_measured_capacity() -> None:
    # One request a second for 100 s; each costs 100/1000 s of prefill and 50 * 10 ms / 10.
    rows = [Arrival(float(at), 100, 50) for at in range(101)]
    found = pace(rows, CURVE, load=0.45, seconds=20)
    assert found.offered_load == pytest.approx(0.45)
    assert found.time_divisor == pytest.approx(0.45 / (101 * 0.15 / 100))
    assert found.requests_per_s == pytest.approx(3.0)
    assert found.tokens_per_s == pytest.approx(150.0)


def test_a_context_that_costs_makes_the_pace_slower() -> None:
    rows = [Arrival(float(at), 100, 50) for at in range(101)]
    # A batch of 10 holds 10 * 125 tokens, which makes a token take 10 + 5 ms.
    curve = CURVE.model_copy(update={"kv_ms_per_1k_tokens": 4.0})
    assert pace(rows, curve, load=0.35, seconds=20).requests_per_s == pytest.approx(2.0)


def test_a_trace_too_short_for_the_pace_is_played_over_the_whole_time() -> None:
    rows = [Arrival(float(at), 100, 50) for at in range(101)]
    found = pace(rows, CURVE, load=0.45, seconds=80)
    assert found.time_divisor == pytest.approx(100 / 80)
    assert found.offered_load < 0.45


@given(arrivals, st.integers(0, 2**32), st.floats(0.1, 10), st.floats(0.1, 2000))
def test_a_workload_is_the_seeds_alone_and_keeps_the_traces_order(
    rows: list[Arrival], seed: int, divisor: float, seconds: float
) -> None:
    def build() -> list[tuple[float, str, str, int]]:
        jobs = build_workload(
            rows, CLIENTS, lambda n: f"{n} words", time_divisor=divisor, seconds=seconds, seed=seed
        )
        assert [job.number for job in jobs] == list(range(len(jobs)))
        return [(job.at_s, job.client.tier, job.prompt, job.max_tokens) for job in jobs]

    built = build()
    assert built == build()
    assert len(built) == sum(row.at_s / divisor <= seconds for row in rows)
    assert [at for at, *_ in built] == sorted(at for at, *_ in built)


def test_clients_get_about_their_shares() -> None:
    rows = [Arrival(float(at), 10, 10) for at in range(2000)]
    jobs = build_workload(rows, CLIENTS, str, time_divisor=1, seconds=3000, seed=7)
    premium = sum(job.client.tier == "premium" for job in jobs)
    assert 0.2 < premium / len(jobs) < 0.3


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 99))
def test_prompts_have_exactly_the_wanted_length_and_are_the_seeds_alone(
    lengths: list[int], seed: int
) -> None:
    tokenizer = Tokenizer.from_file(str(LOCAL / "models/scribe/tokenizer.json"))
    text = "\n\n".join(
        f"It was the {n}th of a long row of paragraphs, all alike." for n in range(9)
    )
    one, other = (PromptSource(text, tokenizer, seed) for _ in range(2))
    for length in lengths:
        ids = one.ids(length)
        assert len(ids) == length
        assert tokenizer.decode(list(ids)) == other.text(length)


def test_a_prompt_begins_with_a_paragraph_and_none_begins_twice_too_soon(
    tokenizer: Tokenizer,
) -> None:
    paragraphs = [f"{word} came to the old house by the sea." for word in ("Anne", "Bill", "Carl")]
    source = PromptSource("\n\n".join((*paragraphs, "The end. " * 30)), tokenizer, 1)
    begun = [source.text(8).split()[0] for _ in range(4)]
    assert sorted(begun) == ["Anne", "Bill", "Carl", "The"]


@pytest.mark.parametrize("tokens", [0, -1, 10_000])
def test_an_impossible_prompt_is_refused(tokenizer: Tokenizer, tokens: int) -> None:
    with pytest.raises(ValueError, match="a prompt of"):
        PromptSource("A short text.", tokenizer, 1).text(tokens)


def test_a_text_without_a_paragraph_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no paragraph"):
        PromptSource("\n\n", tokenizer, 1)


def test_the_plan_that_comes_with_the_deployment_is_good() -> None:
    plan, deployment = read_plan(PLAN), load_deployment(LOCAL)
    tenants = {tenant.name: tenant for tenant in deployment.tenants}
    for client in plan.clients:
        assert client.tier in tenants[client.tenant].tiers
    for profile in (plan.replay.base_profile, plan.replay.fast_profile):
        limits = deployment.profile(profile).limits
        assert limits.max_batch + limits.max_queue >= plan.sweep.batches[-1]
    rows = scale(
        read_trace(plan.replay.trace),
        deployment.models[0].context_tokens,
        prompt_divisor=plan.replay.prompt_divisor,
        output_divisor=plan.replay.output_divisor,
    )
    prompts = read_prompts(plan.replay.text, Path(deployment.models[0].path), plan.seed)
    assert len(prompts.ids(max(row.prompt_tokens for row in rows))) > 100
    assert plan.quick().replay.seconds < plan.replay.seconds


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batches: [1, 2, 4, 8, 16, 32]": "batches: [4, 2]"}, r"sweep: batches must rise"),
        ({"share: 0.15": "share: 0.25"}, r"shares must add up to 1, got 1\.1"),
        ({"rounds:": "round:"}, r"sweep\.round: unknown key; did you mean 'rounds'"),
        ({"long_prompt_tokens: 512": "long_prompt_tokens: 16"}, r"long_prompt_tokens must be more"),
    ],
)
def test_a_bad_plan_is_explained(tmp_path: Path, change: dict[str, str], says: str) -> None:
    text = PLAN.read_text()
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    for name in ("trace.csv", "held_out.txt"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=says):
        read_plan(path)


def test_a_plan_whose_trace_is_missing_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.read_text())
    with pytest.raises(ConfigError, match=r"there is no file .*trace\.csv"):
        read_plan(path)


def test_keys_do_not_show_when_a_plan_is_printed() -> None:
    plan: Plan = read_plan(PLAN)
    assert plan.clients[0].key not in repr(plan)
