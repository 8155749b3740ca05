"""On a GPU everything gives what it gives on the CPU, and nothing waits for the device. Skipped where there is none."""

import copy

import numpy as np
import pytest
import torch

import emkernel as ek
from emkernel import Scalar, V, groups, nn
from emkernel.models import MoleculeNet, ParticleNet, ShapeNet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def molecules(dtype=torch.float64):
    """Six chains of 5 to 15 atoms with branches."""
    edges, index, start = [], [], 0
    for number, n in enumerate((5, 7, 15, 9, 5, 12)):
        child = torch.arange(1, n)
        edges.append(torch.stack([(child - 1 - child % 2).clamp(min=0), child]) + start)
        index.append(torch.full((n,), number))
        start += n
    bonds = torch.cat(edges, 1)
    bonds = torch.cat([bonds, bonds.flip(0)], 1)
    draw = torch.Generator().manual_seed(5)
    z = torch.randint(5, (start,), generator=draw)
    bond = torch.randint(1, 5, (bonds.shape[1],), generator=draw)
    return ek.GraphBatch(
        1.5 * randn(start, 3, seed=1, dtype=dtype), torch.cat(index), 6, {"z": z}, None, bonds, {"bond": bond}
    )


def clouds(dtype=torch.float64):
    pos = randn(400, 3, seed=2, dtype=dtype)
    normal = torch.nn.functional.normalize(randn(400, 3, seed=3, dtype=dtype), dim=1)
    return ek.GraphBatch(pos, torch.arange(4).repeat_interleave(100), 4, {"normal": normal})


def systems(dtype=torch.float64):
    pairs = torch.tensor([(j, i) for i in range(5) for j in range(5) if i != j]).T
    edges = (pairs[:, None] + 5 * torch.arange(8)[:, None]).reshape(2, -1)
    x = {"vel": randn(40, 3, seed=4, dtype=dtype), "charge": randn(40, 1, seed=5, dtype=dtype).sign()}
    return ek.GraphBatch(randn(40, 3, seed=6, dtype=dtype), torch.arange(8).repeat_interleave(5), 8, x, None, edges)


SMALL_SHAPES = {"channels": (4, 4), "points": (32, 12), "neighbours": (8, 8), "cutoffs": (1.0, 2.0)}
NETWORKS = {
    "molecules": (lambda g, **k: MoleculeNet(g, channels=4, layers=2, **k), molecules, lambda: groups.O(3)),
    "molecules within a radius": (
        lambda g, **k: MoleculeNet(g, channels=4, layers=1, radius=2.5, **k),
        molecules,
        lambda: groups.Cnv(4),
    ),
    "shapes": (lambda g, **k: ShapeNet(g, 5, **SMALL_SHAPES, **k), clouds, groups.SO2z),
    "particles": (lambda g, **k: ParticleNet(g, channels=4, layers=2, **k), systems, groups.O2z),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    build, batch, group = NETWORKS[request.param]
    torch.manual_seed(0)
    return build(group()), batch


def gradients(net, batch):
    out = net(batch)
    weights = [p for p in net.parameters() if p.requires_grad]
    loss = (out * torch.linspace(1, 2, out.numel(), dtype=out.dtype, device=out.device).reshape(out.shape)).sum()
    grads = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return [out.detach().cpu(), *(g.cpu() for g in grads)]


def assert_same(given, expected, tolerance):
    for a, b in zip(given, expected, strict=True):
        assert (a.double() - b.double()).norm() <= tolerance * b.double().norm() + 1e-13


def test_a_network_gives_the_same(network):
    net, batch = network
    net.double().eval()
    expected = gradients(net, batch())
    given = gradients(copy.deepcopy(net).cuda(), batch().to("cuda"))
    assert_same(given, expected, 1e-9)


def test_a_network_in_single_precision(network):
    net, batch = network
    expected = gradients(copy.deepcopy(net).double().eval(), batch())
    given = gradients(net.float().cuda().eval(), batch(torch.float32).to("cuda"))
    assert_same(given[:1], expected[:1], 1e-4)


def test_a_network_in_half_precision(network):
    net, batch = network
    net = net.float().cuda().eval()
    expected = net(batch(torch.float32).to("cuda")).detach()
    with torch.autocast("cuda", torch.bfloat16):
        given = net(batch(torch.float32).to("cuda")).detach()
    error = (given.float() - expected).norm() / expected.norm()
    assert 1e-6 < error < 0.1


def test_a_checkpoint_moves(network, tmp_path):
    net, batch = network
    net = net.double().eval()
    expected = net(batch()).detach()
    torch.save(copy.deepcopy(net).cuda().state_dict(), tmp_path / "weights.pt")
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    net.load_state_dict(torch.load(tmp_path / "weights.pt", map_location="cpu", weights_only=True))
    assert torch.equal(net(batch()), expected)


LAYERS = {
    "Lorentz": lambda: nn.PointConv((2 * Scalar + V)(groups.SO13()), (Scalar + 2 * V)(groups.SO13()), degree=2),
    "fixed": lambda: nn.PointConv((2 * Scalar + V)(groups.O(3)), (Scalar + V)(groups.O(3)), kernel="fixed"),
    "octahedral": lambda: nn.PointConv(
        (2 * Scalar + V)(groups.Oh()), (Scalar + V * V)(groups.Oh()), V(groups.Oh()), degree=2
    ),
    "enveloped": lambda: nn.PointConv((2 * Scalar + V)(groups.O(3)), (Scalar + V)(groups.O(3)), envelope=True),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("grouped", [True, False])
def test_a_layer_gives_the_same(name, grouped):
    conv = LAYERS[name]().double()
    d = conv.rep_in.group.d
    x, pos = randn(60, conv.rep_in.size), randn(60, d, seed=1)
    edges = torch.from_numpy(np.random.default_rng(0).integers(0, 60, (2, 300)))
    attr = None if conv.edge_rep is None else randn(300, conv.edge_rep.size, seed=2)

    def run(conv, device):
        graph = ek.Neighbours.of(edges.to(device), 60, grouped=grouped)
        there = [t.to(device).requires_grad_() for t in (x, pos)]
        y = conv(*there, graph, None if attr is None else attr.to(device))
        (first,) = torch.autograd.grad(y.square().sum(), there[1], create_graph=True)
        second = torch.autograd.grad(
            first.square().sum(),
            [*there, *(p for p in conv.parameters() if p.numel())],
            allow_unused=True,
            materialize_grads=True,
        )
        return [t.detach().cpu() for t in (y, first, *second)]

    expected = run(conv, "cpu")
    assert_same(run(copy.deepcopy(conv).cuda(), "cuda"), expected, 1e-9)


def test_a_compiled_network_gives_the_same(network):
    net, batch = network
    if isinstance(net, ShapeNet) or getattr(net, "radius", None):
        pytest.skip("how many edges there are is not known to a compiler")
    net = net.double().eval().cuda()
    expected = gradients(net, batch().to("cuda"))
    torch._dynamo.reset()
    compiled = torch.compile(net, dynamic=True)
    out = compiled(batch().to("cuda"))
    assert_same([out.detach().cpu()], expected[:1], 1e-9)


@pytest.mark.parametrize("name", ["O3", "Lorentz"])
def test_no_call_waits_for_the_device(name):
    g = groups.O(3) if name == "O3" else groups.SO13()
    conv = nn.PointConv((2 * Scalar + V)(g), (Scalar + V)(g), degree=2).cuda()
    x, pos = randn(60, conv.rep_in.size, dtype=torch.float32).cuda(), randn(60, g.d, dtype=torch.float32).cuda()
    edges = torch.from_numpy(np.random.default_rng(0).integers(0, 60, (2, 300))).cuda()

    def step():
        conv(x, pos, edges).square().sum().backward()

    step()  # kernels are tuned at their first use
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_two_runs_agree_to_the_last_bit():
    conv = nn.PointConv((2 * Scalar + V)(groups.O(3)), (Scalar + V)(groups.O(3)), degree=2).cuda()
    x, pos = randn(200, conv.rep_in.size, dtype=torch.float32).cuda(), randn(200, 3, dtype=torch.float32).cuda()
    edges = torch.from_numpy(np.random.default_rng(0).integers(0, 200, (2, 3000))).cuda()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (gradients_of(conv, x, pos, edges) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def gradients_of(conv, x, pos, edges):
    x = x.clone().requires_grad_()
    y = conv(x, pos, edges)
    return [
        y,
        *torch.autograd.grad(
            y.square().sum(),
            [x, *(p for p in conv.parameters() if p.numel())],
            allow_unused=True,
            materialize_grads=True,
        ),
    ]


def test_images_give_the_same():
    g = groups.O(2)
    conv = nn.GridConv((2 * Scalar + V)(g), (Scalar + V)(g), 5).double()
    x = randn(2, conv.rep_in.size, 12, 12)
    expected = conv(x)
    assert_same([conv.cuda()(x.cuda()).cpu()], [expected], 1e-10)


def test_the_check_of_a_layer_there():
    conv = nn.PointConv((2 * Scalar + V)(groups.Oh()), (Scalar + V)(groups.Oh())).cuda()
    ek.testing.assert_equivariant_module(conv)
