"""A Serve request router that routes nothing: it learns the replicas' addresses.

Serve pushes a deployment's running replicas, with the metadata that each published when it became
ready, to every router of that deployment (its long poll). Requests go straight to the
executors, so all that is wanted of the router is this news. `serve.request_router` is the public
way to get it; the alternative, replicas announcing themselves to an actor of ours, would need
its own liveness protocol and its own recovery.
"""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from paretoserve.app.serve import directory
from paretoserve.gateway.discovery import Endpoint


class AddressRouter(RequestRouter):
    """Announces its deployment's replicas in this process's directory."""

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        found = (replica.replica_metadata for replica in replicas)
        directory.DIRECTORY.announce(
            str(self._deployment_id), dict(_endpoint(m) for m in found if "address" in m)
        )

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,  # noqa: ARG002 (Serve's signature)
    ) -> list[list[RunningReplica]]:
        """Any replica will do: only control calls come this way."""
        return [candidate_replicas]


def _endpoint(metadata: dict[str, Any]) -> tuple[str, Endpoint]:
    endpoint = Endpoint(profile=metadata["profile"], address=metadata["address"])
    return metadata["replica_id"], endpoint
