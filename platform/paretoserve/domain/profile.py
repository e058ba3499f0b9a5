"""Profile: one engine configuration of a model, with its limits, cost and latency curve."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from paretoserve.domain.document import Document


class Limits(Document):
    """What one replica of a profile can hold."""

    context_tokens: int = Field(gt=0, description="prompt and completion together, in tokens")
    max_batch: int = Field(gt=0, description="sequences the engine can decode in one step")
    max_queue: int = Field(
        ge=0, description="requests that may wait in the engine beyond max_batch"
    )
    admit: int = Field(
        gt=0, description="requests the router lets a replica hold at a time, waiting ones included"
    )

    @model_validator(mode="after")
    def _admit_fits(self) -> Self:
        most = self.max_batch + self.max_queue
        if self.admit > most:
            raise ValueError(
                f"admit ({self.admit}) is more than max_batch + max_queue ({most}) can hold"
            )
        return self


class CurvePoint(Document):
    """One measured point: with `batch` streams decoding, each gets a token every `tpot_ms`."""

    batch: int = Field(gt=0)
    tpot_ms: float = Field(gt=0)


class LatencyCurve(Document):
    """How fast one replica is, as a function of its load.

    `points` give TPOT in milliseconds against batch at short context; `kv_ms_per_1k_tokens` is
    added for every 1,000 tokens held in the KV cache by the batch. A prompt costs `prefill_ms`
    plus its uncached tokens over `prefill_tokens_per_s`.
    """

    source: Literal["measured", "published", "emulated"]
    hardware: str
    points: tuple[CurvePoint, ...] = Field(min_length=1)
    kv_ms_per_1k_tokens: float = Field(default=0.0, ge=0)
    prefill_tokens_per_s: float = Field(gt=0)
    prefill_ms: float = Field(default=0.0, ge=0)
    chunk_tokens: int = Field(
        default=2048, gt=0, description="prompt tokens that one engine step prefills at most"
    )
    acceptance_length: float = Field(default=1.0, ge=1, description="tokens per engine step")

    @model_validator(mode="after")
    def _batches_rise(self) -> Self:
        batches = [point.batch for point in self.points]
        if batches != sorted(set(batches)):
            raise ValueError(f"batches must rise strictly, got {batches}")
        return self


class Coalesce(Document):
    """How many tokens of one stream may travel in one message, and for how long they may wait."""

    max_tokens: int = Field(default=1, gt=0)
    max_ms: float = Field(default=0.0, ge=0)


class Capabilities(Document):
    """What a profile can do for a request. A request that needs what is absent goes elsewhere."""

    penalties: bool = True
    logprobs: bool = True
    seed: bool = True
    logit_bias: bool = Field(default=False, description="not every engine has it")
    resumed_penalties: bool = Field(
        default=True, description="penalties that count output from another replica, see `replayed`"
    )


class Profile(Document):
    """One engine configuration of a model: a point of its latency-throughput frontier."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    model: str
    engine: str
    engine_args: dict[str, Any] = Field(default_factory=dict)
    gpus: float = Field(
        gt=0, description="what one replica costs, in GPUs (or CPU cores for local)"
    )
    limits: Limits
    curve: LatencyCurve
    coalesce: Coalesce = Coalesce()
    capabilities: Capabilities = Capabilities()
