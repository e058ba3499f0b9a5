"""`paretoserve policy evaluate NEW_POLICY --log PATH --deployment DIR`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from paretoserve.app.commands.policy_options import LoggedRows, add_log_arguments, load_policy
from paretoserve.app.config import load_deployment
from paretoserve.app.evidence import Evidence, Reward, gather
from paretoserve.policy.intervals import Figure
from paretoserve.policy.offpolicy import Appraisal, Trial, appraise
from paretoserve.policy.support import Support, refusals, support

BOUNDS = {"attainment": (0.0, 1.0), "cost": (0.0, float("inf"))}
ESTIMATORS = {
    "ips": "inverse propensity",
    "snips": "the same, self-normalised",
    "direct": "reward model alone (its own error left out)",
    "doubly_robust": "doubly robust (in the table)",
}
CAVEAT = (
    "About single decisions in the states that were logged: how the new policy would change the\n"
    "load that later requests meet is not in it. `paretoserve simulate` judges that."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", type=Path, help="the new policy document")
    add_log_arguments(parser)
    parser.add_argument(
        "--reward",
        choices=("attainment", "cost"),
        default="attainment",
        help="share of requests that met their targets, or GPU-seconds a request (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print the estimates; 2 with the reasons where the log cannot support any."""
    deployment = load_deployment(options.deployment)
    serving = load_policy(options.serving or options.deployment / "policy.yaml", deployment)
    new = load_policy(options.policy, deployment)
    rows = LoggedRows(options.log, options.version)
    reward: Reward = options.reward
    evidence = gather(rows, deployment, serving, new, reward)
    reasons = evidence.problems or refusals(evidence.trials)
    versions = serving.document.version, new.document.version
    if reasons:
        return _refuse(reasons, as_json=options.json)
    found = appraise(evidence.trials, BOUNDS[reward])
    if options.json:
        print(json.dumps(_as_json(evidence, found, reward, versions), indent=2))
    else:
        print("\n".join(_report(evidence, found, reward, versions, rows.skipped)))
    return 0


def _refuse(reasons: Sequence[str], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"refused": list(reasons)}, indent=2))
    for reason in reasons:
        print(f"no estimate: {reason}", file=sys.stderr)
    return 2


def _as_json(
    evidence: Evidence, found: dict[str, Appraisal], reward: Reward, versions: tuple[str, str]
) -> dict[str, Any]:
    return {
        "reward": reward,
        "serving": versions[0],
        "new": versions[1],
        "confidence": 0.95,
        "support": asdict(support(evidence.trials)),
        "cancelled": evidence.cancelled,
        "all": asdict(found[""]),
        "tiers": {
            tier: {"rows": len(own), "refused": refusals(own), **asdict(found[tier])}
            for tier, own in _by_tier(evidence.trials)
        },
    }


def _report(
    evidence: Evidence,
    found: dict[str, Appraisal],
    reward: Reward,
    versions: tuple[str, str],
    skipped: int,
) -> Iterator[str]:
    serving, new = versions
    unit = "attainment" if reward == "attainment" else "GPU-seconds a request"
    yield f"{unit} of {new} from {len(evidence.trials)} decisions of {serving}, 95% intervals"
    yield ""
    yield f"{'tier':<12} {'rows':>8}  {f'{serving}, logged':<28} {f'{new}, estimated':<28} change"
    everything = _line("all", evidence.trials, found[""], reward)
    yield everything
    reasons = []
    for tier, own in _by_tier(evidence.trials):
        why = refusals(own)
        if why:
            logged = _shown(found[tier].logged, reward)
            yield f"{tier:<12} {len(own):>8}  {logged:<28} {'not supported':<28}"
            reasons += [f"{tier}: {reason}" for reason in why]
        else:
            yield _line(tier, own, found[tier], reward)
    yield ""
    for name, words in ESTIMATORS.items():
        yield f"  {words:<46} {_shown(getattr(found[''], name), reward)}"
    yield ""
    yield from _support_lines(support(evidence.trials))
    if evidence.cancelled:
        yield f"  {evidence.cancelled} requests were given up by their clients; met counts as logged"
    if evidence.left_out:
        yield f"  {evidence.left_out} rows left out: a quota refused them after the decision"
    if skipped:
        yield f"  {skipped} torn lines skipped"
    yield from (f"  {reason}" for reason in reasons)
    yield ""
    yield CAVEAT


def _line(name: str, trials: Sequence[Trial], found: Appraisal, reward: Reward) -> str:
    logged, new = _shown(found.logged, reward), _shown(found.doubly_robust, reward)
    change = _shown(found.difference, reward, sign="+")
    return f"{name:<12} {len(trials):>8}  {logged:<28} {new:<28} {change}"


def _shown(figure: Figure, reward: Reward, sign: str = "") -> str:
    if reward == "cost":
        form = f"{sign}.4f"
        return f"{figure.value:{form}} [{figure.low:{form}}, {figure.high:{form}}]"
    value, low, high = (100 * number for number in (figure.value, figure.low, figure.high))
    form = f"{sign}.2f"
    return f"{value:{form}}% [{low:{form}}, {high:{form}}]"


def _support_lines(found: Support) -> Iterator[str]:
    yield (
        f"  the policies prefer different profiles for {found.changed:.1%} of requests; "
        f"{found.untried:.2%} of the new choices were never open to the old policy"
    )
    yield (
        f"  after weighing, the rows are worth {found.effective:.0f} of {found.rows}, the changed "
        f"ones {found.effective_changed:.0f}; largest weight {found.largest_weight:.0f}, "
        f"mean {found.mean_weight:.2f} (1 is right)"
    )


def _by_tier(trials: Sequence[Trial]) -> Iterator[tuple[str, list[Trial]]]:
    for tier in sorted({trial.tier for trial in trials}):
        yield tier, [trial for trial in trials if trial.tier == tier]
