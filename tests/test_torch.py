"""What torch offers to any module: export, half precision, forces, determinism, the meta device, several processes."""

import copy
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from oracles import act, run
from tables import group

from emkernel import Neighbours, Scalar, V
from emkernel.nn import Gate, InvariantPool, Linear, PointConv

SMALL = {"width": 2, "hidden": 8, "layers": 1, "radial": 4, "cutoff": 3.0}
G = group("O(3)")
REP_IN, REP_MID = (2 * Scalar + V)(G), (2 * Scalar + V + V**2)(G)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def edges(nodes, count, seed=0):
    return torch.randint(0, nodes, (2, count), generator=torch.Generator().manual_seed(seed))


def inputs(nodes, count, dtype=torch.float32, seed=0):
    x, pos = randn(nodes, REP_IN.size, seed=seed, dtype=dtype), randn(nodes, 3, seed=seed + 1, dtype=dtype)
    return x, pos, edges(nodes, count, seed)


def conv(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PointConv(
            REP_IN, REP_MID, (Scalar + V)(G) if options.pop("attributes", False) else None, **SMALL, **options
        )


class Network(torch.nn.Module):
    """Two convolutions, a vector at each point and invariants of the cloud."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.gate, self.second = conv(), Gate(REP_MID), PointConv(REP_MID, V(G), **SMALL)
            self.pool, self.head = InvariantPool(REP_MID), Linear(V(G), V(G))

    def forward(self, x, pos, edge_index):
        h = self.gate(self.first(x, pos, edge_index))
        return self.head(self.second(h, pos, edge_index)), self.pool(h)


# ---- export -----------------------------------------------------------------------------------------------------


def exported(module, nodes=7, count=20, strict=False):
    """The program of a module, for any number of nodes and of edges."""
    N, E = torch.export.Dim("N", min=2), torch.export.Dim("E", min=2)
    shapes = {"x": {0: N}, "pos": {0: N}, "edge_index": {1: E}}
    return torch.export.export(module, inputs(nodes, count), dynamic_shapes=shapes, strict=strict)


@pytest.mark.parametrize(("make", "strict"), [
    (conv, False), (Network, False), (conv, True), pytest.param(Network, True, marks=pytest.mark.slow),
])  # fmt: skip
def test_an_exported_program_takes_any_number_of_nodes_and_edges(make, strict):
    module = make().eval()
    program = exported(module, strict=strict).module()
    for nodes, count in ((7, 20), (3, 2), (50, 257), (40, 1200)):
        args = inputs(nodes, count, seed=3)
        torch.testing.assert_close(program(*args), module(*args), rtol=1e-4, atol=1e-5)


class Fixed(torch.nn.Module):
    """A convolution on one graph."""

    def __init__(self, layer, graph):
        super().__init__()
        self.layer, self.graph = layer, graph

    def forward(self, x, pos):
        return self.layer(x, pos, self.graph)


def test_a_prepared_graph_is_a_constant_of_an_exported_program():
    x, pos, edge_index = inputs(7, 20)
    fixed = Fixed(conv().eval(), Neighbours.of(edge_index, 7, grouped=False))
    program = torch.export.export(fixed, (x, pos)).module()
    x, pos, _ = inputs(7, 20, seed=5)
    torch.testing.assert_close(program(x, pos), fixed.layer(x, pos, edge_index), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_exported_program_is_a_file(tmp_path):
    module = Network().eval()
    torch.export.save(exported(module), tmp_path / "network.pt2")
    args = inputs(30, 100, seed=3)
    found = torch.export.load(tmp_path / "network.pt2").module()(*args)
    torch.testing.assert_close(found, module(*args), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
def test_an_exported_program_is_compiled_ahead_of_time(tmp_path):
    module = Network().eval()
    path = torch._inductor.aoti_compile_and_package(
        exported(module), package_path=str(tmp_path / "network.pt2")
    )
    program = torch._inductor.aoti_load_package(path)
    for nodes, count in ((7, 20), (30, 600)):
        args = inputs(nodes, count, seed=3)
        torch.testing.assert_close(tuple(program(*args)), module(*args), rtol=1e-4, atol=1e-5)


# ---- half precision ---------------------------------------------------------------------------------------------


def loss_of_equivariance(module, dtype):
    """Relative, at ten elements, with the group acting in float64."""
    x, pos, edge_index = inputs(60, 500)
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        y = module(x, pos, edge_index).double()
        worst = 0.0
        for g in G.sample(10, 0):
            moved = module(act(REP_IN, g, x).float(), act(V(G), g, pos).float(), edge_index).double()
            wanted = act(REP_MID, g, y)
            worst = max(worst, float((moved - wanted).abs().max() / wanted.abs().max()))
    return worst


@pytest.mark.parametrize(
    ("dtype", "digits"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11), (torch.float32, 2**-24)]
)
@pytest.mark.parametrize("contraction", ["aggregate", "message", "kernel"])
def test_half_precision_costs_its_digits_and_no_more(dtype, digits, contraction):
    assert digits / 8 < loss_of_equivariance(conv(contraction=contraction), dtype) < 32 * digits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_trains_in_half_precision(dtype):
    network, args = Network(), inputs(60, 500)
    target, optimiser = args[1] - args[1].mean(0), torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        with torch.autocast("cpu", dtype):
            vectors, invariants = network(*args)
            loss = (vectors.float() - target).square().mean() + 0 * invariants.float().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert {p.dtype for p in network.parameters()} == {torch.float32}


# ---- forces -----------------------------------------------------------------------------------------------------


def force(network, x, pos, edge_index):
    pos = pos.requires_grad_()
    energy = network(x, pos, edge_index)[1].square().sum()
    return -torch.autograd.grad(energy, pos, create_graph=True)[0]


def test_forces_turn_with_the_points_and_can_be_learned():
    """F = -dE/dx, and the gradient by the weights of a loss on F against a difference quotient."""
    network, (x, pos, edge_index) = Network().double(), inputs(12, 40, torch.float64)
    found = force(network, x, pos, edge_index)
    for g in G.sample(3, 0):
        moved = force(network, act(REP_IN, g, x), act(V(G), g, pos.detach()), edge_index)
        torch.testing.assert_close(moved, act(V(G), g, found), rtol=1e-9, atol=1e-9)
    weight = network.first.kernel.weight[1]
    (slope,) = torch.autograd.grad(found.square().sum(), weight)
    along, h = randn(*weight.shape, dtype=torch.float64), 1e-5

    def loss(step):
        with torch.no_grad():
            weight.add_(step * along)
        value = force(network, x, pos, edge_index).square().sum().item()
        with torch.no_grad():
            weight.sub_(step * along)
        return value

    quotient = (loss(h) - loss(-h)) / (2 * h)
    assert abs(quotient - float((slope * along).sum())) < 1e-6 * abs(quotient)


# ---- determinism ------------------------------------------------------------------------------------------------


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("contraction", ["aggregate", "message", "kernel"])
def test_deterministic_algorithms_suffice(deterministic, contraction, grouped):
    x, pos, edge_index = inputs(40, 400)
    graph = Neighbours.of(edge_index, 40, grouped=grouped)

    def gradients():
        layer = conv(contraction=contraction)
        y = layer(x, pos, graph)
        weights = [p for p in layer.parameters() if p.requires_grad]
        return [y.detach(), *torch.autograd.grad(y.square().sum(), weights)]

    assert all(torch.equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))


# ---- construction and checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: conv(attributes=True), Network])
def test_a_module_built_without_memory_is_filled_from_a_checkpoint(make):
    saved = make()
    with torch.device("meta"):
        module = make()
    assert (
        {p.device.type for p in module.parameters()} == {b.device.type for b in module.buffers()} == {"meta"}
    )
    module = module.to_empty(device="cpu")
    result = module.load_state_dict(saved.state_dict())
    assert result.missing_keys == result.unexpected_keys == []
    for dtype in (torch.float32, torch.float64):
        args = inputs(9, 30, dtype)
        if isinstance(module, PointConv):
            args = (*args, randn(30, 4, seed=9, dtype=dtype))
        torch.testing.assert_close(module.to(dtype)(*args), saved.to(dtype)(*args), rtol=0, atol=0)


def test_a_checkpoint_may_be_assigned():
    saved = Network()
    with torch.device("meta"):
        module = Network()
    module = module.to_empty(device="cpu")
    module.load_state_dict(copy.deepcopy(saved.state_dict()), assign=True)
    torch.testing.assert_close(module(*inputs(9, 30)), saved(*inputs(9, 30)), rtol=0, atol=0)


def test_a_checkpoint_of_a_later_version_is_refused():
    layer = conv()
    state = layer.state_dict()
    conv().load_state_dict(state)
    state._metadata["kernel"]["version"] = 7
    with pytest.raises(
        RuntimeError, match="kernel: .* version 7 .*ImplicitKernel.* reads up to 1; update emkernel"
    ):
        conv().load_state_dict(state)


# ---- several processes --------------------------------------------------------------------------------------------


PARALLEL = """
    import json, os, pathlib, sys, time
    import torch
    from test_torch import Network, inputs
    rank, size, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    network = Network().double()
    if size > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
        network = torch.nn.parallel.DistributedDataParallel(network)
    clouds = range(4) if size == 1 else range(2 * rank, 2 * rank + 2)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)
    for step in range(3):
        optimiser.zero_grad()
        parts = [inputs(8, 30, torch.float64, seed=10 * cloud) for cloud in clouds]
        edge_index = torch.cat([e + 8 * i for i, (_, _, e) in enumerate(parts)], 1)
        vectors, invariants = network(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), edge_index)
        # invariants are means over the nodes, so that the loss of the whole is the mean of the two halves
        loss = vectors.square().mean() + invariants[:, : invariants.shape[1] // 2].mean()
        loss.backward()
        optimiser.step()
    module = network.module if size > 1 else network
    found = {name: [p.detach().flatten().tolist(), None if p.grad is None else p.grad.flatten().tolist()]
             for name, p in module.named_parameters()}
    print(json.dumps(found), flush=True)
    if size > 1:
        # where one process leaves before the other, or takes its group apart, gloo may abort it
        pathlib.Path(f"{file}-{rank}").touch()
        while not all(pathlib.Path(f"{file}-{r}").exists() for r in range(size)):
            time.sleep(0.01)
        os._exit(0)
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_two_processes_take_the_steps_of_one(tmp_path, shared_store):
    Network()  # solved once, for all
    one = json.loads(run(PARALLEL, 0, 1, "-"))
    with ThreadPoolExecutor(2) as ranks:
        begun = [ranks.submit(run, PARALLEL, rank, 2, tmp_path / "meet", timeout=300) for rank in range(2)]
        first, second = (json.loads(rank.result()) for rank in begun)
    start, moved = dict(Network().double().named_parameters()), 0.0
    assert first == second and first.keys() == one.keys()
    for name, (weight, gradient) in one.items():
        torch.testing.assert_close(torch.tensor(first[name][0]), torch.tensor(weight), rtol=1e-9, atol=1e-11)
        assert (gradient is None) == (first[name][1] is None)
        if gradient is not None:
            torch.testing.assert_close(
                torch.tensor(first[name][1]), torch.tensor(gradient), rtol=1e-8, atol=1e-10
            )
            moved = max(moved, (start[name].detach().flatten() - torch.tensor(weight)).abs().max().item())
    assert moved > 1e-3
