"""Arrays as other programs make them: another byte order, layout, memory, or a history."""

from __future__ import annotations

import numpy as np
import pytest

import xpmlp
from xpmlp import ops
from xpmlp.backend import on_host
from xpmlp.data.loader import as_array
from xpmlp.errors import BackendError, DTypeError
from xpmlp.layers import BatchNorm, LayerNorm
from xpmlp.losses import MSE, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, Adam
from xpmlp.training import Evaluation, Trainer, TrainStep

N, D, C = 30, 5, 3


def plain():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, D)).astype("float32"), rng.integers(0, C, N).astype("int32")


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def mapped(a, tmp_path):
    file = tmp_path / f"{a.dtype.char}.dat"
    a.tofile(file)
    return np.memmap(file, a.dtype, "r", shape=a.shape)


def unaligned(a):
    return np.frombuffer(b"\0" + a.tobytes(), a.dtype, offset=1).reshape(a.shape)


MAKE = {
    "big-endian": lambda a, path: a.astype(a.dtype.newbyteorder(">")),
    "Fortran": lambda a, path: np.asfortranarray(a),
    "read-only": lambda a, path: read_only(a),
    "mapped": mapped,
    "reversed": lambda a, path: a[::-1].copy()[::-1],
    "unaligned": lambda a, path: unaligned(a),
    "masked, nothing masked": lambda a, path: np.ma.masked_array(a),
}


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("kernels", ["on", "off"])
def test_foreign_arrays_give_what_plain_ones_give(library, kind, kernels, tmp_path, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    x, y = plain()
    foreign = MAKE[kind](x, tmp_path), MAKE[kind](y, tmp_path)

    def train(x, y):
        net = FullyConnectedNet([D, 6, C], normalization="batchnorm")
        Trainer(net, epochs=2, batch_size=10, progress=False).fit(x, y)
        return net.state_dict() | {"p": library.numpy(net.predict_proba(x))}

    expected, found = train(x, y), train(*foreign)
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], 1e-6, 1e-7, err_msg=name)


@pytest.mark.parametrize("kind", [kind for kind in MAKE if "masked" not in kind])
@pytest.mark.parametrize("kernels", ["on", "off"])
def test_layers_losses_and_ops_take_foreign_numpy_arrays(kind, kernels, tmp_path, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    x, y = plain()
    z = np.random.default_rng(1).normal(size=(N, C)).astype("float32")

    def results(x, y, z):
        loss = SoftmaxCrossEntropy()
        found = [loss.forward(z, y), loss.backward(), MSE().forward(z, z * 0)]
        net = FullyConnectedNet([D, 6, C])
        step = TrainStep(net, SoftmaxCrossEntropy(), SGD(0.1))
        found += [step(x, y), step(x, y), net.forward(x)]
        for layer in (BatchNorm(D), LayerNorm(D)):
            found += [layer.forward(x, training=True), layer.backward(x)]
        found += [
            ops.relu(x),
            ops.softmax(x),
            ops.matmul(x.T, x),
            ops.gather_rows(x, y, dtype="float32"),
        ]
        return found + list(
            ops.adam_update(
                x,
                x,
                x,
                x * x,
                lr=0.1,
                gain1=0.1,
                gain2=0.1,
                correction1=0.5,
                correction2=0.5,
                eps=1e-8,
            )
        )

    foreign = [MAKE[kind](a, tmp_path / "") for a in (x, y)]
    found = results(*foreign, MAKE["big-endian"](z, None) if kind == "big-endian" else z)
    for a, b in zip(found, results(x, y, z), strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def test_masked_numbers_are_refused():
    x, y = plain()
    x = np.ma.masked_greater(x, 1.0)
    for use in (
        lambda: Trainer(FullyConnectedNet([D, C]), epochs=1, progress=False).fit(x, y),
        lambda: FullyConnectedNet([D, C]).predict(x),
        lambda: xpmlp.asarray(x),
    ):
        with pytest.raises(DTypeError, match="masked"):
            use()


def test_complex_inputs_are_refused(library):
    x = library.array(np.ones((4, D)) * 1j, "complex64")
    for use in (
        lambda: FullyConnectedNet([D, C]).predict(x),
        lambda: FullyConnectedNet([D, C]).forward(x),
        lambda: Trainer(FullyConnectedNet([D, C]), epochs=1, progress=False).fit(
            x, np.zeros(4, int)
        ),
        lambda: xpmlp.asarray(x, "float32"),
    ):
        with pytest.raises(DTypeError, match="complex"):
            use()


def test_tensors_with_a_history_leave_no_trace():
    torch = pytest.importorskip("torch")
    x, y = plain()
    with xpmlp.use_backend("torch"):
        features = torch.tensor(x, requires_grad=True) * 2.0
        for make in (lambda: Adam(0.01), lambda: SGD(0.1, momentum=0.9)):
            net = FullyConnectedNet([D, 6, C], normalization="batchnorm")
            step = TrainStep(net, SoftmaxCrossEntropy(), make())
            for _ in range(3):
                value = step(features, torch.tensor(y))
            kept = [*net.params.values(), *net.state.values()]
            kept += [slot for slots in step.optimizer.state.values() for slot in slots]
            assert not any(array.requires_grad for array in [*kept, value])
        net = FullyConnectedNet([D, C])
        Trainer(net, epochs=1, progress=False).fit(features, torch.tensor(y))
        assert not any(array.requires_grad for array in net.params.values())


def test_what_lies_on_the_host(library):
    assert on_host(library.array(np.ones(3))) == (library.name != "cupy")


@pytest.mark.parametrize("kind", ["mapped", "read-only", "reversed", "Fortran", "unaligned"])
def test_a_step_on_them_is_compiled(kind, tmp_path):
    pytest.importorskip("numba")

    def new_step():
        net = FullyConnectedNet([D, 6, C], seed=1)
        return TrainStep(net, SoftmaxCrossEntropy(), SGD(0.1))

    x, y = plain()
    foreign = MAKE[kind](x, tmp_path), MAKE[kind](y, tmp_path)
    step = new_step()
    assert step.explain(*foreign) == "compiled"
    assert step(*foreign) == new_step()(x, y)
    assert not any(isinstance(program, str) for program in step._programs.values())


def test_an_evaluation_of_what_is_mapped_is_compiled(tmp_path):
    pytest.importorskip("numba")
    x, _ = plain()
    evaluation = Evaluation(FullyConnectedNet([D, 6, C], seed=1))
    assert evaluation.explain(mapped(x, tmp_path)) == "compiled"
    np.testing.assert_array_equal(evaluation.outputs(mapped(x, tmp_path)), evaluation.outputs(x))


class Elsewhere:
    """An array of a library that nobody knows, which can be exchanged."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_arrays_of_unknown_libraries_are_shared_not_copied():
    x, y = plain()
    with xpmlp.use_backend("numpy"):
        assert np.shares_memory(xpmlp.asarray(Elsewhere(x)), x)
        assert np.shares_memory(xpmlp.asarray(Elsewhere(x.T)), x)
        assert np.shares_memory(as_array(Elsewhere(y)), y)
        before = x.copy()
        history = trained(Elsewhere(x), Elsewhere(y))
        np.testing.assert_array_equal(history.step_losses, trained(x, y).step_losses)
        np.testing.assert_array_equal(x, before)


def trained(x, y):
    net = FullyConnectedNet([D, 4, C], seed=0)
    return Trainer(net, epochs=1, batch_size=8, progress=False).fit(x, y)


def test_arrays_of_unknown_libraries_come_to_every_backend(library):
    x, _ = plain()
    taken = xpmlp.asarray(Elsewhere(x))
    assert type(taken) is type(library.array([1.0]))
    np.testing.assert_array_equal(library.numpy(taken), x)


def test_arrays_on_a_device_that_the_backend_cannot_read_are_refused():
    class OnMetal(Elsewhere):
        def __dlpack_device__(self):
            return 8, 0

        def __dlpack__(self, **options):
            raise BufferError("not in main memory")

    with xpmlp.use_backend("numpy"):
        with pytest.raises(BackendError, match=r"got a .*OnMetal on DLPack's device"):
            xpmlp.asarray(OnMetal(np.zeros(3)))
        torch = pytest.importorskip("torch")
        with pytest.raises(BackendError, match="convert its dtype"):
            xpmlp.asarray(Elsewhere(torch.zeros(3, dtype=torch.bfloat16)))


def test_tensors_on_the_cpu_are_shared():
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6.0).reshape(2, 3)
    with xpmlp.use_backend("numpy"):
        assert np.shares_memory(xpmlp.asarray(tensor.T), tensor.numpy())
    array = np.arange(6.0, dtype="float32")
    with xpmlp.use_backend("torch"):
        assert np.shares_memory(xpmlp.asarray(array).numpy(), array)
