"""The charged particles: conservation, exact symmetries with their negative controls, and the data sets."""

import time

import numpy as np
import pytest
import torch

from emkernel.data.nbody import evolve, load_nbody, nbody_energy, simulate_nbody, straight_line_error

FIELDS = ("electric", "magnetic", "none")


def rotation(axis, angle):
    generator = np.cross(np.eye(3), np.eye(3)[axis])
    return np.eye(3) + np.sin(angle) * generator + (1 - np.cos(angle)) * generator @ generator


ABOUT_Z, ABOUT_X = rotation(2, 0.8), rotation(0, 0.8)
MIRROR_X, MIRROR_Z = np.diag([-1.0, 1.0, 1.0]), np.diag([1.0, 1.0, -1.0])
SYMMETRIES = {
    "electric": ([ABOUT_Z, MIRROR_X], [ABOUT_X, MIRROR_Z]),
    "magnetic": ([ABOUT_Z, MIRROR_Z], [ABOUT_X, MIRROR_X]),
    "none": ([ABOUT_Z, ABOUT_X, MIRROR_X, MIRROR_Z], []),
}


@pytest.mark.parametrize("field", FIELDS)
def test_equivariant_under_exactly_the_symmetries_of_the_field(field):
    s = simulate_nbody(40, seed=0, field=field)
    holds, fails = SYMMETRIES[field]
    errors = []
    for g in holds + fails:
        pos, vel = evolve(s.pos @ g.T, s.vel @ g.T, s.charge, field=field)
        errors.append(max(np.abs(pos - s.final_pos @ g.T).max(), np.abs(vel - s.final_vel @ g.T).max()))
    assert max(errors[: len(holds)]) < 1e-9
    assert all(error > 0.1 for error in errors[len(holds) :]), "a larger group must be seen to be wrong"


@pytest.mark.parametrize("field", FIELDS)
def test_translations_and_permutations(field):
    s = simulate_nbody(40, seed=1, field=field)
    order = np.array([2, 0, 4, 1, 3])
    pos, vel = evolve(s.pos[:, order] + [1.0, -2.0, 3.0], s.vel[:, order], s.charge[:, order], field=field)
    assert np.abs(pos - s.final_pos[:, order] - [1.0, -2.0, 3.0]).max() < 1e-9
    assert np.abs(vel - s.final_vel[:, order]).max() < 1e-9


@pytest.mark.parametrize("field", FIELDS)
def test_energy_is_conserved_and_the_error_is_second_order(field):
    drift = []
    for steps in (75, 150, 300):
        s = simulate_nbody(300, seed=2, field=field, steps=steps, dt=1.5 / steps)
        before = nbody_energy(s.pos, s.vel, s.charge, field=field)
        drift.append(np.abs(nbody_energy(s.final_pos, s.final_vel, s.charge, field=field) - before))
    assert drift[1].max() < 1e-2 and np.median(drift[1]) < 2e-4
    ratio = np.median(drift[0]) / np.median(drift[1]), np.median(drift[1]) / np.median(drift[2])
    assert all(3.0 < r < 5.0 for r in ratio), ratio
    s = simulate_nbody(50, seed=2, field="electric")
    wrong = nbody_energy(s.final_pos, s.final_vel, s.charge, field="none") - nbody_energy(
        s.pos, s.vel, s.charge, field="none"
    )
    assert np.median(np.abs(wrong)) > 0.1, "negative control: without the field's part nothing is conserved"


@pytest.mark.parametrize("field", FIELDS)
def test_runs_backwards_to_where_it_began(field):
    s = simulate_nbody(20, seed=3, field=field)
    pos, vel = evolve(s.final_pos, s.final_vel, s.charge, field=field, dt=-0.01)
    assert np.abs(pos - s.pos).max() < 1e-9 and np.abs(vel - s.vel).max() < 1e-9


def test_one_particle_has_the_textbook_orbits():
    pos, vel, charge = np.zeros((1, 1, 3)), np.array([[[1.0, 0.0, 0.5]]]), np.array([[-1.0]])
    x, v = evolve(pos, vel, charge, field="electric", strength=2.0, steps=100, dt=0.01)
    assert np.allclose(x[0, 0], [1.0, 0.0, 0.5 - 1.0], atol=1e-12) and np.allclose(
        v[0, 0], [1, 0, -1.5], atol=1e-12
    )
    x, v = evolve(pos, vel, charge, field="magnetic", strength=np.pi, steps=2000, dt=0.001)  # one full turn
    assert np.allclose(x[0, 0], [0.0, 0.0, 1.0], atol=1e-9) and np.allclose(v[0, 0], [1, 0, 0.5], atol=1e-9)
    x, v = evolve(pos, vel, charge, field="magnetic", strength=np.pi, steps=500, dt=0.001)  # a quarter
    assert np.allclose(v[0, 0], [0.0, 1.0, 0.5], atol=1e-9), "a negative charge turns counter-clockwise"


def test_two_particles_conserve_momentum_and_like_charges_part():
    pos = np.array([[[0.5, 0, 0], [-0.5, 0, 0]]])
    for q, sign in ((1.0, 1), (-1.0, -1)):
        x, v = evolve(pos, np.zeros_like(pos), np.array([[1.0, q]]), field="none", steps=20)
        assert np.abs(v.sum(1)).max() < 1e-12
        assert sign * (x[0, 0, 0] - 0.5) > 1e-3


def test_decided_by_the_seed_and_longer_runs_begin_like_shorter_ones():
    a, b, c = simulate_nbody(5, seed=4), simulate_nbody(300, seed=4), simulate_nbody(5, seed=5)
    assert all(np.array_equal(u, v[:5]) for u, v in zip(a, b, strict=True))
    assert not np.array_equal(a.pos, c.pos)
    assert set(np.unique(b.charge)) == {-1.0, 1.0}


def test_bad_arguments_are_explained():
    with pytest.raises(ValueError, match="'gravity'.*'electric'"):
        simulate_nbody(1, seed=0, field="gravity")
    with pytest.raises(ValueError, match="n_particles must be at least 1, got 0"):
        simulate_nbody(1, 0, seed=0)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        evolve(np.zeros((2, 3)), np.zeros((2, 3)), np.ones(2))
    with pytest.raises(ValueError, match="softening=0"):
        simulate_nbody(1, seed=0, softening=0)
    with pytest.raises(ValueError, match="strength is nan"):
        simulate_nbody(1, seed=0, strength=float("nan"))


def test_data_set_is_the_simulation():
    parts = load_nbody(seed=7, n_train=6, n_val=4, n_test=3, field="magnetic")
    assert {name: len(part) for name, part in parts.items()} == {"train": 6, "val": 4, "test": 3}
    b = parts["train"][[4, 1]]
    assert b.num_graphs == 2 and b.pos.dtype == torch.float32 and b.x["charge"].shape == (10, 1)
    i, j = b.edge_index[1], b.edge_index[0]
    assert b.edge_index.shape == (2, 40) and bool((i != j).all()) and torch.equal(b.batch[i], b.batch[j])
    pos, vel, q = (t.double().numpy().reshape(2, 5, -1) for t in (b.pos, b.x["vel"], b.x["charge"]))
    final, _ = evolve(pos, vel, q[..., 0], field="magnetic")
    assert np.allclose((final - pos - 1.5 * vel).reshape(-1, 3), b.y.numpy(), atol=1e-4)


def test_parts_differ_and_validation_does_not_depend_on_the_size_of_training():
    a, b = load_nbody(n_train=5, n_val=5, n_test=5), load_nbody(n_train=9, n_val=5, n_test=5)
    assert torch.equal(a["val"].y, b["val"].y) and torch.equal(a["train"].y, b["train"].y[:25])
    assert not torch.equal(a["val"].pos, a["train"].pos) and not torch.equal(a["val"].pos, a["test"].pos)


@pytest.mark.parametrize("field", ["electric", "magnetic"])
def test_the_field_is_a_large_part_of_the_target(field):
    with_field = load_nbody(n_train=1, n_val=400, n_test=1, field=field)["val"]
    without = load_nbody(n_train=1, n_val=400, n_test=1, field="none")["val"]
    assert torch.equal(with_field.pos, without.pos)
    assert straight_line_error(with_field) == pytest.approx(float((with_field.y**2).mean()), rel=1e-5)
    due_to_field = float((with_field.y - without.y).square().mean())
    assert due_to_field > 0.5 * straight_line_error(with_field)
    assert straight_line_error(without) > 0.2 * straight_line_error(with_field), "nor is the field all of it"


def test_default_data_set_is_made_in_seconds():
    start = time.perf_counter()
    load_nbody()
    assert time.perf_counter() - start < 10
