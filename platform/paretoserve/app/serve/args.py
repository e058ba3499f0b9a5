"""The `args` of the application in a Serve config file.

A change of args restarts every replica (they are part of the code version that Serve computes);
what operators change often belongs into the gateway's user_config, see documents.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from paretoserve.domain.address import Address
from paretoserve.domain.document import Document
from paretoserve.executor.service import MAX_GRACE_S
from paretoserve.executor.watchdog import STALL_AFTER_S

GATEWAY = "gateway"
"""Name of the gateway's Serve deployment. The others have their profile's name."""
FLEET = "fleet"
"""Name of the deployment that stands in the gateway's place where gateways run outside of Ray."""


class ExecutorArgs(Document):
    """How the executors of one profile are started."""

    python: str = Field(default="", description="interpreter of the engine's own environment")
    env: dict[str, str] = Field(default_factory=dict, description="added to its environment")
    port: int | None = Field(
        default=None, ge=0, le=65535, description="in place of executor_port, for this profile"
    )
    start_timeout_s: float = Field(
        default=900.0, gt=0, description="how long loading may take before it is tried again"
    )
    stall_after_s: float = Field(
        default=STALL_AFTER_S,
        gt=0,
        description="an engine with requests and no step for so long is replaced",
    )


def _listen(text: str) -> str:
    return str(Address.parse(text))


Listen = Annotated[str, AfterValidator(_listen)]


class Args(Document):
    """What `paretoserve.app.serve.builder:build` takes."""

    deployment: Path = Field(description="the deployment folder, at this path on every node")
    gateway: bool = Field(
        default=True, description="false: gateways run outside of Ray and find the executors' ports"
    )
    http: Listen = Field(default="127.0.0.1:8000", description="host:port; port 0 takes a free one")
    grpc: Listen = Field(default="127.0.0.1:9000")
    executor_host: str = Field(
        default="", description="address the executors bind; empty is the node's own"
    )
    executor_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="port that every executor listens on, one of them per host; 0 takes a free one",
    )
    drain_grace_s: float = Field(
        default=30.0,
        ge=0,
        le=MAX_GRACE_S,
        description="how long running streams may go on at scale-down",
    )
    settle_s: float = Field(
        default=5.0,
        ge=0,
        description="without a gateway in Ray: how long a new executor serves before its replica "
        "counts as started, so that gateways have found it before another one is replaced",
    )
    executors: dict[str, ExecutorArgs] = Field(default_factory=dict, description="by profile")
