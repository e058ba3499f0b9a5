"""The policy in force and its candidate, read back through the real exporter."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from paretoserve.domain.decision import Outcome
from paretoserve.policy.comparison import Comparison, Foreseen
from paretoserve.telemetry import TelemetrySettings, start
from paretoserve.telemetry.live import Telemetry
from paretoserve.telemetry.policy import InForce, Tried

FAST = Foreseen("1", Outcome.PLACED, "fast", "f0", 3.0, 0.9)
WIDE = Foreseen("2", Outcome.PLACED, "wide", "w0", 1.0, 0.5)
HELD = Foreseen("2", Outcome.HELD, "", "", 0.0, None)


def watch_policies(telemetry: Telemetry) -> None:
    """Let every metric of policies have a value."""
    telemetry.policy.watch_in_force(lambda: InForce("1", "abc", 1e9))
    telemetry.policy.watch_candidate(lambda: Tried("2", "shadow"))
    telemetry.policy.candidate_failed()
    telemetry.policy.compared(Comparison("r", "acme", "premium", FAST, WIDE))


def rendered(telemetry: Telemetry) -> dict[tuple[str, ...], float]:
    """By name and label values, in the order of their keys."""
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(telemetry.render().decode())
        for sample in family.samples
        if sample.name.startswith(("paretoserve_policy", "paretoserve_shadow"))
        and not sample.name.endswith("_created")
    }


def started() -> Telemetry:
    telemetry = start(TelemetrySettings(metrics="prometheus"), "gateway")
    assert telemetry is not None
    return telemetry


def test_what_is_in_force_and_what_was_refused() -> None:
    telemetry, problems = started(), list[str]()
    telemetry.policy.watch_in_force(lambda: InForce("7", "abc", 1e9, tuple(problems)))
    telemetry.policy.watch_candidate(lambda: None)
    expected = {
        ("paretoserve_policy_info", "abc", "7"): 1,
        ("paretoserve_policy_load_timestamp_seconds",): 1e9,
        ("paretoserve_policy_load_failures_total",): 0,
        ("paretoserve_policy_load_error",): 0,
    }
    assert rendered(telemetry) == expected
    problems.append("policy.yaml: version: missing")
    telemetry.policy.load_failed()
    assert rendered(telemetry) == expected | {
        ("paretoserve_policy_load_failures_total",): 1,
        ("paretoserve_policy_load_error",): 1,
    }
    telemetry.close()


def test_comparisons_are_summed_over_what_both_policies_expect() -> None:
    telemetry = started()
    watch_policies(telemetry)
    telemetry.policy.compared(Comparison("s", "acme", "premium", FAST, HELD))
    found = {key: value for key, value in rendered(telemetry).items() if "shadow" in key[0]}
    assert found == {
        ("paretoserve_shadow_decisions_total", "profile", "premium"): 1,
        ("paretoserve_shadow_decisions_total", "outcome", "premium"): 1,
        ("paretoserve_shadow_expected_total", "live", "premium"): 1,
        ("paretoserve_shadow_expected_total", "candidate", "premium"): 1,
        ("paretoserve_shadow_expected_gpu_seconds_total", "live", "premium"): 3,
        ("paretoserve_shadow_expected_gpu_seconds_total", "candidate", "premium"): 1,
        ("paretoserve_shadow_expected_attained_total", "live", "premium"): 0.9,
        ("paretoserve_shadow_expected_attained_total", "candidate", "premium"): 0.5,
    }
    assert rendered(telemetry)["paretoserve_policy_candidate_info", "shadow", "2"] == 1
    assert rendered(telemetry)["paretoserve_policy_candidate_failures_total",] == 1
    telemetry.close()
