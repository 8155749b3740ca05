"""What the benchmarks share: clocks, memory, processes and points. Imports nothing but torch at the top, so that
a process of another environment, with another library in it, can use it."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]


# ---- options --------------------------------------------------------------------------------------------------------


def add_options(parser) -> None:
    """The options that every benchmark takes."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="small sizes, short clocks; to runs/benchmarks")
    parser.add_argument("--seconds", type=float, help="time spent on each clock (default 2, quick 0.3)")
    parser.add_argument("--out", type=Path, help="folder of tables and plots (default docs/benchmarks)")


def settle(args) -> None:
    """Fill in what was left open, and set the number of threads of this process."""
    if args.seconds is None:
        args.seconds = 0.3 if args.quick else 2.0
    if args.out is None:
        args.out = ROOT / ("runs/benchmarks" if args.quick else "docs/benchmarks")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(f"--device {args.device}: this torch ({torch.__version__}) sees no CUDA device")
    torch.set_num_threads(args.threads)


def machine(args) -> str:
    """One line that says where this was measured."""
    if args.device.startswith("cuda"):
        name = torch.cuda.get_device_name(args.device)
    else:
        name = platform.processor() or platform.machine()
        info = Path("/proc/cpuinfo")
        if info.exists():
            models = [
                x.split(":")[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")
            ]
            name = models[0] if models else name
        time_of = ", time of the processor" if args.threads == 1 else ""
        name += f", {args.threads} of {os.cpu_count()} cores{time_of}"
    quick = ", quick settings" if args.quick else ""
    return f"{name}, torch {torch.__version__}{quick}"


# ---- clocks and memory ----------------------------------------------------------------------------------------------


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def clock(f: Callable[[], object], device: str, seconds: float, least: int = 3, most: int = 200) -> float:
    """Seconds of the fastest of several calls, after one that does not count; of one only where one takes long.

    With one thread on the CPU these are seconds of the processor, which other jobs on the machine hardly change.
    """
    now = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    start = time.perf_counter()
    f()
    synchronise(device)
    times: list[float] = []
    least = 1 if time.perf_counter() - start > 2 * seconds else least
    start = time.perf_counter()
    while len(times) < least or (time.perf_counter() - start < seconds and len(times) < most):
        before = now()
        f()
        synchronise(device)
        times.append(now() - before)
    return min(times)


def captured(f: Callable[[], object], device: str, seconds: float) -> float | None:
    """Seconds of the device alone, as one CUDA graph; None on a CPU, and for what cannot be captured."""
    if not device.startswith("cuda"):
        return None
    stream, graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()
    try:
        with torch.cuda.stream(stream):
            for _ in range(3):
                f()
        torch.cuda.synchronize(device)
        with torch.cuda.graph(graph, stream=stream):
            f()
    except RuntimeError:
        return None
    return clock(graph.replay, device, seconds)


def _resident(key: str) -> float:
    """VmRSS or VmHWM of this process in MB; where /proc is missing, the peak."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _forget_peak() -> None:
    """Give freed memory back and start the peak of the resident memory anew, where the system can."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        pass


def forget(kernel) -> None:
    """Give up what a kernel of emkernel keeps from one call to the next, so that it is counted."""
    from emkernel.ops import memory

    kernel.kept = memory.Kept()
    memory._shared.clear()


def memory(
    f: Callable[[], object], device: str, parameters=(), forget: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Memory of one call of ``f`` (forward and backward) beyond what was there before, in MB.

    ``resident`` is the peak of the process (of the device's allocator on CUDA), ``allocated`` the peak of what torch
    itself had allocated, ``saved`` what the forward pass keeps for the backward pass, parameters left out. ``forget``
    gives up what is kept from one call to the next.
    """
    out = {}
    forget()
    _forget_peak()
    before = _resident("VmRSS")
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        base = torch.cuda.memory_allocated(device)
    f()
    synchronise(device)
    out["resident"] = _resident("VmHWM") - before
    if device.startswith("cuda"):
        out["allocated"] = (torch.cuda.max_memory_allocated(device) - base) / 2**20
        out["resident"] = out["allocated"]
    else:
        forget()
        out["allocated"] = _allocated(f)
    out["saved"] = _saved(f, parameters)
    return out


def _allocated(f) -> float:
    """Peak of the running sum of torch's own allocations on the CPU during one call, in MB."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        f()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak / 2**20


def _saved(f, parameters) -> float:
    known = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        f()
    return sum(kept.values()) / 2**20


def _product(to, left, right, *args, **kwargs) -> int:
    """Operations of left @ right, from the shapes."""
    return 2 * math.prod(left) * right[-1]


def _coupled_sum(M, f, g, tables, graph, sizes, *_, **__) -> int:
    """Of Σ_e g_e ⊗ (M_e f_j), all rows of M on one tile of channels."""
    (total, _, _, tile, _), (edges, numbers) = sizes, M
    return 2 * edges * (total + numbers * tile)


def _coupled_grad(S, M, f, g, tables, graph, sizes, *_, **__) -> int:
    (total, _, _, tile, _), (edges, numbers) = sizes, M
    return 2 * edges * (2 * total + 3 * numbers * tile)


def uncounted() -> dict:
    """Matrix products that torch's counter of operations leaves out."""
    found = {torch.ops.aten.addmm_: _product, torch.ops.aten.baddbmm_: _product}
    if "emkernel.ops.coupled" in sys.modules:
        found[torch.ops.emkernel.coupled_sum] = _coupled_sum
        found[torch.ops.emkernel.coupled_grad] = _coupled_grad
    return found


def operations(f) -> int | None:
    """Floating-point operations of the matrix products of one call, a multiplication and an addition counting two.

    None for code that torch.compile has made, which cannot be looked into.
    """
    try:
        with FlopCounterMode(display=False, custom_mapping=uncounted()) as counter:
            f()
    except RuntimeError as error:
        if "torch.compile" in str(error):
            return None
        raise
    return counter.get_total_flops()


# ---- processes ------------------------------------------------------------------------------------------------------


def spawn(
    script: str | Path,
    options: dict,
    python: str = sys.executable,
    gigabytes: float | None = None,
    limit: float = 600,
) -> dict:
    """Run ``script`` with ``--measure`` JSON in a process of its own; its last line of output is the result.

    A process that dies, takes longer than ``limit`` seconds or, on the CPU, wants more than ``gigabytes`` gives
    {"failed": why}.
    """
    if options["device"] != "cpu":
        gigabytes = None

    def bound():
        if gigabytes is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 2**30),) * 2)

    try:
        done = subprocess.run(
            [python, "-W", "ignore", str(script), "--measure", json.dumps(options)],
            capture_output=True,
            text=True,
            timeout=limit,
            preexec_fn=bound,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"longer than {limit:.0f} s"}
    except FileNotFoundError:
        return {"failed": f"no such python: {python}"}
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    errors = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    text = done.stderr.lower()
    if any(sign in text for sign in ("can't allocate memory", "out of memory", "bad_alloc", "memoryerror")):
        return {"failed": "out of memory"}
    missing = [x for x in errors if x.startswith(("ModuleNotFoundError", "ImportError"))]
    return {"failed": (missing or errors)[-1][:120]}


def answer(result: dict) -> None:
    """What a process started by :func:`spawn` says at its end."""
    print(json.dumps(result))


# ---- points ---------------------------------------------------------------------------------------------------------


def cloud(points: int, neighbours: int, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Normally distributed points and the edges from their nearest neighbours, sorted by target, always the same."""
    pos = torch.randn(points, 3, generator=torch.Generator().manual_seed(0))
    distance = torch.cdist(pos, pos).fill_diagonal_(math.inf)
    source = distance.topk(neighbours, largest=False).indices.reshape(-1)
    target = torch.arange(points).repeat_interleave(neighbours)
    return pos.to(device), torch.stack([source, target]).to(device)
