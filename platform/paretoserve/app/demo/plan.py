"""The plan of a demo: what is measured, what is replayed, by whom, and what is hoped for."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from paretoserve.app.config import ConfigError, parse_document
from paretoserve.domain.document import Document

SHARES_TOLERANCE = 1e-6


class SweepPlan(Document):
    """How each profile is measured: short prompts, fixed output lengths, greedy."""

    batches: tuple[int, ...] = Field(min_length=1)
    rounds: int = Field(gt=0)
    prompt_tokens: int = Field(gt=0)
    output_tokens: int = Field(gt=1)
    seconds: float = Field(gt=0)
    least_prompts: int = Field(gt=0)
    long_prompt_tokens: int = Field(gt=0)

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if list(self.batches) != sorted(set(self.batches)) or self.batches[0] < 1:
            raise ValueError(f"batches must rise strictly from 1 or more, got {self.batches}")
        if self.long_prompt_tokens <= self.prompt_tokens:
            raise ValueError("long_prompt_tokens must be more than prompt_tokens")
        return self


class ReplayPlan(Document):
    """Which trace is replayed, how its lengths are scaled and how fast it goes."""

    trace: Path
    text: Path
    prompt_divisor: float = Field(gt=0)
    output_divisor: float = Field(gt=0)
    seconds: float = Field(gt=0)
    load: float = Field(gt=0, description="offered load as a share of base_profile's capacity")
    base_profile: str
    fast_profile: str

    @property
    def profiles(self) -> tuple[str, str]:
        """The two that are measured and compared."""
        return self.fast_profile, self.base_profile


class Client(Document):
    """A tenant of the replay; its requests ask for `tier`."""

    tenant: str
    tier: str
    share: float = Field(gt=0, le=1)
    key: str = Field(repr=False)


class Goals(Document):
    """What the picture should show."""

    single_stream_speedup: float
    full_batch_gain: float


class Plan(Document):
    """The whole plan. Paths in it are relative to its file."""

    model: str
    seed: int
    sweep: SweepPlan
    replay: ReplayPlan
    clients: tuple[Client, ...] = Field(min_length=1)
    goals: Goals

    @model_validator(mode="after")
    def _shares_are_all(self) -> Self:
        total = sum(client.share for client in self.clients)
        if abs(total - 1) > SHARES_TOLERANCE:
            raise ValueError(f"the clients' shares must add up to 1, got {total:g}")
        return self

    def quick(self) -> Plan:
        """The same in a few seconds: for tests and a first look, not for figures."""
        sweep = self.sweep.model_copy(
            update={
                "batches": (self.sweep.batches[0], self.sweep.batches[-1]),
                "rounds": 1,
                "output_tokens": 32,
                "seconds": 0.05,
                "least_prompts": 1,
                "long_prompt_tokens": 128,
            }
        )
        replay = self.replay.model_copy(update={"seconds": min(4.0, self.replay.seconds)})
        return self.model_copy(update={"sweep": sweep, "replay": replay})


def read_plan(path: Path) -> Plan:
    """Read a plan and make its paths absolute. Raises ConfigError naming file and field."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    plan = parse_document(path, text, Plan)
    trace, prompts = (_found(path, name) for name in (plan.replay.trace, plan.replay.text))
    replay = plan.replay.model_copy(update={"trace": trace, "text": prompts})
    return plan.model_copy(update={"replay": replay})


def _found(plan: Path, name: Path) -> Path:
    path = (plan.parent / name).resolve()
    if not path.is_file():
        raise ConfigError(f"{plan}: replay: there is no file {path}")
    return path
