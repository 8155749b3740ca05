"""The network for molecules: what the dipole is read off from, by hand, and why from several vectors."""

import numpy as np
import pytest
import torch
from oracles import act
from tables import group

import emkernel as ek
from emkernel.models import MoleculeNet

SIZES = (3, 5, 1, 4)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Given(torch.nn.Module):
    """Numbers in place of what a layer computes."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, x):
        return self.values


def chains(pos=None):
    n = sum(SIZES)
    batch = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    bonded = torch.nonzero(batch[1:] == batch[:-1])[:, 0]
    edges = torch.cat([torch.stack([bonded, bonded + 1]), torch.stack([bonded + 1, bonded])], 1)
    return ek.GraphBatch(
        randn(n, 3) if pos is None else pos,
        batch,
        len(SIZES),
        x={"z": torch.arange(n) % 5},
        edge_index=edges,
        edge_attr={"bond": 1 + torch.arange(edges.shape[1]) % 4},
    )


def network(dipoles, **more):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MoleculeNet(group("O(3)"), channels=3, layers=2, hidden=8, width=2, dipoles=dipoles, **more).double()


@pytest.mark.parametrize("dipoles", [1, 3])
def test_the_dipole_is_read_off_as_by_hand(dipoles):
    net, batch = network(dipoles, scale=1.75), chains()
    n = sum(SIZES)
    q, v = randn(n, dipoles, seed=1), randn(n, 3 * dipoles, seed=2)
    net.head, net.vector = Given(q), Given(v)
    expected, first = [], 0
    for size in SIZES:
        own = slice(first, first + size)
        first += size
        x, charge, vector = batch.pos[own].numpy(), q[own].numpy(), v[own].numpy().reshape(size, dipoles, 3)
        d = np.einsum("ik,ix->kx", charge - charge.mean(0), x) + vector.sum(0)
        expected.append(1.75 * np.sqrt((d**2).sum() / dipoles))
    np.testing.assert_allclose(net(batch).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("dipoles", [1, 4])
def test_the_dipole_is_that_of_a_molecule_turned_and_moved(dipoles):
    net, batch = network(dipoles), chains()
    mu = net(batch)
    assert mu.min() >= 0 and mu.std() > 1e-3
    for a in group("O(3)").sample(3, 0):
        moved = act(ek.V(group("O(3)")), a, batch.pos) + randn(1, 3, seed=3)
        torch.testing.assert_close(net(chains(moved)), mu, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dipoles", [2, 5])
def test_turning_the_dipoles_into_each_other_changes_nothing(dipoles):
    """O(K) acts on them, connected but for one sign, where one dipole has signs alone."""
    net, batch = network(dipoles), chains()
    before = net(batch)
    turn = torch.linalg.qr(randn(dipoles, dipoles, seed=4)).Q
    with torch.no_grad():
        for layer in (net.head[-1], net.vector):
            for w in (*layer.weight, *layer.bias):
                w.copy_(w @ turn)
    torch.testing.assert_close(net(batch), before, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        net.vector.weight[-1].copy_(net.vector.weight[-1] @ turn)
    assert (net(batch) - before).abs().max() > 1e-3, "charges and vectors turn together"


def test_a_part_turns_at_constant_length_from_one_sign_to_the_other():
    """Two parts, u and w: what is |w| alone and |u - w| beside u becomes |w| and |u + w| without a detour."""
    net, batch = network(2), chains()
    u, w = randn(3, seed=5), randn(3, seed=6)
    net.head = Given(torch.zeros(sum(SIZES), 2, dtype=torch.float64))
    together = []
    for angle in torch.linspace(0, torch.pi, 7, dtype=torch.float64):
        first, second = torch.stack([u, 0 * u]), torch.stack([-w * angle.cos(), w * angle.sin()])
        v = torch.zeros(sum(SIZES), 2, 3, dtype=torch.float64)
        v[0], v[1], v[SIZES[0]] = first, second, second
        net.vector = Given(v.flatten(1))
        both, alone = (net(batch) * 2**0.5)[:2]
        torch.testing.assert_close(alone, w.norm(), rtol=1e-12, atol=0)
        together.append(both)
    torch.testing.assert_close(together[0], (u - w).norm(), rtol=1e-12, atol=0)
    torch.testing.assert_close(together[-1], (u + w).norm(), rtol=1e-12, atol=0)
    steps = torch.stack(together).diff()
    assert (steps > 0).all() or (steps < 0).all()


def test_there_is_at_least_one_dipole():
    with pytest.raises(ValueError, match="dipoles must be at least 1, got 0"):
        network(0)
    assert network(0, target="mean")(chains()).shape == (len(SIZES),)
