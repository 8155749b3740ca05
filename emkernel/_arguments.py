"""Arguments of any kind, checked: a whole number, an array."""

from __future__ import annotations

from numbers import Integral

import numpy as np
import torch

__all__ = ["array_of", "whole"]


def whole(value, name: str, least: int = 1, error: type[Exception] = ValueError) -> int:
    """``value`` as an int, or an error that names the argument."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise error(f"{name} must be at least {least}, got {value!r:.80}; expected a whole number")
    return int(value)


def array_of(value, name: str, error: type[Exception] = ValueError, kinds: str = "biuf") -> np.ndarray:
    """``value``, a tensor of any device among others, as a numpy array of real numbers, or an error that names it."""
    try:
        if isinstance(value, torch.Tensor):
            value = (value.float() if value.dtype == torch.bfloat16 else value).detach().cpu()
        array = np.asarray(value)
        array = array if array.dtype.kind in "biufc" else array.astype(float)
    except (TypeError, ValueError, RuntimeError) as e:
        raise error(f"{name} is not an array of numbers: {e}") from None
    if array.dtype.kind not in kinds:
        raise error(f"{name} is of type {array.dtype}, expected real numbers")
    return array
