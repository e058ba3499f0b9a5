"""The executor process: one engine behind gRPC. `paretoserve executor`, or
`python -m paretoserve.app.executor` in an engine's own environment.

Prints one JSON line {"address", "executor_id"} on stdout when it serves. SIGTERM drains and exits
with 0, a second one exits at once. A start that fails, or an engine that does so later, says why
in one sentence and exits with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

from paretoserve.app.config import ConfigError, load_profiles
from paretoserve.app.ending import on_signals
from paretoserve.app.option_types import not_negative, positive
from paretoserve.app.telemetry import load_telemetry
from paretoserve.domain.errors import EngineError, ParetoserveError, Unavailable
from paretoserve.executor.catalog import create
from paretoserve.executor.contract import Engine
from paretoserve.executor.engine_server import EngineServer, listen_address
from paretoserve.executor.event_loop import new_event_loop
from paretoserve.executor.held_port import HeldPort
from paretoserve.executor.observe import OnSubmit, observe_nothing
from paretoserve.executor.server import ExecutorServer
from paretoserve.executor.watchdog import STALL_AFTER_S
from paretoserve.telemetry import start

EXIT_FAILED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an executor until it is told to end; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="paretoserve executor", description="Host one engine.")
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Run an executor as parsed options say; returns the process's exit status."""
    try:
        engine = _engine(options.deployment, options.profile)
        with (
            _traced(options) as on_submit,
            asyncio.Runner(loop_factory=new_event_loop) as runner,
        ):
            runner.run(_run(engine, on_submit, options))
    except (ConfigError, ParetoserveError) as error:
        print(f"executor: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deployment", type=Path, required=True, metavar="DIR")
    parser.add_argument("--profile", required=True, metavar="NAME")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument(
        "--protocol",
        choices=("paretoserve", "trtllm"),
        default="paretoserve",
        help="trtllm: be a server for gateways that speak TensorRT-LLM's TrtllmService",
    )
    parser.add_argument(
        "--grace", type=not_negative, default=30.0, metavar="S", help="of the drain"
    )
    parser.add_argument("--ready-file", type=Path, metavar="PATH", help="gets the JSON line too")
    parser.add_argument(
        "--stall-after",
        type=positive,
        default=STALL_AFTER_S,
        metavar="S",
        help="an engine with requests and no step for so long has failed",
    )
    parser.add_argument("--parent-pid", type=int, metavar="PID", help="end when PID is gone")


def _engine(folder: Path, profile_name: str) -> Engine:
    deployment = load_profiles(folder)
    try:
        profile = deployment.profile(profile_name)
    except KeyError:
        known = ", ".join(profile.name for profile in deployment.profiles)
        raise ConfigError(f"{folder}: no profile {profile_name!r}; known are {known}") from None
    return create(profile, deployment.model(profile.model))


def _server(protocol: str) -> Callable[..., EngineServer]:
    """Raises ConfigError when the protocol needs a package that is not installed."""
    if protocol == "paretoserve":
        return ExecutorServer
    try:
        module = import_module("paretoserve.executor.trtllm")
    except ImportError as error:
        raise ConfigError(
            f"--protocol trtllm needs the extra trtllm-grpc, which is not installed: {error}"
        ) from error
    return cast("Callable[..., EngineServer]", module.TrtllmServer)


@contextlib.contextmanager
def _traced(options: argparse.Namespace) -> Iterator[OnSubmit]:
    """What makes this executor's spans, if the deployment folder asks for traces."""
    settings = load_telemetry(options.deployment)
    telemetry = start(settings.model_copy(update={"metrics": "none"}), "executor")
    if telemetry is None:
        yield observe_nothing
        return
    try:
        yield telemetry.executor_spans(options.profile).on_submit
    finally:
        telemetry.close()


async def _run(engine: Engine, on_submit: OnSubmit, options: argparse.Namespace) -> None:
    """Serve from bind to drained. Raises Unavailable or EngineError when it cannot start, and
    EngineError when its engine fails later.
    """
    ending = asyncio.Event()
    on_signals(ending)
    with _port_to_itself(options):
        await _serve(engine, on_submit, options, ending)


@contextlib.contextmanager
def _port_to_itself(options: argparse.Namespace) -> Iterator[None]:
    """A port that is given by hand is nobody else's; a supervisor's is held by that already.

    Raises Unavailable.
    """
    at = listen_address(options.listen)
    if options.parent_pid is not None or at.port == 0:
        yield
        return
    try:
        held = HeldPort(at.host, at.port)
    except OSError as error:
        raise Unavailable(f"cannot listen on {options.listen}: {error.strerror}") from error
    try:
        yield
    finally:
        held.release()


async def _serve(
    engine: Engine, on_submit: OnSubmit, options: argparse.Namespace, ending: asyncio.Event
) -> None:
    server = _server(options.protocol)(
        engine, options.profile, on_submit, stall_after_s=options.stall_after
    )
    address = await server.bind(options.listen)
    orphaned = asyncio.create_task(_gone(options.parent_pid))
    starting = asyncio.create_task(server.start_engine())
    try:
        told = asyncio.create_task(ending.wait())
        await asyncio.wait({starting, told, orphaned}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            _say_ready(address, server.host.executor_id, options.ready_file)
            failed = asyncio.create_task(server.host.failure())
            await asyncio.wait({told, orphaned, failed}, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                raise EngineError(failed.result())
    finally:
        starting.cancel()
        await server.stop(0.0 if orphaned.done() else options.grace)


def _say_ready(address: str, executor_id: str, ready_file: Path | None) -> None:
    line = json.dumps({"address": address, "executor_id": executor_id})
    if ready_file is not None:
        partial = ready_file.with_name(ready_file.name + ".partial")
        partial.write_text(line + "\n", encoding="utf-8")
        partial.replace(ready_file)  # whoever waits for the file never reads half of it
    print(line, flush=True)


async def _gone(pid: int | None) -> None:
    """Returns when process `pid` has ended; never without one."""
    if pid is None:
        await asyncio.Event().wait()
    elif sys.platform == "linux":
        await _ended(pid)
    else:
        while os.getppid() == pid:  # noqa: ASYNC110 (nothing here can set an event)
            await asyncio.sleep(1.0)


async def _ended(pid: int) -> None:
    """Wait with a pidfd, which also tells of a process that nobody has reaped yet."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(watch, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(watch)
        os.close(watch)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
