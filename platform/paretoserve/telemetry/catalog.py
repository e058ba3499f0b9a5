"""Every metric and span of the platform, as data. `docs/metrics.md` is generated from here.

To add a metric: one line in METRICS and a call that records it. `gen_ai.*` names, units and
attributes follow OpenTelemetry's semantic conventions for generative AI; the rest is ours.
Durations are in seconds, as Prometheus wants them, although the domain counts milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """COUNTER only grows; HISTOGRAM is a distribution; IN_FLIGHT rises and falls; GAUGE is read."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    IN_FLIGHT = "up-down counter"
    GAUGE = "gauge"


class Label(StrEnum):
    """Label keys. OpenTelemetry's name first, as Prometheus shows it with `_` for `.`."""

    OPERATION = "gen_ai.operation.name"
    PROVIDER = "gen_ai.provider.name"
    MODEL = "gen_ai.request.model"
    TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105
    ERROR = "error.type"
    TENANT = "tenant"
    TIER = "tier"
    PROFILE = "profile"
    REPLICA = "replica"
    OUTCOME = "outcome"
    REASON = "reason"
    RULE = "rule"
    TARGET = "target"
    STATE = "state"
    TYPE = "type"
    WINDOW = "window"
    VERSION = "version"
    HASH = "hash"
    PHASE = "phase"
    CONTRAST = "contrast"
    POLICY = "policy"


LABELS: dict[Label, str] = {
    Label.OPERATION: "`chat` or `text_completion`",
    Label.PROVIDER: "always `paretoserve`",
    Label.MODEL: "the model the client named; `unknown` when there is none of that name",
    Label.TOKEN_TYPE: "`input` or `output`",
    Label.ERROR: "the error's reason word; absent on success",
    Label.TENANT: "the tenant; `other` for those beyond the limit of names",
    Label.TIER: "the tier the request was served as; empty when it failed before that was known",
    Label.PROFILE: "the profile that served it; empty when none was chosen",
    Label.REPLICA: "the replica's id",
    Label.OUTCOME: "a fixed word, listed with the metric",
    Label.REASON: "a fixed word: an error's reason, a finish reason, or a candidate's verdict",
    Label.RULE: "the step of the policy that decided, or the name of the policy's rule that did",
    Label.TARGET: "`ttft`, `tpot`, `e2e`, each where it was promised to the answer, or `all` (goodput: every target met)",
    Label.STATE: "`starting`, `serving`, `draining` or `lost`",
    Label.TYPE: "`input`, `output`, or `cached` (the part of input from the prefix cache)",
    Label.WINDOW: "`1m`, `5m` or `1h`: how far back it looks",
    Label.VERSION: "the version that a policy document gives itself",
    Label.HASH: "the first 12 digits of a SHA-256 of all documents in force; the same on gateways that decide by the same ones",
    Label.PHASE: "`shadow` or `canary`; `rolled_back` for a canary that has burned the error budget, `given_up` for a candidate that has failed too often",
    Label.CONTRAST: "`same`, or the first thing that differs: `outcome`, `profile` or `replica`",
    Label.POLICY: "`live` or `candidate`",
}

PROVIDER = "paretoserve"

# The conventions' boundaries, with finer ones below where a millisecond a token is the aim.
REQUEST_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TTFT_S = (
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 0.75,
    1.0, 1.5, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
)  # fmt: skip
TPOT_S = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035,
    0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
QUEUE_S = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    20.0,
)
HOLD_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: OpenTelemetry's name, UCUM unit, what it says, and what it is split by."""

    name: str
    kind: Kind
    unit: str
    description: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()


_GEN_AI = (Label.OPERATION, Label.PROVIDER, Label.MODEL)
_SERVED = (*_GEN_AI, Label.TIER, Label.PROFILE)
_PLACED = (Label.TIER, Label.PROFILE)
_REPLICA = (Label.REPLICA, Label.PROFILE)

# What the gateway records of each request.
REQUEST_DURATION = Metric(
    "gen_ai.server.request.duration", Kind.HISTOGRAM, "s",
    "From a request's arrival at the gateway to its end, whatever the end was.",
    (*_SERVED, Label.ERROR), REQUEST_S,
)  # fmt: skip
TTFT = Metric(
    "gen_ai.server.time_to_first_token", Kind.HISTOGRAM, "s",
    "From a request's arrival at the gateway to its first token.", _SERVED, TTFT_S,
)  # fmt: skip
TPOT = Metric(
    "gen_ai.server.time_per_output_token", Kind.HISTOGRAM, "s",
    "Mean time per output token after the first, of each finished request with two or more.",
    _SERVED, TPOT_S,
)  # fmt: skip
REQUESTS = Metric(
    "paretoserve.requests", Kind.COUNTER, "{request}",
    "Requests that ended. Outcomes: `completed`, `rejected` (no GPU was spent), `evicted`, "
    "`cancelled`, `failed`.",
    (*_PLACED, Label.OUTCOME, Label.REASON),
)  # fmt: skip
IN_FLIGHT = Metric(
    "paretoserve.requests.in_flight", Kind.IN_FLIGHT, "{request}",
    "Requests that the gateway holds, from arrival to end.",
)  # fmt: skip
DECISIONS = Metric(
    "paretoserve.decisions", Kind.COUNTER, "{decision}",
    "Routing decisions. Outcomes: `placed`, `spilled`, `degraded`, `held`, `rejected`; the reason is "
    "the verdict on the nearest replica of the tier's preferred profile.",
    (*_PLACED, Label.OUTCOME, Label.RULE, Label.REASON),
)  # fmt: skip
RULE_ERRORS = Metric(
    "paretoserve.rule.errors", Kind.COUNTER, "{error}",
    "Times that a rule of the policy did not apply because its condition had no value.",
    (Label.RULE,),
)  # fmt: skip
HOLD = Metric(
    "paretoserve.hold.duration", Kind.HISTOGRAM, "s",
    "Time a request was held in the router for room. Outcomes: `placed`, `refused`, `left` (the "
    "client went away or its deadline passed).",
    (Label.TIER, Label.OUTCOME), HOLD_S,
)  # fmt: skip
HELD = Metric(
    "paretoserve.requests.held", Kind.GAUGE, "{request}",
    "Requests that are held in the router for room now.",
)  # fmt: skip
MOVES = Metric(
    "paretoserve.moves", Kind.COUNTER, "{move}",
    "Streams that went on at another replica, by the profile that they went to. Reasons: `late` "
    "(it would have missed its target), or the word of the error by which the replica failed.",
    (*_PLACED, Label.REASON),
)  # fmt: skip
ATTAINMENT = Metric(
    "paretoserve.attainment", Kind.COUNTER, "{request}",
    "Completed requests against their targets. Outcomes: `met`, `missed`.",
    (*_PLACED, Label.TARGET, Label.OUTCOME),
)  # fmt: skip
QUEUE = Metric(
    "paretoserve.queue.duration", Kind.HISTOGRAM, "s",
    "Time a completed request waited in the engine before its prefill began.", _PLACED, QUEUE_S,
)  # fmt: skip
TOKENS_TOTAL = Metric(
    "paretoserve.tokens", Kind.COUNTER, "{token}", "Tokens of completed requests.",
    (*_PLACED, Label.TYPE),
)  # fmt: skip
DELTAS = Metric(
    "paretoserve.deltas", Kind.COUNTER, "{delta}",
    "Pieces in which completed requests' tokens came from executors; output tokens over deltas "
    "shows how much is coalesced.",
    _PLACED,
)  # fmt: skip
GPU_SECONDS = Metric(
    "paretoserve.gpu_seconds", Kind.COUNTER, "{gpu_second}",
    "GPU-seconds charged (core-seconds for the local engine).", (Label.TENANT, Label.TIER),
)  # fmt: skip

# The SLA ledger: what tenants got of what their tiers promise, in-contract requests only.
_PROMISED = (Label.TENANT, Label.TIER, Label.WINDOW)
SLA_ATTAINMENT = Metric(
    "paretoserve.sla.attainment_ratio", Kind.GAUGE, "{ratio}",
    "Share of a tenant's requests that met every target of their tier. What failed or was refused "
    "did not; what its client gave up while no target was missed is left out. Absent without requests.",
    _PROMISED,
)  # fmt: skip
BUDGET_BURN = Metric(
    "paretoserve.error_budget.burn", Kind.GAUGE, "{ratio}",
    "Share of those requests that missed a target over the share that the tier's percentile allows to; "
    "at 1 the error budget is used up just as fast as it may be.",
    _PROMISED,
)  # fmt: skip

# What the gateway knows of the fleet.
RUNNING = Metric(
    "paretoserve.replica.running", Kind.GAUGE, "{request}", "Requests that hold KV blocks.",
    _REPLICA,
)  # fmt: skip
WAITING = Metric(
    "paretoserve.replica.waiting", Kind.GAUGE, "{request}", "Requests waiting in the engine.",
    _REPLICA,
)  # fmt: skip
KV_USED = Metric(
    "paretoserve.replica.kv.used", Kind.GAUGE, "{token}", "KV cache in use, in tokens.", _REPLICA
)
KV_TOTAL = Metric(
    "paretoserve.replica.kv.limit", Kind.GAUGE, "{token}", "KV cache size, in tokens.", _REPLICA
)
STEP = Metric(
    "paretoserve.replica.step.duration", Kind.GAUGE, "s", "Wall time of an engine step.", _REPLICA
)
ACCEPTANCE = Metric(
    "paretoserve.replica.acceptance_length", Kind.GAUGE, "{token}",
    "Tokens per sequence and engine step; 1 without speculation.", _REPLICA,
)  # fmt: skip
STATE = Metric(
    "paretoserve.replica.state", Kind.GAUGE, "{replica}",
    "1 for the state that a replica is in.", (*_REPLICA, Label.STATE),
)  # fmt: skip
RESERVATIONS = Metric(
    "paretoserve.reservations", Kind.GAUGE, "{request}",
    "Requests that this gateway holds on a replica: reserved and not settled.", _REPLICA,
)  # fmt: skip
# The policy in force, and a candidate that is tried beside it.
POLICY_INFO = Metric(
    "paretoserve.policy.info", Kind.GAUGE, "{policy}", "1 for the policy in force.",
    (Label.VERSION, Label.HASH),
)  # fmt: skip
POLICY_LOADED = Metric(
    "paretoserve.policy.load.timestamp", Kind.GAUGE, "s",
    "When the documents in force were loaded, Unix time.",
)  # fmt: skip
POLICY_FAILURES = Metric(
    "paretoserve.policy.load.failures", Kind.COUNTER, "{load}",
    "Times that changed documents could not be taken over.",
)  # fmt: skip
POLICY_ERROR = Metric(
    "paretoserve.policy.load.error", Kind.GAUGE, "{state}",
    "1 while the documents in the deployment folder cannot be taken over and the last good ones "
    "are in force, else 0.",
)  # fmt: skip
CANDIDATE_INFO = Metric(
    "paretoserve.policy.candidate.info", Kind.GAUGE, "{policy}",
    "1 for the candidate policy that a rollout names.", (Label.VERSION, Label.PHASE),
)  # fmt: skip
CANDIDATE_FAILURES = Metric(
    "paretoserve.policy.candidate.failures", Kind.COUNTER, "{decision}",
    "Decisions at which the candidate policy raised an error; the live one's stood.",
)  # fmt: skip
SHADOW_DECISIONS = Metric(
    "paretoserve.shadow.decisions", Kind.COUNTER, "{decision}",
    "Decisions that a shadowing candidate was asked for too, by how the two differ.",
    (Label.TIER, Label.CONTRAST),
)  # fmt: skip
SHADOW_EXPECTED = Metric(
    "paretoserve.shadow.expected", Kind.COUNTER, "{decision}",
    "Of those, the ones that neither policy held: what the next two metrics are sums over.",
    (Label.TIER, Label.POLICY),
)  # fmt: skip
SHADOW_GPU_SECONDS = Metric(
    "paretoserve.shadow.expected.gpu_seconds", Kind.COUNTER, "{gpu_second}",
    "GPU-seconds that either policy predicts for its own decision.", (Label.TIER, Label.POLICY),
)  # fmt: skip
SHADOW_ATTAINED = Metric(
    "paretoserve.shadow.expected.attained", Kind.COUNTER, "{request}",
    "Requests in time that either policy expects of its own decision, from its prediction's "
    "quantiles.",
    (Label.TIER, Label.POLICY),
)  # fmt: skip
# What the Python SDK records, when the program that uses it has set up OpenTelemetry metrics.
CLIENT_DURATION = Metric(
    "gen_ai.client.operation.duration", Kind.HISTOGRAM, "s",
    "A call as the client saw it, its retries included.", (*_GEN_AI, Label.ERROR), REQUEST_S,
)  # fmt: skip
CLIENT_TOKENS = Metric(
    "gen_ai.client.token.usage", Kind.HISTOGRAM, "{token}",
    "Tokens of one call.", (*_GEN_AI, Label.TOKEN_TYPE), TOKENS,
)  # fmt: skip

GATEWAY_METRICS = (
    REQUEST_DURATION, TTFT, TPOT, REQUESTS, IN_FLIGHT, DECISIONS, RULE_ERRORS, HOLD, HELD, MOVES,
    ATTAINMENT, QUEUE, TOKENS_TOTAL, DELTAS, GPU_SECONDS, SLA_ATTAINMENT, BUDGET_BURN, RUNNING, WAITING, KV_USED, KV_TOTAL, STEP,
    ACCEPTANCE, STATE, RESERVATIONS, POLICY_INFO, POLICY_LOADED, POLICY_FAILURES, POLICY_ERROR,
    CANDIDATE_INFO, CANDIDATE_FAILURES, SHADOW_DECISIONS, SHADOW_EXPECTED, SHADOW_GPU_SECONDS,
    SHADOW_ATTAINED,
)  # fmt: skip
CLIENT_METRICS = (CLIENT_DURATION, CLIENT_TOKENS)
METRICS = (*GATEWAY_METRICS, *CLIENT_METRICS)


class Attribute(StrEnum):
    """Attribute keys of spans."""

    OPERATION = "gen_ai.operation.name"
    PROVIDER = "gen_ai.provider.name"
    MODEL = "gen_ai.request.model"
    MAX_TOKENS = "gen_ai.request.max_tokens"
    RESPONSE_ID = "gen_ai.response.id"
    FINISH_REASONS = "gen_ai.response.finish_reasons"
    INPUT_TOKENS = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
    CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
    CONVERSATION = "gen_ai.conversation.id"
    ERROR = "error.type"
    TENANT = "paretoserve.tenant"
    TIER = "paretoserve.tier"
    PROFILE = "paretoserve.profile"
    REPLICA = "paretoserve.replica"
    OUTCOME = "paretoserve.decision.outcome"
    RULE = "paretoserve.decision.rule"
    REASON = "paretoserve.decision.reason"
    POLICY = "paretoserve.policy.version"
    CANDIDATES = "paretoserve.decision.candidates"
    TTFT_PREDICTED = "paretoserve.predicted.ttft_ms"
    TPOT_PREDICTED = "paretoserve.predicted.tpot_ms"
    QUEUE_MS = "paretoserve.queue_ms"
    TTFT_MS = "paretoserve.ttft_ms"
    TOTAL_MS = "paretoserve.total_ms"
    GPU_SECONDS = "paretoserve.gpu_seconds"
    STEPS = "paretoserve.speculation.steps"
    DRAFTED = "paretoserve.speculation.drafted"
    ACCEPTED = "paretoserve.speculation.accepted"
    ATTEMPT = "paretoserve.attempt"
    WAIT_S = "paretoserve.wait_s"


@dataclass(frozen=True, slots=True)
class SpanDeclaration:
    """One kind of span: its name, OpenTelemetry's kind, who makes it, and what it may carry."""

    name: str
    kind: str
    description: str
    attributes: tuple[Attribute, ...]
    events: tuple[str, ...] = ()


DECIDED = "decided"
HELD_BACK = "held"
MOVED = "moved"
PREFILL_BEGAN = "prefill began"
FIRST_TOKEN = "first token"  # noqa: S105
REPLICA_LOST = "replica lost"
RETRY = "retry"

_USAGE = (
    Attribute.FINISH_REASONS, Attribute.INPUT_TOKENS, Attribute.OUTPUT_TOKENS,
    Attribute.CACHED_TOKENS,
)  # fmt: skip
_TIMES = (Attribute.QUEUE_MS, Attribute.TTFT_MS, Attribute.TOTAL_MS)

CLIENT_SPAN = SpanDeclaration(
    "{gen_ai.operation.name} {gen_ai.request.model}", "client",
    "One call of the Python SDK, its retries included.",
    (Attribute.OPERATION, Attribute.PROVIDER, Attribute.MODEL, Attribute.RESPONSE_ID,
     Attribute.TIER, Attribute.PROFILE, Attribute.REPLICA, *_USAGE, Attribute.ERROR),
    (RETRY,),
)  # fmt: skip
GATEWAY_SPAN = SpanDeclaration(
    "paretoserve.gateway", "server",
    "One request in the gateway, from arrival to end, whichever way it came in.",
    (Attribute.OPERATION, Attribute.PROVIDER, Attribute.MODEL, Attribute.RESPONSE_ID,
     Attribute.CONVERSATION, Attribute.MAX_TOKENS, Attribute.TENANT, Attribute.TIER,
     Attribute.PROFILE, Attribute.REPLICA, *_USAGE, *_TIMES, Attribute.GPU_SECONDS,
     Attribute.ERROR),
    (HELD_BACK, DECIDED, FIRST_TOKEN, REPLICA_LOST, MOVED),
)  # fmt: skip
EXECUTOR_SPAN = SpanDeclaration(
    "paretoserve.executor", "server",
    "One request in an executor, from submission to its last token.",
    (Attribute.RESPONSE_ID, Attribute.PROFILE, *_USAGE, *_TIMES, Attribute.STEPS,
     Attribute.DRAFTED, Attribute.ACCEPTED, Attribute.ERROR),
    (PREFILL_BEGAN, FIRST_TOKEN),
)  # fmt: skip
SPANS = (CLIENT_SPAN, GATEWAY_SPAN, EXECUTOR_SPAN)

EVENT_ATTRIBUTES: dict[str, tuple[Attribute, ...]] = {
    DECIDED: (
        Attribute.OUTCOME, Attribute.RULE, Attribute.REASON, Attribute.POLICY, Attribute.PROFILE,
        Attribute.REPLICA, Attribute.CANDIDATES, Attribute.TTFT_PREDICTED,
        Attribute.TPOT_PREDICTED,
    ),
    HELD_BACK: (),
    MOVED: (Attribute.REASON, Attribute.PROFILE, Attribute.REPLICA),
    PREFILL_BEGAN: (),
    FIRST_TOKEN: (),
    REPLICA_LOST: (Attribute.REPLICA,),
    RETRY: (Attribute.ATTEMPT, Attribute.WAIT_S, Attribute.ERROR),
}  # fmt: skip
