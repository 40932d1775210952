"""softmax_cross_entropy.cu on the CPU, every layout against the op's reference in float64."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from kernels.cuda.driver import At
from kernels.cuda.elements import EPS, STORAGE, SUFFIXES, WIDE, decode, encode, poisoned

from xpmlp.kernels.cuda import geometry
from xpmlp.ops.softmax_cross_entropy import reference

H100 = geometry.Device()
PLAIN = SimpleNamespace(
    problems=1,
    smoothing=0.0,
    ignore_index=None,
    weights=False,
    z_loss=0.0,
    reduction="mean",
    shared=False,
    probabilities=False,
    kind="int64",
    padding=0,
    offset=0,
    gradient_offset=0,
    loss_scale=None,
    gradient=True,
    in_place=False,
    outside=False,
    ignore_all=False,
    layout=None,
    hits=True,
)


def case(**options):
    return SimpleNamespace(**{**vars(PLAIN), **options})


def layout(name, suffix, rows, classes, targets, hits, aligned):
    """A launch of a layout that rows of this width would not get by themselves."""
    blocks = int(name[-1]) if name.startswith("cluster") else 1
    share = 0 if name == "stream" else geometry.row_share(classes, suffix, blocks, aligned)
    kernel = geometry.cross_entropy_kernel(name, targets, hits)
    kernel = f"softmax_cross_entropy_{kernel}_{suffix}"
    return geometry.Launch(kernel, (rows * blocks, 1, 1), (64, 1, 1), share)


def make_logits(rng, problems, batch, classes):
    x = rng.normal(size=(problems, batch, classes)) * 3
    x[0, 0] = np.where(np.arange(classes) % 2, -1e4, 1e4)  # exact in every type
    if batch > 2:
        x[:, 1] = -np.inf
        x[:, 1, classes // 2] = 0.5
        x[:, 2] = 7.0  # every class is the largest
    return x


def run(shim, suffix, rng, batch, classes, c):
    """The kernels' loss, gradient and count beside the reference's; checks them."""
    rows, item = c.problems * batch, np.dtype(STORAGE[suffix]).itemsize
    limit = {"f16": 1e4, "bf16": 1e4}.get(suffix, np.inf)
    values = np.clip(make_logits(rng, c.problems, batch, classes), -np.inf, limit)
    x = encode(values, suffix)
    stride = classes + c.padding
    memory = np.concatenate([x, poisoned((c.problems, batch, c.padding), x.dtype)], axis=-1)
    memory = np.ascontiguousarray(memory)
    numbers = rng.integers(0, classes, (batch,) if c.shared else (c.problems, batch))
    if c.ignore_index is not None:
        numbers[..., :: 2 if batch > 1 and not c.ignore_all else 1] = c.ignore_index
    if c.outside:
        numbers[..., 0], numbers[..., -1] = -7, classes + 2  # no classes: rows without a target
    numbers = numbers.astype(c.kind)
    targets = numbers
    if c.probabilities:
        targets = rng.random((batch, classes) if c.shared else (c.problems, batch, classes))
        targets[..., : classes // 3] = 0
        targets = encode(targets / targets.sum(-1, keepdims=True), suffix)
    wide = WIDE[suffix]
    weights = rng.random(classes).astype(wide) if c.weights else None
    if weights is not None and classes > 1:
        weights[0] = 0
    each = np.ndim(c.smoothing) > 0
    smoothings = np.asarray(c.smoothing, wide) if each else None
    smoothing = 0.0 if each else c.smoothing

    program = shim("softmax_cross_entropy", suffix)
    aligned = c.offset == 0 and stride * item % 16 == 0
    form = "probabilities" if c.probabilities else "smoothed" if np.any(c.smoothing) else "numbers"
    hits_asked = c.hits and not c.probabilities
    if c.layout is None:
        launch = geometry.softmax_cross_entropy(
            rows, classes, suffix, H100, form, hits_asked, aligned
        )
    else:
        launch = layout(c.layout, suffix, rows, classes, form, hits_asked, aligned)
    gradient = memory if c.in_place else poisoned(memory.shape, x.dtype)
    row_loss, hits = poisoned((rows,), wide), poisoned((rows,), np.uint8) if hits_asked else None
    kind = geometry.TARGET_KINDS[c.kind]
    target_rows = batch if c.shared else rows
    ignore = (c.ignore_index or 0, int(c.ignore_index is not None))
    scale, scales = 1.0 if c.reduction != "mean" else 1.0 / batch, None
    if c.reduction == "mean" and not c.probabilities and (c.weights or ignore[1]):
        scales = poisoned((c.problems,), wide)
        program.launch(
            geometry.normalizer(c.problems, suffix),
            *(numbers, kind, target_rows, batch, classes, weights, *ignore, scales),
        )
    program.launch(
        launch,
        *(At(memory, c.offset), stride),
        *(At(gradient, c.gradient_offset) if c.gradient else None, stride),
        *(targets, kind, target_rows, rows, classes, batch, smoothing, smoothings, weights),
        *(*ignore, c.z_loss, scale, scales),
        None if c.loss_scale is None else np.array([c.loss_scale], np.float32),
        *(row_loss, hits),
    )
    loss = poisoned((c.problems,), x.dtype)
    correct = poisoned((c.problems,), np.int32) if hits_asked else None
    program.launch(
        geometry.reduce_losses(c.problems, suffix),
        *(row_loss, hits, batch, scale, scales, loss, correct),
    )

    expected_loss, expected = reference(
        decode(x, suffix),
        decode(targets, suffix) if c.probabilities else targets,
        label_smoothing=smoothings.astype(np.float64) if each else smoothing,
        ignore_index=c.ignore_index,
        class_weights=None if weights is None else weights.astype(np.float64),
        z_loss=c.z_loss,
        reduction=c.reduction,
    )
    eps = EPS["f64" if suffix == "f64" else "f32"]
    actual = decode(gradient, suffix)[..., :classes]
    if c.gradient:
        assert np.isnan(decode(gradient, suffix)[..., classes:]).all()  # padding untouched
        expected = expected * (1.0 if c.loss_scale is None else c.loss_scale)
        # exp magnifies the rounding of a logit of size 30 and sums of C terms add theirs.
        np.testing.assert_allclose(
            actual, expected, rtol=EPS[suffix] + 64 * eps, atol=64 * eps * np.max(scale)
        )
    if c.reduction == "none":
        got = row_loss.reshape(expected_loss.shape)
        np.testing.assert_allclose(got, expected_loss, rtol=64 * eps, atol=64 * eps)
    else:
        got = decode(loss, suffix)
        np.testing.assert_allclose(got, expected_loss, rtol=EPS[suffix] + 64 * eps, atol=64 * eps)
    if correct is not None:
        counted = numbers != (c.ignore_index if ignore[1] else -12345)
        right = (np.argmax(decode(x, suffix), axis=-1) == numbers) & counted
        assert correct.tolist() == right.sum(axis=-1).tolist()
    return row_loss, actual


WIDTHS = {
    "f32": (1, 2, 10, 31, 32, 33, 61, 65, 127, 129, 257, 513, 1000, 1021),
    "f64": (1, 10, 32, 33, 65, 129, 257, 513, 1024),
    "f16": (1, 10, 32, 33, 60, 64, 120, 129, 257, 513, 1000),
    "bf16": (1, 10, 32, 57, 64, 120, 129, 257, 513, 1017),
}


@pytest.mark.parametrize(
    "suffix, classes", [(suffix, classes) for suffix in SUFFIXES for classes in WIDTHS[suffix]]
)
def test_every_width_in_registers_matches_the_reference(shim, rng, suffix, classes):
    run(shim, suffix, rng, 5, classes, case())
    run(shim, suffix, rng, 3, classes, case(offset=geometry.ITEMSIZE[suffix], smoothing=0.1))


OPTIONS = {
    "smoothing": case(smoothing=0.1),
    "smoothing by problem": case(problems=3, smoothing=[0.0, 0.1, 1.0]),
    "ignore": case(problems=2, ignore_index=-100),
    "ignore class 0 of bytes": case(ignore_index=0, kind="uint8"),
    "ignore all": case(problems=2, ignore_index=-100, ignore_all=True),
    "class numbers outside": case(problems=2, smoothing=0.2, weights=True, outside=True),
    "weights": case(problems=2, weights=True, kind="int32"),
    "weights, smoothing, ignore": case(weights=True, smoothing=0.2, ignore_index=1, kind="int8"),
    "z_loss": case(z_loss=0.01, kind="int16"),
    "sum": case(reduction="sum", kind="uint16"),
    "none": case(problems=2, reduction="none", weights=True),
    "shared targets": case(problems=3, shared=True),
    "probabilities": case(probabilities=True),
    "probabilities, all options": case(
        problems=2, probabilities=True, smoothing=0.1, weights=True, z_loss=0.1, shared=True
    ),
    "padded rows": case(padding=3),
    "unaligned logits": case(offset=8),
    "gradient aligned otherwise": case(gradient_offset=8),
    "no gradient": case(gradient=False),
    "no hits": case(hits=False),
    "in place": case(in_place=True),
    "loss scale": case(loss_scale=8.0),
}
LAYOUTS = (None, "block", "cluster2", "cluster4", "cluster8", "stream")


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_in_every_layout_matches_the_reference(shim, rng, option, name):
    c = SimpleNamespace(**{**vars(OPTIONS[option]), "layout": name})
    run(shim, "f32", rng, 4, 10 if name is None else 301, c)
    if name is None:
        run(shim, "f32", rng, 4, 100, c)
    run(shim, "bf16", rng, 4, 301, c)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["block", "cluster2"])
def test_rows_of_several_rounds_of_four_vectors(shim, rng, suffix, name):
    """64 threads take 4 × 64 vectors at a time, and the rest one by one."""
    item = geometry.ITEMSIZE[suffix]
    classes = 16 // item * 256 * (5 if name == "cluster2" else 2) + 77
    for c in (
        case(),
        case(hits=False, offset=item, ignore_index=3),
        case(smoothing=0.1, gradient_offset=item),
        case(smoothing=0.1, weights=True, in_place=True, padding=1),
        case(probabilities=True),
    ):
        run(shim, suffix, rng, 3, classes, SimpleNamespace(**{**vars(c), "layout": name}))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_layout_that_geometry_names_exists(shim, suffix):
    made = shim("softmax_cross_entropy", suffix).letters
    for classes in (*range(1, 1100), 5_000, 50_257, 128_256, 10**6):
        for aligned in (False, True):
            for targets in ("numbers", "smoothed", "probabilities"):
                for hits in (False, True):
                    launch = geometry.softmax_cross_entropy(
                        9, classes, suffix, H100, targets, hits, aligned
                    )
                    assert launch.kernel in made


def test_a_gradient_alone_is_the_same(shim, rng):
    x, numbers = rng.normal(size=(5, 40)).astype(np.float32), rng.integers(0, 40, 5)
    launch = geometry.softmax_cross_entropy(5, 40, "f32", H100)
    kind, losses = geometry.TARGET_KINDS["int64"], poisoned((5,), np.float32)
    gradients = []
    for row_loss in (losses, None):
        gradients.append(poisoned(x.shape, x.dtype))
        shim("softmax_cross_entropy", "f32").launch(
            launch,
            *(x, 40, gradients[-1], 40, numbers, kind, 5, 5, 40, 5, 0.0, None, None, 0, 0, 0.0),
            *(1.0, None, None, row_loss, None),
        )
    np.testing.assert_array_equal(*gradients)
    assert np.isfinite(gradients[0]).all()


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("classes", [10, 100])
def test_rows_without_a_finite_maximum_give_nan_unless_ignored(shim, rng, name, classes):
    x = rng.normal(size=(6, classes)).astype(np.float32)
    x[0], x[1, 3], x[2, 3] = -np.inf, np.nan, np.inf
    x[3:6] = x[:3]
    numbers = np.array([1, 1, 1, -1, -1, -1])
    launch = geometry.softmax_cross_entropy(6, classes, "f32", H100, hits=True)
    if name is not None:
        launch = layout(name, "f32", 6, classes, "numbers", True, False)
    gradient, losses = poisoned(x.shape, x.dtype), np.zeros(6, np.float32)
    kind, hits = geometry.TARGET_KINDS["int64"], poisoned((6,), np.uint8)
    shim("softmax_cross_entropy", "f32").launch(
        launch,
        *(x, classes, gradient, classes, numbers, kind, 6, 6, classes, 6, 0.0, None, None, -1, 1),
        *(0.0, 1.0, None, None, losses, hits),
    )
    assert np.isnan(losses[:3]).all()
    assert np.isnan(gradient[:3]).all()
    assert not losses[3:].any()
    assert not gradient[3:].any()
    assert not hits.any()
