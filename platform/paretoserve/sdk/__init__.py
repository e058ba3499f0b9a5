"""The Python SDK: a client for the gateway's gRPC API, synchronous and for asyncio.

    from paretoserve.sdk import Client

    with Client("127.0.0.1:9000", api_key="sk-local-acme") as client:
        answer = client.generate("Once upon a time", model="scribe", max_tokens=64)
        print(answer.text, answer.profile, answer.usage)

        with client.stream("Once upon a time", model="scribe") as stream:
            for text in stream.text_deltas():
                print(text, end="", flush=True)

        print(client.explain("Once upon a time", model="scribe", tier="premium"))

`AsyncClient` has the same calls, awaited. Every error is a ParetoserveError; the tree is in
`paretoserve.domain.errors`, and all of it can be imported from here.
"""

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.conversation import Message, ModelInfo, TextDelta, TokenText, TopToken
from paretoserve.domain.decision import Candidate, Outcome, Verdict
from paretoserve.domain.errors import (
    Cancelled,
    ContextTooLong,
    DeadlineExceeded,
    EngineError,
    Evicted,
    InvalidRequest,
    ModelNotFound,
    ParetoserveError,
    PermissionDenied,
    QueueFull,
    QuotaExceeded,
    Rejected,
    ReplicaLost,
    Saturated,
    SlowReader,
    Unauthenticated,
    Unavailable,
)
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.sdk._aio import AsyncClient, AsyncStream
from paretoserve.sdk._client import Client, Stream
from paretoserve.sdk._options import ClientOptions, RequestOptions, Tls
from paretoserve.sdk._requests import Prompt
from paretoserve.sdk._retry import RetryPolicy
from paretoserve.sdk._types import Completed, Decision, Event, Generation, Started

__all__ = [
    "Acceptance",
    "AsyncClient",
    "AsyncStream",
    "Cancelled",
    "Candidate",
    "Client",
    "ClientOptions",
    "Completed",
    "ContextTooLong",
    "DeadlineExceeded",
    "Decision",
    "EngineError",
    "Event",
    "Evicted",
    "FinishReason",
    "Generation",
    "InvalidRequest",
    "Message",
    "ModelInfo",
    "ModelNotFound",
    "Outcome",
    "ParetoserveError",
    "PermissionDenied",
    "Prediction",
    "Prompt",
    "QueueFull",
    "QuotaExceeded",
    "Rejected",
    "ReplicaLost",
    "RequestOptions",
    "RetryPolicy",
    "Saturated",
    "SlowReader",
    "Started",
    "Stream",
    "TextDelta",
    "Timing",
    "Tls",
    "TokenText",
    "TopToken",
    "Unauthenticated",
    "Unavailable",
    "Usage",
    "Verdict",
]
