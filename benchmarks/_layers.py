"""The same point convolution in several libraries: y_i = Σ_j k(x_i - x_j) f_j for O(3), radial network included.

All have ``channels`` copies of spins 0 to ``degree`` of natural parity in and out, harmonics up to ``degree`` of the
edge vector, ``radial`` radial functions and, but for escnn, a radial network with two hidden layers of ``hidden``. Each
library is imported only where its layer is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from _measure import forget
from torch import nn

CUTOFF = 2.0


@dataclass(frozen=True)
class Case:
    """One setting of the comparison."""

    points: int = 1024
    neighbours: int = 15
    channels: int = 16
    degree: int = 2
    width: int = 8
    hidden: int = 32
    radial: int = 10


@dataclass
class Layer:
    """One layer and what is worth knowing of it.

    Attributes:
        module: the weights.
        size: numbers per point, in and out.
        call: (x (N, size), pos (N, 3)) -> (N, size), on the graph that it was built for.
        element: () -> an element of O(3) as (3, 3), and as it acts on the features, (size, size).
        paths: couplings of irreducibles.
        per_edge: numbers that meet the features of each edge: hidden activations, weights, kernel, sampled basis.
        version: of the library.
        forget: () -> None, gives up memory that is kept from one call to the next, so that it is counted.
    """

    module: nn.Module
    size: int
    call: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    element: Callable[[], tuple[torch.Tensor, torch.Tensor]]
    paths: int
    per_edge: int
    version: str
    forget: Callable[[], None] = lambda: None


def _rotoreflection() -> torch.Tensor:
    """A rotation times -1, always the same."""
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    return -q * torch.linalg.det(q).sign()


# ---- emkernel -------------------------------------------------------------------------------------------------------


def _emkernel(case: Case, edge_index: torch.Tensor, contraction: str, width: int | None = None) -> Layer:
    import numpy as np

    import emkernel as ek
    from emkernel.models import harmonic_rep

    group = ek.groups.O(3)
    rep = harmonic_rep(group, case.channels, case.degree)
    conv = ek.nn.PointConv(
        rep,
        rep,
        degree=case.degree,
        width=width or case.width,
        hidden=case.hidden,
        radial=case.radial,
        cutoff=CUTOFF,
        neighbours=case.neighbours,
        self_interaction=False,
        contraction=contraction,
    )
    graph = ek.Neighbours.of(edge_index, case.points)

    def element():
        g = group.sample(1, generator=np.random.default_rng(1))[0]
        return torch.as_tensor(g.matrix), torch.as_tensor(rep.rho(g))

    kernel = conv.kernel
    numbers = kernel.width * sum(a.size for a in kernel.hidden_irreps)
    if contraction == "kernel":
        numbers = rep.size**2
    return Layer(
        conv,
        rep.size,
        lambda x, pos: conv(x, pos, graph),
        element,
        sum(len(w) for w in kernel.weight) // (kernel.width * case.channels),
        numbers,
        ek.__version__,
        lambda: forget(conv.kernel),
    )


def emkernel(case, edge_index):
    return _emkernel(case, edge_index, "auto")


def emkernel_wide(case, edge_index):
    """With as many hidden channels as e3nn's radial network has before its last layer."""
    return _emkernel(case, edge_index, "auto", case.hidden)


def emkernel_reference(case, edge_index):
    return _emkernel(case, edge_index, "kernel")


# ---- e3nn -----------------------------------------------------------------------------------------------------------


class _E3nn(nn.Module):
    """The convolution of e3nn's documentation; channel by channel, with a linear layer on the nodes, as in NequIP."""

    def __init__(self, case: Case, edge_index: torch.Tensor, channelwise: bool):
        super().__init__()
        from e3nn import nn as e3nn_nn
        from e3nn import o3

        irreps = o3.Irreps([(case.channels, (l, (-1) ** l)) for l in range(case.degree + 1)])
        self.case, self.edge_index, self.irreps = case, edge_index, irreps
        harmonics = o3.Irreps.spherical_harmonics(case.degree)
        self.harmonics = o3.SphericalHarmonics(harmonics, normalize=True, normalization="component")
        self.linear = None
        if channelwise:
            paths = [
                (i, j, out)
                for i, (_, a) in enumerate(irreps)
                for j, (_, b) in enumerate(harmonics)
                for out in a * b
                if out in [c for _, c in irreps]
            ]
            paths.sort(key=lambda path: path[2])
            middle = o3.Irreps([(case.channels, out) for *_, out in paths])
            self.tp = o3.TensorProduct(
                irreps,
                harmonics,
                middle,
                [(i, j, k, "uvu", True) for k, (i, j, _) in enumerate(paths)],
                internal_weights=False,
                shared_weights=False,
            )
            self.linear = o3.Linear(middle.simplify(), irreps)
        else:
            self.tp = o3.FullyConnectedTensorProduct(
                irreps, harmonics, irreps, internal_weights=False, shared_weights=False
            )
        sizes = [case.radial, case.hidden, case.hidden, self.tp.weight_numel]
        self.net = e3nn_nn.FullyConnectedNet(sizes, nn.functional.silu)

    def forward(self, x: torch.Tensor, pos: torch.Tensor) -> torch.Tensor:
        from e3nn import math

        source, target = self.edge_index
        edge_vec = pos[target] - pos[source]
        harmonics = self.harmonics(edge_vec)
        radial = math.soft_one_hot_linspace(
            edge_vec.norm(dim=1), 0.0, CUTOFF, self.case.radial, basis="smooth_finite", cutoff=True
        ).mul(self.case.radial**0.5)
        messages = self.tp(x[source], harmonics, self.net(radial))
        out = messages.new_zeros(len(pos), messages.shape[1]).index_add_(0, target, messages)
        out = out / self.case.neighbours**0.5
        return out if self.linear is None else self.linear(out)


def _e3nn(case: Case, edge_index: torch.Tensor, channelwise: bool = False) -> Layer:
    import e3nn

    module = _E3nn(case, edge_index, channelwise)

    def element():
        R = _rotoreflection()
        return R, module.irreps.D_from_matrix(R.float())

    tp = module.tp
    return Layer(
        module, module.irreps.dim, module, element, len(tp.instructions), tp.weight_numel, e3nn.__version__
    )


def e3nn_full(case, edge_index):
    return _e3nn(case, edge_index)


def e3nn_channelwise(case, edge_index):
    return _e3nn(case, edge_index, channelwise=True)


# ---- cuEquivariance -------------------------------------------------------------------------------------------------


class _Cue(nn.Module):
    """cuEquivariance's own convolution; channel by channel, gathering and scattering inside, as in NequIP and MACE."""

    def __init__(self, case: Case, edge_index: torch.Tensor, channelwise: bool):
        super().__init__()
        import cuequivariance as cue
        import cuequivariance_torch as cuet

        cuda = edge_index.is_cuda
        parity = ["e" if l % 2 == 0 else "o" for l in range(case.degree + 1)]
        irreps = cue.Irreps("O3", " + ".join(f"{case.channels}x{l}{p}" for l, p in enumerate(parity)))
        harmonics = cue.Irreps("O3", " + ".join(f"{l}{p}" for l, p in enumerate(parity)))
        self.case, self.edge_index, self.irreps = case, edge_index, irreps
        self.centres = nn.Buffer(torch.linspace(0, CUTOFF, case.radial))
        self.harmonics = cuet.SphericalHarmonics(
            list(range(case.degree + 1)), method="uniform_1d" if cuda else "naive"
        )
        sizes = [case.radial, case.hidden, case.hidden]
        if channelwise:
            self.tp = cuet.ChannelWiseTensorProduct(
                irreps,
                harmonics,
                [ir for _, ir in irreps],
                layout=cue.ir_mul,
                shared_weights=False,
                method="uniform_1d" if cuda else "naive",
            )
            sizes += [self.tp.weight_numel]
            layers = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.SiLU())]
            self.net = nn.Sequential(*layers[:-1])
            self.linear = cuet.Linear(self.tp.irreps_out, irreps, layout=cue.ir_mul, method="naive")
        else:
            self.conv = cuet.layers.FullyConnectedTensorProductConv(
                irreps,
                harmonics,
                irreps,
                batch_norm=False,
                mlp_channels=sizes,
                mlp_activation=nn.SiLU(),
                layout=cue.ir_mul,
                use_fallback=None if cuda else True,
            )
            self.tp = self.conv.tp
            self.linear = None

    def forward(self, x: torch.Tensor, pos: torch.Tensor) -> torch.Tensor:
        source, target = self.edge_index
        edge_vec = pos[target] - pos[source]
        harmonics = self.harmonics(edge_vec)
        steps = (edge_vec.norm(dim=1, keepdim=True) - self.centres) * (self.case.radial / CUTOFF)
        radial = torch.exp(-(steps**2))
        if self.linear is None:
            graph = (self.edge_index, (len(pos), len(pos)))
            return self.conv(x, harmonics, radial, graph, reduce="sum") / self.case.neighbours**0.5
        out = self.tp(x, harmonics, self.net(radial), indices_1=source, indices_out=target, size_out=len(pos))
        return self.linear(out) / self.case.neighbours**0.5


def _cue(case: Case, edge_index: torch.Tensor, channelwise: bool = False) -> Layer:
    from importlib.metadata import version

    module = _Cue(case, edge_index, channelwise)

    def element():
        R = _rotoreflection()
        v = torch.randn(1000, 3, generator=torch.Generator().manual_seed(2)).to(edge_index.device)
        before, after = module.harmonics(v).double(), module.harmonics(v @ R.to(v).T).double()
        blocks, at = [], 0
        for l in range(case.degree + 1):
            where = slice(at, at + 2 * l + 1)
            # Y(R v) = D Y(v)
            D = torch.linalg.lstsq(before[:, where], after[:, where]).solution.T
            blocks.append(torch.kron(D, torch.eye(case.channels).to(D)))
            at = where.stop
        return R, torch.block_diag(*blocks)

    polynomial = module.tp.f._polynomial_orig
    return Layer(
        module,
        module.irreps.dim,
        module,
        element,
        polynomial.operations[0][1].num_paths,
        module.tp.weight_numel,
        version("cuequivariance-torch"),
    )


def cue_full(case, edge_index):
    return _cue(case, edge_index)


def cue_channelwise(case, edge_index):
    return _cue(case, edge_index, channelwise=True)


# ---- escnn ----------------------------------------------------------------------------------------------------------


def escnn_layer(case: Case, edge_index: torch.Tensor) -> Layer:
    """R3PointConv: no radial network, but weights on Gaussian rings times harmonics; averages over the neighbours."""
    from importlib.metadata import version

    from escnn import gspaces
    from escnn import nn as enn

    space = gspaces.flipRot3dOnR3(maximum_frequency=max(2, case.degree))
    irreps = [space.fibergroup.irrep(l % 2, l) for l in range(case.degree + 1)]
    fields = enn.FieldType(space, [r for r in irreps for _ in range(case.channels)])
    module = enn.R3PointConv(
        fields,
        fields,
        bias=False,
        width=CUTOFF,
        n_rings=case.radial,
        frequencies_cutoff=lambda radius: case.degree,
        initialize=False,
    )
    nn.init.normal_(module.weights, std=0.1)
    source, target = edge_index

    def call(x, pos):
        edge_vec = pos[target] - pos[source]
        return module(enn.GeometricTensor(x, fields, pos), edge_index, edge_vec).tensor

    def element():
        g = space.fibergroup.sample()
        R = torch.as_tensor(space.basespace_action(g))
        blocks = [torch.as_tensor(r(g)) for r in irreps for _ in range(case.channels)]
        return R, torch.block_diag(*blocks)

    sampler = module.basissampler
    blocks = {p: getattr(sampler, f"block_sampler_{p}").dimension() for p in sampler._representations_pairs}
    sizes = {r.name: r.size for r in irreps}
    return Layer(
        module,
        fields.size,
        call,
        element,
        int(sum(blocks.values())) // case.radial,
        int(sum(n * sizes[a] * sizes[b] for (a, b), n in blocks.items())),
        version("escnn"),
    )


Build = Callable[[Case, torch.Tensor], Layer]


def compiled(build: Build) -> Build:
    """The same layer through torch.compile."""

    def built(case, edge_index):
        layer = build(case, edge_index)
        return replace(layer, call=torch.compile(layer.call))

    return built


# the first is what the others are compared with
LAYERS: dict[str, Build] = {
    "emkernel": emkernel,
    "emkernel, wide": emkernel_wide,
    "emkernel, kernel on edges": emkernel_reference,
    "e3nn": e3nn_full,
    "e3nn, channelwise": e3nn_channelwise,
    "cuequivariance": cue_full,
    "cuequivariance, channelwise": cue_channelwise,
    "escnn": escnn_layer,
}
COMPILED: dict[str, Build] = {
    f"{name}, compiled": compiled(LAYERS[name])
    for name in (
        "emkernel",
        "e3nn",
        "e3nn, channelwise",
        "cuequivariance",
        "cuequivariance, channelwise",
    )
}
