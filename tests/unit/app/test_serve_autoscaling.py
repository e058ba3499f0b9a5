"""How many replicas the streams want."""

from __future__ import annotations

import pytest
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from paretoserve.app.serve.autoscaling import by_streams


def context(metrics, replicas: int = 2) -> AutoscalingContext:
    return AutoscalingContext(
        deployment_id=None,
        deployment_name="wide",
        app_name="paretoserve",
        current_num_replicas=replicas,
        target_num_replicas=replicas,
        running_replicas=[],
        total_num_requests=0.0,
        total_queued_requests=0.0,
        aggregated_metrics=metrics,
        raw_metrics=None,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=8,
        policy_state={"kept": 1},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=None,
        config=AutoscalingConfig(min_replicas=1, max_replicas=8, target_ongoing_requests=10),
    )


@pytest.mark.parametrize(
    ("metrics", "wanted"),
    [
        ({"running": {"a": 16.0, "b": 14.0}, "waiting": {"a": 5.0, "b": 0.0}}, 3.5),
        ({"running": {"a": 0.0}, "waiting": {"a": 0.0}}, 0.0),
        ({"kv_used": {"a": 0.9}}, 2),
        (None, 2),
    ],
)
def test_streams_over_target_and_no_change_without_reports(metrics, wanted):
    assert by_streams(context(metrics)) == (wanted, {"kept": 1})
