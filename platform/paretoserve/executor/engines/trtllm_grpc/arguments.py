"""What `engine_args` may say for trtllm-grpc."""

from __future__ import annotations

from pydantic import Field, ValidationError

from paretoserve.domain.document import Document
from paretoserve.domain.errors import EngineError
from paretoserve.domain.profile import Profile


class TrtllmGrpcArgs(Document):
    """Where the server is and how patient to be with it. Times are in seconds."""

    address: str = Field(pattern=r"^[^\s:/]+:\d{1,5}$|^\[[0-9a-fA-F:]+\]:\d{1,5}$")
    served_model: str | None = Field(
        default=None, description="the server must say that it serves this; absent: any will do"
    )
    wait_s: float = Field(default=120.0, gt=0, description="for a server that loads its model")
    health_interval_s: float = Field(default=1.0, gt=0)
    health_timeout_s: float = Field(default=3.0, gt=0)
    lost_after_s: float = Field(
        default=10.0, ge=0, description="a server away for longer is given up"
    )
    abort_wait_s: float = Field(
        default=2.0, gt=0, description="for the end of an aborted stream, which is then cut"
    )
    stream_interval: int = Field(
        default=1, ge=1, description="engine steps per message, as the server is configured"
    )
    kv_tokens: int | None = Field(
        default=None, gt=0, description="KV cache size; absent: a full context for every sequence"
    )
    vocab_size: int | None = Field(
        default=None, gt=1, description="when the model has no config.json"
    )
    eos_token_ids: tuple[int, ...] | None = Field(
        default=None, description="absent: those of the model's folder"
    )


def read_arguments(profile: Profile) -> TrtllmGrpcArgs:
    """The profile's engine_args. Raises EngineError naming the profile and each wrong key, and for
    a capability that the protocol has no field for.
    """
    if profile.capabilities.logit_bias:
        raise EngineError(
            f"profile {profile.name}, capabilities.logit_bias: must be absent; TrtllmService's "
            "embedding_bias is a value for every token, and no server is known to take it"
        )
    try:
        return TrtllmGrpcArgs.model_validate(profile.engine_args)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)
        )
        raise EngineError(f"profile {profile.name}, engine_args: {problems}") from error
