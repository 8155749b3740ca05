"""Reductions over segments of rows: one interface over torch and torch_scatter."""

from __future__ import annotations

from functools import cache

import torch

__all__ = ["BACKENDS", "available_backends", "segment_reduce"]

BACKENDS = ("auto", "torch", "torch_scatter")
REDUCTIONS = ("sum", "mean", "max", "min")


@cache
def _torch_scatter():
    try:
        import torch_scatter
    except (ImportError, OSError):
        return None
    return torch_scatter


def available_backends() -> tuple[str, ...]:
    """The backends that can be used here."""
    return ("torch",) if _torch_scatter() is None else ("torch", "torch_scatter")


def segment_reduce(
    values: torch.Tensor, index: torch.Tensor, size: int, reduce: str = "sum", backend: str = "auto"
) -> torch.Tensor:
    """out[i] = reduce over {values[e] : index[e] = i}; zero for an empty segment.

    Args:
        values: (E, ...).
        index: (E,) segment of each row, in any order.
        size: number of segments.
        reduce: "sum", "mean", "max" or "min".
        backend: "torch"; "torch_scatter" (Fey, the package of that name); "auto" takes torch_scatter where it is
            installed and measured faster, for max and min on the CPU (2 to 4 times), and for everything on a
            GPU, unmeasured (``benchmarks/segment.py`` measures it).

    Returns:
        (size, ...)

    Raises:
        ValueError: unknown reduction or backend, or arguments that do not fit together.
        IndexError: an index out of range, which is looked for on the CPU only.
        ImportError: torch_scatter was asked for and is not installed.
    """
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce must be one of {REDUCTIONS}, got {reduce!r}")
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if not torch.compiler.is_compiling():
        _check(values, index, size)
    # a compiler fuses torch's own, and could not look into the other
    scatter = None if torch.compiler.is_compiling() else _torch_scatter()
    if backend == "torch_scatter" and scatter is None:
        raise ImportError(
            "backend='torch_scatter' needs the package torch_scatter: pip install ninja, then "
            "pip install --no-build-isolation torch_scatter"
        )
    prefer = values.is_cuda or reduce in ("max", "min")
    if scatter is not None and (backend == "torch_scatter" or (backend == "auto" and prefer)):
        return scatter.scatter(values, index, dim=0, dim_size=size, reduce=reduce)
    if reduce in ("sum", "mean"):
        out = values.new_zeros(size, *values.shape[1:]).index_add(0, index, values)
        if reduce == "mean":
            # a bincount has a length of its own, which an exported program cannot know
            count = index.new_zeros(size).index_add(0, index, torch.ones_like(index)).clamp(min=1).to(values.dtype)
            out = out / count.reshape(-1, *[1] * (values.ndim - 1))
        return out
    wide = index.reshape(-1, *[1] * (values.ndim - 1)).expand_as(values)
    out = values.new_zeros(size, *values.shape[1:])
    return out.scatter_reduce(0, wide, values, "amax" if reduce == "max" else "amin", include_self=False)


def _check(values: torch.Tensor, index: torch.Tensor, size: int) -> None:
    if not isinstance(values, torch.Tensor) or values.ndim < 1 or values.layout != torch.strided:
        raise TypeError(f"values must be a dense tensor (E, ...), got {_given(values)}")
    integers = isinstance(index, torch.Tensor) and index.dtype in (torch.int64, torch.int32)
    if not integers or index.shape != values.shape[:1] or index.device != values.device:
        raise ValueError(
            f"index must be ({values.shape[0]},) integers on {values.device}, one for each row of values; got "
            f"{_given(index)}"
        )
    if not isinstance(size, int) or size < 0:
        raise ValueError(f"size must be a whole number of segments, got {size!r:.80}")
    if index.device.type == "cpu" and len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
        raise IndexError(f"index runs from {int(index.min())} to {int(index.max())}, but there are {size} segments")


def _given(x) -> str:
    return f"{x.dtype} {tuple(x.shape)} on {x.device}" if isinstance(x, torch.Tensor) else type(x).__name__
