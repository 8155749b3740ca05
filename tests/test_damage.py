"""Data files, group files and entries damaged in every way: an error that names the file, or data that are whole."""

from __future__ import annotations

import io
import random
import re
import signal
import tarfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_data import MOLECULES, box, compact_qm9, compact_shapes, csv_text, sdf_text, write_hdf5, xyz_text
from test_store import Payload

from emkernel.cli import main
from emkernel.data import load_modelnet, load_qm9
from emkernel.errors import DataError

EVERYDAY = settings(
    derandomize=True, deadline=None, database=None, max_examples=250, suppress_health_check=list(HealthCheck)
)
SLOW = settings(EVERYDAY, max_examples=6000)
NUMBER = re.compile(rb"[-+]?\d[\d.eE+-]*")
TOKENS = (
    b"nan", b"inf", b"-inf", b"1e400", b"1e39", b"1e300", b"1e-300", b"-1", b"-0", b"0", b"3.5", b"255", b"256",
    b"1000000000", b"4294967296", b"99999999999999999999", b"9" * 5000, b"", b"abc", b"\xb2", b"1_0", b"0x10", b"\0",
    b"gdb_1", b"*^", b"1*^400",
)  # fmt: skip


def flip(d, rng):
    for _ in range(rng.choice([1, 1, 2, 8])):
        d[rng.randrange(len(d))] ^= 1 << rng.randrange(8)


def overwrite(d, rng):
    at = rng.randrange(len(d))
    d[at : at + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", rng.randbytes(4)])


def cut(d, rng):
    del d[rng.randrange(len(d)) :]


def drop(d, rng):
    at = rng.randrange(len(d))
    del d[at : at + rng.choice([1, 4, 40, 400])]


def insert(d, rng):
    at = rng.randrange(len(d))
    d[at:at] = rng.randbytes(rng.choice([1, 3, 50]))


def again(d, rng):
    d += d[: rng.randrange(len(d))]


def lines(d, rng):
    found = bytes(d).split(b"\n")
    i, j = rng.randrange(len(found)), rng.randrange(len(found))
    match rng.randrange(3):
        case 0:
            del found[i]
        case 1:
            found.insert(i, found[j])
        case _:
            found[i], found[j] = found[j], found[i]
    d[:] = b"\n".join(found)


def numbers(d, rng):
    found = list(NUMBER.finditer(bytes(d)))
    for m in sorted(rng.sample(found, min(len(found), rng.choice([1, 1, 3]))), key=lambda m: -m.start()):
        d[m.start() : m.end()] = rng.choice(TOKENS)


def encode(d, rng):
    d[:] = bytes(d).decode("latin-1").encode(rng.choice(["utf-16", "utf-8-sig", "utf-32"]))


DAMAGES = (flip, flip, overwrite, cut, drop, insert, again, lines, lines, numbers, numbers, numbers, encode)


def damaged(data, rng):
    d = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2])):
        if d:
            rng.choice(DAMAGES)(d, rng)
    return bytes(d)


# ---- files that are whole ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """{kind: (the file that is damaged, how it is loaded)}"""
    folder, found = tmp_path_factory.mktemp("sources"), {}

    def new(name):
        (folder / name).mkdir()
        return folder / name

    raw = new("raw")
    (raw / "gdb9.sdf").write_text(sdf_text())
    (raw / "gdb9.sdf.csv").write_text(csv_text())
    (raw / "uncharacterized.txt").write_text("index of those\n 2 x y\n")
    for name in ("gdb9.sdf", "gdb9.sdf.csv", "uncharacterized.txt"):
        found[name] = raw / name, lambda: load_qm9(raw, "U0")
    xyz = new("xyz")
    for i, m in enumerate(MOLECULES, 1):
        (xyz / f"dsgdb9nsd_{i:06d}.xyz").write_text(xyz_text(i, m))
    found["xyz"] = xyz / "dsgdb9nsd_000002.xyz", lambda: load_qm9(xyz)
    archives = new("archives")
    for suffix, mode in (("tar.bz2", "w:bz2"), ("tar.gz", "w:gz"), ("tar", "w")):
        path = archives / f"dsgdb9nsd.xyz.{suffix}"
        with tarfile.open(path, mode) as archive:
            for file in sorted(xyz.iterdir()):
                archive.add(file, file.name)
        found[suffix] = path, lambda path=path: load_qm9(path)
    for name, save in (("npz", np.savez), ("compressed npz", np.savez_compressed)):
        path = new(name) / "qm9_mu.npz"
        save(path, **compact_qm9())
        found[name] = path, lambda path=path: load_qm9(path)
    path = new("shapes") / "shapes.npz"
    np.savez(path, **compact_shapes())
    found["shapes"] = path, lambda path=path: load_modelnet(path, 20)
    meshes = new("meshes")
    for name in ("box", "crate"):
        for part, many in (("train", 3), ("test", 1)):
            (meshes / name / part).mkdir(parents=True)
            for i in range(many):
                (meshes / name / part / f"{name}_{i}.off").write_text(box("OFF8 6 0\n"))
    found["off"] = meshes / "box" / "train" / "box_1.off", lambda: load_modelnet(meshes, 16)
    clouds = new("clouds")
    write_hdf5(clouds)
    for name in ("ply_data_train1.h5", "shape_names.txt", "train_files.txt"):
        found[name] = clouds / name, lambda: load_modelnet(clouds, 8)
    return found


KINDS = (
    "gdb9.sdf", "gdb9.sdf.csv", "uncharacterized.txt", "xyz", "tar.bz2", "tar.gz", "tar", "npz", "compressed npz",
    "shapes", "off", "ply_data_train1.h5", "shape_names.txt", "train_files.txt",
)  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch):
    monkeypatch.setenv("EMKERNEL_STORE", ":memory:")


@contextmanager
def bounded(seconds=5, gigabytes=1):
    """No more time and memory than this, where the system can bound them."""
    resource = pytest.importorskip("resource")
    limits, handler = resource.getrlimit(resource.RLIMIT_DATA), signal.getsignal(signal.SIGALRM)

    def late(*_):
        raise AssertionError(f"takes longer than {seconds} s")

    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + gigabytes * 2**30, limits[1]))
    signal.signal(signal.SIGALRM, late)
    signal.alarm(30 * seconds)  # of a clock that runs on while others have the processor
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_DATA, limits)


def check_whole(parts):
    """What was read can be used."""
    for part in parts.values():
        batch = part[list(range(len(part)))]
        assert torch.isfinite(batch.pos).all() and torch.isfinite(batch.y.double()).all()
        assert int(batch.x["z"].max()) < 5 if "z" in batch.x else True
        assert torch.isfinite(batch.x["normal"]).all() if "normal" in batch.x else True


def refused_or_whole(path, load, data):
    """Whether the file is refused, by an error that names it or its folder."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        with bounded(), np.errstate(over="raise", divide="raise", invalid="raise"):
            check_whole(load())
    except DataError as error:
        assert str(path.parent) in str(error), f"names no file: {error}"
        return True
    finally:
        path.write_bytes(before)
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_is_whole_before_it_is_damaged(sources, kind):
    path, load = sources[kind]
    assert not refused_or_whole(path, load, path.read_bytes())


@EVERYDAY
@given(st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_damaged_files_are_refused_by_name_or_whole(sources, kind, seed):
    path, load = sources[kind]
    refused_or_whole(path, load, damaged(path.read_bytes(), random.Random(seed)))


@pytest.mark.slow
@SLOW
@given(st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_many_damaged_files_are_refused_by_name_or_whole(sources, kind, seed):
    path, load = sources[kind]
    refused_or_whole(path, load, damaged(path.read_bytes(), random.Random(seed)))


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_file_a_folder_and_a_dangling_link(sources, kind):
    path, load = sources[kind]
    if kind not in ("shape_names.txt", "train_files.txt"):
        assert refused_or_whole(path, load, b"")
    before = path.read_bytes()
    for replace in (path.mkdir, lambda: path.symlink_to("nowhere")):
        path.unlink()
        replace()
        try:
            check_whole(load())
        except DataError as error:
            assert str(path.parent) in str(error)
        finally:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            path.write_bytes(before)


# ---- what they announce -----------------------------------------------------------------------------------------


def test_arrays_of_any_other_type_and_shape_are_refused_or_whole(sources):
    others = [
        np.array("text"), np.array(["a", "b"]), np.array(1), np.zeros((2, 2, 2, 2)), np.zeros(0), np.full(11, 1 + 2j),
        np.array([True, False]), np.array(["2020-01-01"], "M8[D]"), np.zeros(3, "i4,f8"), np.full((11, 3), 1e39),
        np.full((12, 30, 3), 3e38), np.full(3, 2**63, np.uint64), np.full(12, -(2**62)), np.zeros((11, 3), ">f8"),
    ]  # fmt: skip
    refused = 0
    for kind, arrays in (("npz", compact_qm9()), ("shapes", compact_shapes())):
        path, load = sources[kind]
        for name in arrays:
            for other in others:
                file = io.BytesIO()
                np.savez(file, **(arrays | {name: other}))
                refused += refused_or_whole(path, load, file.getvalue())
    assert refused > 150


def test_coordinates_of_any_size_are_scaled_to_the_unit_ball(sources):
    path, load = sources["shapes"]
    arrays = compact_shapes()
    before, wanted = path.read_bytes(), load()["train"].pos
    try:
        for scale in (1e-44, 1e-30, 1e30, 2e37):
            pos = arrays["pos"].astype(float) * scale
            np.savez(path, **(arrays | {"pos": pos if scale < 1e-40 else pos.astype(np.float32)}))
            torch.testing.assert_close(load()["train"].pos, wanted, rtol=1e-5, atol=1e-6)
    finally:
        path.write_bytes(before)


def npz_of(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_arrays_that_announce_more_than_the_file_holds(sources):
    path, load = sources["npz"]
    whole = {name: npy(a) for name, a in compact_qm9().items()}
    for lie in (npy(np.zeros(2**24)), npy(np.zeros(3)).replace(b"(3,), ", b"(3333333333333,), ")):
        assert refused_or_whole(path, load, npz_of(whole | {"pos": lie}))


def test_archives_that_expand_without_end(sources):
    path, load = sources["tar.bz2"]
    for content in (tarfile.TarInfo("dsgdb9nsd_000001.xyz"), tarfile.TarInfo("other")):
        content.size, file = 2**27, io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            archive.addfile(content, io.BytesIO(bytes(2**27)))
        assert refused_or_whole(path, load, file.getvalue())


def test_hdf5_that_announces_more_than_the_file_holds(sources):
    h5py = pytest.importorskip("h5py")
    path, load = sources["ply_data_train1.h5"]
    for shape in ((10**6, 40, 3), (10**9, 40, 3)):
        file = io.BytesIO()
        with h5py.File(file, "w") as h5:
            h5.create_dataset("data", shape, "f4", chunks=(10, 40, 3))
            h5["label"] = np.zeros((10, 1), int)
        assert refused_or_whole(path, load, file.getvalue())


@pytest.mark.parametrize("face", ["999999999 0 1 2", "\u00b2 0 1 2", "99999999999999999999 0 1 2", "0 1 2 3"])
def test_faces_of_too_many_corners(sources, face):
    path, load = sources["off"]
    text = box("OFF8 6 0\n").splitlines()
    text[-1] = face
    assert refused_or_whole(path, load, "\n".join(text).encode("latin-1"))


def test_no_pickle_is_loaded(sources, tmp_path):
    trace = tmp_path / "unpickled"
    file = io.BytesIO()
    np.save(file, np.array([Payload(trace)]), allow_pickle=True)
    whole = {name: npy(a) for name, a in compact_qm9().items()}
    path, load = sources["npz"]
    for members in (whole | {"ptr": file.getvalue()}, whole | {"more": file.getvalue()}):
        assert refused_or_whole(path, load, npz_of(members))
    assert not trace.exists()
    np.load(io.BytesIO(file.getvalue()), allow_pickle=True)
    assert trace.exists(), "the payload leaves a trace where it is loaded"


# ---- files of groups --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [
    b"", b"\xff\xfe\x00", b"G = 1", b"def G(): raise KeyError('a')", b"raise SystemExit(0)", b"exit(1)",
    b"G = G", b"(" * 500, b"def G(n): pass", b"def G(): return G", b"class G: pass", b"x = \x00",
    b"import nothing_of_this",
    b"assert False", b"def G(): assert False", b"def G(): raise SystemExit(0)", b"1/0",
    b"import emkernel as ek\nG = ek.MatrixGroup('g', [[[1e400, 0], [0, 1]]])",
    b"import emkernel as ek\ndef G(): return ek.MatrixGroup('g', [[['a', 0], [0, 1]]])",
    b"import emkernel as ek\nG = lambda: ek.MatrixGroup('g', 5)",
])  # fmt: skip
def test_group_files_that_make_no_group(tmp_path, capsys, content):
    file = tmp_path / "mine.py"
    file.write_bytes(content)
    assert main(["check", f"{file}:G", "--quick"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("emkernel: ") and ("mine.py" in message or "GroupError: g: " in message)
    assert "Traceback" not in message
