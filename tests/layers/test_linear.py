"""Linear and Matmul: products, shapes that are flattened, populations and what is refused."""

import numpy as np
import pytest

import xpmlp
from xpmlp.errors import BackendError, ConfigError, DTypeError, ShapeError
from xpmlp.layers import Linear, Matmul

N, D, M, P = 4, 6, 5, 3


def close(library, actual, expected):
    np.testing.assert_allclose(library.numpy(actual), expected, rtol=1e-12, atol=1e-14)


@pytest.fixture
def arrays(rng):
    """x, W, b, dy of a plain layer."""
    return (rng.normal(size=shape) for shape in ((N, D), (D, M), (M,), (N, M)))


def test_values_and_gradients_follow_the_formulas(library, arrays):
    x, W, b, dy = arrays
    layer = Linear.from_arrays(library.array(W), library.array(b))
    close(library, layer.forward(library.array(x)), x @ W + b)
    close(library, layer.backward(library.array(dy)), dy @ W.T)
    close(library, layer.dW, x.T @ dy)
    close(library, layer.db, dy.sum(axis=0))


def test_equals_torch(torch, arrays):
    x, W, b, dy = arrays
    module = torch.nn.Linear(D, M, dtype=torch.float64)
    module.weight.data, module.bias.data = torch.tensor(W.T), torch.tensor(b)
    input_ = torch.tensor(x, requires_grad=True)
    y = module(input_)
    y.backward(torch.tensor(dy))
    layer = Linear.from_arrays(W, b)
    np.testing.assert_allclose(layer.forward(x), y.detach().numpy(), rtol=1e-13)
    np.testing.assert_allclose(layer.backward(dy), input_.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(layer.dW, module.weight.grad.numpy().T, rtol=1e-12)
    np.testing.assert_allclose(layer.db, module.bias.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "result"),
    [((7, 2, 3), (7, M)), ((2, 4, 3, 2), (2, 4, M)), ((6,), (M,)), ((2, 3), (M,))],
    ids=str,
)
def test_trailing_axes_are_flattened_and_dx_has_the_shape_of_x(library, rng, shape, result):
    x, W, b = rng.normal(size=shape), rng.normal(size=(D, M)), rng.normal(size=M)
    dy = rng.normal(size=result)
    layer = Linear.from_arrays(library.array(W), library.array(b))
    close(library, layer.forward(library.array(x)), x.reshape(*result[:-1], D) @ W + b)
    close(library, layer.backward(library.array(dy)), (dy @ W.T).reshape(shape))
    close(library, layer.dW, x.reshape(-1, D).T @ dy.reshape(-1, M))


def test_a_population_equals_separate_layers(library, rng):
    x, dy = rng.normal(size=(P, N, D)), rng.normal(size=(P, N, M))
    W, b = rng.normal(size=(P, D, M)), rng.normal(size=(P, M))
    together = Linear.from_arrays(library.array(W), library.array(b))
    y = together.forward(library.array(x))
    dx = together.backward(library.array(dy))
    for p in range(P):
        alone = Linear.from_arrays(library.array(W[p]), library.array(b[p]))
        close(library, y[p, ...], library.numpy(alone.forward(library.array(x[p]))))
        close(library, dx[p, ...], library.numpy(alone.backward(library.array(dy[p]))))
        close(library, together.dW[p, ...], library.numpy(alone.dW))
        close(library, together.db[p, ...], library.numpy(alone.db))


@pytest.mark.parametrize("shape", [(N, D), (N, 2, 3)], ids=["rows", "images"])
def test_a_population_shares_one_batch(library, rng, shape):
    x, dy = rng.normal(size=shape), rng.normal(size=(P, N, M))
    W, b = rng.normal(size=(P, D, M)), rng.normal(size=(P, M))
    layer = Linear.from_arrays(library.array(W), library.array(b))
    rows = x.reshape(N, D)
    close(library, layer.forward(library.array(x)), rows @ W + b[:, None, :])
    dx = layer.backward(library.array(dy))
    close(library, dx, (dy @ W.transpose(0, 2, 1)).sum(axis=0).reshape(shape))
    close(library, layer.dW, rows.T @ dy)


def test_input_grad_false_leaves_dx_out_and_changes_nothing_else(arrays):
    x, W, b, dy = arrays
    layer = Linear.from_arrays(W, b)
    layer.forward(x)
    layer.backward(dy)
    dW, db = layer.dW, layer.db
    assert layer.backward(dy, input_grad=False) is None
    np.testing.assert_array_equal(layer.dW, dW)
    np.testing.assert_array_equal(layer.db, db)


def test_parameters_read_and_write_as_attributes(arrays):
    _, W, b, _ = arrays
    layer = Linear(D, M, rng=0, dtype="float64")
    assert layer.dW is None
    layer.W, layer.b = W, b
    assert layer.params == {"W": W, "b": b} and layer.weight_params == ("W",)


def test_without_a_bias_there_is_none(rng):
    layer = Linear(D, M, bias=False, rng=0)
    layer.backward(layer.forward(rng.normal(size=(N, D)).astype("float32")))
    assert layer.params.keys() == layer.grads.keys() == {"W"}
    assert layer.b is None and layer.db is None


def test_weights_and_biases_start_at_their_scale():
    layer = Linear(400, 300, rng=0)
    bound = (6 / 700) ** 0.5
    for values, tolerance in ((layer.W, 0.01), (layer.b, 0.1)):
        assert values.std() == pytest.approx(bound / 3**0.5, rel=tolerance)
        assert 0.95 * bound < np.abs(values).max() <= bound
        assert np.abs(values.mean()) < 0.1 * bound
    assert (layer.b != layer.W[0]).all()  # draws of their own


@pytest.mark.parametrize("init", [0.01, "he_normal", "zeros"], ids=str)
def test_beside_weights_of_a_choice_biases_start_at_zero(init):
    layer = Linear(400, 300, init=init, rng=0)
    assert not layer.b.any()
    if init != "zeros":
        spread = 0.01 if init == 0.01 else (2 / 400) ** 0.5
        assert layer.W.std() == pytest.approx(spread, rel=0.02)


def test_a_start_of_the_biases_may_be_chosen():
    assert (Linear(4, 3, bias_init=0.5).b == 0.5).all()
    assert (Linear(4, 3, population=2, bias_init=0.5).b == np.full((2, 3), 0.5)).all()
    assert not Linear(4, 3, bias_init="zeros").b.any()
    assert Linear(4, 3, init="he_normal", bias_init="glorot_uniform").b.all()
    given = np.array([1.0, 2.0, 3.0])
    layer = Linear(4, 3, bias_init=lambda D, M, rng: given, dtype="float64")
    np.testing.assert_array_equal(layer.b, given)
    same = [Linear(4, 3, rng=0, bias_init=b).W for b in ("zeros", "glorot_uniform")]
    np.testing.assert_array_equal(*same)  # whatever the biases, the weights of a seed are the same
    np.testing.assert_array_equal(
        Linear(4, 3, rng=0).b, Linear(4, 3, rng=0, init="glorot_uniform").b
    )
    with pytest.raises(ConfigError, match="bias_init among glorot_uniform, fan_in_uniform, zeros"):
        Linear(4, 3, bias_init="ones")


def test_members_start_as_they_would_alone():
    together = Linear(D, M, population=P, rng=[5, 9, 7])
    for p, seed in enumerate([5, 9, 7]):
        alone = Linear(D, M, rng=seed)
        np.testing.assert_array_equal(together.W[p], alone.W)
        np.testing.assert_array_equal(together.b[p], alone.b)


@pytest.mark.parametrize(
    ("sizes", "name"), [((0, 3), "inputs"), ((3, -1), "outputs"), ((3, 2.0), "outputs")], ids=str
)
def test_sizes_must_be_positive_integers(sizes, name):
    with pytest.raises(ConfigError, match=f"expected {name} to be an integer ≥ 1"):
        Linear(*sizes)


@pytest.mark.parametrize("shape", [(4, 5), (4, 12, 1), (5,), (4, 3)], ids=str)
def test_a_wrong_width_names_both_shapes(shape):
    with pytest.raises(ShapeError, match=r"`Linear.forward`: expected x of shape \(…, 6\)"):
        Linear(D, M, rng=0).forward(np.ones(shape, "float32"))


def test_one_sample_for_a_population_needs_a_batch_axis(library):
    layer = Linear(D, M, population=P, rng=0)
    with pytest.raises(ShapeError, match=r"a single sample is x\[None, :\]"):
        layer.forward(library.array(np.ones(D), "float32"))


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint8"])
def test_another_dtype_is_refused(library, dtype):
    with pytest.raises(DTypeError, match=f"expected x of dtype float32, as W has, got {dtype}"):
        Linear(D, M, rng=0).forward(library.array(np.ones((N, D)), dtype))


def test_another_population_size_is_refused():
    with pytest.raises(ShapeError, match="expected leading axes that broadcast"):
        Linear(D, M, population=P, rng=0).forward(np.ones((P + 1, N, D), "float32"))


def test_arrays_of_another_library_are_refused(torch):
    layer = Linear(D, M, rng=0)
    with pytest.raises(BackendError, match="expected arrays of one library"):
        layer.forward(torch.ones((N, D)))


@pytest.mark.parametrize(
    ("W", "b"), [((6,), None), ((2, 3, 6, 5), None), ((6, 5), (6,)), ((3, 6, 5), (5,))], ids=str
)
def test_from_arrays_refuses_shapes_that_do_not_fit(W, b):
    with pytest.raises(ShapeError, match="expected W of shape"):
        Linear.from_arrays(np.ones(W), None if b is None else np.ones(b))


def test_matmul_takes_samples_as_columns(library, rng):
    W, x, dy = rng.normal(size=(M, D)), rng.normal(size=(D, N)), rng.normal(size=(M, N))
    layer = Matmul(library.array(W))
    close(library, layer.forward(library.array(x)), W @ x)
    close(library, layer.backward(library.array(dy)), W.T @ dy)
    close(library, layer.dW, dy @ x.T)


def test_matmul_sums_dW_over_leading_axes(rng):
    W, x, dy = rng.normal(size=(M, D)), rng.normal(size=(2, D, N)), rng.normal(size=(2, M, N))
    layer = Matmul(W)
    np.testing.assert_allclose(layer.forward(x), W @ x)
    layer.backward(dy)
    np.testing.assert_allclose(layer.dW, (dy @ x.transpose(0, 2, 1)).sum(axis=0))


def test_matmul_refuses_columns_of_another_height():
    with pytest.raises(ShapeError, match="`matmul`: expected shapes"):
        Matmul(np.ones((M, D))).forward(np.ones((D + 1, N)))


def test_noncontiguous_input_gives_the_same_result(library, rng):
    W = rng.normal(size=(D, M))
    x = rng.normal(size=(D, N)).T  # Fortran order
    layer = Linear.from_arrays(library.array(W))
    close(library, layer.forward(library.array(x)), np.ascontiguousarray(x) @ W)


def test_new_arrays_are_made_on_the_current_backend(library):
    layer = Linear(D, M, rng=0)
    assert type(layer.W) is type(layer.b) is type(xpmlp.asarray([1.0]))


def test_a_list_is_no_array():
    with pytest.raises(DTypeError, match=r"x as an array, got list; .*xpmlp\.asarray\(x"):
        Linear(2, 1).forward([[1.0, 2.0]])
    with pytest.raises(DTypeError, match=r"W as an array, got list; .*xpmlp\.asarray\(W"):
        Linear.from_arrays([[1.0, 2.0]])
    with pytest.raises(DTypeError, match="b as an array"):
        Linear.from_arrays(np.ones((1, 2)), [1.0, 2.0])


def test_weights_of_integers_are_refused():
    with pytest.raises(DTypeError, match="W of a floating dtype, got int64"):
        Linear.from_arrays(np.ones((1, 2), np.int64))
