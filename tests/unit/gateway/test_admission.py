from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from paretoserve.app.config import load_deployment
from paretoserve.domain.conversation import Message
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.errors import (
    ContextTooLong,
    InvalidRequest,
    ModelNotFound,
    PermissionDenied,
)
from paretoserve.domain.request import Sampling
from paretoserve.executor.tokenizer import Tokenizer
from paretoserve.gateway import prompt
from paretoserve.gateway.admission import DEFAULT_MAX_TOKENS, Admitted, admit
from paretoserve.gateway.calls import Call, Input
from paretoserve.gateway.prompt import PromptEncoder
from paretoserve.gateway.setup import Setup

LOCAL = Path(__file__).parents[3] / "deployments" / "local"
ACME, CUMULUS = "sk-local-acme", "sk-local-cumulus"


def widened() -> Deployment:
    """The local deployment, where max-throughput holds less context than min-latency, and with a
    second model that only premium may use."""
    local = load_deployment(LOCAL)
    short = local.profile("max-throughput")
    short = short.model_copy(
        update={"limits": short.limits.model_copy(update={"context_tokens": 512})}
    )
    secret = local.profile("min-latency").model_copy(update={"name": "secret", "model": "secret"})
    tiers = tuple(
        tier.model_copy(update={"profiles": (*tier.profiles, "secret")})
        if tier.name == "premium"
        else tier
        for tier in local.tiers
    )
    return local.model_copy(
        update={
            "models": (*local.models, local.models[0].model_copy(update={"name": "secret"})),
            "profiles": (local.profile("min-latency"), short, secret),
            "tiers": tiers,
        }
    )


SETUP = Setup.load(widened())


def admitted(
    source: Input = "Hi", *, key: str = ACME, tier: str = "", model: str = "scribe", **sampling: int
) -> Admitted:
    call = Call(key, "id", model, source, Sampling(**sampling), service_tier=tier)
    return asyncio.run(admit(SETUP, call))


def test_the_default_of_max_tokens_gives_way_to_a_long_prompt() -> None:
    assert admitted((7,) * 2000).sampling.max_tokens == 48
    assert admitted((7,) * 100).sampling.max_tokens == DEFAULT_MAX_TOKENS


def test_a_max_tokens_that_was_asked_for_does_not_and_the_error_says_what_fits() -> None:
    with pytest.raises(ContextTooLong, match="set max_tokens to 48 or less") as refused:
        admitted((7,) * 2000, max_tokens=100)
    assert refused.value.param == "max_tokens"
    assert admitted((7,) * 2000, max_tokens=48).sampling.max_tokens == 48


def test_a_prompt_that_leaves_no_room_for_a_token_is_too_long() -> None:
    with pytest.raises(ContextTooLong, match="the prompt has"):
        admitted("word " * 2100)
    with pytest.raises(ContextTooLong) as refused:
        admitted((7,) * 512, key=CUMULUS)
    assert refused.value.param == "prompt"


def test_the_context_is_that_of_the_largest_profile_that_the_tier_may_use() -> None:
    assert admitted((7,) * 1000, max_tokens=1000, tier="premium").tier.name == "premium"
    with pytest.raises(ContextTooLong, match="context of 512"):
        admitted((7,) * 1000, key=CUMULUS)


def test_a_prompt_that_cannot_fit_is_not_even_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "encode_prompt", lambda *_: pytest.fail("tokenized"))
    with pytest.raises(ContextTooLong, match="at least"):
        admitted("x" * 10_000_000)


def test_a_large_prompt_is_tokenized_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    in_threads = []

    async def to_thread(work: object, *arguments: object) -> object:
        in_threads.append(arguments)
        return work(*arguments)  # type: ignore[operator]

    monkeypatch.setattr(prompt.asyncio, "to_thread", to_thread)
    admitted("Hi " * 20)
    assert not in_threads
    admitted("Hi there. " * 450, max_tokens=1)
    admitted((Message("user", "Hi"),) * 150, max_tokens=1)
    assert len(in_threads) == 2


def test_another_tiers_model_is_named_one_that_nobody_sold_is_not() -> None:
    with pytest.raises(PermissionDenied, match="one that does: premium"):
        admitted(model="secret", tier="standard")
    assert admitted(model="secret", tier="premium").model.name == "secret"
    unknown, secret = [], []
    for name, found in (("nothing", unknown), ("secret", secret)):
        with pytest.raises(ModelNotFound) as refused:
            admitted(model=name, key=CUMULUS)
        found.append(str(refused.value).replace(name, "NAME"))
    assert unknown == secret, "a tenant cannot find out which models others have"


def test_models_are_listed_with_what_the_tenant_may_use() -> None:
    listed = {model.name: model for model in SETUP.models_of(SETUP.tenants.authenticate(ACME))}
    assert listed["scribe"].tiers == ("premium", "standard")
    assert listed["scribe"].profiles == ("min-latency", "max-throughput")
    assert listed["secret"].tiers == ("premium",)
    (only,) = SETUP.models_of(SETUP.tenants.authenticate(CUMULUS))
    assert (only.name, only.context_tokens) == ("scribe", 512)


@pytest.mark.parametrize("bad", [(-1,), (2048,), (1, 2, 10**9), ()])
def test_token_ids_must_be_in_the_vocabulary(bad: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        admitted(bad)
    assert refused.value.param == "prompt"


def test_a_plain_prompt_begins_with_bos_and_token_ids_are_taken_as_they_are() -> None:
    assert admitted("Hi").prompt[0] == 1
    assert admitted((7, 8)).prompt == (7, 8)


def test_a_model_without_chat_template_says_so() -> None:
    definition = (LOCAL / "models/scribe/tokenizer.json").read_text(encoding="utf-8")
    encoder = PromptEncoder(widened().models[0], Tokenizer(definition))
    with pytest.raises(InvalidRequest, match="has no chat template"):
        asyncio.run(encoder.encode((Message("user", "Hi"),)))


def test_a_reload_reads_no_tokenizer_again() -> None:
    again = Setup.load(widened(), SETUP)
    assert again.tokenizers == SETUP.tokenizers


def test_a_request_carries_the_clients_own_targets() -> None:
    own = {"ttft_ms": 250.0, "tpot_ms": 4.5, "e2e_ms": 4000.0}
    call = Call(ACME, "id", "scribe", "Hi", Sampling(), **own)
    request = asyncio.run(admit(SETUP, call)).request("r1")
    assert {name: getattr(request, name) for name in own} == own
    assert request.request_id == "r1"


@pytest.mark.parametrize("name", ["ttft_ms", "tpot_ms", "e2e_ms"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_target_that_makes_no_sense_is_named(name: str, value: float) -> None:
    call = Call(ACME, "id", "scribe", "Hi", Sampling(), **{name: value})
    with pytest.raises(InvalidRequest, match=name) as refused:
        asyncio.run(admit(SETUP, call))
    assert refused.value.param == name
