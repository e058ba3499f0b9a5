"""An autoscaling policy for Serve that counts streams, which Serve itself cannot see.

    - name: max-throughput
      autoscaling_config:
        min_replicas: 1
        max_replicas: 4
        target_ongoing_requests: 24       # streams per replica
        policy: {policy_function: "paretoserve.app.serve.autoscaling:by_streams"}

Serve applies its own delays, factors and bounds to what a policy wants.
"""

from __future__ import annotations

from typing import Any

from ray.serve.config import AutoscalingContext


def by_streams(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """As many replicas as bring each to `target_ongoing_requests` running and waiting streams.

    Reads what ExecutorReplica.record_autoscaling_stats reports, averaged over Serve's
    look_back_period_s. Without any report it wants no change.
    """
    metrics = context.aggregated_metrics or {}
    loads = [load for name in ("running", "waiting") for load in metrics.get(name, {}).values()]
    if not loads or context.config is None:
        return context.target_num_replicas, context.policy_state
    return sum(loads) / context.config.target_ongoing_requests, context.policy_state
