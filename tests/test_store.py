"""The store of solutions: damage, crowds, full and forbidden disks, what ships with the package, and its readers."""

import errno
import importlib.util
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from oracles import run
from tables import group, turn

import emkernel.groups
from emkernel import MatrixGroup, Scalar, V, equivariant_basis
from emkernel.solver import _entry, store
from emkernel.solver import irreps as irreps_module
from emkernel.solver._entry import LIMIT, VERSION, pack, seal, unpack, unseal
from emkernel.solver._shipped import Shipped, ship
from emkernel.solver.store import SHIPPED, Store, problem_key

KEY, OTHER = problem_key("kind", "a"), problem_key("kind", "b")
POSIX = pytest.mark.skipif(os.name != "posix", reason="ownership and signals of POSIX")
FORK = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")


def fill(folder, arrays=None, key=KEY):
    """A store with one entry, and the file of it."""
    kept = Store(folder)
    kept.put(key, {"basis": np.eye(3)} if arrays is None else arrays)
    return kept, Path(kept._path(key))


def files(folder, pattern="*"):
    return sorted(p for p in Path(folder).rglob(pattern) if p.is_file())


def entries(folder):
    return files(folder, "*.entry")


# ---- arrays in, arrays out --------------------------------------------------------------------------------------


ARRAYS = {
    "float": np.linspace(-1, 1, 12).reshape(2, 3, 2),
    "single": np.float32([1.5, np.inf]),
    "complex": np.array([[1 + 2j]]),
    "integers": np.arange(-3, 3),
    "truth": np.array([True, False]),
    "text": np.array(["1a", "3β"]),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "foreign order": np.arange(3, dtype=">f8"),
    "every other": np.arange(9.0)[::2],
    "none": np.zeros((0, 4, 3)),
    "number": np.float64(-0.0),
}


@pytest.mark.parametrize("where", ["memory", "disk", "shipped"])
def test_what_was_put_comes_back(tmp_path, where):
    if where == "shipped":
        ship(tmp_path / "file", [{KEY: ARRAYS}])
        kept = Store(None, tmp_path / "file")
    else:
        kept, _ = fill(None if where == "memory" else tmp_path, ARRAYS)
        kept = kept if where == "memory" else Store(tmp_path)
    back = kept.get(KEY)
    assert list(back) == list(ARRAYS)
    for name, a in ARRAYS.items():
        np.testing.assert_array_equal(back[name], a)
        assert back[name].dtype == a.dtype.newbyteorder("=")
        assert back[name].shape == a.shape
        assert back[name].flags.c_contiguous
        assert np.signbit(back["number"])
    assert kept.get(OTHER) is None


def test_arrays_of_the_store_are_nobody_elses(tmp_path):
    given = {"basis": np.eye(3)}
    kept, _ = fill(tmp_path, given)
    given["basis"][:] = 7
    for _ in range(2):
        got = kept.get(KEY)
        np.testing.assert_array_equal(got["basis"], np.eye(3))
        got["basis"][:] = 7
        del got["basis"]
    np.testing.assert_array_equal(Store(tmp_path).get(KEY)["basis"], np.eye(3))


def test_who_puts_goes_on_with_what_others_read(tmp_path):
    """Same bits, dtype and layout, whatever the layout of what was computed."""
    computed = {"basis": np.random.default_rng(0).standard_normal((4, 5, 6)).transpose(2, 0, 1)}
    mine = Store(tmp_path).put(KEY, computed)["basis"]
    theirs = Store(tmp_path).get(KEY)["basis"]
    np.testing.assert_array_equal(mine, theirs)
    assert mine.strides == theirs.strides != computed["basis"].strides


def test_bytes_do_not_depend_on_the_layout_in_memory():
    a = np.arange(24.0).reshape(2, 3, 4)
    assert pack({"a": a}) == pack({"a": np.asfortranarray(a)}) == pack({"a": a.astype(">f8")})


@pytest.mark.parametrize("bad", [np.array([object()]), np.array([(1, 2.0)], "i4,f8"), np.datetime64("2020-01-01")])
def test_objects_are_not_kept(tmp_path, bad):
    with pytest.raises(TypeError, match="'bad'"):
        Store(tmp_path).put(KEY, {"bad": bad})
    assert files(tmp_path) == []


def test_keys_depend_on_kind_and_contents():
    keys = {problem_key(*words) for words in (("k", "a", "b"), ("k", "b", "a"), ("l", "a", "b"), ("k", "ab"))}
    assert len(keys) == 4


def test_names_on_disk_are_plain(tmp_path):
    """Fit for every file system, case sensitive or not, and readable to whom the umask says."""
    before = os.umask(0o022)
    try:
        _, path = fill(tmp_path)
    finally:
        os.umask(before)
    assert [str(p.relative_to(tmp_path)) for p in files(tmp_path)] == [
        str(Path(f"v{VERSION}", KEY[:2], f"{KEY}.entry"))
    ]
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o644
        assert path.parent.stat().st_mode & 0o777 == 0o755


# ---- damage -----------------------------------------------------------------------------------------------------


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def huge(path):
    with open(path, "r+b") as f:
        f.truncate(LIMIT + 1)


def of_another_version(path):
    data = bytearray(path.read_bytes())
    data[8:12] = (VERSION + 1).to_bytes(4, "little")
    path.write_bytes(data)


DAMAGE = {
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("not an entry\n" * 99),
    "zeros": lambda p: p.write_bytes(bytes(p.stat().st_size)),
    "short": lambda p: p.write_bytes(p.read_bytes()[:-8]),
    "stump": lambda p: p.write_bytes(p.read_bytes()[:30]),
    "header alone": lambda p: p.write_bytes(p.read_bytes()[: _entry.HEADER.size]),
    "longer": lambda p: p.write_bytes(p.read_bytes() + b"\0"),
    "twice": lambda p: p.write_bytes(2 * p.read_bytes()),
    "another version": of_another_version,
    "huge": huge,
    "another program's": lambda p: np.savez(p.open("wb"), basis=np.eye(3)),
    "pickle": lambda p: p.write_bytes(pickle.dumps(Payload(p.parent / "unpickled"))),
    "pickled array": lambda p: np.save(p.open("wb"), np.array([Payload(p.parent / "unpickled")])),
    "another key": lambda p: p.write_bytes(seal(OTHER, {"basis": np.eye(3)})),
    "folder": lambda p: (p.unlink(), p.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_entries_are_refused_and_replaced(tmp_path, damage, caplog):
    _, path = fill(tmp_path)
    DAMAGE[damage](path)
    fresh = Store(tmp_path)
    assert fresh.get(KEY) is None
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text
    assert not (path.parent / "unpickled").exists()
    fresh.put(KEY, {"basis": np.eye(2)})
    np.testing.assert_array_equal(Store(tmp_path).get(KEY)["basis"], np.eye(2))
    assert files(tmp_path) == [path]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_nobody_waits_for_a_pipe(tmp_path):
    _, path = fill(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert Store(tmp_path).get(KEY) is None


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are not listed on this system")
@pytest.mark.parametrize("damage", ["text", "huge", "folder"])
def test_what_is_refused_is_closed(tmp_path, damage):
    _, path = fill(tmp_path)
    DAMAGE[damage](path)
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        assert Store(tmp_path).get(KEY) is None
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_no_flipped_bit_passes():
    data = seal(KEY, {"basis": np.eye(2), "sizes": np.arange(2)})
    assert unseal(KEY, data).keys() == {"basis", "sizes"}
    for i in range(len(data)):
        for bit in (1, 128):
            with pytest.raises(ValueError):
                unseal(KEY, data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :])


def test_no_part_of_an_entry_passes():
    data = seal(KEY, {"basis": np.eye(2)})
    for length in range(len(data)):
        with pytest.raises(ValueError):
            unseal(KEY, data[:length])


@pytest.mark.parametrize("head", [
    '[["a","|O",[1]]]', '[["a","<f8",[2]]]', '[["a","<f8",[-1]]]', '[["a","<f8",1]]', '[["a","nonsense",[1]]]',
    '[["a","<f8",[1e9]]]', '[["a","<f8",[99999999999]]]', '{"a":1}', "[[]]", "7", "[", '[["a","V8",[1]]]',
    '[["a","<f8",[]],["b","<f8",[]]]', "[]",
])  # fmt: skip
def test_bytes_that_are_not_arrays_are_refused(head):
    """Behind a right checksum too."""
    with pytest.raises(ValueError):
        unpack(len(head).to_bytes(4, "little") + head.encode() + np.ones(1).tobytes())


def test_a_store_full_of_rubbish_is_reported_once(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "emkernel")
    kept = Store(tmp_path)
    keys = [problem_key("kind", str(i)) for i in range(20)]
    for key in keys:
        kept.put(key, {"basis": np.eye(1)})
    for path in entries(tmp_path):
        path.write_bytes(b"rubbish")
    fresh = Store(tmp_path)
    assert [fresh.get(key) for key in keys] == [None] * 20
    assert [r.levelname for r in caplog.records].count("WARNING") == 1
    assert len(caplog.records) == 20


# ---- disks that do not do as they are told ----------------------------------------------------------------------


def test_a_file_where_the_folder_should_be(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    kept = Store(tmp_path / "file")
    for key in (KEY, OTHER):
        kept.get(key)
        kept.put(key, {"basis": np.eye(1)})
        assert kept.get(key) is not None
    assert sum("goes on without" in r.message and r.levelname == "WARNING" for r in caplog.records) == 1
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("size", [1, 1000], ids=["at flush", "at write"])
def test_a_full_disk(tmp_path, monkeypatch, caplog, size):
    opened = os.open
    monkeypatch.setattr(
        store.os, "open", lambda p, flags, *mode: opened("/dev/full" if flags & os.O_CREAT else p, flags & ~os.O_EXCL)
    )
    kept = Store(tmp_path)
    kept.put(KEY, {"basis": np.ones((size, size))})
    assert kept.get(KEY)["basis"].shape == (size, size)
    assert os.strerror(errno.ENOSPC) in caplog.text
    assert files(tmp_path) == []


@POSIX
@pytest.mark.parametrize("size", [3, 1000])
def test_a_disk_that_fills_up_while_an_entry_is_written(tmp_path, caplog, size):
    import resource

    fill(tmp_path, key=OTHER)
    before = files(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        kept = Store(tmp_path)
        kept.put(KEY, {"basis": np.ones((size, size))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert kept.get(KEY) is not None
    assert "goes on without" in caplog.text
    assert files(tmp_path) == before
    assert Store(tmp_path).get(KEY) is None


def unprivileged(folder, found, warnings):
    """In a process of its own: what somebody else sees of a store."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    records = []
    logging.getLogger("emkernel.solver.store").addFilter(records.append)
    kept = Store(folder)
    assert (kept.get(KEY) is not None) == found
    for key in (KEY, OTHER):
        kept.put(key, {"basis": np.eye(2)})
        np.testing.assert_array_equal(kept.get(key)["basis"], np.eye(2))
    assert [r.levelname for r in records if r.levelno >= logging.WARNING] == ["WARNING"] * warnings


def test_what_is_too_large_to_be_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LIMIT", 1000)
    kept = Store(tmp_path)
    for key, size in ((KEY, 20), (OTHER, 3)):
        kept.put(key, {"basis": np.eye(size)})
        assert kept.get(key)["basis"].shape == (size, size)
    assert [p.stem for p in files(tmp_path)] == [OTHER]


@FORK
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize(
    ("mode", "found", "warnings"), [(0o555, True, 1), (0o000, False, 2)], ids=["read only", "forbidden"]
)
def test_folders_of_somebody_else(mode, found, warnings):
    with tempfile.TemporaryDirectory() as above:  # pytest's own folders are closed to others
        folder = Path(above) / "store"
        fill(folder)
        os.chmod(above, 0o755)
        folders = [folder, *(p for p in folder.rglob("*") if p.is_dir())]
        for p in reversed(folders):
            p.chmod(mode)
        process = multiprocessing.get_context("fork").Process(target=unprivileged, args=(folder, found, warnings))
        process.start()
        process.join(60)
        for p in folders:
            p.chmod(0o755)
        assert process.exitcode == 0
        assert len(files(folder)) == 1


@POSIX
def test_no_home(monkeypatch, caplog):
    import pwd

    for variable in ("HOME", "XDG_CACHE_HOME", "EMKERNEL_STORE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    monkeypatch.setattr(store, "_stores", {})
    kept = store.default_store()
    assert kept.folder is None
    assert kept is store.default_store()
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "EMKERNEL_STORE" in caplog.text


def test_memory_store_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMKERNEL_STORE", ":memory:")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert store.default_store().folder is None
    g = MatrixGroup("C17", [turn(2 * np.pi / 17)])
    equivariant_basis(V(g), V(g))
    assert not (tmp_path / "cache" / "emkernel").exists()
    assert entries(tmp_path) == []


def test_store_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("EMKERNEL_STORE", str(tmp_path / "a"))
    assert store.default_store().folder.parent == tmp_path / "a"
    assert store.default_store() is store.default_store()
    monkeypatch.delenv("EMKERNEL_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert store.default_store().folder.parent == tmp_path / "b" / "emkernel"
    monkeypatch.delenv("XDG_CACHE_HOME")
    for home in ("c", "d"):
        monkeypatch.setenv("HOME", str(tmp_path / home))
        monkeypatch.setenv("USERPROFILE", str(tmp_path / home))
        assert store.default_store().folder.parent == tmp_path / home / ".cache" / "emkernel"
    monkeypatch.setenv("EMKERNEL_STORE", "~/e")
    assert store.default_store().folder.parent == tmp_path / "d" / "e"


def test_a_relative_folder_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = Store("here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    kept.put(KEY, {"basis": np.eye(1)})
    assert Store(tmp_path / "here").get(KEY) is not None


# ---- crowds -----------------------------------------------------------------------------------------------------


KEYS = [problem_key("crowd", str(i)) for i in range(12)]


def answer(i):
    return {"basis": np.full((40 + 97 * i, 3), float(i)), "sizes": np.arange(i)}


def busy(folder, seed, seconds):
    """Put, get and delete at random; a wrong or partial answer ends the process with an error."""
    logging.disable()
    rng, end = np.random.default_rng(seed), time.monotonic() + seconds
    while time.monotonic() < end:
        i, kept = int(rng.integers(len(KEYS))), Store(folder)
        match rng.integers(8):
            case 0:
                with suppress(OSError):
                    os.unlink(kept._path(KEYS[i]))
            case 1 if rng.random() < 0.2:
                shutil.rmtree(folder, ignore_errors=True)
            case 2 | 3 | 4:
                kept.put(KEYS[i], answer(i))
            case _:
                got = kept.get(KEYS[i])
                assert got is None or all(np.array_equal(got[n], a) for n, a in answer(i).items())


@FORK
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_crowd_of_processes(tmp_path):
    fork = multiprocessing.get_context("fork")
    crowd = [fork.Process(target=busy, args=(tmp_path / "store", seed, 1.5)) for seed in range(20)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(60)
    assert [process.exitcode for process in crowd] == [0] * 20
    assert files(tmp_path, "*.tmp") == []
    for path in entries(tmp_path):
        i = KEYS.index(path.stem)
        np.testing.assert_array_equal(unseal(path.stem, path.read_bytes())["basis"], answer(i)["basis"])


@FORK
@pytest.mark.filterwarnings("ignore:.*fork")
def test_killed_writers_leave_whole_entries_and_nothing_that_stays(tmp_path):
    fork = multiprocessing.get_context("fork")

    def write():
        for n in range(10**6):
            Store(tmp_path).put(KEYS[n % 12], {"basis": np.full((300, 300), float(n % 12))})

    for delay in (0.05, 0.08, 0.11, 0.14):
        process = fork.Process(target=write)
        process.start()
        time.sleep(delay)
        process.kill()
        process.join(60)
    assert entries(tmp_path)
    for path in entries(tmp_path):
        assert (unseal(path.stem, path.read_bytes())["basis"] == KEYS.index(path.stem)).all()


def test_what_killed_writers_left_is_removed_when_it_is_old(tmp_path):
    kept, _ = fill(tmp_path)
    temporary = kept.folder / "tmp"
    for name, age in (("old", 2 * store.ABANDONED), ("young", 1.0)):
        (temporary / f"{name}.tmp").write_bytes(b"part of an entry")
        os.utime(temporary / f"{name}.tmp", (time.time() - age,) * 2)
    Store(tmp_path).put(OTHER, {"basis": np.eye(1)})
    assert [p.name for p in temporary.iterdir()] == ["young.tmp"]


def test_an_interrupted_writer_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    kept = Store(tmp_path)
    monkeypatch.setattr(store.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        kept.put(KEY, {"basis": np.eye(1)})
    assert files(tmp_path) == []


def test_many_small_entries_are_read_faster_than_numpy_archives(tmp_path):
    kept, basis = Store(tmp_path), np.random.default_rng(0).standard_normal((1, 9, 15))
    keys = [problem_key("small", str(i)) for i in range(200)]
    for key in keys:
        kept.put(key, {"basis": basis})
        np.savez(tmp_path / f"{key}.npz", basis=basis)

    def seconds(read):
        taken = []
        for key in keys:
            start = time.perf_counter()
            read(key)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    def read_archive(key):
        with np.load(tmp_path / f"{key}.npz") as archive:
            return archive["basis"]

    assert seconds(Store(tmp_path).get) < seconds(read_archive) / 3


# ---- what ships with the package --------------------------------------------------------------------------------


BLOCKS = [
    {problem_key("g", "1"): {"basis": np.eye(3)}, problem_key("g", "2"): {"basis": np.ones((2, 5))}},
    {problem_key("h", "1"): {"sizes": np.arange(4)}, problem_key("g", "1"): {"basis": np.eye(3)}},
]


def test_the_same_solutions_ship_as_the_same_bytes(tmp_path):
    turned = [{key: block[key] for key in reversed(block)} for block in BLOCKS]
    ship(tmp_path / "a", BLOCKS)
    ship(tmp_path / "b", turned)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    shipped = Shipped(tmp_path / "a")
    for block in BLOCKS:
        for key, arrays in block.items():
            for name, a in arrays.items():
                np.testing.assert_array_equal(shipped.get(key)[name], a)
    assert shipped.get(OTHER) is None


def test_shipped_solutions_are_asked_last_and_never_written(tmp_path, monkeypatch):
    path = tmp_path / "solutions"
    ship(path, BLOCKS)
    path.chmod(0o444)
    before = path.read_bytes(), path.stat().st_mtime_ns
    key = problem_key("g", "1")
    kept = Store(tmp_path / "store", path)
    np.testing.assert_array_equal(kept.get(key)["basis"], np.eye(3))
    assert not (tmp_path / "store").exists()
    kept.discard(key)
    kept.put(key, {"basis": -np.eye(3)})
    np.testing.assert_array_equal(Store(tmp_path / "store", path).get(key)["basis"], -np.eye(3))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    monkeypatch.setattr(store, "SHIPPED", path)
    monkeypatch.setattr(store, "_stores", {})
    monkeypatch.setenv("EMKERNEL_STORE", ":memory:")
    monkeypatch.setenv("EMKERNEL_SHIPPED", "0")
    assert store.default_store().get(key) is None
    monkeypatch.delenv("EMKERNEL_SHIPPED")
    assert store.default_store().get(key) is not None


def test_a_damaged_shipment_never_answers_wrong(tmp_path, caplog):
    ship(tmp_path / "whole", BLOCKS)
    data, path = (tmp_path / "whole").read_bytes(), tmp_path / "damaged"
    silent = 0
    for i in range(len(data)):
        path.write_bytes(data[:i] + bytes([data[i] ^ 4]) + data[i + 1 :])
        shipped = Shipped(path)
        for block in BLOCKS:
            for key, arrays in block.items():
                got = shipped.get(key)
                assert got is None or all(np.array_equal(got[n], a) for n, a in arrays.items())
        silent += not caplog.records
        caplog.clear()
    assert silent < len(data) / 20  # a few bytes of an archive mean nothing


@pytest.mark.parametrize("content", [None, b"", b"rubbish", b"emkships" + bytes(99), "cut", "folder"])
def test_without_a_shipment_things_are_solved(tmp_path, content):
    path = tmp_path / "file"
    if content == "folder":
        path.mkdir()
    elif content == "cut":
        ship(path, BLOCKS)
        path.write_bytes(path.read_bytes()[:-9])
    elif content is not None:
        path.write_bytes(content)
    kept = Store(None, path)
    assert kept.get(problem_key("h", "1")) is None
    kept.put(KEY, {"basis": np.eye(2)})
    assert kept.get(KEY) is not None


def tool():
    """tools/ship.py as a module."""
    path = Path(__file__).resolve().parents[1] / "tools" / "ship.py"
    if not path.is_file():
        pytest.skip("tools/ is not beside these tests")
    spec = importlib.util.spec_from_file_location("ship_tool", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ANSWERS = """
    import importlib.util, json, sys
    find_spec = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *a: None if name in ("emlp", "jax") else find_spec(name, *a)
    from emkernel import groups
    from emkernel.solver import store
    spec = importlib.util.spec_from_file_location("ship_tool", sys.argv[1])
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    solved, put = {}, store.Store.put
    def count(self, key, arrays):
        solved[name] = solved.get(name, 0) + 1
        return put(self, key, arrays)
    store.Store.put = count
    recipe = getattr(tool, sys.argv[2])
    for name in sys.argv[3:]:
        G = groups.get(name)
        if recipe not in tool.RECIPES or tool.applies(recipe, G):
            recipe(G)
    assert not {"emlp", "jax"} & set(sys.modules)
    print(json.dumps(solved))
"""


def portable(name):
    """Whether the generators of a group are the same bytes everywhere: others go through cos and sin."""
    g = emkernel.groups.get(name)
    return all((4 * m == np.round(4 * m)).all() for m in (g.discrete_generators, g.lie_algebra))


def solved(recipe, names, **environment):
    """How many problems of each group are solved by a new process that has no emlp; {} for none."""
    path = Path(tool().__file__)
    return json.loads(run(ANSWERS, path, recipe, *names, EMKERNEL_STORE=":memory:", timeout=600, **environment))


def known(names):
    """The groups among these whose generators are those of the shipment."""
    contents = Store(None, SHIPPED).get(tool().CONTENTS)
    assert contents is not None, "run tools/ship.py"
    digests = dict(zip(contents["names"].tolist(), contents["digests"].tolist()))
    assert set(digests) == set(emkernel.groups.catalogue()), "run tools/ship.py"
    same = [name for name in names if emkernel.groups.get(name).digest == digests[name]]
    missing = [name for name in names if portable(name) and name not in same]
    assert not missing, f"the generators of {missing} have changed: run tools/ship.py"
    return same


def test_nothing_standard_waits_for_a_solve():
    names = known(emkernel.groups.catalogue())
    assert len(names) >= 20
    assert solved("convolutions", names, EMKERNEL_SHIPPED="1") == {}, "run tools/ship.py"


def test_a_solve_is_seen():
    assert solved("convolutions", ["C4"], EMKERNEL_SHIPPED="0")["C4"] > 3


@pytest.mark.slow
def test_nothing_that_ships_waits_for_a_solve():
    assert solved("build", known(emkernel.groups.catalogue()), EMKERNEL_SHIPPED="1") == {}, "run tools/ship.py"


def test_the_shipment_is_small_and_installed():
    assert SHIPPED.stat().st_size < 2_000_000
    assert SHIPPED.parent == Path(store.__file__).parent


# ---- readers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A function that forgets everything solved so far but what lies in one folder."""

    def forget():
        monkeypatch.setattr(irreps_module, "_tables", {})
        monkeypatch.setattr(store, "_stores", {})
        return tmp_path

    monkeypatch.setenv("EMKERNEL_STORE", str(tmp_path))
    monkeypatch.setenv("EMKERNEL_SHIPPED", "0")
    forget()
    return forget


def solve():
    g = group("octahedral")
    return equivariant_basis((V**2)(g), (V + Scalar)(g))


def assert_same_space(basis, expected):
    assert basis.shape == expected.shape
    mine, theirs = (b.reshape(len(b), -1) for b in (basis, expected))
    np.testing.assert_allclose(mine.T @ mine, theirs.T @ theirs, atol=1e-9)


def rewrite(path, **changed):
    """Other arrays in an entry, sealed as the store would."""
    arrays = unseal(path.stem, path.read_bytes())
    arrays |= {name: change(arrays[name]) for name, change in changed.items() if name in arrays}
    path.write_bytes(seal(path.stem, arrays))


@pytest.mark.parametrize("change", [
    lambda b: b + 1e-6, lambda b: 2 * b, lambda b: b * np.nan, lambda b: b[..., :1], lambda b: b.reshape(-1),
    lambda b: b.astype(complex) * 1j, lambda b: -b[::-1],
    lambda b: np.random.default_rng(0).permutation(b.reshape(-1)).reshape(b.shape),
], ids=["shifted", "scaled", "nan", "cut", "flat", "imaginary", "signs", "shuffled"])  # fmt: skip
def test_wrong_solutions_in_the_store_are_solved_again(fresh, change):
    folder = fresh()
    expected = solve()
    assert entries(folder)
    for path in entries(folder):
        rewrite(path, basis=change)
    fresh()
    assert_same_space(solve(), expected)


def test_wrong_pieces_in_the_store_are_split_again(fresh):
    folder = fresh()
    expected = solve()
    rng = np.random.default_rng(0)
    for path in entries(folder):
        rewrite(path, bases=lambda b: np.linalg.qr(rng.standard_normal(b.shape))[0])
    fresh()
    assert_same_space(solve(), expected)


def test_a_damaged_store_is_rebuilt(fresh):
    folder = fresh()
    expected = solve()
    for path in entries(folder):
        path.write_bytes(path.read_bytes()[:60])
    fresh()
    np.testing.assert_array_equal(solve(), expected)
    for path in entries(folder):
        unseal(path.stem, path.read_bytes())


WITHOUT_EMLP = """
    import importlib.util
    import sys
    import numpy as np

    NAMES = {"emlp", "jax", "jaxlib", "objax"}

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in NAMES:
                raise ImportError(f"No module named {name!r}")

    if sys.argv[2] != "installed":
        sys.meta_path.insert(0, Blocked())
        find_spec = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *a: None if name in NAMES else find_spec(name, *a)
    import emkernel as ek
    from tables import group
    out = {}
    for name in ("octahedral", "O(1,3)", "shear"):
        g = group(name)
        out[name] = ek.equivariant_basis((ek.V**2)(g), (ek.V + ek.Scalar)(g))
    assert not NAMES & set(sys.modules), "imported"
    np.savez(sys.argv[1], **out)
"""


def solutions():
    return {
        n: equivariant_basis((V**2)(group(n)), (V + Scalar)(group(n)))
        for n in ("octahedral", "O(1,3)", "shear")
    }


@pytest.mark.parametrize("emlp", ["blocked", "installed"])
def test_a_warm_store_needs_neither_emlp_nor_jax(fresh, tmp_path, emlp):
    expected = solutions()
    run(WITHOUT_EMLP, tmp_path / "out.npz", emlp)
    with np.load(tmp_path / "out.npz") as there:
        for name in expected:
            np.testing.assert_array_equal(there[name], expected[name])


def test_without_emlp_numpy_solves(tmp_path):
    run(WITHOUT_EMLP, tmp_path / "out.npz", "blocked", EMKERNEL_STORE=":memory:", EMKERNEL_SHIPPED="0")
    expected = solutions()
    with np.load(tmp_path / "out.npz") as there:
        for name in expected:
            np.testing.assert_allclose(there[name], expected[name], atol=1e-9)
