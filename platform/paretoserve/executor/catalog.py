"""Which class is which engine. To add an engine: its file, and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from paretoserve.domain.errors import EngineError
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Profile
from paretoserve.executor.contract import Engine

ENGINES = {
    "emulator": "paretoserve.executor.engines.emulator:EmulatorEngine",
    "local": "paretoserve.executor.engines.local:LocalEngine",
    "vllm": "paretoserve.executor.engines.vllm:VllmEngine",
    "trtllm": "paretoserve.executor.engines.trtllm:TrtllmEngine",
    "trtllm-grpc": "paretoserve.executor.engines.trtllm_grpc:TrtllmGrpcEngine",
}


def create(profile: Profile, model: Model) -> Engine:
    """Build the engine that `profile` names; nothing is loaded before its `start`.

    Raises EngineError for an unknown engine, one whose packages are missing, or arguments it
    does not know.
    """
    if profile.engine not in ENGINES:
        raise EngineError(
            f"profile {profile.name} names engine {profile.engine!r}; known are {sorted(ENGINES)}"
        )
    module_name, class_name = ENGINES[profile.engine].split(":")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise EngineError(
            f"engine {profile.engine!r} needs a package that is not installed: {error}"
        ) from error
    return cast("Engine", getattr(module, class_name)(profile, model))
