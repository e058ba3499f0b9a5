"""The Serve application: one deployment per profile, and a gateway or, where gateways run outside
of Ray, what stands in its place.

A Serve config file names it (`import_path: paretoserve.app.serve.builder:build`) and may override
every deployment option that is set here: num_replicas, ray_actor_options, placement groups,
autoscaling_config, user_config.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve.config import RequestRouterConfig

from paretoserve.app.config import ConfigError
from paretoserve.app.parity.gate import load_served, load_served_profiles
from paretoserve.app.serve.args import FLEET, GATEWAY, Args, ExecutorArgs
from paretoserve.app.serve.fleet import Fleet
from paretoserve.app.serve.gateway import Gateway
from paretoserve.app.serve.replica import ExecutorReplica, ReplicaSettings
from paretoserve.domain.profile import Profile

_ROUTER = "paretoserve.app.serve.router.AddressRouter"
_AFTER_GRACE_S = 15.0
"""Serve kills a replica that is not gone this long after its streams' grace."""


_WITHOUT_GPU = frozenset({"emulator", "trtllm-grpc"})


def build(args: dict[str, Any]) -> serve.Application:
    """The application for `args` (see args.py).

    Raises ConfigError for unknown args and for a deployment folder that is not good; without a
    gateway, only models, profiles and parity records are read.
    """
    checked = parse_args(args)
    load = load_served if checked.gateway else load_served_profiles
    profiles = load(checked.deployment).profiles
    unknown = set(checked.executors) - {profile.name for profile in profiles}
    if unknown:
        raise ConfigError(f"args.executors names {sorted(unknown)}, which are not profiles")
    ingress = GATEWAY if checked.gateway else FLEET
    if ingress in {profile.name for profile in profiles}:
        raise ConfigError(f"a profile may not be called {ingress!r}: that deployment exists")
    handles = {profile.name: _executors(profile, checked) for profile in profiles}
    if checked.gateway:
        return _gateway(checked).bind(checked, handles)
    return _fleet(checked).bind(handles)


def parse_args(args: dict[str, Any]) -> Args:
    """Raises ConfigError with a line per problem."""
    try:
        return Args.model_validate(args)
    except ValidationError as error:
        raise ConfigError(f"args of the Serve application: {error}") from None


def resources(profile: Profile) -> dict[str, Any]:
    """Deployment options that give one replica of `profile` what it costs.

    All GPUs of a replica come from one placement group bundle, so from one host. Engines that
    compute on the CPU take one logical core (at most), as the emulator does, and so does one that
    attaches to a server: the GPUs are that server's.
    """
    if profile.engine in _WITHOUT_GPU or profile.engine_args.get("device") == "cpu":
        return {"ray_actor_options": {"num_cpus": min(1.0, profile.gpus)}}
    return {
        "ray_actor_options": {"num_cpus": 1, "num_gpus": profile.gpus},
        "placement_group_bundles": [{"CPU": 1, "GPU": profile.gpus}],
        "placement_group_strategy": "STRICT_PACK",
    }


def _executors(profile: Profile, args: Args) -> serve.Application:
    how = args.executors.get(profile.name, ExecutorArgs())
    settings = ReplicaSettings(
        deployment=args.deployment,
        profile=profile.name,
        host=args.executor_host,
        port=args.executor_port if how.port is None else how.port,
        python=how.python,
        env=how.env,
        start_timeout_s=how.start_timeout_s,
        stall_after_s=how.stall_after_s,
        drain_grace_s=args.drain_grace_s,
        settle_s=0.0 if args.gateway else args.settle_s,
    )
    deploy = serve.deployment(
        name=profile.name,
        request_router_config=RequestRouterConfig.model_validate({"request_router_class": _ROUTER}),
        **resources(profile),
        **_life_cycle(args),
    )
    return deploy(ExecutorReplica).bind(settings)


def _gateway(args: Args) -> serve.Deployment:
    deploy = serve.deployment(
        name=GATEWAY,
        max_replicas_per_node=1,  # its ports are fixed
        ray_actor_options={"num_cpus": 1},
        user_config={},  # so that taking it out of the config file takes it back
        **_life_cycle(args),
    )
    return deploy(Gateway)


def _fleet(args: Args) -> serve.Deployment:
    deploy = serve.deployment(name=FLEET, ray_actor_options={"num_cpus": 0}, **_life_cycle(args))
    return deploy(Fleet)


def _life_cycle(args: Args) -> dict[str, Any]:
    return {
        "max_constructor_retry_count": 3,  # a profile that cannot start must say so soon
        "health_check_period_s": 2.0,
        "health_check_timeout_s": 10.0,
        "graceful_shutdown_wait_loop_s": 0.2,
        "graceful_shutdown_timeout_s": args.drain_grace_s + _AFTER_GRACE_S,
    }
