"""A real process that behaves as an executor may misbehave. Usage: PATH ADDRESS BEHAVIOUR."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio

from paretoserve.wire._pb import executor_pb2 as pb
from paretoserve.wire._pb import executor_pb2_grpc as rpc


class StandIn(rpc.ExecutorServicer):
    def __init__(self, lifecycle) -> None:
        self.lifecycle = lifecycle
        self.streams = 0

    async def Health(self, request, context):  # noqa: N802
        return pb.HealthResponse(lifecycle=self.lifecycle, detail="no memory left")

    async def WatchState(self, request, context):  # noqa: N802
        yield pb.ExecutorState(
            executor_id=str(os.getpid()), running=self.streams, waiting=3, waiting_tokens=70
        )
        await asyncio.sleep(60)

    async def Generate(self, request, context):  # noqa: N802
        """One token every 20 ms, as many as there are prompt tokens."""
        self.streams += 1
        try:
            for token in request.prompt_token_ids:
                yield pb.Delta(request_id=request.request_id, token_ids=[token])
                await asyncio.sleep(0.02)
            yield pb.Delta(request_id=request.request_id, finish=pb.Finish())
        finally:
            self.streams -= 1

    async def Drain(self, request, context):  # noqa: N802
        self.lifecycle = pb.LIFECYCLE_DRAINING
        while self.streams:
            await asyncio.sleep(0.01)
        return pb.DrainResponse(finished=1)


async def main(address: str, behaviour: str) -> None:
    if behaviour == "exit":
        sys.stderr.write("weights are missing\n")
        raise SystemExit(7)
    if behaviour == "mpi-abort":
        sys.stderr.write("Hang detected after 300 seconds.\n")
        raise SystemExit(137)
    if behaviour.startswith("count:"):
        with Path(behaviour.removeprefix("count:")).open("a") as lives:
            lives.write("life\n")
    if behaviour.startswith("child:"):
        child = subprocess.Popen(["sleep", "300"])
        Path(behaviour.removeprefix("child:")).write_text(str(child.pid))
    if behaviour.startswith("rank:"):  # as MPI starts them: each in a group of its own
        rank = subprocess.Popen(["sleep", "300"], process_group=0)
        Path(behaviour.removeprefix("rank:")).write_text(str(rank.pid))
    lifecycle = {
        "drained": pb.LIFECYCLE_DRAINING,
        "failed": pb.LIFECYCLE_FAILED,
        "newer": 99,
    }.get(behaviour, pb.LIFECYCLE_SERVING)
    server = grpc.aio.server()
    rpc.add_ExecutorServicer_to_server(StandIn(lifecycle), server)
    server.add_insecure_port(address)
    await server.start()
    sys.stdout.write("serves\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
