"""Batches, and the readers of QM9 and ModelNet in each of the formats in which they are distributed."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from emkernel.data import (
    QM9_TARGETS,
    GraphBatch,
    PointClouds,
    RaggedGraphs,
    as_is,
    load_modelnet,
    load_qm9,
    sample_mesh,
)
from emkernel.data.formats import read_off
from emkernel.data.molecules import bonds_from_distances, read_index_list, read_sdf, read_xyz
from emkernel.errors import DataError

HARTREE = 27211.386245988  # meV


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of its own for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EMKERNEL_STORE", str(folder))
    return folder / "data"


@pytest.fixture(scope="module")
def real():
    folder = Path(os.environ.get("EMKERNEL_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "qm9_mu.npz").is_file():
        pytest.skip("the compact data files are not here: set EMKERNEL_DATA to their folder")
    return folder


# ------------------------------------------------------------------------------------------------------ batches


def ragged(seed=0, sizes=(3, 1, 0, 4, 2), undirected=True):
    g = torch.Generator().manual_seed(seed)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    pairs = [torch.combinations(torch.arange(n), 2).T for n in sizes]
    edges = torch.cat(pairs, 1).to(torch.uint8)
    n, e = int(ptr[-1]), edges.shape[1]
    return RaggedGraphs(
        torch.randn(n, 3, generator=g),
        ptr,
        torch.randn(len(sizes), generator=g),
        x={
            "z": torch.randint(5, (n,), generator=g, dtype=torch.uint8),
            "vel": torch.randn(n, 3, generator=g),
        },
        edges=edges,
        edge_ptr=torch.tensor([0, *(p.shape[1] for p in pairs)]).cumsum(0),
        edge_attr={"bond": torch.arange(e, dtype=torch.uint8)},
        undirected=undirected,
    )


def test_batch_is_the_disjoint_union_of_its_graphs():
    data = ragged()
    b = data[[3, 2, 0, 3]]
    one = [data[i] for i in (3, 2, 0, 3)]
    assert b.num_graphs == 4 and b.batch.tolist() == [0] * 4 + [2] * 3 + [3] * 4
    assert torch.equal(b.pos, torch.cat([o.pos for o in one])) and torch.equal(b.y, data.y[[3, 2, 0, 3]])
    assert torch.equal(b.x["z"], torch.cat([o.x["z"] for o in one])) and b.x["z"].dtype == torch.int64
    shifted = [o.edge_index + s for o, s in zip(one, (0, 4, 4, 7), strict=True)]
    assert torch.equal(b.edge_index, torch.cat(shifted, 1)) and b.edge_index.dtype == torch.int64
    assert torch.equal(b.edge_attr["bond"], torch.cat([o.edge_attr["bond"] for o in one]))


def test_undirected_edges_come_in_both_directions_sorted_by_target():
    both, once = ragged()[0], ragged(undirected=False)[0]
    assert both.edge_index.tolist() == [[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]]
    assert both.edge_attr["bond"].tolist() == [0, 1, 0, 2, 1, 2]
    assert once.edge_index.tolist() == [[0, 0, 1], [1, 2, 2]] and once.edge_attr["bond"].tolist() == [0, 1, 2]


def test_subset_is_a_data_set_of_those_graphs():
    data = ragged()
    part = data.subset([4, 0])
    a, b = part[[0, 1]], data[[4, 0]]
    assert len(part) == 2 and torch.equal(a.edge_index, b.edge_index) and torch.equal(a.x["vel"], b.x["vel"])
    assert torch.equal(a.edge_attr["bond"], b.edge_attr["bond"]) and torch.equal(a.y, b.y)


def test_node_targets_follow_their_nodes():
    data = RaggedGraphs(
        torch.zeros(5, 3), torch.tensor([0, 2, 5]), torch.arange(5.0)[:, None], node_target=True
    )
    assert data[[1, 0]].y[:, 0].tolist() == [2, 3, 4, 0, 1] and data[1].edge_index is None
    assert data.subset([1]).y[:, 0].tolist() == [2, 3, 4]


def test_indices():
    data = ragged()
    assert torch.equal(data[-1].pos, data[4].pos) and data[[]].num_graphs == 0
    assert len(list(data)) == 5
    for bad in (5, -6, [0, 7]):
        with pytest.raises(IndexError, match="data set of 5"):
            data[bad]


def test_data_loader_yields_batches_and_covers_the_set_once():
    data = ragged()
    loader = DataLoader(
        data, batch_size=2, shuffle=True, collate_fn=as_is, generator=torch.Generator().manual_seed(0)
    )
    batches = list(loader)
    assert all(isinstance(b, GraphBatch) for b in batches) and [b.num_graphs for b in batches] == [2, 2, 1]
    assert sorted(torch.cat([b.y for b in batches]).tolist()) == sorted(data.y.tolist())


@pytest.mark.slow
def test_data_loader_with_a_spawned_worker():
    loader = DataLoader(
        ragged(), batch_size=2, collate_fn=as_is, num_workers=1, multiprocessing_context="spawn"
    )
    assert [b.num_graphs for b in loader] == [2, 2, 1]


def test_data_set_and_collate_function_can_be_pickled():
    data = pickle.loads(pickle.dumps(ragged()))
    assert torch.equal(data[0].pos, ragged()[0].pos) and pickle.loads(pickle.dumps(as_is)) is as_is


def test_batch_moves_floats_only_to_a_dtype():
    b = ragged()[[0, 3]].to("cpu", torch.float64)
    assert {t.dtype for t in (b.pos, b.y, b.x["vel"])} == {torch.float64}
    assert {t.dtype for t in (b.batch, b.edge_index, b.x["z"], b.edge_attr["bond"])} == {torch.int64}
    assert ragged()[0].to("meta").pos.is_meta
    assert (
        repr(b)
        == "GraphBatch(num_graphs=2, pos=(7, 3), z=(7,), vel=(7, 3), edge_index=(2, 18), bond=(18,), y=(2,))"
    )
    with pytest.raises(ValueError, match="int32"):
        b.to(dtype=torch.int32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batch_can_be_pinned_and_sent():
    b = ragged()[[0, 3]].pin_memory()
    assert b.pos.is_pinned() and b.to("cuda", non_blocking=True).edge_index.is_cuda


@pytest.mark.parametrize(
    "change, words",
    [
        ({"ptr": torch.tensor([0, 3, 2, 4])}, "ptr is not an ascending vector from 0 to 4"),
        ({"ptr": torch.tensor([0, 2])}, "from 0 to 4"),
        ({"y": torch.zeros(3)}, "y has 3 rows for 2 graphs"),
        ({"x": {"z": torch.zeros(2)}}, r"x\['z'\] has 2 rows"),
        ({"edges": torch.tensor([[0], [2]])}, r"edge 0 of graph 1 is \[0, 2\].*2 nodes"),
        ({"edges": torch.zeros(3, 1)}, r"\(3, 1\)"),
        ({"edge_ptr": torch.tensor([0, 1])}, "edge_ptr is for 1 graphs, ptr for 2"),
        ({"edge_attr": {"bond": torch.zeros(2)}}, "has 2 rows"),
        ({"edges": None}, "without edges"),
    ],
)
def test_ragged_graphs_that_do_not_fit(change, words):
    good = {
        "pos": torch.zeros(4, 3),
        "ptr": torch.tensor([0, 2, 4]),
        "y": torch.zeros(2),
        "edges": torch.tensor([[0], [1]]),
        "edge_ptr": torch.tensor([0, 0, 1]),
    }
    RaggedGraphs(**good)
    with pytest.raises(ValueError, match=words):
        RaggedGraphs(**(good | change))


def test_point_clouds():
    pos, label = torch.randn(4, 6, 3), torch.tensor([1, 0, 1, 1])
    data = PointClouds(pos, label, ["a", "b"], pos)
    b = data[[2, 1]]
    assert torch.equal(b.pos, pos[[2, 1]].reshape(12, 3)) and torch.equal(b.x["normal"], b.pos)
    assert b.y.tolist() == [1, 0] and b.batch.tolist() == [0] * 6 + [1] * 6 and b.edge_index is None
    with pytest.raises(ValueError, match="from 0 to 1, but there are 1"):
        PointClouds(pos, label, ["a"])
    with pytest.raises(ValueError, match="expected"):
        PointClouds(pos, label[:3], ["a", "b"])


# --------------------------------------------------------------------------------------------------------- QM9

# methane, water, hydrogen cyanide, and methane again: elements, coordinates, bonds (a, b, type), a dipole
METHANE = (
    "CHHHH",
    [[-0.0127, 1.0858, 0.008], [0.0022, -0.006, 0.002], [1.0117, 1.4638, 0.0003], [-0.5408, 1.4475, -0.8766],
     [-0.5238, 1.4379, 0.9064]],
    [(1, 2, 1), (1, 3, 1), (1, 4, 1), (1, 5, 1)],
    0.0,
)  # fmt: skip
WATER = ("OHH", [[-0.0344, 0.9775, 0.0076], [0.0648, 0.0206, 0.0015], [0.8718, 1.3008, 0.0007]],
         [(1, 2, 1), (1, 3, 1)], 1.8511)  # fmt: skip
CYANIDE = ("CNH", [[-0.0133, 1.1325, 0.0083], [0.0023, -0.0192, 0.0019], [-0.0278, 2.1989, 0.0142]],
           [(1, 2, 3), (1, 3, 1)], 2.8937)  # fmt: skip
MOLECULES = [METHANE, WATER, CYANIDE, METHANE]
CSV_HEADER = (
    "mol_id,A,B,C,mu,alpha,homo,lumo,gap,r2,zpve,u0,u298,h298,g298,cv,u0_atom,u298_atom,h298_atom,g298_atom"
)


def properties(i, mu):
    """A, B, C, mu, alpha, homo, lumo, gap, r2, zpve, U0, U, H, G, Cv"""
    return [157.7, 157.7, 157.7, mu, 13.21 + i, -0.3877, 0.1171, 0.5048, 35.3641, 0.044749,
            -40.47893 - i, -40.476062, -40.475117, -40.498597, 6.469]  # fmt: skip


def sdf_text(molecules=MOLECULES):
    text = ""
    for i, (elements, pos, bonds, _) in enumerate(molecules, 1):
        text += f"gdb_{i}\n  -OEChem-03231823243D\n\n"
        text += f"{len(elements):3d}{len(bonds):3d}  0     0  0  0  0  0  0999 V2000\n"
        for element, (x, y, z) in zip(elements, pos, strict=True):
            text += f"{x:10.4f}{y:10.4f}{z:10.4f} {element:<3s} 0  0  0  0  0  0  0  0  0  0  0  0\n"
        text += "".join(f"{a:3d}{b:3d}{t:3d}  0  0  0  0\n" for a, b, t in bonds) + "M  END\n$$$$\n"
    return text


def csv_text(molecules=MOLECULES):
    rows = [
        ",".join([f"gdb_{i}", *map(str, properties(i, mu)), "-395.999", "-398.64", "-401.01", "-372.47"])
        for i, (*_, mu) in enumerate(molecules, 1)
    ]
    return "\n".join([CSV_HEADER, *rows, ""])


def xyz_text(i, molecule):
    elements, pos, _, mu = molecule
    lines = [str(len(elements)), f"gdb {i}\t" + "\t".join(map(str, properties(i, mu))) + "\t"]
    for element, (x, y, z) in zip(elements, pos, strict=True):
        lines.append(f"{element}\t{x: .10f}\t{y: .10f}\t{z: .10f}\t-0.535689")
    return "\n".join([*lines, "1341.307\t1341.3284", "C\tC\t", "InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4", ""])


@pytest.fixture
def sdf_folder(tmp_path):
    (tmp_path / "gdb9.sdf").write_text(sdf_text())
    (tmp_path / "gdb9.sdf.csv").write_text(csv_text())
    return tmp_path


@pytest.fixture
def xyz_folder(tmp_path):
    for i, molecule in enumerate(MOLECULES, 1):
        (tmp_path / f"dsgdb9nsd_{i:06d}.xyz").write_text(xyz_text(i, molecule))
    return tmp_path


def by_alpha(parts, root, seed=0):
    """Single molecules of all parts in the order of the source, which alpha tells."""
    alphas = load_qm9(root, "alpha", seed)
    found = [(float(alphas[name].y[i]), part[i]) for name, part in parts.items() for i in range(len(part))]
    return [batch for _, batch in sorted(found, key=lambda pair: pair[0])]


def check_molecules(batches, with_orders):
    assert len(batches) == 4
    for batch, (elements, pos, bonds, mu) in zip(batches, MOLECULES, strict=True):
        assert batch.x["z"].tolist() == ["HCNOF".index(e) for e in elements]
        assert np.allclose(batch.pos, pos, atol=1e-6) and float(batch.y[0]) == pytest.approx(mu)
        wanted = {(a - 1, b - 1): t for a, b, t in bonds} | {(b - 1, a - 1): t for a, b, t in bonds}
        given = dict(
            zip(map(tuple, batch.edge_index.T.tolist()), batch.edge_attr["bond"].tolist(), strict=True)
        )
        assert given == (wanted if with_orders else dict.fromkeys(wanted, 0))
        assert batch.edge_index[1].diff().min() >= 0


def test_sdf_and_csv(sdf_folder):
    parts = load_qm9(sdf_folder)
    assert {name: len(part) for name, part in parts.items()} == {"train": 2, "val": 1, "test": 1}
    check_molecules(by_alpha(parts, sdf_folder), True)


def test_xyz_folder_and_archive_are_read_alike(xyz_folder, tmp_path):
    check_molecules(by_alpha(load_qm9(xyz_folder), xyz_folder), False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    archive = elsewhere / "dsgdb9nsd.xyz.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for file in sorted(xyz_folder.glob("*.xyz"), reverse=True):
            tar.add(file, file.name)
    for root in (archive, elsewhere):
        for target in ("mu", "U0"):
            a, b = load_qm9(root, target), load_qm9(xyz_folder, target)
            assert all(torch.equal(a[name].y, b[name].y) for name in b)
            assert all(torch.equal(a[name].pos, b[name].pos) for name in b)


def test_mathematica_exponents(xyz_folder):
    file = xyz_folder / "dsgdb9nsd_000001.xyz"
    text = file.read_text().replace("0.0080000000", "8.*^-3").replace("-40.47993", "-4.047893*^1")
    assert "*^" in text
    file.write_text(text)
    check_molecules(by_alpha(load_qm9(xyz_folder), xyz_folder), False)


RAW_TARGETS = {
    "mu": [0, 0, 1.8511, 2.8937], "alpha": [14.21, 15.21, 16.21, 17.21], "homo": [-0.3877 * HARTREE] * 4,
    "lumo": [0.1171 * HARTREE] * 4, "gap": [0.5048 * HARTREE] * 4, "r2": [35.3641] * 4,
    "zpve": [0.044749 * HARTREE] * 4, "Cv": [6.469] * 4,
}  # fmt: skip


@pytest.mark.parametrize("target", RAW_TARGETS)
def test_targets_and_their_units(sdf_folder, target):
    assert set(QM9_TARGETS) == {*RAW_TARGETS, "U0", "U", "H", "G"}
    y = torch.cat([part.y for part in load_qm9(sdf_folder, target).values()])
    assert y.dtype == torch.float32 and np.allclose(sorted(y.tolist()), RAW_TARGETS[target], rtol=1e-6)


@pytest.mark.parametrize("target", ["U0", "U", "H", "G"])
def test_energies_are_those_of_atomisation(tmp_path, target):
    """Of methane, water and ammonia, against the column that the table of the data set has of its own."""
    kcal = 43.3641153  # meV
    records = {  # totals in hartree and atomisation energies in kcal/mol, gdb_1 to gdb_3
        "U0": ([-40.47893, -56.525887, -76.404702], [-395.999595, -276.861363, -213.087624]),
        "U": ([-40.476062, -56.523026, -76.401867], [-398.64329, -278.620271, -213.974294]),
        "H": ([-40.475117, -56.522082, -76.400922], [-401.014647, -280.399259, -215.159658]),
        "G": ([-40.498597, -56.544961, -76.422349], [-372.471772, -259.338802, -201.407171]),
    }
    molecules = [
        METHANE,
        ("NHHH", np.diag([1.0, 1.0, 1.0, 0.0])[:, :3], [(1, 2, 1), (1, 3, 1), (1, 4, 1)], 1.6256),
        WATER,
    ]
    (tmp_path / "gdb9.sdf").write_text(sdf_text(molecules))
    column = QM9_TARGETS[target].column
    totals, wanted = records[target]
    (tmp_path / "gdb9.sdf.csv").write_text(
        f"mol_id,{column}\n" + "".join(f"gdb_{i},{e!r}\n" for i, e in enumerate(totals, 1))
    )
    found = torch.cat([part.y for part in load_qm9(tmp_path, target).values()])
    assert np.allclose(sorted(found.tolist()), np.sort(np.array(wanted) * kcal), atol=0.5)


def test_split_is_decided_by_its_seed(sdf_folder):
    (sdf_folder / "gdb9.sdf").write_text(sdf_text(MOLECULES * 20))
    (sdf_folder / "gdb9.sdf.csv").write_text(csv_text(MOLECULES * 20))
    a, b, c = (load_qm9(sdf_folder, "alpha", seed) for seed in (0, 0, 1))
    assert all(torch.equal(a[name].y, b[name].y) for name in a) and not torch.equal(a["val"].y, c["val"].y)
    assert {name: len(part) for name, part in a.items()} == {"train": 68, "val": 6, "test": 6}
    assert len(torch.cat([part.y for part in a.values()]).unique()) == 80, "each molecule is in one part"


UNCHARACTERISED = """

List of molecules among the 133885 GDB9 molecules ...

====================================================================
#   Index     GDB17 SMILES     SMILES for B3LYP XYZ     D_IJ
====================================================================
       2      O                O                        6.036217
"""


@pytest.mark.parametrize("form", ["sdf", "xyz"])
def test_uncharacterised_molecules_are_left_out(form, request):
    folder = request.getfixturevalue(f"{form}_folder")
    assert len(torch.cat([part.y for part in load_qm9(folder).values()])) == 4
    (folder / "uncharacterized.txt").write_text(UNCHARACTERISED)
    parts = load_qm9(folder)
    y = torch.cat([part.y for part in parts.values()])
    assert len(y) == 3 and 1.8511 not in [round(v, 4) for v in y.tolist()]
    assert sorted(len(part[i].pos) for part in parts.values() for i in range(len(part))) == [3, 5, 5]
    bonded = {
        part[i].edge_index.shape[1]
        for part in parts.values()
        for i in range(len(part))
        if len(part[i].pos) == 5
    }
    assert bonded == {8}
    (folder / "uncharacterized.txt").write_text("nothing\n")
    with pytest.raises(DataError, match="lists no molecule"):
        read_index_list(folder / "uncharacterized.txt")


def test_bonds_of_molecules_of_every_size_by_brute_force():
    rng = np.random.default_rng(0)
    size = rng.integers(0, 9, 60)
    ptr = np.concatenate([[0], np.cumsum(size)])
    z, pos = rng.choice([1, 6, 7, 8, 9], ptr[-1]), rng.normal(size=(ptr[-1], 3)) * 1.2
    radius = {1: 0.31, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57}
    wanted = [
        [(a, b) for a in range(n) for b in range(a + 1, n)
         if np.linalg.norm(pos[s + a] - pos[s + b]) < 1.3 * (radius[z[s + a]] + radius[z[s + b]])]
        for s, n in zip(ptr, size, strict=False)
    ]  # fmt: skip
    bond_ptr, bonds = bonds_from_distances(ptr, z, pos)
    assert [
        list(map(tuple, bonds[a:b].tolist())) for a, b in zip(bond_ptr, bond_ptr[1:], strict=False)
    ] == wanted


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


SDF, CSV = "gdb9.sdf", "gdb9.sdf.csv"


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda d: (d / CSV).unlink(), "gdb9.sdf.csv does not exist"),
        (
            lambda d: (d / SDF).write_text(sdf_text()[:-300]),
            r"ends in molecule 4, begun in line \d+.*truncated",
        ),
        (lambda d: (d / SDF).write_text(""), "truncated"),
        (lambda d: (d / SDF).write_text(sdf_text(MOLECULES[:3])), "3 molecules, gdb9.sdf.csv has 4 rows"),
        (lambda d: (d / CSV).write_text(csv_text(MOLECULES[:2])), "4 molecules, gdb9.sdf.csv has 2 rows"),
        (lambda d: edit(d / SDF, "    1.0858", "   1.x0858"), "molecule 1, line 5: not an atom"),
        (lambda d: edit(d / SDF, "    1.0858", "       nan"), "coordinate of molecule 1 is not finite"),
        (lambda d: edit(d / SDF, "    0.9775", "       inf"), "coordinate of molecule 2 is not finite"),
        (lambda d: edit(d / SDF, " O   0", " Xe  0"), "molecule 2, line 20: element 'Xe'"),
        (
            lambda d: edit(d / SDF, "  1  5  1", "  1  6  1"),
            "molecule 1, line 13: not a bond.*atoms 1 and 6 of 5",
        ),
        (lambda d: edit(d / SDF, "  1  5  1", "  1  5  9"), "bond type 9"),
        (
            lambda d: edit(d / SDF, "  5  4  0", "  5  3  0"),
            "molecule 1, line 13: no M  END after 5 atoms and 3 bonds",
        ),
        (lambda d: edit(d / SDF, "  5  4  0", " 50  4  0"), "molecule 1"),
        (lambda d: edit(d / SDF, "  5  4  0", "  5 40  0"), "molecule 1"),
        (lambda d: edit(d / SDF, "V2000", "V3000"), "molecule 1, line 4.*V2000"),
        (lambda d: edit(d / SDF, "M  END", ""), "M  END"),
        (
            lambda d: edit(d / SDF, "gdb_2", "gdb_7"),
            "row 2 is for 'gdb_2', the molecule in gdb9.sdf is gdb_7",
        ),
        (lambda d: edit(d / CSV, "1.8511", "one"), "line 3.*one"),
        (lambda d: edit(d / CSV, "1.8511", "nan"), "row of gdb_2 has a value that is not finite"),
        (lambda d: edit(d / CSV, "1.8511,", ""), "line 3: 19 values, expected 20"),
        (lambda d: (d / CSV).write_bytes(b"\x00\xff\x00\n\x01"), "gdb9.sdf.csv"),
    ],
)
def test_damaged_sdf_is_named_and_nothing_is_written(sdf_folder, cache, damage, words):
    damage(sdf_folder)
    with pytest.raises(DataError, match=words):
        load_qm9(sdf_folder)
    assert not list(cache.rglob("*"))


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda f: f.write_text(f.read_text()[:150]), r"000002.xyz, line \d"),
        (lambda f: f.write_text("3\n"), "000002.xyz.*"),
        (lambda f: f.write_text(""), "000002.xyz, line 1"),
        (lambda f: edit(f, "O\t", "Q\t"), "000002.xyz, line 3: element 'Q'"),
        (lambda f: edit(f, "0.9775", "0.9.775"), "000002.xyz, line 3"),
        (lambda f: edit(f, "0.9775000000", "nan"), "000002.xyz.*not finite"),
        (lambda f: edit(f, "1.8511", "nan"), "000002.xyz.*not finite"),
        (lambda f: edit(f, "1.8511\t", ""), "line 2.*16 fields"),
        (lambda f: edit(f, "3\n", "9\n"), "000002.xyz, line 6"),
        (lambda f: edit(f, "gdb 2", "gdb 1"), "molecule 1 is there twice"),
    ],
)
def test_damaged_xyz_is_named_and_nothing_is_written(xyz_folder, cache, damage, words):
    damage(xyz_folder / "dsgdb9nsd_000002.xyz")
    with pytest.raises(DataError, match=words):
        load_qm9(xyz_folder)
    assert not list(cache.rglob("*"))


@pytest.mark.parametrize("form", ["sdf", "xyz"])
def test_files_cut_anywhere_are_refused_or_whole(request, form):
    folder = request.getfixturevalue(f"{form}_folder")
    file = folder / (SDF if form == "sdf" else "dsgdb9nsd_000001.xyz")
    text, wanted, refused = file.read_text(), None, 0
    for cut in range(len(text), -1, -1):
        file.write_text(text[:cut])
        try:
            found = read_sdf(file) if form == "sdf" else read_xyz([file])[0]
        except DataError:
            refused += 1
            continue
        wanted = wanted or found
        assert all(np.array_equal(found[k], wanted[k][: len(found[k])]) for k in ("z", "pos", "bonds"))
        assert len(found["index"]) == (text[:cut].count("$$$$") if form == "sdf" else 1)
    assert refused > 0.5 * len(text)


def test_truncated_archive(xyz_folder, tmp_path, cache):
    archive = tmp_path / "a.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for i in range(1, 300):
            content = xyz_text(i, MOLECULES[i % 3]).encode()
            info = tarfile.TarInfo(f"dsgdb9nsd_{i:06d}.xyz")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert len(load_qm9(archive)["train"]) > 200
    for file in cache.glob("*"):
        file.unlink()
    whole = archive.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-20], b"BZh9 no archive", b""):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match="a.tar.bz2"):
            load_qm9(archive)
    assert not list(cache.glob("*"))


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="holds no QM9: expected"):
        load_qm9(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load_qm9(tmp_path / "absent")
    with pytest.raises(DataError, match="does not exist"):
        load_qm9(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="'dipole', expected one of mu, alpha"):
        load_qm9(tmp_path, "dipole")
    with pytest.raises(DataError, match="holds no ModelNet: expected"):
        load_modelnet(tmp_path)


def test_cache_is_used_checked_and_renewed(sdf_folder, cache, monkeypatch):
    first = load_qm9(sdf_folder)
    (entry,) = cache.glob("*")
    assert entry.suffix == ".npz"
    with monkeypatch.context() as patched:
        patched.setattr("emkernel.data.qm9.read_sdf", None)  # a second parse would fail
        assert torch.equal(load_qm9(sdf_folder)["train"].y, first["train"].y)
        with pytest.raises(TypeError):
            os.utime(sdf_folder / SDF, (1, 1))
            load_qm9(sdf_folder)
    for damaged in (entry.read_bytes()[:100], b"", b"no archive"):
        for file in cache.glob("*"):
            file.write_bytes(damaged)
        assert torch.equal(load_qm9(sdf_folder)["train"].y, first["train"].y)


def test_cache_that_cannot_be_written_is_no_harm(sdf_folder, tmp_path, monkeypatch):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("a file where the folder should be")
    for where in (str(in_the_way), ":memory:"):
        monkeypatch.setenv("EMKERNEL_STORE", where)
        assert len(load_qm9(sdf_folder)["train"]) == 2
    assert not Path(":memory:").exists()


def compact_qm9():
    arrays = {
        "ptr": np.array([0, 3, 6, 11], np.int32),
        "z": np.array([8, 1, 1, 6, 7, 1, 6, 1, 1, 1, 1], np.uint8),
        "pos": np.array(WATER[1] + CYANIDE[1] + METHANE[1], np.float32),
        "mu": np.array([1.8511, 2.8937, 0.0], np.float32),
        "bond_ptr": np.array([0, 2, 4, 8], np.int32),
        "bonds": np.array([[0, 1], [0, 2], [0, 1], [0, 2], [0, 1], [0, 2], [0, 3], [0, 4]], np.uint8),
        "bond_order": np.array([1, 1, 3, 1, 1, 1, 1, 1], np.uint8),
        "split": np.array([0, 2, 1], np.uint8),
    }
    return arrays


def test_compact_qm9(tmp_path):
    np.savez(tmp_path / "qm9_mu.npz", **compact_qm9())
    for root in (tmp_path, tmp_path / "qm9_mu.npz", str(tmp_path)):
        parts = load_qm9(root)
        assert {name: len(part) for name, part in parts.items()} == {"train": 1, "val": 1, "test": 1}
        b = parts["test"][0]
        assert b.x["z"].tolist() == [1, 2, 0] and b.edge_attr["bond"].tolist() == [3, 1, 3, 1]
        assert b.edge_index.tolist() == [[1, 2, 0, 0], [0, 0, 1, 2]]
    with pytest.raises(DataError, match="no target 'homo', only mu"):
        load_qm9(tmp_path, "homo")


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("ptr", np.array([0, 3, 6, 12]), "ptr"),
        ("ptr", np.array([0, 6, 3, 11]), "ptr"),
        ("z", np.full(11, 54, np.uint8), "element"),
        ("pos", np.zeros((11, 2), np.float32), "pos has shape"),
        ("pos", np.full((11, 3), np.nan, np.float32), "not finite"),
        ("mu", np.array([1.0, np.nan, 0.0]), "mu is not one finite"),
        ("mu", np.zeros(4), "mu is not one finite"),
        ("bonds", np.full((8, 2), 4, np.uint8), "leaves its molecule"),
        ("bond_order", np.full(8, 5, np.uint8), "bond_order"),
        ("bond_order", np.zeros(7, np.uint8), "do not fit"),
        ("split", np.zeros(2, np.uint8), "split"),
        ("bond_ptr", None, "lacks the arrays"),
    ],
)
def test_garbled_compact_qm9(tmp_path, name, value, words):
    arrays = compact_qm9()
    arrays.pop(name)
    np.savez(tmp_path / "qm9_mu.npz", **arrays, **({} if value is None else {name: value}))
    with pytest.raises(DataError, match=words):
        load_qm9(tmp_path)


def test_truncated_and_pickled_npz(tmp_path):
    file = tmp_path / "qm9_mu.npz"
    np.savez_compressed(file, **compact_qm9())
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 255
    for damaged in (whole[: len(whole) // 2], whole[:-1], b"", b"text", bytes(flipped)):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="qm9_mu.npz"):
            load_qm9(file)
    with open(file, "wb") as single:
        np.save(single, np.zeros(3))
    with pytest.raises(DataError, match="qm9_mu.npz"):
        load_qm9(file)
    np.savez(file, **(compact_qm9() | {"ptr": np.array([object()])}))
    with pytest.raises(DataError, match="qm9_mu.npz"):
        load_qm9(file)


# ---------------------------------------------------------------------------------------------------- ModelNet

# a box of 1 x 2 x 4 as six quadrilaterals
CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 2) for z in (0, 4)]
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def box(header="OFF\n8 6 0\n", colour=""):
    text = header + "".join(f"{x} {y}.0 {z}e0\n" for x, y, z in CORNERS)
    return text + "".join("4 " + " ".join(map(str, q)) + colour + "\n" for q in QUADS)


def triangle_box():
    faces = [(a, b, c) for a, b, c, d in QUADS] + [(a, c, d) for a, b, c, d in QUADS]
    text = "OFF\n8 12 0\n" + "".join(f"{x} {y} {z}\n" for x, y, z in CORNERS)
    return text + "".join(f"3 {a} {b} {c}\n" for a, b, c in faces)


def area(vertices, triangles):
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


@pytest.mark.parametrize(
    "text",
    [
        box(),
        box("OFF8 6 0\n"),
        box("OFF 8 6 0\n"),
        box("# a comment\n\nOFF # another\n\n8 6 0\n"),
        box(colour=" 255 0 0"),
        box().replace("\n", "\r\n"),
        triangle_box(),
    ],
)
def test_off_in_all_its_forms(tmp_path, text):
    (tmp_path / "a.off").write_bytes(text.encode())
    vertices, triangles = read_off(tmp_path / "a.off")
    assert vertices.tolist() == [list(map(float, c)) for c in CORNERS] and triangles.shape == (12, 3)
    assert area(vertices, triangles) == pytest.approx(2 * (1 * 2 + 1 * 4 + 2 * 4))


def test_off_with_polygons_of_several_sizes(tmp_path):
    t = np.arange(5) * 2 * np.pi / 5
    text = "OFF\n6 3 0\n" + "".join(f"{np.cos(a)} {np.sin(a)} 0\n" for a in t) + "0 0 1\n"
    (tmp_path / "a.off").write_text(text + "5 0 1 2 3 4\n3 0 1 5\n2 0 1\n")
    vertices, triangles = read_off(tmp_path / "a.off")
    assert len(triangles) == 4
    flat = triangles[(triangles < 5).all(1)]
    assert area(vertices, flat) == pytest.approx(2.5 * np.sin(2 * np.pi / 5))


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "begins with nothing"),
        ("PLY\n8 6 0\n", "begins with 'PLY'"),
        ("OFF\n", "line 1: expected the numbers"),
        ("OFF\nmany\n", "line 2: expected the numbers"),
        (box()[:60], "announces 8 vertices and 6 faces.*truncated"),
        (box()[:-12], "truncated"),
        (box().replace("1 0.0 4e0", "1 0.0"), "line 8: '1 0.0', expected three coordinates"),
        (box().replace("1 0.0 4e0", "1 zero 4"), "line 8"),
        (box().replace("1 0.0 4e0", "1 nan 4"), "line 8.*all finite"),
        (box().replace("1 0.0 4e0", "1 0.0 inf"), "line 8.*all finite"),
        (box().replace("4 0 1 3 2", "4 0 1 3"), "line 11.*vertex indices"),
        (box().replace("4 0 1 3 2", "4 0 1 3 8"), "line 11.*not among the 8"),
        (box().replace("4 0 1 3 2", "4 0 1 3 -1"), "line 11.*not among the 8"),
        (box().replace("4 0 1 3 2", "x 0 1 3 2"), "line 11.*begins with 'x'"),
        ("OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1 2\n", "no area"),
        ("OFF\n3 0 0\n0 0 0\n1 1 1\n2 2 2\n", "no area"),
    ],
)
def test_damaged_off_is_named_and_nothing_is_written(tmp_path, cache, text, words):
    (tmp_path / "box" / "train").mkdir(parents=True)
    (tmp_path / "box" / "train" / "box_0001.off").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        load_modelnet(tmp_path, 16)
    assert "box_0001.off" in str(caught.value) and not list(cache.rglob("*"))


def test_mesh_is_sampled_uniformly_by_area(tmp_path):
    (tmp_path / "a.off").write_text(box())
    vertices, triangles = read_off(tmp_path / "a.off")
    points, normals = sample_mesh(vertices, triangles, 20000, np.random.default_rng(0))
    on = {side: np.isclose(points[:, axis], value) for side, (axis, value) in
          {"x0": (0, 0), "x1": (0, 1), "y0": (1, 0), "y1": (1, 2), "z0": (2, 0), "z1": (2, 4)}.items()}  # fmt: skip
    share = {side: mask.mean() for side, mask in on.items()}
    for side, face_area in {"x0": 8, "x1": 8, "y0": 4, "y1": 4, "z0": 2, "z1": 2}.items():
        assert abs(share[side] - face_area / 28) < 0.015
    assert np.abs(points[on["x0"]].mean(0) - [0, 1, 2]).max() < 0.1, "uniform within a face too"
    assert np.abs(np.abs(normals[on["y1"] & ~on["x0"] & ~on["x1"]]) - [0, 1, 0]).max() < 1e-12
    assert np.allclose(np.linalg.norm(normals, axis=1), 1)
    degenerate = np.concatenate([[[0, 0, 1]] * 3, triangles, [[2, 2, 2]]])
    assert np.isfinite(sample_mesh(vertices, degenerate, 1000, np.random.default_rng(0))[1]).all()


@pytest.fixture
def mesh_folder(tmp_path):
    for name, n_train, n_test in (("box", 10, 2), ("crate", 5, 1)):
        for part, n in (("train", n_train), ("test", n_test)):
            folder = tmp_path / name / part
            folder.mkdir(parents=True)
            for i in range(n):
                (folder / f"{name}_{part}_{i:04d}.off").write_text(box("OFF8 6 0\n"))
    (tmp_path / "README.txt").write_text("as distributed")
    return tmp_path


def test_mesh_folders(mesh_folder):
    parts = load_modelnet(mesh_folder, 64)
    assert {n: torch.bincount(p.label).tolist() for n, p in parts.items()} == {
        "train": [8, 4], "val": [2, 1], "test": [2, 1]
    }  # fmt: skip
    for part in parts.values():
        assert (
            part.classes == ["box", "crate"]
            and part.pos.shape[1:] == (64, 3)
            and part.pos.dtype == torch.float32
        )
        assert part.pos.mean(1).abs().max() < 1e-6
        assert torch.allclose(part.pos.norm(dim=2).amax(1), torch.ones(len(part)))
        assert torch.allclose(part.normal.norm(dim=2), torch.ones(len(part), 64))
    assert len(torch.unique(parts["train"].pos[:, 0], dim=0)) == 12, "each file has points of its own"


def test_mesh_points_are_decided_by_file_name_and_seed(mesh_folder, monkeypatch):
    a = load_modelnet(mesh_folder, 32)
    monkeypatch.setenv("EMKERNEL_STORE", ":memory:")
    b, c = load_modelnet(mesh_folder, 32), load_modelnet(mesh_folder, 32, seed=1)
    assert torch.equal(a["train"].pos, b["train"].pos) and torch.equal(a["test"].normal, b["test"].normal)
    assert not torch.equal(a["test"].pos, c["test"].pos)
    only = load_modelnet(mesh_folder, 32, classes=["crate"])
    assert only["train"].classes == ["crate"] and only["train"].label.unique().tolist() == [0]
    assert torch.equal(only["train"].pos, a["train"].pos[a["train"].label == 1])
    with pytest.raises(ValueError, match=r"\['lamp'\].*box, crate"):
        load_modelnet(mesh_folder, 32, classes=["lamp"])
    with pytest.raises(ValueError, match="n_points is 0"):
        load_modelnet(mesh_folder, 0)


def test_mesh_cache(mesh_folder, cache, monkeypatch):
    first = load_modelnet(mesh_folder, 32)
    assert len(list(cache.glob("*.npz"))) == 1
    monkeypatch.setattr("emkernel.data.modelnet.read_off", None)
    assert torch.equal(load_modelnet(mesh_folder, 32)["val"].pos, first["val"].pos)
    with pytest.raises(TypeError):
        load_modelnet(mesh_folder, 33)


def write_hdf5(folder, points=40, normals=True, change=None):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    for part, n in (("train0", 20), ("train1", 10), ("test0", 5)):
        arrays = {
            "data": rng.normal(size=(n, points, 3)).astype(np.float32),
            "label": np.arange(n)[:, None] % 2,
        }
        if normals:
            arrays["normal"] = arrays["data"]
        arrays = (change or (lambda a: a))(arrays)
        with h5py.File(folder / f"ply_data_{part}.h5", "w") as file:
            for name, array in arrays.items():
                file[name] = array
    (folder / "shape_names.txt").write_text("airplane\nbathtub\n")
    for part in ("train", "test"):
        names = [
            f"data/modelnet40_ply_hdf5_2048/{p.name}\n" for p in sorted(folder.glob(f"ply_data_{part}*"))
        ]
        (folder / f"{part}_files.txt").write_text("".join(names))


@pytest.mark.parametrize("normals", [True, False])
def test_hdf5_folder(tmp_path, normals):
    write_hdf5(tmp_path, normals=normals)
    parts = load_modelnet(tmp_path, 40)
    assert {name: len(part) for name, part in parts.items()} == {"train": 24, "val": 6, "test": 5}
    assert parts["val"].classes == ["airplane", "bathtub"] and torch.bincount(
        parts["val"].label
    ).tolist() == [3, 3]
    assert (parts["test"].normal is not None) == normals and parts["test"].label.tolist() == [0, 1, 0, 1, 0]
    few = load_modelnet(tmp_path, 8)["test"].pos
    assert few.shape == (5, 8, 3) and torch.allclose(few.norm(dim=2).amax(1), torch.ones(5))
    with pytest.raises(ValueError, match="40 points in each cloud, fewer than n_points = 41"):
        load_modelnet(tmp_path, 41)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda a: {"data": a["data"]}, "lacks the arrays"),
        (lambda a: a | {"data": a["data"][:, :, :2]}, "expected"),
        (lambda a: a | {"label": a["label"][1:]}, "expected"),
        (lambda a: a | {"label": a["label"] + 1.5}, "float"),
        (lambda a: a | {"label": a["label"] + 1}, "names 2 classes"),
        (lambda a: a | {"label": a["label"] - 1}, "labels run from -1"),
        (lambda a: a | {"data": a["data"] * np.nan}, "not finite"),
        (lambda a: a | {"normal": a["normal"][:1]}, "normals"),
    ],
)
def test_garbled_hdf5(tmp_path, change, words):
    write_hdf5(tmp_path, change=change)
    with pytest.raises(DataError, match=words):
        load_modelnet(tmp_path, 8)


def test_incomplete_hdf5(tmp_path, monkeypatch):
    write_hdf5(tmp_path)
    file = tmp_path / "ply_data_train1.h5"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(DataError, match="ply_data_train1.h5 cannot be read as HDF5"):
        load_modelnet(tmp_path, 8)
    file.unlink()
    with pytest.raises(DataError, match="names ply_data_train1.h5"):
        load_modelnet(tmp_path, 8)
    write_hdf5(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ImportError, match="pip install h5py"):
        load_modelnet(tmp_path, 8)


def compact_shapes():
    rng = np.random.default_rng(0)
    return {
        "pos": rng.normal(size=(12, 30, 3)).astype(np.float32),
        "normal": rng.integers(-127, 128, (12, 30, 3)).astype(np.int8),
        "label": np.arange(12, dtype=np.uint8) % 2,
        "classes": np.array(["cup", "jet"]),
        "split": np.array([0] * 8 + [1] * 3 + [2], np.uint8),
    }


def test_compact_shapes(tmp_path):
    arrays = compact_shapes()
    np.savez(tmp_path / "shapes.npz", **arrays)
    for root in (tmp_path, tmp_path / "shapes.npz"):
        parts = load_modelnet(root, 30)
        assert {name: len(part) for name, part in parts.items()} == {"train": 8, "val": 3, "test": 1}
        wanted = torch.from_numpy(arrays["normal"][:8].astype(np.float32))
        assert torch.allclose(parts["train"].normal, torch.nn.functional.normalize(wanted, dim=2), atol=1e-6)
    with pytest.raises(DataError, match="lacks"):
        np.savez(tmp_path / "shapes.npz", pos=arrays["pos"])
        load_modelnet(tmp_path, 30)


@pytest.mark.parametrize(
    "name, value",
    [
        ("pos", np.zeros((12, 30, 2))),
        ("pos", np.full((12, 30, 3), np.nan)),
        ("label", np.full(12, 2)),
        ("label", np.zeros(11, np.int64)),
        ("normal", np.zeros((12, 29, 3), np.int8)),
        ("split", np.full(12, 3)),
    ],
)
def test_garbled_compact_shapes(tmp_path, name, value):
    np.savez(tmp_path / "shapes.npz", **(compact_shapes() | {name: value}))
    with pytest.raises(DataError, match="shapes.npz"):
        load_modelnet(tmp_path, 30)


# ------------------------------------------------------------------------------------------------- the real files


def test_real_qm9(real):
    parts = load_qm9(real)
    train, val = parts["train"], parts["val"]
    assert (len(train), len(val)) == (18000, 2000)
    assert float(train.y.mean()) == pytest.approx(2.702, abs=1e-3)
    assert float((val.y - train.y.median()).abs().mean()) == pytest.approx(1.16, abs=0.01)
    b = train[list(range(500))]
    i, j = b.edge_index[1], b.edge_index[0]
    assert torch.equal(b.batch[i], b.batch[j]) and float((b.pos[i] - b.pos[j]).norm(dim=1).max()) < 2.2


def test_real_shapes(real):
    parts = load_modelnet(real)
    assert (len(parts["train"]), len(parts["val"])) == (1739, 249) and len(parts["train"].classes) == 69
    share = torch.bincount(parts["val"].label).max() / 249
    assert float(share) == pytest.approx(0.058, abs=2e-3)
    b = parts["train"][[0, 5]]
    assert b.pos.shape == (2048, 3) and torch.allclose(b.x["normal"].norm(dim=1), torch.ones(2048))
