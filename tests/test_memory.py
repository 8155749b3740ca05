"""What layers keep between calls: later calls are the first one, whatever comes between."""

import copy
import gc
import pickle
import threading
import weakref

import pytest
import torch
from tables import group
from test_conv import GRAPHS, SMALL, double, fields, randn

from emkernel import Neighbours, Scalar, V, knn_graph
from emkernel.nn import PointConv
from emkernel.ops import memory
from emkernel.ops.memory import Kept, Memory, borrowed


def layer(name="O(3)", contraction="auto", chunk=3, copies=1, **options):
    rep_in, rep_out = fields(group(name))
    if copies > 1:
        rep_in = rep_out = (copies * Scalar + copies * V)(group(name))
    return double(PointConv(rep_in, rep_out, contraction=contraction, chunk=chunk, **SMALL | options))


def outcome(conv, graph="ragged", seed=0, dtype=torch.float64):
    """Output and derivatives."""
    sources, targets, edge_index = GRAPHS[graph]
    x = randn(sources, conv.rep_in.size, seed=seed, dtype=dtype).requires_grad_()
    pos = randn(sources, 3, seed=seed + 1, dtype=dtype)
    pos_target = pos if targets == sources else randn(targets, 3, seed=seed + 2, dtype=dtype)
    x_target = x if targets == sources else None
    y = conv((x, x_target), (pos, pos_target), edge_index)
    wanted = [x, *(p for p in conv.parameters() if p.requires_grad)]
    return [y.detach(), *torch.autograd.grad(y.square().sum(), wanted, allow_unused=True)]


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def fresh(conv, *args, **kwargs):
    """The outcome of a copy, which has kept nothing."""
    return outcome(copy.deepcopy(conv), *args, **kwargs)


@pytest.mark.parametrize("contraction", ["aggregate", "message", "auto"])
@pytest.mark.parametrize("name", ["O(3)", "T", "O(1,3)"])
def test_later_calls_are_those_of_a_new_layer(name, contraction):
    g = group(name)
    conv = double(PointConv(*fields(g), contraction=contraction, chunk=3, **SMALL))

    def outcome(conv, nodes, seed):
        x = randn(nodes, conv.rep_in.size, seed=seed).requires_grad_()
        pos = randn(nodes, g.d, seed=seed + 1)
        y = conv(x, pos, torch.randint(0, nodes, (2, 4 * nodes), generator=torch.Generator().manual_seed(seed)))
        return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *conv.parameters()], allow_unused=True)]

    for seed, nodes in enumerate((9, 9, 30, 7, 9)):  # the same graph again, larger and smaller ones
        same(outcome(conv, nodes, seed % 3), outcome(copy.deepcopy(conv), nodes, seed % 3))
        with torch.no_grad():  # as an optimiser does
            for p in conv.parameters():
                p.add_(0.1 * randn(*p.shape, seed=seed))


def test_calls_are_kept():
    conv = layer()
    outcome(conv)
    kept = dict(conv.kernel.kept._found)
    assert len(kept) == 1
    outcome(conv, seed=5)
    assert conv.kernel.kept._found == kept
    for _, work in kept.values():
        written = dict(work._lists)
        assert {needs is None for _, needs in written} == {True, False}  # forward and backward
        outcome(conv, seed=6)
        assert work._lists.keys() == written.keys()
        assert all(work._lists[key] is calls for key, calls in written.items())


def test_layers_that_share_memory_do_not_disturb_one_another():
    small, large = layer(), layer(copies=5, width=4)
    expected = fresh(small), fresh(large)
    for _ in range(3):
        same(outcome(small), expected[0])
        same(outcome(large), expected[1])
    x, pos, edges = randn(9, small.rep_in.size), randn(9, 3), GRAPHS["ragged"][2]
    y, z = small(x, pos, edges), large(randn(9, large.rep_in.size), pos, edges)
    before = y.clone(), z.clone()
    outcome(small, seed=3), outcome(large, seed=3)
    same((y, z), before)  # outputs are no part of it


def test_derivatives_asked_for_may_change():
    conv = layer()
    full = outcome(conv)
    for p in conv.parameters():
        p.requires_grad_(False)
    x = randn(9, conv.rep_in.size).requires_grad_()
    y = conv(x, randn(9, 3, seed=1), GRAPHS["ragged"][2])
    same(torch.autograd.grad(y.square().sum(), x), full[1:2])
    for p in conv.parameters():
        p.requires_grad_(True)
    same(outcome(conv), full)


def test_inference_and_training_in_any_order():
    conv = layer(copies=6)
    with torch.inference_mode():
        y = conv(randn(9, conv.rep_in.size), randn(9, 3, seed=1), GRAPHS["ragged"][2])
    expected = fresh(conv)
    torch.testing.assert_close(y.clone(), expected[0], rtol=0, atol=0)
    same(outcome(conv), expected)
    with torch.inference_mode():
        again = conv(randn(9, conv.rep_in.size), randn(9, 3, seed=1), GRAPHS["ragged"][2])
    torch.testing.assert_close(again.clone(), expected[0], rtol=0, atol=0)


def test_dtypes_and_autocast_in_turn():
    conv = layer()
    expected = fresh(conv)
    same(outcome(conv), expected)
    conv.float()
    low = outcome(conv, dtype=torch.float32)
    assert all(x.dtype == torch.float32 for x in low)
    x, pos = (randn(9, n, seed=i, dtype=torch.float32) for i, n in enumerate((conv.rep_in.size, 3)))
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            half = conv(x, pos, GRAPHS["ragged"][2])
        torch.testing.assert_close(half.double(), expected[0], rtol=0.1, atol=0.1)
    conv.double()
    torch.testing.assert_close(outcome(conv)[0], expected[0], rtol=1e-5, atol=1e-5)


def test_other_constants_are_seen():
    """A layer called with buffers in place of its own, as torch.func.functional_call does."""
    conv = layer()
    outcome(conv)
    args = randn(9, conv.rep_in.size), randn(9, 3, seed=1), GRAPHS["ragged"][2]
    other = {name: -2 * x for name, x in conv.named_buffers() if ".coupling" in name or "._fold" in name}
    assert other
    with torch.no_grad():
        changed = torch.func.functional_call(conv, other, args)
        same([changed], [torch.func.functional_call(copy.deepcopy(conv), other, args)])
        assert not torch.allclose(changed, conv(*args))
    same(outcome(conv), fresh(conv))


def test_a_loaded_state_is_used():
    a, b = layer(), layer()
    double(b, seed=7)
    outcome(a), outcome(b)
    a.load_state_dict(b.state_dict())
    same(outcome(a), fresh(b))


def test_many_threads_at_once():
    convs = [layer(copies=n) for n in (1, 1, 4, 4)]
    expected = [fresh(conv, graph) for conv in convs for graph in ("ragged", "uniform degree")]
    wrong, gate = [], threading.Barrier(len(expected))

    def run(i):
        conv, graph = convs[i // 2], ("ragged", "uniform degree")[i % 2]
        gate.wait()
        try:
            for _ in range(20):
                same(outcome(conv, graph), expected[i])
        except Exception as error:  # of a thread, to be raised here
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(expected))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong[0]


def test_an_error_leaves_the_memory_free(monkeypatch):
    from emkernel.ops.chunk import Chunk

    conv = layer()
    expected = outcome(conv)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Chunk, "_load", lambda *args: 1 / 0)
        outcome(conv)
    assert not any(x.lock.locked() for x in memory._shared.values())
    assert all(work.operands is None for _, work in conv.kernel.kept._found.values())
    same(outcome(conv), expected)


def test_copies_and_pickles_keep_nothing():
    conv = layer()
    expected = outcome(conv)
    for again in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert not again.kernel.kept._found
        same(outcome(again), expected)
    assert len(pickle.dumps(conv)) < 1.1 * len(pickle.dumps(copy.deepcopy(conv)))
    assert not [k for k in conv.state_dict() if "kept" in k]


def test_no_operand_is_kept():
    conv = layer()
    x, pos = randn(9, conv.rep_in.size).requires_grad_(), randn(9, 3, seed=1)
    graph = Neighbours.of(GRAPHS["ragged"][2], 9)
    conv(x, pos, graph).sum().backward()
    dead = [weakref.ref(each) for each in (x, pos, graph)]
    del x, pos, graph
    gc.collect()
    assert [ref() for ref in dead] == [None] * 3


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(memory, "LIMIT", 100_000)
    monkeypatch.setattr(memory, "_shared", {})
    conv = layer(chunk=64, copies=4)
    pos, x = randn(300, 3), randn(300, conv.rep_in.size)
    edges = knn_graph(pos, 9)
    expected = copy.deepcopy(conv)(x, pos, edges)
    shared = memory._shared[torch.float64, memory.CPU]
    assert not shared._arrays and shared.generation
    torch.testing.assert_close(conv(x, pos, edges), expected, rtol=0, atol=0)
    for seed in range(40):  # chunks of ever other degrees
        n = 9
        edges = torch.randint(0, n, (2, 30), generator=torch.Generator().manual_seed(seed))
        conv(x[:n], pos[:n], edges)
    assert all(len(work._lists) <= memory.LISTS for _, work in conv.kernel.kept._found.values())


def test_arrays_grow_and_say_so():
    m = Memory(torch.float32)
    a = m.array("a", 10)
    assert m.array("a", 6).data_ptr() == a.data_ptr() and m.generation == 0
    assert len(m.array("a", 11)) == 11 and m.generation == 1
    m.array("b", 3)
    assert m.generation == 1
    with borrowed(torch.float32) as one, borrowed(torch.float32) as two:
        assert one is not two
    kept, made = Kept(), []
    with borrowed(torch.float32) as one:
        c = torch.ones(1)
        make = lambda: made.append(1) or len(made)  # noqa: E731
        assert [kept("kind", [c], one, make) for _ in range(2)] == [1, 1]
        assert kept("kind", [c.clone()], one, make) == 2
        assert kept("kind", [c], Memory(torch.float32), make) == 3
        for n in range(40):
            kept(n, [c], one, make)
        assert len(kept._found) <= memory.KINDS


def test_a_counter_of_operations_sees_them():
    from torch.utils.flop_counter import FlopCounterMode

    conv, counts = layer(copies=3), []
    for _ in range(2):
        with FlopCounterMode(display=False) as counter:
            conv(randn(9, conv.rep_in.size), randn(9, 3, seed=1), GRAPHS["ragged"][2]).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
