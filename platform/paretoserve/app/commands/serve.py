"""`paretoserve serve`."""

from __future__ import annotations

import argparse
import signal
import socket
import threading
from pathlib import Path

from paretoserve.app.config import ConfigError
from paretoserve.app.option_types import listening
from paretoserve.app.parity.gate import load_served, load_served_profiles
from paretoserve.app.serve import config_file
from paretoserve.app.serve.builder import parse_args
from paretoserve.app.serve.up import Platform, existing_cluster, local_cluster
from paretoserve.domain.address import Address

READY = """
Ready. HTTP http://{http} and gRPC {grpc}. The demo tenants' keys are sk-local-acme (premium and
standard), sk-local-borealis (standard) and sk-local-cumulus (batch). To paste:

  curl -N http://{http}/v1/completions -H 'Authorization: Bearer sk-local-acme' \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "scribe", "prompt": "It was a dark night, and", "max_tokens": 64, "stream": true}}'

  .venv/bin/python - <<'EOF'                # any OpenAI client
from openai import OpenAI
client = OpenAI(base_url="http://{http}/v1", api_key="sk-local-borealis")
answer = client.chat.completions.create(
    model="scribe", messages=[{{"role": "user", "content": "Tell me of the sea."}}], max_tokens=64)
print(answer.choices[0].message.content, answer.service_tier, answer.usage)
EOF

  .venv/bin/python - <<'EOF'                # the SDK
from paretoserve.sdk import Client
with Client("{grpc}", api_key="sk-local-acme") as client:
    print(client.explain("It was a dark night, and", model="scribe", tier="premium"))
    print(client.generate("It was a dark night, and", model="scribe", max_tokens=64).text)
EOF

  PARETOSERVE_API_KEY=sk-local-acme .venv/bin/paretoserve generate 'It was a dark night, and'

Ctrl-C stops everything."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("deployments/local/serve.yaml"),
        help="a Ray Serve config file; default: deployments/local/serve.yaml",
    )
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="deploy onto a running Ray cluster (auto: the one of this machine) and leave it up",
    )
    for option in ("--http", "--grpc"):
        parser.add_argument(
            option, type=listening, metavar="HOST:PORT", help="default: the config file's"
        )


def run(options: argparse.Namespace) -> int:
    """Bring the platform up and, unless the cluster is somebody else's, stay until a signal."""
    given = {"http": options.http, "grpc": options.grpc}
    config = config_file.read(options.config, {key: at for key, at in given.items() if at})
    args = parse_args(config.applications[0].args)
    load = load_served if args.gateway else load_served_profiles
    load(args.deployment)  # a mistake in it is told before Ray is started
    if options.cluster:
        with existing_cluster(options.cluster):
            _tell_ready(Platform.deploy(config, _tell))
            return 0
    if args.gateway:
        for option, address in (("--http", args.http), ("--grpc", args.grpc)):
            _must_be_free(option, address)
    with _until_signal() as stopped, local_cluster(progress=_tell):
        _tell_ready(Platform.deploy(config, _tell))
        stopped.wait()
    return 0


def _tell_ready(platform: Platform) -> None:
    if platform.http:
        print(READY.format(http=platform.http, grpc=platform.grpc), flush=True)
    else:
        _tell("ready, without a gateway: `paretoserve gateway --discover` finds the executors")


def _must_be_free(option: str, address: str) -> None:
    """Raises ConfigError for an address that cannot be bound, before anything is started."""
    at = Address.parse(address)
    family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
    try:
        socket.create_server((at.host, at.port), family=family).close()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {address}: {error.strerror}; choose another with {option} HOST:PORT"
        ) from None


class _until_signal:  # noqa: N801 (reads as a verb where it is used)
    """Turns SIGINT and SIGTERM into an event, so that everything is taken down in order."""

    def __enter__(self) -> threading.Event:
        self._stopped = threading.Event()
        self._before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self._stopped

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: object) -> None:
        if self._stopped.is_set():
            raise KeyboardInterrupt
        self._stopped.set()
        print(f"\n==> {signal.Signals(number).name}: stopping (again: at once)", flush=True)


def _tell(line: str) -> None:
    print(f"==> {line}", flush=True)
