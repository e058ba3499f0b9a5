"""A small emulated deployment, and a client that knows its tokens: real processes, no cluster."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from paretoserve.wire._pb import inference_pb2 as pb
from paretoserve.wire._pb import inference_pb2_grpc as rpc

KEY = "sk-test-acme"
VOCABULARY = 257
"""A byte each, and the end of sequence."""


def write_deployment(folder: Path) -> Path:
    """One model in two emulated profiles; tiers: fast-first, wide-first, wide-only."""
    _tokenizer(folder / "model")
    _write(folder / "models.yaml", models=[_model()])
    for profile in (_profile("fast", batch=4, tpot_ms=8), _profile("wide", batch=16, tpot_ms=12)):
        _write(folder / "profiles" / f"{profile['name']}.yaml", **profile)
    tiers = {"fast-first": ["fast", "wide"], "wide-first": ["wide", "fast"], "wide-only": ["wide"]}
    for name, profiles in tiers.items():
        _write(folder / "tiers" / f"{name}.yaml", **_tier(name, profiles))
    _write(folder / "tenants" / "acme.yaml", **tenant("acme", KEY, list(tiers)))
    _write(folder / "policy.yaml", **policy("test-1"))
    return folder


def policy(version: str) -> dict[str, Any]:
    """Requests spread over replicas and never wait; the first profile of a tier's name comes first."""
    rules = [
        {"name": f"{name} first", "when": f"tier.name == '{name}-first'", "prefer": [name]}
        for name in ("fast", "wide")
    ]
    return {"version": version, "pack": 0, "explore": 0, "hold": False, "rules": rules}


def tenant(name: str, key: str, tiers: list[str]) -> dict[str, Any]:
    hashed = "sha256:" + hashlib.sha256(key.encode()).hexdigest()
    return {"name": name, "key_hashes": [hashed], "tiers": tiers, "quota": {"max_in_flight": 64}}


class Client:
    """Calls a gateway over gRPC; streams run on threads of their own."""

    def __init__(self, address: str, key: str = KEY) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = rpc.InferenceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._pool = ThreadPoolExecutor(16)

    def generate(self, tier: str, max_tokens: int = 4, prompt: str = "once upon a time") -> Stream:
        """Returns once the request is decided. Raises grpc.RpcError."""
        request = pb.GenerateRequest(
            model="toy",
            prompt=prompt,
            service_tier=tier,
            include_decision=True,
            sampling={"max_tokens": max_tokens, "ignore_eos": True},
        )
        events = self._stub.Generate(request, metadata=self._metadata, timeout=60)
        return Stream(next(events).started, events, self._pool)

    def close(self) -> None:
        self._channel.close()
        self._pool.shutdown()


class Stream:
    """A running request: how it was placed, and what has come of it."""

    def __init__(self, started: pb.Started, events: Iterator[Any], pool: ThreadPoolExecutor):
        self.started = started
        self.token_ids: list[int] = []
        self._flowing = threading.Event()
        self._end: Future[pb.Completed] = pool.submit(self._read, events)

    def completed(self) -> pb.Completed:
        """Wait for the end. Raises grpc.RpcError when the stream broke."""
        return self._end.result(timeout=60)

    def wait_flowing(self) -> None:
        assert self._flowing.wait(30), "no token came"

    @property
    def tokens(self) -> int:
        return len(self.token_ids)

    def exact(self, count: int) -> bool:
        """Whether all came, none lost, doubled or changed, wherever they were made: the emulator's
        tokens are an arithmetic progression that prompt and seed decide.
        """
        ids = self.token_ids
        steps = {(later - one) % VOCABULARY for one, later in itertools.pairwise(ids)}
        return len(ids) == count and len(steps) == 1 and steps != {0}

    def _read(self, events: Iterator[Any]) -> pb.Completed:
        for event in events:
            if event.HasField("completed"):
                return event.completed
            self.token_ids.extend(event.delta.token_ids)
            self._flowing.set()
        raise AssertionError("the stream ended without `completed`")


def profile_serving(client: Client, tier: str) -> str:
    """The profile that served a short request of the tier, or nothing when none did."""
    try:
        stream = client.generate(tier)
        stream.completed()
    except grpc.RpcError:
        return ""
    return stream.started.profile


def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """The first true answer; a generous deadline against hangs."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"after {timeout_s:g} s still not so: {what}")


def _write(path: Path, **document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document))


def _model() -> dict[str, Any]:
    return {"name": "toy", "path": "model", "context_tokens": 4096}


def _profile(name: str, *, batch: int, tpot_ms: float) -> dict[str, Any]:
    return {
        "name": name,
        "model": "toy",
        "engine": "emulator",
        "gpus": 8,
        "limits": {
            "context_tokens": 4096,
            "max_batch": batch,
            "admit": batch,
            "max_queue": 64,
        },
        "curve": {
            "source": "emulated",
            "hardware": "none: a test",
            "points": [{"batch": 1, "tpot_ms": tpot_ms}, {"batch": batch, "tpot_ms": 2 * tpot_ms}],
            "prefill_tokens_per_s": 20000,
        },
    }


def _tier(name: str, profiles: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "ttft_ms": 20000,
        "tpot_ms": 200,
        "profiles": profiles,
        "overload": ["degrade"],
    }


def _tokenizer(folder: Path) -> None:
    """Byte level, no merges: a token per byte."""
    folder.mkdir(parents=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|end|>": 0} | {char: n for n, char in enumerate(alphabet, start=1)}
    assert len(vocabulary) == VOCABULARY
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "llama",
        "vocab_size": len(vocabulary),
        "eos_token_id": 0,
        "max_position_embeddings": 4096,
    }
    (folder / "config.json").write_text(json.dumps(config))


@dataclass
class Program:
    """A process of ours that has said that it is ready, and what it has said since."""

    process: subprocess.Popen[str]
    ready: str
    errors: Path

    def said(self) -> str:
        return self.errors.read_text()

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.process.terminate()
        return self.process.wait(60)


@contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[Program]:
    """Start a program that prints a line when it is ready; its errors go to a file in `folder`."""
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".err", delete=False) as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        ready = process.stdout.readline()
        assert ready, Path(errors.name).read_text()
        yield Program(process, ready, Path(errors.name))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def executor(folder: Path, profile: str, listen: str) -> AbstractContextManager[Program]:
    """An executor process at an address."""
    module = (sys.executable, "-m", "paretoserve.app.executor")
    arguments = ("--deployment", str(folder), "--profile", profile, "--listen", listen)
    return running([*module, *arguments], folder)


RESOLVER = """
import pathlib, socket, sys
real, table = socket.getaddrinfo, pathlib.Path(sys.argv.pop(1))
def lookup(host, *args, **more):
    if not (table / host).exists():
        return real(host, *args, **more)
    there = (table / host).read_text().split()
    if there == ["failing"]:
        raise socket.gaierror(socket.EAI_AGAIN, "no name server")
    if not there:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")
    return [found for address in there for found in real(address, *args, **more)]
socket.getaddrinfo = lookup
from paretoserve.app.cli import main
sys.exit(main())
"""
"""The command line in a world in which files in a folder are names, and hold their addresses."""


@contextmanager
def gateway(folder: Path, *options: str) -> Iterator[tuple[Program, str, str]]:
    """A gateway process, with its HTTP and its gRPC address; names are files in `folder`/names."""
    (folder / "names").mkdir(exist_ok=True)
    command = (sys.executable, "-c", RESOLVER, str(folder / "names"), "gateway")
    listen = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")
    arguments = ("--deployment", str(folder), *listen, *options)
    with running([*command, *arguments], folder) as program:
        http, _, grpc_address = program.ready.strip().partition(" and grpc ")
        yield program, http, grpc_address
