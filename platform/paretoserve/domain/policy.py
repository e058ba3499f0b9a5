"""The routing policy, as an operator writes it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from paretoserve.domain.document import Document


class Rule(Document):
    """What to do with profiles when a condition holds. Rules apply in the order they are written.

    A profile that one rule takes away no other gives back, nor does any give a tier a profile
    that the tier does not allow. A later `prefer` goes before an earlier one; weights multiply.
    """

    name: str = Field(min_length=1, description="by which decisions and messages name it")
    when: str = Field(
        default="true",
        min_length=1,
        description="condition in CEL over the facts; always if absent",
    )
    allow: tuple[str, ...] = Field(default=(), description="leaves only these profiles")
    forbid: tuple[str, ...] = Field(default=(), description="takes these profiles away")
    prefer: tuple[str, ...] = Field(
        default=(),
        description="tries these before all others, in this order, whatever their prices",
    )
    weigh: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="multiplies these profiles' prices"
    )

    @property
    def profiles(self) -> tuple[str, ...]:
        """Every profile that it names."""
        return tuple(dict.fromkeys((*self.allow, *self.forbid, *self.prefer, *self.weigh)))

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.profiles:
            raise ValueError("a rule does something: give allow, forbid, prefer or weigh")
        return self


class Escalation(Document):
    """When a running stream is moved to a faster profile."""

    enabled: bool = Field(default=True, description="whether any is")
    risk: float = Field(
        default=0.7, gt=0, lt=1, description="length quantile that must still make its target"
    )
    share: float = Field(
        default=0.95, gt=0, le=1, description="share of the allowed time that may be predicted used"
    )
    gain: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="least gain in the chance of keeping its promise that a move is worth to a tenant "
        "that uses up its error budget; one that does not needs more, up to five times as much",
    )
    least_tokens: int = Field(
        default=8, gt=0, description="tokens to have seen before a stream is judged by its pace"
    )


class PolicyDocument(Document):
    """Versioned; every decision names the version that made it. docs/policy.md has the algorithm."""

    version: str = Field(min_length=1, description="stands in every decision")
    confidence: float = Field(
        default=0.98,
        gt=0.5,
        lt=1,
        description="quantile of TTFT and TPOT that must be in time for a placement to be confident",
    )
    median: bool = Field(
        default=True, description="place where only the median is in time, if nothing else is"
    )
    reserve: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of a replica's room kept for tiers that no cheaper profile can serve",
    )
    protect: float = Field(
        default=0.9,
        gt=0,
        allow_inf_nan=True,
        description="share of the tightest TPOT promised on a replica that it may be filled up to; "
        ".inf to fill it whatever was promised",
    )
    pack: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="share of its targets up to which a replica is filled before the next one; 0 "
        "spreads requests over all of them",
    )
    group: float = Field(
        default=0.5,
        ge=0,
        description="how much worse a replica is whose tightest promise is half or twice as tight",
    )
    group_wait: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="share of its slack for which a request waits for a replica where nothing "
        "tighter is promised than to itself, before it takes any that is in time",
    )
    zones: bool = Field(
        default=True,
        description="keep as many replicas of a profile for a tight promise as it lately needed",
    )
    hold: bool = Field(default=True, description="let requests wait in the router for room")
    patience_s: float = Field(
        default=5.0,
        gt=0,
        description="a request that has longer than this to wait, on a full replica too, takes only "
        "room to spare",
    )
    most_held: int = Field(
        default=20_000,
        gt=0,
        description="requests that one router holds at the most; beyond it the least important go",
    )
    spare: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="a replica on which something tight is promised has room to spare below this "
        "share of that",
    )
    explore: float = Field(
        default=0.005,
        ge=0,
        le=0.2,
        description="share of requests that may try a profile the residuals speak against",
    )
    length_quantile: float = Field(
        default=0.75,
        gt=0,
        lt=1,
        description="quantile of output length that an end-to-end target has to allow for; longer "
        "ones are moved to a faster profile while they run",
    )
    switch_cost: float = Field(
        default=0.1,
        ge=0,
        description="share by which every other profile is dearer for a session than the one that "
        "served it last, while that still holds a prefix of its prompt",
    )
    affinity: bool = Field(default=True, description="count prefixes that replicas hold")
    escalation: Escalation = Field(default=Escalation(), description="see below")
    max_state_age_s: float = Field(
        default=5.0, gt=0, description="a replica not heard of for longer is not a candidate"
    )
    rules: tuple[Rule, ...] = Field(default=(), description="applied in their order; see below")

    @model_validator(mode="after")
    def _rule_names_differ(self) -> Self:
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ValueError("two rules have the same name")
        return self
