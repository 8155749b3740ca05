"""What a saved layer means: the same function in another process, dtype, copy; refused where it means another."""

import copy
import io
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from oracles import act, equivariance_error, run, without_settings
from tables import TABLE, group

from emkernel import Scalar, V, irreps
from emkernel.nn import EMLP, BatchNorm, Bilinear, Gate, ImplicitKernel, Invariants, Linear, PointConv
from emkernel.solver import irreps as irreps_module

SMALL = {"width": 2, "hidden": 8, "layers": 1, "radial": 4, "cutoff": 3.0}
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 3]])
GROUPS = ["octahedral", "O(3)", "2T", "skew SO(3)", "Borel", "O(1,1)"]


def conv(g, **options):
    return PointConv((2 * Scalar + V)(g), (Scalar + V + V.T)(g), (Scalar + V)(g), **SMALL, **options)


LAYERS = {
    "Linear": lambda g: Linear((Scalar + 2 * V)(g), (V**2)(g)),
    "Gate": lambda g: Gate((Scalar + V + V**2)(g)),
    "BatchNorm": lambda g: BatchNorm((2 * Scalar + V)(g)),
    "Bilinear": lambda g: Bilinear(V(g), V(g), (Scalar + V + V.T)(g), width=2),
    "EMLP": lambda g: EMLP((Scalar + V)(g), (Scalar + V)(g), hidden=2),
    "Invariants": lambda g: Invariants((Scalar + 2 * V)(g)),
    "ImplicitKernel": lambda g: ImplicitKernel(V(g), (Scalar + V)(g), **SMALL),
    "PointConv": conv,
    "PointConv, mean": lambda g: conv(g, aggr="mean"),
}
each_layer = pytest.mark.parametrize("kind", LAYERS)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arguments(layer, dtype=torch.float64):
    if isinstance(layer, PointConv):
        g = layer.rep_in.group
        args = (
            randn(5, layer.rep_in.size),
            randn(5, g.d, seed=1),
            EDGES,
            randn(6, layer.edge_rep.size, seed=2),
        )
    elif isinstance(layer, ImplicitKernel):
        args = (randn(6, layer.rep_in.group.d),)
    elif isinstance(layer, Bilinear):
        args = randn(6, layer.rep_left.size), randn(6, layer.rep_right.size, seed=1)
    else:
        args = (randn(6, getattr(layer, "rep_in", getattr(layer, "rep", None)).size),)
    return [a.to(dtype) if a.is_floating_point() else a for a in args]


def make(kind, name, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LAYERS[kind](group(name)).double()


def outputs():
    """Every layer of every group, as built by a new process, and one of its outputs; a BatchNorm has seen a batch."""
    remember, out = forget(), {}
    for name in GROUPS:
        for kind in LAYERS:
            layer = make(kind, name)
            if kind == "BatchNorm":
                layer(3 * arguments(layer)[0])
            layer.eval()
            out[f"{name}/{kind}"] = layer, layer(*arguments(layer)).detach()
    remember()
    return out


# ---- other processes --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The largest difference in another process: other hash seed, other thread count, nothing solved before.

    {"same order": layers built as here, "reversed": the last one first}
    """
    path = tmp_path_factory.mktemp("state") / "kept.pt"
    torch.save({k: (layer.state_dict(), y) for k, (layer, y) in outputs().items()}, path)
    return json.loads(
        run(
            """
        import json, sys
        import torch
        from test_state import GROUPS, LAYERS, arguments, forget, make
        kept = torch.load(sys.argv[1], weights_only=True)

        def worst(turn):
            forget()
            out = 0.0
            for name in GROUPS:
                for kind in turn(list(LAYERS)):
                    state, y = kept[f"{name}/{kind}"]
                    layer = make(kind, name, seed=99).eval()
                    layer.load_state_dict(state)
                    out = max(out, float((layer(*arguments(layer)) - y).detach().abs().max()))
            return out

        found = {"same order": worst(list)}
        try:
            found["reversed"] = worst(lambda kinds: kinds[::-1])
        except RuntimeError as e:
            found["reversed"] = str(e)
        print(json.dumps(found))
    """,
            path,
            PYTHONHASHSEED="77",
            OMP_NUM_THREADS="2",
            EMKERNEL_STORE=":memory:",
        )
    )


def test_saved_layers_give_the_same_outputs_in_another_process(elsewhere):
    assert elsewhere["same order"] < 1e-11


def test_saved_layers_give_the_same_outputs_whatever_was_built_first(elsewhere):
    assert elsewhere["reversed"] < 1e-11


def test_a_checkpoint_is_loaded_where_emlp_and_jax_are_not_installed(tmp_path):
    """Nothing is in the store either: numpy solves, and the basis is the checkpoint's."""
    saved = {name: make("PointConv", name) for name in ("octahedral", "O(3)", "O(1,1)")}
    kept = {name: (layer.state_dict(), layer(*arguments(layer)).detach()) for name, layer in saved.items()}
    torch.save(kept, tmp_path / "kept.pt")
    worst = run(
        """
        import importlib.util, sys
        absent, find_spec = {"emlp", "jax", "jaxlib", "objax"}, importlib.util.find_spec
        importlib.util.find_spec = lambda name, *a: None if name in absent else find_spec(name, *a)
        sys.modules.update(dict.fromkeys(absent))
        import torch
        from test_state import arguments, make
        kept, worst = torch.load(sys.argv[1], weights_only=True), 0.0
        for name, (state, y) in kept.items():
            layer = make("PointConv", name, seed=99)
            assert (layer(*arguments(layer)) - y).abs().max() > 1e-3
            layer.load_state_dict(state)
            worst = max(worst, float((layer(*arguments(layer)) - y).abs().max()))
        print(worst)
    """,
        tmp_path / "kept.pt",
        PYTHONHASHSEED="5",
        OMP_NUM_THREADS="2",
        EMKERNEL_STORE=":memory:",
        EMKERNEL_SHIPPED="0",
    )
    assert float(worst) < 1e-11


def forget():
    """Another process, as far as the tables of irreducibles go; returns the function that remembers."""
    kept = dict(irreps_module._tables)
    irreps_module._tables.clear()

    def remember():
        irreps_module._tables.clear()
        irreps_module._tables.update(kept)

    return remember


@pytest.fixture
def history():
    """A function that forgets which irreducibles have been met, undone after the test."""
    undo = []
    yield lambda: undo.append(forget())
    for remember in reversed(undo):
        remember()


@pytest.mark.parametrize("kind", ["Linear", "Gate", "PointConv"])
def test_a_checkpoint_does_not_depend_on_what_was_built_before(history, kind):
    g = group("O(3)")
    square = (Scalar + V + V**2)(g)
    build = {
        "Linear": lambda: Linear(square, square),
        "Gate": lambda: Gate(square),
        "PointConv": lambda: PointConv(square, square, (Scalar + V)(g), **SMALL),
    }[kind]
    history()
    irreps(g, 3)
    saved = build().double().eval()
    expected = saved(*arguments(saved)).detach()
    history()
    ImplicitKernel(V(g), V(g), **SMALL)  # meets spin 2 before the pseudovector
    loaded = build().double().eval()
    loaded.load_state_dict(saved.state_dict())
    torch.testing.assert_close(loaded(*arguments(loaded)), expected)


# ---- checkpoints ------------------------------------------------------------------------------------------------


@each_layer
@pytest.mark.parametrize("name", ["octahedral", "O(1,3)", "Borel"])
def test_loading_gives_the_same_function(kind, name):
    saved, loaded = make(kind, name, 1), make(kind, name, 2)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    result = loaded.load_state_dict(torch.load(file, weights_only=True))
    assert result.missing_keys == result.unexpected_keys == []
    args = arguments(saved)
    torch.testing.assert_close(loaded(*args), saved(*args), rtol=0, atol=0)


@each_layer
def test_a_checkpoint_carries_the_basis_that_its_weights_multiply(kind):
    """Constants are loaded with the weights: if the basis came out otherwise here, the function is the saved one."""
    saved, loaded = make(kind, "octahedral", 1), make(kind, "octahedral", 2)
    rng = torch.Generator().manual_seed(0)
    for module in loaded.modules():
        for key, exact in getattr(module, "_exact", {}).items():
            module._exact[key] = torch.randn(exact.shape, generator=rng, dtype=torch.float64)
    loaded.double()
    args = arguments(saved)
    if any(getattr(m, "_exact", {}) for m in loaded.modules()) and kind != "Linear":
        assert (loaded(*args) - saved(*args)).abs().max() > 1e-6
    loaded.load_state_dict(saved.state_dict())
    torch.testing.assert_close(loaded(*args), saved(*args), rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "name", "other"), [
    ("Linear", "octahedral", "O(1,3)"), ("PointConv", "octahedral", "O(3)"), ("PointConv", "O(3)", "T"),
    ("EMLP", "SO(3)", "SU(2)"), ("ImplicitKernel", "SO(3)", "D7"),
])  # fmt: skip
def test_a_checkpoint_of_a_group_of_other_shape_is_refused(kind, name, other):
    with pytest.raises(RuntimeError, match="another group, other representations|size mismatch|key"):
        make(kind, other).load_state_dict(make(kind, name).state_dict())


@pytest.mark.parametrize(
    ("name", "other"),
    [("octahedral", "skew octahedral"), ("D7", "skew D7"), ("SO(3)", "skew SO(3)"), ("C1000", "U(1)")],
)
def test_a_checkpoint_of_another_group_is_refused(history, name, other):
    history()
    with pytest.raises(RuntimeError, match="another group"):
        make("Linear", other).load_state_dict(make("Linear", name).state_dict())


def test_a_refused_checkpoint_leaves_the_constants():
    mine, other = conv(group("octahedral")), conv(group("SO(3)"))
    before = {k: v.clone() for k, v in mine.state_dict().items() if "weight" not in k and "bias" not in k}
    for _ in range(2):
        with pytest.raises(RuntimeError, match="another group"):
            mine.load_state_dict(other.state_dict())
    after = mine.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    mine.load_state_dict(conv(group("octahedral")).state_dict())


def test_a_checkpoint_of_other_representations_is_refused():
    g = group("octahedral")
    a, b = Linear((V + 3 * Scalar)(g), V(g)), Linear((3 * Scalar + V)(g), (3 * Scalar)(g))
    with pytest.raises(RuntimeError):
        a.load_state_dict(b.state_dict())


@pytest.mark.parametrize(("trained", "made", "said"), [
    ({"neighbours": 8}, {"neighbours": 9}, "neighbours: .* neighbours 8.0, this one has neighbours 9.0"),
    ({"cutoff": 2.0}, {}, "kernel.embed.cutoff: .* cutoff 2.0, this one has cutoff 1.0"),
    ({"envelope": True}, {}, "kernel.embed.envelope: .* envelope on, this one has envelope off"),
    ({"aggr": "mean"}, {}, "aggr: .* aggr mean, this one has aggr sum"),
    ({"kernel": "fixed", "cutoff": 2.0}, {"kernel": "fixed"}, "cutoff 2.0"),
])  # fmt: skip
def test_a_checkpoint_of_other_settings_is_refused(trained, made, said):
    rep = (Scalar + V)(group("O(3)"))
    layer, other = PointConv(rep, rep, **trained), PointConv(rep, rep, **made)
    state = layer.state_dict()
    with pytest.raises(RuntimeError, match=said):
        other.load_state_dict(state, strict=False)
    with pytest.raises(RuntimeError, match=said):
        torch.nn.ModuleList([other]).load_state_dict({f"0.{k}": v for k, v in state.items()})
    PointConv(rep, rep, **trained).load_state_dict(state)
    # of before the settings were kept: it does not say
    other.load_state_dict(without_settings(layer))


def test_settings_that_only_change_how_it_is_computed_are_free():
    rep = (Scalar + V)(group("O(3)"))
    state = PointConv(rep, rep).state_dict()
    PointConv(rep, rep, contraction="kernel", chunk=3, backend="torch", spread=1.0).load_state_dict(state)


@each_layer
def test_missing_constants_are_missed(kind):
    layer = make(kind, "O(3)")
    state = layer.state_dict()
    weights = dict(layer.named_parameters())
    constants = [k for k in without_settings(layer) if k not in weights and "running" not in k]
    if not constants:
        pytest.skip("this layer has no constants")
    del state[constants[0]]
    with pytest.raises(RuntimeError, match="Missing key"):
        make(kind, "O(3)").load_state_dict(state)
    result = make(kind, "O(3)").load_state_dict(state, strict=False)
    assert result.missing_keys == [constants[0]]


@each_layer
def test_keys_do_not_depend_on_mode_dtype_or_contraction(kind):
    layer = make(kind, "octahedral")
    keys = list(layer.state_dict())
    assert list(layer.eval().state_dict()) == list(layer.train().state_dict()) == keys
    assert list(layer.float().state_dict()) == keys
    if kind == "PointConv":
        for contraction in ("kernel", "aggregate", "message", "auto"):
            assert list(conv(group("octahedral"), contraction=contraction).state_dict()) == keys


@each_layer
def test_constants_are_not_parameters_and_have_no_gradient(kind):
    layer = make(kind, "octahedral")
    state = layer.state_dict()
    parameters = dict(layer.named_parameters())
    for key, value in state.items():
        assert not value.requires_grad
        if key not in parameters and "running" not in key and value.is_floating_point():
            assert value.dtype == torch.float64


# ---- precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["icosahedral", "SO(3)", "2T", "skew octahedral", "O(1,3)"])
def test_a_layer_born_in_single_precision_is_exact_when_made_double(name):
    g = group(name)
    rep_in, rep_out = (Scalar + V)(g), (Scalar + V + V.T)(g)
    for layer in (EMLP(rep_in, rep_out, hidden=2), Linear(rep_in, rep_out)):
        for _ in range(2):
            layer.float().double()
        assert equivariance_error(layer, [rep_in], rep_out, g) < 1e-10
    kernel = ImplicitKernel(rep_in, rep_out, **SMALL).half().float().double()
    assert equivariance_error(lambda v: kernel(v).flatten(1), [V(g)], rep_in >> rep_out, g) < 1e-10


@each_layer
def test_casts_keep_the_constants(kind):
    layer = make(kind, "icosahedral")
    args = arguments(layer)
    layer.eval()
    exact = layer(*args).detach()
    rounded = layer.float()(*arguments(layer, torch.float32)).double()
    torch.testing.assert_close(rounded, exact, rtol=1e-4, atol=1e-4)
    for p in layer.parameters():
        assert p.dtype == torch.float32
    for b in layer.buffers():
        assert not b.is_floating_point() or b.dtype == torch.float32


def test_loading_double_constants_into_a_float_layer_and_back():
    saved = make("PointConv", "icosahedral")
    single = conv(group("icosahedral"))
    single.load_state_dict(saved.state_dict())
    assert {b.dtype for b in single.buffers()} == {torch.float32}
    g = group("icosahedral")
    x, pos, edges, attr = arguments(saved)
    restored = single.double()
    a = g.sample(1, 0)[0]
    left = restored(act(saved.rep_in, a, x), act(V(g), a, pos), edges, act(saved.edge_rep, a, attr))
    right = act(saved.rep_out, a, restored(x, pos, edges, attr))
    assert (left - right).abs().max() < 1e-10 * right.abs().max()


def test_the_default_dtype_decides_that_of_new_layers():
    assert (
        Linear(V(group("SO(3)")), V(group("SO(3)"))).weight[0].dtype
        == torch.get_default_dtype()
        == torch.float32
    )
    torch.set_default_dtype(torch.float64)
    try:
        layer = conv(group("SO(3)"))
        assert {p.dtype for p in layer.parameters()} == {b.dtype for b in layer.buffers()} == {torch.float64}
        layer(*arguments(layer))
    finally:
        torch.set_default_dtype(torch.float32)


# ---- copies -----------------------------------------------------------------------------------------------------


@each_layer
@pytest.mark.parametrize("name", ["octahedral", "O(1,3)"])
def test_copies_and_pickles_are_the_same_function_and_independent(kind, name):
    layer = make(kind, name).eval()
    args = arguments(layer)
    expected = layer(*args).detach()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(*args), expected, rtol=0, atol=0)
        other.float().double()
        torch.testing.assert_close(other(*args), expected, rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            for p in other.parameters():
                p.add_(1)
        for module in other.modules():
            for exact in getattr(module, "_exact", {}).values():
                exact.zero_()
        torch.testing.assert_close(layer.double()(*args), expected, rtol=0, atol=0)


def test_a_pickled_layer_runs_where_nothing_has_been_solved(tmp_path):
    layer = make("PointConv", "octahedral").eval()
    y = layer(*arguments(layer)).detach()
    torch.save((layer, y), tmp_path / "layer.pt")
    assert run(
        """
        import sys
        import torch
        from test_state import arguments
        layer, y = torch.load(sys.argv[1], weights_only=False)
        assert float((layer(*arguments(layer)) - y).detach().abs().max()) < 1e-12
        assert not {"emlp", "jax"} & set(sys.modules)
        layer.float().double()
        print(layer.rep_in.size)
    """,
        tmp_path / "layer.pt",
        EMKERNEL_STORE=":memory:",
    ).strip() == str(layer.rep_in.size)


def test_training_changes_weights_and_nothing_else():
    layer = make("PointConv", "octahedral")
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.1)
    args = arguments(layer)
    for _ in range(3):
        optimiser.zero_grad()
        layer(*args).square().sum().backward()
        optimiser.step()
    parameters = dict(layer.named_parameters())
    for key, value in layer.state_dict().items():
        changed = bool((value != before[key]).any())
        assert changed == (key in parameters and value.numel() > 0), key
    g = group("octahedral")
    a = g.sample(1, 0)[0]
    x, pos, edges, attr = args
    left = layer(act(layer.rep_in, a, x), act(V(g), a, pos), edges, act(layer.edge_rep, a, attr))
    right = act(layer.rep_out, a, layer(*args))
    assert (left - right).abs().max() < 1e-10 * right.abs().max()


# ---- bits -------------------------------------------------------------------------------------------------------


BITS = """
    import hashlib, json, os, sys
    import torch
    from test_state import conv, forget
    from tables import EVERY, group
    from emkernel import Scalar, V, groups
    from emkernel.nn import Linear

    def bits():
        forget()
        found = {}
        for name in sys.argv[1].split("|"):
            g = group(name) if name in EVERY else groups.get(name)
            torch.manual_seed(0)
            for layer in (conv(g), Linear((Scalar + V)(g), (V**2)(g))):
                for key, value in layer.state_dict().items():
                    content = value.numpy().tobytes() + str((value.dtype, value.shape, value.stride())).encode()
                    found[f"{name} {type(layer).__name__}.{key}"] = hashlib.sha256(content).hexdigest()
        return found

    out = []
    for folder in sys.argv[2:]:
        os.environ["EMKERNEL_STORE"] = folder
        out.append(bits())
    print(json.dumps(out))
"""
ALIKE = ["O(3)", "Cnv(5)", "SU(2)", "shear", "C1000", "skew SO(3)"]


def bits(names, *folders, threads, seed):
    """Digests of every tensor of the layers that a new process builds with each of these stores, one after another."""
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return json.loads(
        run(
            BITS,
            "|".join(names),
            *folders,
            timeout=600,
            PYTHONHASHSEED=str(seed),
            EMKERNEL_SHIPPED="0",
            **dict.fromkeys(variables, str(threads)),
        )
    )


def differing(first, second):
    assert first.keys() == second.keys()
    return [key for key in first if first[key] != second[key]]


def assert_bits_alike(names, folder):
    """Two ranks that start at once on a cold store, a process that solves all by itself, one that solves every other
    problem and reads the rest, and one that reads all: the same bits, whatever the threads and the hash seed."""
    with ThreadPoolExecutor(2) as ranks:
        begun = [ranks.submit(bits, names, folder, threads=n, seed=77 * n) for n in (1, 2)]
        (first,), (second,) = (rank.result() for rank in begun)
    assert differing(first, second) == []
    entries = sorted(p for p in folder.rglob("*") if p.is_file())
    assert len(entries) > 10 * len(names)
    for path in entries[::2]:
        path.unlink()
    alone, half, warm = bits(names, ":memory:", folder, f"{folder}/.", threads=2, seed=5)
    assert differing(first, alone) == []
    assert differing(first, half) == []
    assert differing(first, warm) == []


def test_layers_are_the_same_to_the_last_bit_in_every_process(tmp_path):
    assert_bits_alike(ALIKE, tmp_path)


@pytest.mark.slow
def test_layers_of_every_kind_of_group_are_the_same_to_the_last_bit(tmp_path):
    assert_bits_alike([*TABLE, "Oh", "D6h", "Sp4"], tmp_path)


def test_a_single_bit_is_seen():
    assert differing({"a": "1", "b": "2"}, {"a": "1", "b": "3"}) == ["b"]
