"""A profile's engine_args as vLLM's AsyncEngineArgs, checked in our words before vLLM sees them."""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Collection
from pathlib import Path
from typing import Any

from paretoserve.domain.errors import EngineError
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Profile

WRITTEN_FOR = "0.26.0"

RESERVED = {
    "model": "the model's path in models.yaml",
    "max_model_len": "limits.context_tokens",
    "max_num_seqs": "limits.max_batch",
    "scheduling_policy": "nothing: requests are always ordered by their tier's priority",
    "skip_tokenizer_init": "nothing: the engine gets and gives token ids",
    "stream_interval": "coalesce",
    "disable_log_stats": "nothing: the router needs the engine's statistics",
    "enable_log_requests": "nothing: prompts are never logged",
}
"""What Paretoserve decides itself, and where an operator sets it instead."""

_NAMES = Path(__file__).with_name("engine_args.txt")


def known_arguments() -> frozenset[str]:
    """The names of AsyncEngineArgs in the version that this engine was written for."""
    return frozenset(_NAMES.read_text(encoding="utf-8").split())


def check_arguments(profile: Profile, known: Collection[str] | None = None) -> None:
    """Refuse engine_args that vLLM would not know or that are not the operator's to set, and
    capabilities that it does not have.

    Without `known`, names are checked against version 0.26.0, unless another one is installed:
    then they wait for the check at start, with that version's own names. Raises EngineError with
    the profile and, for an unknown name, the nearest one.
    """
    where = f"profile {profile.name}, engine_args"
    can = profile.capabilities
    if can.penalties and can.resumed_penalties:
        raise EngineError(
            f"profile {profile.name}: vLLM counts only its own output for penalties; say "
            "capabilities: {resumed_penalties: false}, so that what began elsewhere goes elsewhere"
        )
    if can.logit_bias and drafted_tokens(profile):
        raise EngineError(
            f"profile {profile.name}: vLLM has no logit_bias with speculation; leave "
            "capabilities.logit_bias out, so that such requests go elsewhere"
        )
    for name in profile.engine_args:
        if name in RESERVED:
            raise EngineError(f"{where}.{name} cannot be set; what sets it is {RESERVED[name]}")
    if known is None:
        if _installed_version() not in {WRITTEN_FOR, None}:
            return
        known = known_arguments()
    for name in profile.engine_args:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise EngineError(f"{where}: vLLM has no argument {name!r}{hint}")


def engine_arguments(profile: Profile, model: Model) -> dict[str, Any]:
    """All keyword arguments for AsyncEngineArgs.

    A `speculative_config.model` that names a folder inside the model's is made absolute.
    """
    return {
        **profile.engine_args,
        **_speculation(profile, model),
        "model": model.path,
        "max_model_len": profile.limits.context_tokens,
        "max_num_seqs": profile.limits.max_batch,
        "scheduling_policy": "priority",
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "enable_log_requests": False,
    }


def drafted_tokens(profile: Profile) -> int:
    """How many tokens a step drafts for one sequence; 0 without speculation."""
    speculation = profile.engine_args.get("speculative_config") or {}
    return int(speculation.get("num_speculative_tokens") or 0)


def _speculation(profile: Profile, model: Model) -> dict[str, Any]:
    speculation = profile.engine_args.get("speculative_config")
    if not speculation:
        return {}
    inside = Path(model.path) / str(speculation.get("model") or "")
    if speculation.get("model") and inside.is_dir():
        speculation = {**speculation, "model": str(inside)}
    return {"speculative_config": speculation}


def _installed_version() -> str | None:
    try:
        return importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return None
