"""What is drawn of a group and a kernel, as arrays: an orbit, a kernel over a plane and over the orbit, its errors.

:mod:`emkernel.plots` draws these with matplotlib, ``emkernel check --html`` in a page.
"""

from __future__ import annotations

from ._element_errors import Errors, errors
from ._field import EXTENT, PAIRS, Field, example_kernel, on_orbit, on_plane
from ._orbit import Orbit, orbit
from ._scene import Layer, Scene
from ._view import View

__all__ = [
    "EXTENT",
    "PAIRS",
    "Errors",
    "Field",
    "Layer",
    "Orbit",
    "Scene",
    "View",
    "errors",
    "example_kernel",
    "on_orbit",
    "on_plane",
    "orbit",
]
