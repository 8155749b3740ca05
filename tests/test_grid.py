"""The convolution on a grid: the point convolution on the grid's points, exact under what maps the grid to itself."""

import copy
import itertools
import warnings

import numpy as np
import pytest
import torch
from oracles import act
from tables import CYCLE, FIFTH, group, turn
from test_compile import agree, fresh_compiler  # noqa: F401
from test_conv import double, randn

from emkernel import MatrixGroup, RepError, Scalar, V, check_equivariance, groups, periodic_graph
from emkernel.checks import grid_equivariance_error
from emkernel.errors import GroupError
from emkernel.nn import Gate, GridConv, InvariantPool, Linear, PointConv, Pointwise

SMALL = {"width": 2, "hidden": 8, "layers": 1, "radial": 4}
HEXAGONAL = np.array([[1.0, 0.0], [0.5, np.sqrt(3) / 2]])  # vectors as rows
SIXTH = np.array([[0, -1], [1, 1]])  # a turn by 60°, in coordinates of the hexagonal lattice
NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
EXTRA = {
    "D4": lambda: MatrixGroup("D4", [turn(np.pi / 2).round(), np.diag([1.0, -1.0])]),
    "C6": lambda: MatrixGroup("C6", [turn(np.pi / 3)]),
    "D6": lambda: MatrixGroup("D6", [turn(np.pi / 3), np.diag([1.0, -1.0])]),
    "D6 of the lattice": lambda: MatrixGroup("D6 of the lattice", [SIXTH, [[0, 1], [1, 0]]]),
    "inversion": lambda: MatrixGroup("inversion", [-np.eye(1)]),
    "I": lambda: MatrixGroup("I", [CYCLE, FIFTH]),
    "O(2)": lambda: groups.O(2),
    "SO(2)": lambda: groups.SO(2),
    "GL(2)": lambda: groups.GL(2),
    "Oh": lambda: groups.Oh(),
}


def make(name):
    return EXTRA[name]() if name in EXTRA else group(name)


def fields(g):
    return (2 * Scalar + V)(g), (Scalar + V)(g)


def conv(name, size, edge_rep=None, **options):
    g = make(name)
    rep_in, rep_out = fields(g)
    network = SMALL if options.get("kernel") != "fixed" else {}
    return double(GridConv(rep_in, rep_out, size, edge_rep and edge_rep(g), **network, **options))


def images(layer, *size, batch=2, seed=0):
    return randn(batch, layer.rep_in.size, *size, seed=seed)


# ---- the point convolution --------------------------------------------------------------------------------------


def by_points(layer, x, edge_attr=None):
    """The same by a PointConv on the points of one padded field, with an edge from every tap to every output."""
    d = x.ndim - 1
    k, step, stride = np.array(layer.kernel_size), np.array(layer.dilation), np.array(layer.stride)
    if layer.padding == "same":
        before = step * (k - 1) // 2
        sides = list(zip(before, step * (k - 1) - before))
    else:
        sides = [(p, p) for p in ((0,) * d if layer.padding == "valid" else layer.padding)]
    padded = np.pad(x.numpy(), [(0, 0), *sides], NUMPY_MODES[layer.padding_mode])
    size = np.array(padded.shape[1:])
    outputs = (size - step * (k - 1) - 1) // stride + 1
    # in steps of the lattice: where outputs are, and what they are joined to
    at = np.array([i * stride + step * (k - 1) / 2 for i in itertools.product(*map(range, outputs))])
    edges = []
    for i, p in enumerate(at):
        for t in itertools.product(*map(range, k)):
            source = p + step * (np.array(t) - (k - 1) / 2)
            if not np.array_equal(source, p):
                edges.append((np.ravel_multi_index(source.astype(int), size), i))
    points = np.array(list(itertools.product(*map(range, size))))
    with_self = layer.self_term is not None
    options = SMALL if layer.kernel.takes_attributes else {}
    reference = PointConv(
        layer.rep_in, layer.rep_out, layer.edge_rep, contraction="kernel", self_interaction=with_self,
        kernel="implicit" if layer.kernel.takes_attributes else "fixed", envelope=layer.kernel.embed.envelope,
        cutoff=layer.kernel.embed.cutoff, neighbours=layer.neighbours, degree=layer.kernel.embed.degree,
        **options,
    ).double()  # fmt: skip
    state = {name: w for name, w in layer.state_dict().items() if not name.startswith("offset.")}
    reference.load_state_dict(state)
    features = torch.as_tensor(padded).flatten(1).T
    target = None
    if with_self:
        target = features[torch.as_tensor(np.ravel_multi_index(at.astype(int).T, size))]
    positions = [torch.as_tensor(p @ layer.basis.T) for p in (points, at)]
    edges = torch.tensor(edges).T
    attr = None if edge_attr is None else edge_attr.expand(edges.shape[1], -1)
    y = reference((features, target), tuple(positions), edges, attr)
    if layer.offset is not None:
        y = y + layer.offset(torch.ones(1, dtype=y.dtype))
    return y.T.unflatten(1, tuple(map(int, outputs))), reference


@pytest.mark.parametrize(("name", "size", "options", "shape"), [
    ("D4", 3, {"padding": "same"}, (6, 5)),
    ("C3", (3, 5), {"padding": (1, 3), "stride": (2, 1)}, (7, 6)),
    ("SO(2)", 3, {"dilation": 2, "padding": 2, "padding_mode": "circular"}, (6, 7)),
    ("O(2)", 4, {"stride": 2, "padding": 1, "padding_mode": "reflect"}, (7, 8)),
    ("C4", (3, 4), {"padding": "same", "spacing": (1.0, 0.8)}, (5, 6)),
    ("D7", 3, {"padding": 1, "kernel": "fixed", "degree": 3, "padding_mode": "replicate"}, (5, 5)),
    ("D6", 5, {"spacing": HEXAGONAL, "padding": "same"}, (6, 6)),
    ("D6 of the lattice", 3, {"self_interaction": False, "bias": False}, (5, 5)),
    ("SO(3)", 3, {"padding": "same", "spacing": (1.0, 1.0, 1.2)}, (4, 3, 4)),
    ("octahedral", (3, 3, 2), {"envelope": False}, (4, 4, 4)),
    ("inversion", 5, {"padding": "valid", "spacing": 0.1}, (9,)),
    ("shear", 3, {"padding": "same"}, (5, 5)), ("SO+(1,1)", 3, {"envelope": True, "cutoff": 3.0}, (5, 6)),
    ("GL(2)", (2, 3), {"padding": 1, "neighbours": 3.0}, (4, 5)),
    ("SL(2)", 3, {}, (4, 5)),
])  # fmt: skip
def test_it_is_the_point_convolution_on_the_points_of_the_grid(name, size, options, shape):
    """Value and gradients of the weights, from the same checkpoint; the sign of the offsets, strides, padding."""
    layer = conv(name, size, **options)
    x = images(layer, *shape, batch=1)
    y, (expected, reference) = layer(x)[0], by_points(layer, x[0])
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-10)
    along = randn(*y.shape, seed=5)
    (y * along).sum().backward()
    (expected * along).sum().backward()
    wanted = dict(reference.named_parameters())
    for key, w in layer.named_parameters():
        if key in wanted and w.requires_grad:
            torch.testing.assert_close(w.grad, wanted[key].grad, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["D4", "O(2)", "SO(2)", "shear"])
def test_with_attributes_of_the_field(name):
    layer = conv(name, 3, 2 * Scalar + V, padding="same")
    x, attr = images(layer, 5, 4, batch=3), randn(3, 4, seed=8)
    y = layer(x, attr)
    for i in range(3):
        torch.testing.assert_close(y[i], by_points(layer, x[i], attr[i])[0], rtol=1e-9, atol=1e-10)
    # one for all, in either form
    torch.testing.assert_close(layer(x, attr[:1])[0], y[0])
    torch.testing.assert_close(layer(x, attr[0]), layer(x, attr[:1].expand(3, -1)))
    assert (y[0] - layer(x, attr[1])[0]).abs().max() > 1e-3
    assert layer(x[:0], attr[:0]).shape == (0, 3, 5, 4)
    assert torch.autograd.gradcheck(layer, (x[:2, :, :3, :3].requires_grad_(), attr[:2].requires_grad_()))


@pytest.mark.parametrize("padding_mode", list(NUMPY_MODES))
@pytest.mark.parametrize("padding", [0, 1, (2, 1), "same", "valid"])
def test_padding_is_that_of_torch_and_the_export_is_a_convolution_of_torch(padding, padding_mode):
    for size, with_bias in ((3, True), ((4, 3), False)):
        layer = conv("D4", size, padding=padding, padding_mode=padding_mode, bias=with_bias)
        x = images(layer, 6, 7)
        plain = layer.export()
        assert type(plain) is torch.nn.Conv2d
        assert plain.weight.shape == (3, 4, *layer.kernel_size) and (plain.bias is not None) == with_bias
        torch.testing.assert_close(plain(x), layer(x), rtol=0, atol=1e-14)


def test_the_export_has_the_attributes_built_in():
    layer = conv("Oh", 3, V).eval()
    x, wind = images(layer, 4, 3, 5), randn(3)
    plain = layer.export(wind)
    assert type(plain) is torch.nn.Conv3d and not plain.training
    torch.testing.assert_close(plain(x), layer(x, wind), rtol=0, atol=1e-14)
    with pytest.raises(RepError, match="edge_attr is missing"):
        layer.export()
    with pytest.raises(ValueError, match="a row per sample: one convolution has the kernel of one"):
        layer.export(randn(2, 3))


# ---- what maps the grid to itself -------------------------------------------------------------------------------


def turned(rep, g, x, basis):
    """(g f)(p) = ρ(g) f(g^-1 p) about the centre, for g that permutes the lattice; 0 comes in from outside."""
    size = x.shape[2:]
    steps = np.linalg.solve(basis, g.matrix @ basis)
    assert np.abs(steps - steps.round()).max() < 1e-9
    centre = (np.array(size) - 1) / 2
    index = np.array(list(itertools.product(*map(range, size)))) - centre
    source = np.rint(index @ np.linalg.inv(steps.round()).T + centre).astype(int)
    inside = ((source >= 0) & (source < size)).all(1)
    values = torch.zeros(*x.shape[:2], len(index), dtype=x.dtype)
    flat = np.ravel_multi_index(source[inside].T, size)
    values[:, :, inside] = x.flatten(2)[:, :, flat]
    return act(rep, g, values.transpose(1, 2)).transpose(1, 2).unflatten(2, size)


def exactness(layer, x, attr=None, turn_attr=True):
    worst, g = 0.0, layer.symmetries()
    x = x.detach()
    args = [] if attr is None else [attr]
    y = layer(x, *args)
    for i in range(len(g)):
        moved = [act(layer.edge_rep, g[i], a) if turn_attr else a for a in args]
        left = layer(turned(layer.rep_in, g[i], x, layer.basis), *moved)
        stride = np.array(layer.stride)
        right = turned(layer.rep_out, g[i], y, layer.basis * stride)
        worst = max(worst, ((left - right).abs().max() / right.abs().max()).item())
    return worst


@pytest.mark.parametrize(("name", "size", "options", "order", "shape"), [
    ("D4", 3, {"padding": "same"}, 8, (6, 6)), ("D4", 3, {"padding": 0}, 8, (7, 7)),
    ("D4", 4, {}, 8, (7, 7)), ("D4", 2, {"padding": 1, "padding_mode": "reflect"}, 8, (6, 6)),
    ("D4", 5, {"padding": 2, "padding_mode": "circular", "envelope": False}, 8, (7, 7)),
    # taps at the distance of the ones that a short axis leaves out do not count
    ("D4", (3, 5), {"padding": "same"}, 8, (6, 6)), ("D4", (3, 5), {"padding": "same", "envelope": False}, 4, (6, 7)),
    ("D4", 3, {"spacing": (1.0, 1.1), "cutoff": 2.0}, 4, (6, 7)),
    ("D4", 3, {"stride": 2, "padding": 1}, 8, (9, 9)), ("D4", 3, {"stride": 3, "padding": 1}, 8, (7, 7)),
    ("D4", 3, {"dilation": (1, 2), "padding": "same", "cutoff": 3.0}, 4, (7, 6)),
    ("D4", 5, {"stride": (2, 1), "padding": 2}, 4, (7, 6)),
    ("C3", 3, {"padding": "same"}, 1, (6, 6)), ("D6", 5, {"padding": "same"}, 4, (6, 7)),
    ("D4", 3, {"padding": "same", "kernel": "fixed", "spacing": [[0, -1], [1, 0]]}, 8, (6, 6)),
    ("Oh", 3, {"padding": "same"}, 48, (4, 4, 4)), ("Oh", (3, 3, 5), {"envelope": False}, 16, (5, 5, 6)),
    ("Oh", 3, {"spacing": (1.0, 1.0, 1.2)}, 16, (4, 4, 5)), ("Oh", 3, {"stride": (1, 1, 2)}, 16, (4, 4, 5)),
    ("I", 3, {"padding": "same"}, 12, (4, 4, 4)), ("inversion", 5, {"padding": "same"}, 2, (8,)),
    # a mirror of the parallelogram, and its turn by 180°
    ("D6", 3, {"spacing": HEXAGONAL, "envelope": False, "padding": "same"}, 4, (5, 5)),
])  # fmt: skip
def test_it_is_exact_under_what_maps_the_grid_to_itself(name, size, options, order, shape):
    """The number of these elements is known on paper."""
    layer = conv(name, size, **options)
    assert len(layer.symmetries()) == order
    assert exactness(layer, images(layer, *shape)) < 1e-12


@pytest.mark.parametrize(("name", "basis", "order"), [
    ("D6", HEXAGONAL, 12), ("D6 of the lattice", np.eye(2), 12), ("C6", 0.37 * HEXAGONAL @ turn(0.2), 6),
])  # fmt: skip
@pytest.mark.parametrize("size", [3, 5])
def test_on_a_hexagonal_lattice_six_turns_are_exact(name, basis, order, size):
    """The taps within the ball are a hexagon; data lie in the middle, as the array itself is no hexagon."""
    layer = conv(name, size, spacing=basis, padding="same", bias=False)
    assert len(layer.symmetries()) == order
    assert len(layer.steps) == {3: 6, 5: 18}[size]
    x = images(layer, 13, 13)
    index = np.stack(np.meshgrid(*[np.arange(13) - 6] * 2, indexing="ij"))
    far = np.abs(np.stack([*index, index.sum(0)])).max(0)  # hexagons of radius 0, 1, ...
    assert exactness(layer, x * torch.as_tensor(far <= 6 - size // 2)) < 1e-12
    assert exactness(layer, x) > 1e-3


def test_lattice_vectors_are_rows_as_those_of_a_crystal():
    """The taps are the images of one point, and columns in place of rows are noticed."""
    layer = conv("D6", 3, spacing=HEXAGONAL)
    _, vectors = periodic_graph(torch.zeros(1, 2).double(), torch.tensor(HEXAGONAL), 1.0)
    gaps = (layer.vectors[:, None] - vectors).norm(dim=2)
    assert len(layer.vectors) == len(vectors) == 6 and gaps.amin(0).max() < 1e-12
    with pytest.warns(UserWarning, match="2 of the 12 elements .* to itself, and 12 .* rows of spacing"):
        conv("D6", 3, spacing=HEXAGONAL.T, envelope=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conv("D4", 3, spacing=[[1.0, 0.3], [0.0, 1.0]], envelope=False)  # neither it nor its transpose
        conv("O(2)", 3, spacing=HEXAGONAL.T)  # infinitely many


def test_turning_an_image_by_rot90_is_the_turn_from_the_first_coordinate_to_the_second():
    layer = conv("D4", 3, padding="same")
    x, R = images(layer, 6, 6), torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)

    def quarter(y):
        y = torch.rot90(y, 1, (-2, -1))
        scalars = y.shape[1] - 2
        return torch.cat([y[:, :scalars], torch.einsum("ij,bjhw->bihw", R, y[:, scalars:])], 1)

    torch.testing.assert_close(layer(quarter(x)), quarter(layer(x)))


@pytest.mark.parametrize(("size", "stride", "n"), [(3, 2, 8), (3, 3, 8), (4, 2, 7)])
def test_a_stride_breaks_symmetry_where_it_leaves_entries_over(size, stride, n):
    layer = conv("D4", size, stride=stride, padding=1)
    left_over = (n + 2 - size) % stride
    assert left_over
    assert exactness(layer, images(layer, n, n)) > 1e-2
    assert exactness(layer, images(layer, n - left_over, n - left_over)) < 1e-12


@pytest.mark.parametrize("name", ["D4", "Oh"])
def test_a_wind_turns_with_the_field(name):
    layer = conv(name, 3, Scalar + V, padding="same")
    d = layer.rep_in.group.d
    x, attr = images(layer, *[4] * d), randn(2, 1 + d, seed=3)
    assert exactness(layer, x, attr) < 1e-12
    assert exactness(layer, x, attr, turn_attr=False) > 1e-2


def test_the_elements_of_an_infinite_group_are_not_listed():
    with pytest.raises(GroupError, match="infinite"):
        conv("O(2)", 3).symmetries()


# ---- the whole group --------------------------------------------------------------------------------------------


def test_the_error_is_rounding_under_what_maps_the_grid_to_itself():
    for name, size in (("D4", 5), ("Oh", 3)):
        layer = conv(name, size, Scalar + V, stride=2, padding=size // 2)
        d = layer.rep_in.group.d
        error = grid_equivariance_error(layer, size=17 if d < 3 else 9, elements=layer.symmetries())
        assert error < 1e-12


@pytest.mark.parametrize("name", ["SO(2)", "D7", "SO(3)"])
def test_the_error_falls_with_the_wavelength_and_the_ball_is_what_makes_it_small(name):
    options = {"size": 33, "n": 4} if make(name).d == 2 else {"size": 17, "n": 2}
    box, ball = (conv(name, 5, envelope=e) for e in (False, True))
    coarse, fine = (grid_equivariance_error(ball, wavelength=w, **options) for w in (5.0, 15.0))
    assert 1e-6 < fine < coarse / 3
    assert coarse < 0.2
    assert grid_equivariance_error(box, wavelength=5.0, **options) > 2 * coarse


def test_the_error_of_a_plain_convolution_is_large():
    """The negative control: whatever its wavelength, and also after the export of another layer's weights."""
    layer = conv("O(2)", 5, padding="same")
    plain = layer.export()
    reps = layer.rep_in, layer.rep_out
    assert grid_equivariance_error(plain, *reps) == pytest.approx(grid_equivariance_error(layer), rel=1e-6)
    torch.nn.init.normal_(plain.weight, generator=torch.Generator().manual_seed(0))
    assert grid_equivariance_error(plain, *reps, wavelength=20.0) > 0.5


def test_networks_of_several_layers_and_invariants_of_the_whole_image():
    g = make("O(2)")
    rep = (2 * Scalar + V)(g)
    torch.manual_seed(0)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            options = {"padding": "same", **SMALL}
            self.layers = torch.nn.Sequential(
                GridConv(Scalar(g), rep, 5, **options), Pointwise(Gate(rep)), GridConv(rep, rep, 5, **options)
            )
            self.pool = InvariantPool(rep, "mean")

        def forward(self, x, pooled=True):
            y = self.layers(x)
            if not pooled:
                return y
            batch = torch.arange(len(y)).repeat_interleave(y[0, 0].numel())
            return self.pool(y.movedim(1, -1).reshape(-1, rep.size), batch, len(y))

    net = Network().double()
    fixed = (net.pool.size * Scalar)(g)
    assert grid_equivariance_error(net, Scalar(g), fixed, wavelength=12.0) < 0.02
    vectors, swapped = (
        grid_equivariance_error(lambda x, order=order: net(x, False)[:, order], Scalar(g), V(g), wavelength=12.0)
        for order in ([2, 3], [3, 2])
    )
    assert vectors < 0.05
    assert swapped > 0.3


def test_the_error_says_what_it_cannot_compare():
    layer = conv("D4", 3, stride=2)
    with pytest.raises(ValueError, match=r"\(16, 16\) entries and has none in the middle: take sizes of 1 modulo"):
        grid_equivariance_error(layer)
    with pytest.raises(RepError, match="no representation is given"):
        grid_equivariance_error(torch.nn.Conv2d(1, 1, 3))
    with pytest.raises(TypeError, match="what maps its grid to itself only: see checks.grid_equivariance_error"):
        check_equivariance(layer)
    assert check_equivariance(layer.kernel).passed


# ---- as a module of torch ---------------------------------------------------------------------------------------


def test_messages_are_of_unit_variance():
    g = make("O(2)")
    rep = (8 * Scalar + 4 * V)(g)
    torch.manual_seed(0)
    for size in (3, 5, 9):
        for options in ({}, {"envelope": False}):
            layer = GridConv(rep, rep, size, self_interaction=False, **options)
            assert 0.3 < layer(torch.randn(2, 16, 20, 20)).std() < 2


def test_the_state_is_that_of_a_point_convolution_and_precision_comes_back():
    layer = conv("D6", 3, spacing=0.1 * HEXAGONAL, padding="same")
    x = images(layer, 5, 5)
    y = layer(x)
    same = {"cutoff": layer.kernel.embed.cutoff, "neighbours": layer.neighbours, "envelope": True}
    point = PointConv(layer.rep_in, layer.rep_out, **same, **SMALL)
    assert layer.state_dict().keys() == point.state_dict().keys()
    point.double().load_state_dict(layer.state_dict())
    other = conv("D6", 3, spacing=0.1 * HEXAGONAL, padding="same")
    other.reset_parameters()
    assert (other(x) - y).abs().max() > 1e-2
    other.load_state_dict(point.state_dict())
    torch.testing.assert_close(other(x), y, rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(layer)(x), y, rtol=0, atol=0)
    # the offsets keep their digits, as weights of few digits do
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(p.float())
    y = layer(x)
    assert layer.float()(x.float()).dtype == torch.float32
    torch.testing.assert_close(layer.double()(x), y, rtol=1e-13, atol=1e-14)


def test_a_layer_built_without_memory_is_filled_from_a_checkpoint():
    for size in (3, 4):
        saved = conv("D4", size, V).float()
        with torch.device("meta"):
            layer = GridConv(saved.rep_in, saved.rep_out, size, saved.edge_rep, **SMALL)
        assert {t.device.type for t in (*layer.parameters(), *layer.buffers())} == {"meta"}
        layer = layer.to_empty(device="cpu")
        assert layer.load_state_dict(saved.state_dict()).missing_keys == []
        x, attr = images(saved, 5, 5).float(), randn(2, 2, dtype=torch.float32)
        torch.testing.assert_close(layer(x, attr), saved(x, attr), rtol=0, atol=0)


@pytest.mark.parametrize("attributes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_compiles_for_any_size(attributes):
    layer = conv("D4", 3, Scalar + V if attributes else None, padding="same").float()
    calls = []
    for batch, n, m in ((5, 6, 7), (2, 9, 8)):  # sizes that are equal by chance would be taken to be equal always
        x = images(layer, n, m, batch=batch).float()
        calls.append((x, randn(batch, 3, dtype=torch.float32)) if attributes else (x,))
    agree(layer, calls)


@pytest.mark.parametrize("attributes", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_exported_program_takes_any_size(attributes):
    layer = conv("D4", 3, Scalar + V if attributes else None, padding="same").float().eval()
    B, H, W = (torch.export.Dim(name, min=2, max=64) for name in "BHW")
    x, attr = images(layer, 6, 7, batch=3).float(), randn(3, 3, dtype=torch.float32)
    args, shapes = ((x, attr), {"x": {0: B, 2: H, 3: W}, "edge_attr": {0: B}})
    if not attributes:
        args, shapes = (x,), {"x": shapes["x"], "edge_attr": None}
        args = (x, None)
    program = torch.export.export(layer, args, dynamic_shapes=shapes).module()
    for batch, n, m in ((3, 6, 7), (5, 9, 12)):
        args = (images(layer, n, m, batch=batch).float(), randn(batch, 3, dtype=torch.float32) if attributes else None)
        torch.testing.assert_close(program(*args), layer(*args), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_costs_its_digits(dtype):
    layer = conv("D4", 5, V, padding="same").float()
    x, attr = images(layer, 9, 9).float(), randn(2, 2, dtype=torch.float32)
    y = layer(x, attr)
    with torch.autocast("cpu", dtype):
        low = layer(x, attr)
    digits = torch.finfo(dtype).eps
    assert digits / 100 < (low.float() - y).abs().max() / y.abs().max() < 16 * digits


def test_it_learns():
    """A convolution of the same kind, from its outputs."""
    g = make("D4")
    torch.manual_seed(0)
    teacher, layer = (GridConv(Scalar(g), (Scalar + V)(g), 3, **SMALL) for _ in range(2))
    optimiser, losses = torch.optim.Adam(layer.parameters(), lr=3e-2), []
    for _ in range(60):
        x = torch.randn(8, 1, 8, 8)
        loss = (layer(x) - teacher(x).detach()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(p.grad is not None for p in layer.parameters() if p.requires_grad)
    assert losses[-1] < 0.05 * losses[0]


def test_layers_at_every_point():
    g = make("D4")
    rep = (2 * Scalar + V)(g)
    layer = Linear(rep, V(g))
    x = torch.randn(2, 4, 3, 5)
    y = Pointwise(layer)(x)
    assert y.shape == (2, 2, 3, 5)
    torch.testing.assert_close(y[1, :, 2, 4], layer(x[1, :, 2, 4]))


# ---- what does not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"kernel_size": 0}, ValueError, "kernel_size must be an integer of at least 1, or 2 of them, one per axis; got 0"),
    ({"kernel_size": (3, 3, 3)}, ValueError, r"kernel_size must be .*or 2 of them"),
    ({"kernel_size": 2.5}, ValueError, "kernel_size must be an integer"),
    ({"kernel_size": 1}, ValueError, r"no neighbours: take Pointwise\(Linear"),
    ({"stride": 0}, ValueError, "stride must be an integer of at least 1"),
    ({"dilation": (1, 0)}, ValueError, "dilation must be"),
    ({"padding": -1}, ValueError, "padding must be an integer of at least 0"),
    ({"padding": "full"}, ValueError, "padding must be integers, 'same' or 'valid', got 'full'"),
    ({"padding": "same", "stride": 2}, ValueError, r"no meaning with stride \(2, 2\)"),
    ({"padding_mode": "mirror"}, ValueError, "padding_mode must be one of"),
    ({"spacing": 0.0}, ValueError, "spacing must be a length, 2 of them, or an invertible"),
    ({"spacing": (1.0, 2.0, 3.0)}, ValueError, "spacing must be"),
    ({"spacing": [[1.0, 1.0], [1.0, 1.0]]}, ValueError, "spacing must be"),
    ({"spacing": (1.0, 5.0)}, ValueError, "all taps along axis 1 are beyond the cutoff 2, .* take more taps"),
    ({"cutoff": 0.5}, ValueError, "all taps along axis 0 are beyond the cutoff 0.5"),
    ({"neighbours": 0}, ValueError, "neighbours must be positive"),
    ({"kernel": "free"}, ValueError, "kernel must be one of"),
    ({"edge_rep": V(group("SO(3)"))}, RepError, "expected one group"),
])  # fmt: skip
def test_what_cannot_be_built(options, error, message):
    g = make("D4")
    with pytest.raises(error, match=message):
        GridConv(V(g), V(g), **{"kernel_size": 3} | options)


def test_a_grid_has_the_axes_of_space():
    g = group("O(1,3)")
    with pytest.raises(ValueError, match=r"acts on R\^4, a grid has 1, 2 or 3 axes"):
        GridConv(V(g), V(g), 3)


def test_what_cannot_be_convolved():
    layer, plain = conv("D4", 3, V), conv("D4", 3)
    x, attr = images(layer, 5, 5), randn(2, 2)
    for wrong in (x[0], x[:, :3], x.movedim(1, -1), x.flatten(2), "image"):
        with pytest.raises(ValueError, match=r"x must be \(B, 4, rows, columns\)"):
            layer(wrong, attr)
    with pytest.raises(TypeError, match="x has dtype torch.float32, the layer torch.float64"):
        layer(x.float(), attr)
    with pytest.raises(RepError, match="edge_attr is missing"):
        layer(x)
    with pytest.raises(RepError, match="built without edge_rep"):
        plain(x, attr)
    with pytest.raises(RepError, match=r"edge_attr has shape \(2, 3\), expected \(\.\.\., 2\)"):
        layer(x, randn(2, 3))
    with pytest.raises(ValueError, match="edge_attr has 3 rows for 2 fields"):
        layer(x, randn(3, 2))
    with pytest.raises(ValueError, match="belong to the edges of a PointConv"):
        layer(x, randn(2, 5, 2))
