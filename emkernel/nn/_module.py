"""The base of all layers: constants of the group that keep their float64 values through every change of dtype."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from ..errors import RepError
from ..rep import Rep

__all__ = ["EquivariantModule", "check_rep"]


class EquivariantModule(nn.Module):
    """A module with constants: arrays fixed by the group, kept in float64 and cast to the module's dtype for use.

    ``module.double()`` therefore restores full precision, and ``state_dict`` holds the float64 values: a checkpoint
    carries the basis that its weights multiply. It also holds the settings of which the function of the same weights
    depends and no shape, and is refused where they differ.
    """

    def __init__(self):
        super().__init__()
        self._exact: dict[str, torch.Tensor] = {}
        self._indices: dict[str, torch.Tensor] = {}
        self._settings: dict[str, float | str] = {}
        self._meets_foreign = False  # while a checkpoint of another group is loaded: its constants are not taken

    def _constant(self, name: str, array: np.ndarray | torch.Tensor) -> None:
        # on the CPU also where modules are built on another device: on the meta device it would have no values
        exact = torch.as_tensor(array, dtype=torch.float64, device="cpu").detach().clone()
        self._exact[name] = exact
        here, dtype = torch.get_default_device(), torch.get_default_dtype()
        self.register_buffer(name, exact.to(here, dtype), persistent=False)

    def _index(self, name: str, array: np.ndarray) -> None:
        """Integers fixed by the group, which neither change with the dtype nor are saved."""
        self._indices[name] = torch.as_tensor(array, device="cpu")
        self.register_buffer(name, self._indices[name].to(torch.get_default_device()), persistent=False)

    def _setting(self, name: str, value: float | str) -> None:
        """A number or word that a checkpoint must have been made with, if it says."""
        self._settings[name] = value if isinstance(value, str) else float(value)

    @property
    def _like(self) -> torch.Tensor | None:
        """A tensor of the dtype and device of this layer."""
        return next(self.parameters(), next(self.buffers(), None))

    def _constants_changed(self) -> None:
        """Recompute what derives from the constants; called when they are cast or loaded."""

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        for name, exact in self._exact.items():
            now = self._buffers[name]
            self._buffers[name] = (
                exact.to(device=now.device, dtype=now.dtype) if now.device.type != "meta" else now
            )
        for name, index in self._indices.items():
            self._buffers[name] = index.to(self._buffers[name].device)
        self._constants_changed()
        return self

    def _layouts(self):
        """(name with a trailing dot, module) of what knows which representation it is of."""
        named = ((name + "." if name else "", m) for name, m in self.named_modules())
        return [(name, m) for name, m in named if hasattr(m, "is_foreign")]

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, exact in self._exact.items():
            destination[prefix + name] = exact
        for name, value in self._settings.items():
            saved = (list(value.encode()), torch.uint8) if isinstance(value, str) else (value, torch.float64)
            destination[prefix + name] = torch.tensor(saved[0], dtype=saved[1], device="cpu")

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        if (version := metadata.get("version") or 1) > self._version:
            errors.append(
                f"{prefix.rstrip('.')}: the checkpoint is of version {version} of {type(self).__name__}, of which this "
                f"emkernel reads up to {self._version}; update emkernel"
            )
        # children come after their parents
        if any(m.is_foreign(state_dict, prefix + name) for name, m in self._layouts()):
            for m in self.modules():
                if isinstance(m, EquivariantModule):
                    m._meets_foreign = True
        foreign, self._meets_foreign = self._meets_foreign, False
        for name, exact in self._exact.items():
            key = prefix + name
            if key not in state_dict:
                missing.append(key)
                continue
            if key in unexpected:
                unexpected.remove(key)
            if foreign:
                continue
            if state_dict[key].shape != exact.shape:
                errors.append(
                    f"{key}: the checkpoint has a constant of shape {tuple(state_dict[key].shape)}, this layer "
                    f"one of {tuple(exact.shape)}: it was trained with another group, other representations or a "
                    "kernel of another kind"
                )
                continue
            exact = state_dict[key].detach().to("cpu", torch.float64).clone()
            self._exact[name] = exact
            now = self._buffers[name]
            self._buffers[name] = exact.to(device=now.device, dtype=now.dtype)
        for name, value in self._settings.items():
            key = prefix + name
            if key in unexpected:
                unexpected.remove(key)
            # checkpoints of before they were kept do not say
            if key in state_dict and not foreign and (theirs := _differs(value, state_dict[key])) is not None:
                errors.append(
                    f"{key}: the checkpoint is of a layer with {name} {theirs}, this one has {name} {value}, with "
                    f"which the same weights are another function: make this layer with {name} {theirs}"
                )
        self._constants_changed()


def _differs(value: float | str, saved: torch.Tensor) -> float | str | None:
    """What was saved, where it is not the value to rounding."""
    if isinstance(value, str):
        theirs = bytes(saved.tolist()).decode(errors="replace")
        return theirs if theirs != value else None
    theirs = saved.item()
    return theirs if not math.isclose(theirs, value, rel_tol=1e-9) else None


def check_rep(*, edge_rep: Rep | None = None, **reps: Rep) -> None:
    """Raise RepError unless all are representations bound to one group."""
    first = None
    for name, rep in (reps if edge_rep is None else reps | {"edge_rep": edge_rep}).items():
        if not isinstance(rep, Rep):
            raise RepError(f"{name} must be a Rep, got {type(rep).__name__}")
        if rep.group is None:
            raise RepError(f"{name} = {rep} is not bound to a group; write rep(G)")
        if rep.size == 0:
            raise RepError(f"{name} is the zero representation: it has no components")
        if first is None:
            first = (name, rep)
        elif rep.group.digest != first[1].group.digest:
            raise RepError(
                f"{first[0]} belongs to {first[1].group.name}, {name} to {rep.group.name}; expected one group"
            )


def check_features(x: torch.Tensor, rep: Rep, name: str, reference: torch.Tensor | None = None) -> None:
    """Raise unless x is a dense floating tensor (..., rep.size), of the dtype and device of the reference if given."""
    check_tensor(x, name)
    if x.ndim < 1 or x.shape[-1] != rep.size:
        raise RepError(
            f"{name} has shape {tuple(x.shape)}, expected (..., {rep.size}) for the representation {rep}"
        )
    if reference is not None:
        check_like(x, reference, name)


def check_tensor(x: torch.Tensor, name: str) -> None:
    """Raise unless x is a dense floating tensor."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if x.layout != torch.strided:
        raise TypeError(f"{name} is a sparse tensor ({x.layout}), expected a dense one: {name}.to_dense()")
    if not x.is_floating_point():
        raise TypeError(f"{name} has dtype {x.dtype}, expected a floating type")


def check_like(x: torch.Tensor, reference: torch.Tensor, name: str) -> None:
    """Raise unless x has the device and, outside of autocast, the dtype of the layer."""
    if x.device != reference.device:
        raise ValueError(f"{name} is on {x.device}, the layer on {reference.device}: move one of them")
    # autocast knows no meta device, where there is nothing to cast
    cast = x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)
    if reference.is_floating_point() and x.dtype != reference.dtype and not cast:
        raise TypeError(
            f"{name} has dtype {x.dtype}, the layer {reference.dtype}: convert one of them "
            f"(layer.to({x.dtype}) or {name}.to({reference.dtype}))"
        )
