"""Measures vLLM's profiles on H200 GPUs, each in a process of its own with a time limit.

    python3 benchmarks/h200/run.py --only plain,eager,eagle3 --out DIR

Writes DIR/NAME.json after each point, so that a run which is cut keeps what it has, and DIR/NAME.log.
See README.md beside this for what has to be installed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).parents[2]
LEAST_S = 60.0
"""With less left, nothing more is started."""
STOPPING_S = 15.0
LINES = 12


def environment(scratch: Path) -> dict[str, str]:
    """Without network, with one compile cache for all profiles, and our code on the path."""
    path = [str(ROOT / "platform"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_USE_DEEP_GEMM": "0",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",  # it uses NVLink multicast, which not every host has on
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_CACHE_ROOT": str(scratch / "vllm"),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "TRITON_CACHE_DIR": str(scratch / "triton"),
    }


def run_one(name: str, options: argparse.Namespace, seconds: float) -> str:
    """One plan in a process group of its own; says how it ended."""
    log, out = options.out / f"{name}.log", options.out / f"{name}.json"
    command = [sys.executable, "-m", "benchmarks.h200.worker", "--plan", name, "--out", str(out)]
    command += ["--seconds", str(seconds - STOPPING_S), "--layers", str(options.layers)]
    command += ["--gpus", str(options.gpus)]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(options.scratch),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = f"status {process.wait(seconds)}"
        except subprocess.TimeoutExpired:
            status = f"killed after {seconds:.0f} s"
        finally:
            end_group(process)
    return status


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End all that is left of it: a dead front end's engine would keep the GPU's memory."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def tell(name: str, status: str, out: Path) -> None:
    """The lines that say something: figures of a plan that ran, the end of one that did not."""
    lines = (out / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
    own = [line for line in lines if line.startswith((f"{name}: ", "plain: ", "ngram: "))]
    print(f"== {name}: {status}", flush=True)
    for line in own if status == "status 0" and own else [*own, *lines[-LINES:]]:
        print(f"   {line[:240]}", flush=True)


def main() -> int:
    """The command line."""
    groups = "dense, moe, conformance, or plans' names, with commas"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="conformance,dense", help=groups)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "out/h200")))
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/h200"), help="compile caches")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for all of it")
    parser.add_argument("--each", type=float, default=240.0, help="seconds for one at most")
    parser.add_argument("--layers", type=int, default=6, help="of the Maverick-shaped model")
    parser.add_argument("--gpus", type=int, default=1, help="tensor parallelism")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "platform")]
    from benchmarks.h200.plans import GROUPS  # noqa: PLC0415 (the path is set only now)

    options.out.mkdir(parents=True, exist_ok=True)
    names = [n for word in options.only.split(",") for n in GROUPS.get(word, (word,))]
    ends = monotonic() + options.budget
    failed = 0
    for name in names:
        left = min(options.each, ends - monotonic())
        if left < LEAST_S:
            print(f"== {name}: not started, {max(0.0, left):.0f} s are left", flush=True)
            failed += 1
            continue
        status = run_one(name, options, left)
        failed += status != "status 0"
        tell(name, status, options.out)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
