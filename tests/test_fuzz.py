"""Arguments of every kind: a layer answers rightly or says what is wrong with them, and nothing else happens."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from junk import CALLS, answered, cases, foreign, good, junk

from emkernel import Scalar, V, groups
from emkernel.nn import PointConv

EVERYDAY = settings(
    derandomize=True, deadline=None, database=None, max_examples=40, suppress_health_check=list(HealthCheck)
)
SLOW = settings(EVERYDAY, max_examples=2000)
GROUPS = {"O(3)": True, "C(4)": True, "S(3)": True, "Cnv(5)": True, "Lorentz": False, "SL(2)": False}
PATHS = (("kernel", None), ("auto", None), ("message", 2), ("aggregate", 1))


@cache
def layers(name, attributes, aggr):
    """The same layer along each path."""
    G = groups.get(name)
    rep_in, rep_out, edge_rep = (2 * Scalar + V)(G), (Scalar + 2 * V)(G), (2 * Scalar)(G) if attributes else None
    made, sizes = {}, {"width": 2, "hidden": 4, "layers": 1, "aggr": aggr}
    for contraction, chunk in PATHS:
        torch.manual_seed(0)
        conv = PointConv(rep_in, rep_out, edge_rep, contraction=contraction, chunk=chunk, **sizes)
        made[contraction] = conv.double()
    return made


# ---- arguments that are wrong -----------------------------------------------------------------------------------


@EVERYDAY
@given(st.data())
def test_wrong_arguments_are_refused(data):
    name = data.draw(st.sampled_from(sorted(CALLS)))
    argument = data.draw(st.sampled_from(sorted(good(name))))
    value = data.draw(st.sampled_from(junk()))
    assert (why := foreign(name, {argument: value})) is None, f"{name}({argument}={value!r:.60}): {why}"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CALLS))
def test_every_wrong_argument_is_refused(name):
    found = [f"{k}={v!r:.60}: {why}" for k, v in cases(name) if (why := foreign(name, {k: v}))]
    assert not found, f"{len(found)} of {len(list(cases(name)))}:\n" + "\n".join(found[:10])


@pytest.mark.parametrize("error", [KeyError, AttributeError, RuntimeError, AssertionError, NotImplementedError])
def test_negative_control_a_foreign_error_is_seen(error, monkeypatch):
    def broken(**_):
        raise error("deep")

    monkeypatch.setitem(CALLS, "broken", (broken, lambda: {"x": 1}))
    assert error.__name__ in foreign("broken", {"x": 2})


@pytest.mark.parametrize("name", sorted(CALLS))
def test_what_is_right_is_answered(name):
    assert answered(name)


# ---- arguments that are right, of any size ----------------------------------------------------------------------


@st.composite
def calls(draw):
    """(group, attributes, aggr), tensors in float64, edges, and whether to compute in single precision."""
    name, attributes = draw(st.sampled_from(sorted(GROUPS))), draw(st.booleans())
    single, seed = draw(st.booleans()), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    sources, edges = draw(st.integers(1, 9)), draw(st.sampled_from([0, 1, 3, 12, 60]))
    targets = draw(st.one_of(st.none(), st.integers(1, 5)))
    high = 30 if single else 140
    # lengths of edges of a group that is not compact enter as they are, in polynomials
    lengths = (-high, high) if GROUPS[name] else (-high, 3)
    x_exponent, length = draw(st.integers(-high, high)), draw(st.integers(*lengths))
    # kernels are products of attributes, of polynomials of the edges of such a group, and of features
    room = 32 - x_exponent - (0 if GROUPS[name] else 2 * max(length, 0) + 2)
    attribute = draw(st.integers(-high, min(high, room) if single else 100))
    conv = layers(name, attributes, "sum")["kernel"]
    size_in, d = conv.rep_in.size, conv.rep_in.group.d
    x, pos = (10.0**e * rng.standard_normal((sources, w)) for e, w in ((x_exponent, size_in), (length, d)))
    target = pos if targets is None else 10.0**length * rng.standard_normal((targets, d))
    if draw(st.booleans()):  # points that coincide
        pos[:] = pos[0]
    index = np.stack([rng.integers(0, len(side), edges) for side in (pos, target)])
    values = 10.0**attribute * rng.standard_normal((edges, 2)) if attributes else None
    kind = name, attributes, draw(st.sampled_from(["sum", "mean"]))
    return kind, single, x, (pos, None if targets is None else target), torch.from_numpy(index), values


def outputs(call, path, change=lambda t, what: t):
    """Output and gradients of one path."""
    kind, single, x, (pos, target), index, values = call
    conv, dtype = layers(*kind)[path], torch.float32 if single else torch.float64
    leaves = [None if a is None else change(torch.tensor(a, dtype=dtype), what)
              for a, what in ((x, "x"), (pos, "pos"), (target, ""), (values, "values"))]  # fmt: skip
    leaves = [None if t is None else t.requires_grad_() for t in leaves]
    x, pos, target, values = leaves
    try:
        y = conv.to(dtype)(x, pos, index, values) if target is None else conv.to(dtype)(x, (pos, target), index, values)
        weights = [p for p in conv.parameters() if p.requires_grad]
        wanted = [t for t in (*leaves, *weights) if t is not None]
        grads = torch.autograd.grad(y.sum(), wanted, allow_unused=True, materialize_grads=True)
    finally:
        conv.double()
    return y.detach(), grads


def check_values(call):
    reference = None
    for path, _ in PATHS:
        y, grads = outputs(call, path)
        assert torch.isfinite(y).all(), path
        assert all(torch.isfinite(g).all() for g in grads), path
        if reference is None:
            reference = y
        else:
            tolerance = 1e-4 if call[1] else 1e-11
            assert float((y - reference).abs().max() if y.numel() else 0) <= tolerance * float(
                reference.abs().max() if y.numel() else 0
            ), path


@EVERYDAY
@given(calls())
def test_finite_inputs_have_finite_outputs_and_gradients_alike_on_all_paths(call):
    check_values(call)


@pytest.mark.slow
@SLOW
@given(calls())
def test_many_finite_inputs_have_finite_outputs_and_gradients(call):
    check_values(call)


@pytest.mark.parametrize("name", [n for n, compact in GROUPS.items() if compact])
def test_directions_of_very_long_edges_are_seen(name):
    """Beyond the last radial function the kernel knows the direction alone, in single precision too."""
    conv = layers(name, False, "sum")["kernel"].kernel
    v = torch.randn(6, conv.rep_in.group.d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    far = conv(1e8 * v)
    assert far.std(0).max() > 1e-3
    torch.testing.assert_close(conv(1e30 * v), far, rtol=1e-10, atol=1e-10)
    try:
        single = conv.float()(1e30 * v.float())
    finally:
        conv.double()
    torch.testing.assert_close(single.double(), far, rtol=1e-4, atol=1e-4)


def check_confined(call, seed):
    """A number that is none at one node or edge shows at the nodes it can reach, and nowhere else."""
    kind, single, x, (pos, target), index, values = call
    rng = np.random.default_rng(seed)
    what = rng.choice([w for w, there in (("x", True), ("pos", True), ("values", values is not None and len(values)))
                       if there])  # fmt: skip
    at = int(rng.integers(len({"x": x, "pos": pos, "values": values}[what])))
    bad = float(rng.choice([math.nan, math.inf, -math.inf]))

    def change(t, name):
        if name == what:
            t[at] = bad
        return t

    j, i = index
    reached = torch.zeros(len(pos if target is None else target), dtype=torch.bool)
    reached[i[j == at] if what != "values" else i[at]] = True
    if target is None and what == "x":
        reached[at] = True
    if target is None and what == "pos":
        reached[at] = reached[at] | bool((i == at).any())
    for path, _ in PATHS:
        (clean, _), (y, _) = outputs(call, path), outputs(call, path, change)
        scale = float(clean.abs().max()) if clean.numel() else 0.0
        assert float((y - clean)[~reached].abs().max() if (~reached).any() else 0) <= 1e-6 * scale, (path, what)
        assert torch.isfinite(y[~reached]).all(), (path, what)
        if math.isnan(bad) and reached.any():
            assert not torch.isfinite(y[reached]).all(1).any(), f"{path}: {what} that is none has been lost"


@EVERYDAY
@given(calls(), st.integers(0, 2**32 - 1))
def test_what_is_no_number_stays_where_it_can_reach(call, seed):
    check_confined(call, seed)


@pytest.mark.slow
@settings(SLOW, max_examples=1500)
@given(calls(), st.integers(0, 2**32 - 1))
def test_many_that_are_no_numbers_stay_where_they_can_reach(call, seed):
    check_confined(call, seed)


@EVERYDAY
@given(st.integers(0, 2**32 - 1), st.sampled_from(["int32", "transposed", "strided", "grad off"]))
@example(0, "int32")
def test_other_memory_and_integers_change_nothing(seed, how):
    rng = np.random.default_rng(seed)
    conv = layers("C(4)", True, "sum")["auto"]
    n, e = int(rng.integers(1, 9)), int(rng.integers(0, 30))
    sizes = ((n, conv.rep_in.size), (n, 2), (e, 2))
    x, pos, values = (torch.tensor(rng.standard_normal(s)) for s in sizes)
    index = torch.from_numpy(rng.integers(0, n, (2, e)))
    wanted = conv(x, pos, index, values)
    if how == "int32":
        index = index.int()
    elif how == "transposed":
        x, pos, values, index = (t.T.contiguous().T for t in (x, pos, values, index))
    elif how == "strided":
        x, pos, values = (torch.stack([t, t + 1], 2)[..., 0] for t in (x, pos, values))
        index = torch.stack([index, index], 2)[..., 1]
    with torch.set_grad_enabled(how != "grad off"):
        torch.testing.assert_close(conv(x, pos, index, values), wanted, rtol=1e-12, atol=1e-12)
