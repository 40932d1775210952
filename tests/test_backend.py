"""Which backend is chosen, what is said when it cannot be, and moving arrays between libraries."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import types
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from checks import torch_or_skip

import xpmlp
from xpmlp import array_libraries, backend
from xpmlp.errors import BackendError, DTypeError, ShapeError


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No choice made yet, and none left behind."""
    monkeypatch.delenv("XPMLP_BACKEND", raising=False)
    monkeypatch.delenv("XPMLP_DEVICE", raising=False)
    monkeypatch.setattr(backend, "_default", None)


def in_subprocess(code, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith("XPMLP_")}
    return subprocess.run(
        [sys.executable, "-c", code], env={**env, **environment}, capture_output=True, text=True
    )


# --- which one ---------------------------------------------------------------------------------


def test_numpy_is_the_default():
    chosen = xpmlp.get_backend()
    assert (chosen.name, chosen.device, chosen.reason) == ("numpy", None, "the default")
    assert str(chosen) == "numpy on default device (the default)"


def test_environment_is_read_at_first_use(monkeypatch):
    monkeypatch.setenv("XPMLP_BACKEND", " array_api_strict ")
    assert xpmlp.get_backend().name == "array_api_strict"
    assert xpmlp.get_backend().reason == "XPMLP_BACKEND=array_api_strict"
    monkeypatch.setenv("XPMLP_BACKEND", "numpy")
    assert xpmlp.get_backend().name == "array_api_strict"  # once chosen, it stays


def test_set_backend_beats_the_environment(monkeypatch):
    monkeypatch.setenv("XPMLP_BACKEND", "array_api_strict")
    assert xpmlp.set_backend("numpy").name == "numpy"
    assert xpmlp.get_backend().reason == "set_backend"
    assert xpmlp.set_backend(None).name == "array_api_strict"


def test_context_beats_set_backend_and_nests():
    xpmlp.set_backend("numpy")
    with xpmlp.use_backend("array_api_strict") as outer:
        assert outer.name == xpmlp.get_backend().name == "array_api_strict"
        with xpmlp.use_backend("numpy"):
            assert xpmlp.get_backend().reason == "use_backend"
            assert xpmlp.get_backend().name == "numpy"
        assert xpmlp.get_backend().name == "array_api_strict"
    assert xpmlp.get_backend().name == "numpy"


def test_context_ends_with_an_error_too():
    with pytest.raises(ZeroDivisionError), xpmlp.use_backend("array_api_strict"):
        raise ZeroDivisionError
    assert xpmlp.get_backend().name == "numpy"


def test_context_is_of_one_thread_only():
    seen = {}

    def other():
        seen["before"] = xpmlp.get_backend().name
        with xpmlp.use_backend("array_api_strict"):
            inside.set()
            leave.wait(10)
            seen["inside"] = xpmlp.get_backend().name

    inside, leave = threading.Event(), threading.Event()
    with xpmlp.use_backend("array_api_strict"):
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
    seen["main"] = xpmlp.get_backend().name
    leave.set()
    thread.join(10)
    assert seen == {"before": "numpy", "inside": "array_api_strict", "main": "numpy"}


def test_set_backend_holds_in_every_thread():
    xpmlp.set_backend("array_api_strict")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(xpmlp.get_backend().name))
    thread.start()
    thread.join(10)
    assert seen == ["array_api_strict"]


# --- what cannot be had ------------------------------------------------------------------------

ALL_NAMES = "numpy, cupy, torch, jax, array_api_strict or auto"


@pytest.mark.parametrize("choose", ["set_backend", "use_backend", "environment"])
def test_unknown_name_lists_the_known(monkeypatch, choose):
    with pytest.raises(BackendError, match=rf"{ALL_NAMES}, got 'tensorflow'"):
        if choose == "set_backend":
            xpmlp.set_backend("tensorflow")
        elif choose == "use_backend":
            with xpmlp.use_backend("tensorflow"):
                pass
        else:
            monkeypatch.setenv("XPMLP_BACKEND", "tensorflow")
            xpmlp.get_backend()
    monkeypatch.delenv("XPMLP_BACKEND", raising=False)
    assert xpmlp.get_backend().name == "numpy"


def hide(monkeypatch, *names):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in names else real(name, *rest),
    )


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("cupy", r'pip install "xpmlp\[cuda12\]"'),
        ("torch", r'pip install "xpmlp\[torch\]"'),
        ("jax", r'pip install "xpmlp\[jax\]"'),
        ("array_api_strict", "pip install array-api-strict"),
    ],
)
def test_missing_library_says_how_to_install_it(monkeypatch, name, fix):
    hide(monkeypatch, name)
    with pytest.raises(BackendError, match=f"{name} was asked for but is not installed; {fix}"):
        xpmlp.set_backend(name)
    assert name not in xpmlp.available_backends()
    assert "not installed" in backend.backend_problems()[name]


def test_broken_library_says_what_it_said(monkeypatch):
    def broken(device, reason):
        raise OSError("libtorch: cannot open shared object file")

    monkeypatch.setitem(array_libraries._OPENERS, "array_api_strict", broken)
    with pytest.raises(BackendError, match="failed to start: OSError: libtorch: cannot open"):
        xpmlp.set_backend("array_api_strict")


def fake_cupy(monkeypatch, count):
    """A CuPy whose runtime answers ``count()``."""
    used = []

    class Device:
        def __init__(self, number):
            self.number = number

        def __str__(self):
            return f"<CUDA Device {self.number}>"

        def use(self):
            used.append(self.number)

    cupy, compat = types.ModuleType("cupy"), types.ModuleType("array_api_compat.cupy")
    cupy.__spec__ = ModuleSpec("cupy", None)
    cupy.ndarray = type("ndarray", (), {})
    runtime = types.SimpleNamespace(getDeviceCount=count)
    cupy.cuda = types.SimpleNamespace(runtime=runtime, Device=Device)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", compat)
    return used


class CudaError(Exception):
    pass


def no_driver():
    raise CudaError("cudaErrorInsufficientDriver: driver is too old\n  at frame 1")


def silent_failure():
    raise CudaError


NO_DEVICE = {
    "driver": (no_driver, r"no CUDA device answers \(cudaErrorInsufficientDriver: driver is too"),
    "silent": (silent_failure, r"no CUDA device answers \(CudaError\)"),
    "none": (lambda: 0, "there is no CUDA device; use XPMLP_BACKEND=numpy"),
}


@pytest.mark.parametrize("case", NO_DEVICE)
def test_cupy_without_a_device_is_a_clear_message(monkeypatch, case):
    count, message = NO_DEVICE[case]
    fake_cupy(monkeypatch, count)
    with pytest.raises(BackendError, match=message) as caught:
        xpmlp.set_backend("cupy")
    assert "frame 1" not in str(caught.value)
    assert "cupy" not in xpmlp.available_backends()


@pytest.mark.parametrize("case", ["driver", "missing"])
def test_auto_without_a_device_takes_numpy_and_says_why(monkeypatch, case):
    if case == "driver":
        fake_cupy(monkeypatch, no_driver)
    else:
        hide(monkeypatch, "cupy")
    monkeypatch.setenv("XPMLP_BACKEND", "auto")
    chosen = xpmlp.get_backend()
    assert chosen.name == "numpy"
    assert chosen.reason.startswith("XPMLP_BACKEND=auto: auto, because ")
    assert ("driver is too old" if case == "driver" else "not installed") in str(chosen)


@pytest.mark.parametrize(
    ("device", "number"), [(None, 0), ("1", 1), ("cuda:1", 1), ("cuda", 0)], ids=str
)
def test_auto_with_a_device_takes_cupy(monkeypatch, device, number):
    used = fake_cupy(monkeypatch, lambda: 2)
    with xpmlp.use_backend("auto", device) as chosen:
        assert chosen.name == "cupy"
        assert chosen.reason == "use_backend: auto, a CUDA device answers"
        assert str(chosen.device) == f"<CUDA Device {number}>"
    assert used[-1] == number


@pytest.mark.parametrize("device", ["2", "cuda:7", "gpu", "-1", "cpu"])
def test_wrong_cuda_device(monkeypatch, device):
    fake_cupy(monkeypatch, lambda: 2)
    with pytest.raises(BackendError, match=f"number below 2, got '{device}'"):
        xpmlp.set_backend("cupy", device)


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("numpy", "cuda:0", "numpy runs on the CPU only, got device 'cuda:0'"),
        ("array_api_strict", "cuda:0", "array_api_strict runs on the CPU only"),
        ("torch", "warp:9", "torch cannot use device 'warp:9'"),
        ("torch", "cuda:99", "torch cannot use device 'cuda:99'"),
        ("jax", "cpu:99", r"JAX cannot use device 'cpu:99'.*it has "),
        ("jax", "warp", "JAX cannot use device 'warp'"),
    ],
)
def test_wrong_device(name, device, message):
    if backend.backend_problems()[name] is not None:
        pytest.skip(backend.backend_problems()[name])
    with pytest.raises(BackendError, match=message):
        xpmlp.set_backend(name, device)


@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "torch", "jax"])
def test_cpu_is_a_device_everywhere(monkeypatch, name):
    if backend.backend_problems()[name] is not None:
        pytest.skip(backend.backend_problems()[name])
    monkeypatch.setenv("XPMLP_BACKEND", name)
    monkeypatch.setenv("XPMLP_DEVICE", "cpu")
    assert xpmlp.get_backend().name == name
    assert xpmlp.asarray([1.0, 2.0]).shape == (2,)


def test_available_backends_are_those_without_a_problem():
    problems = backend.backend_problems()
    assert tuple(problems) == backend.NAMES
    assert xpmlp.available_backends() == tuple(n for n in problems if problems[n] is None)
    assert "numpy" in xpmlp.available_backends()


# --- arrays ------------------------------------------------------------------------------------

PYTHON_VALUES = {
    "float": (1.5, "float32"),
    "list": ([[1.0, 2.0], [3.0, 4.0]], "float32"),
    "numpy-float": (np.float64(1.5), "float32"),
    "ints": ((1, 2), "int64"),
    "bools": ([True, False], "bool"),
    "array": (np.ones(2), "float64"),
    "bytes": (np.ones(2, np.uint8), "uint8"),
}


@pytest.mark.parametrize("case", PYTHON_VALUES)
def test_asarray_dtype(library, case):
    values, dtype = PYTHON_VALUES[case]
    array = xpmlp.asarray(values)
    assert backend.array_namespace(array) is library.xp
    assert backend.dtype_name(array.dtype) == dtype
    np.testing.assert_array_equal(library.numpy(array), values)
    assert backend.dtype_name(xpmlp.asarray(values, "float32").dtype) == "float32"


def test_asarray_keeps_doubles_that_were_asked_for(library):
    array = xpmlp.asarray([0.1], "float64")
    assert library.numpy(array)[0] == 0.1


@pytest.mark.parametrize("source", ["numpy", "array_api_strict", "torch", "jax"])
def test_asarray_across_libraries(library, source):
    if backend.backend_problems()[source] is not None:
        pytest.skip(backend.backend_problems()[source])
    with xpmlp.use_backend(source):
        foreign = xpmlp.asarray(np.arange(6.0).reshape(2, 3))
    array = xpmlp.asarray(foreign)
    assert backend.array_namespace(array) is library.xp
    np.testing.assert_array_equal(library.numpy(array), np.arange(6.0).reshape(2, 3))
    assert backend.dtype_name(array.dtype) == "float64"


def test_asarray_of_its_own_array_is_that_array(library):
    array = library.array(np.ones(3, np.float32))
    assert xpmlp.asarray(array) is array
    assert backend.dtype_name(xpmlp.asarray(array, "float64").dtype) == "float64"


def test_torch_gets_a_copy_of_read_only_memory():
    torch_or_skip()
    values = np.arange(3.0)
    values.flags.writeable = False
    with xpmlp.use_backend("torch"):
        array = xpmlp.asarray(values)  # a warning here would be an error
        array += 1
    assert values.tolist() == [0, 1, 2]


def test_to_numpy(library):
    array = library.array(np.arange(3.0))
    assert type(xpmlp.to_numpy(array)) is np.ndarray
    np.testing.assert_array_equal(xpmlp.to_numpy(array), [0, 1, 2])
    same = np.ones(2)
    assert xpmlp.to_numpy(same) is same


def test_to_numpy_of_a_tensor_with_history():
    torch = torch_or_skip()
    assert xpmlp.to_numpy(torch.ones(2, requires_grad=True) * 2).tolist() == [2, 2]


@pytest.mark.parametrize("bad", [["a", "b"], None, np.array(["x"]), {"a": 1}], ids=str)
def test_asarray_of_what_is_no_number(bad):
    with pytest.raises(DTypeError, match="expected numbers"):
        xpmlp.asarray(bad)


def test_asarray_of_ragged_lists():
    with pytest.raises(ShapeError, match="equal lengths"):
        xpmlp.asarray([[1.0], [1.0, 2.0]])


def test_array_namespace_of_mixed_libraries_names_both():
    torch = torch_or_skip()
    with pytest.raises(BackendError, match=r"got numpy\.ndarray, torch\.Tensor.*xpmlp\.asarray"):
        backend.array_namespace(np.ones(2), torch.ones(2))


def test_array_namespace_of_no_array():
    with pytest.raises(DTypeError, match=r"got builtins\.list; convert it with xpmlp\.asarray"):
        backend.array_namespace([1.0])


def test_array_namespace_of_a_subclass():
    matrix = np.ones(2).view(type("Sub", (np.ndarray,), {}))
    assert backend.array_namespace(matrix, np.ones(2)) is backend.array_namespace(np.ones(2))


# --- dtypes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bool", "uint8", "int32", "int64", "float32", "float64"])
def test_dtype_names_go_both_ways(library, name):
    dtype = backend.dtype_of(library.xp, name)
    assert backend.dtype_name(dtype) == name
    assert backend.dtype_name(library.xp.ones(1, dtype=dtype).dtype) == name


@pytest.mark.parametrize("name", ["float31", "pi", "asarray", ""])
def test_unknown_dtype_lists_the_known(library, name):
    with pytest.raises(DTypeError, match=rf"among .*float32.*float64.*got '{name}'"):
        backend.dtype_of(library.xp, name)


def test_jax_does_not_narrow_in_silence():
    pytest.importorskip("jax", reason="JAX is not installed")
    code = """
import jax.numpy as jnp, xpmlp
from xpmlp import array_libraries, backend
from xpmlp.errors import DTypeError
assert not backend.has_wide_types(jnp)
for name in ("float64", "int64", "uint64"):
    try:
        backend.dtype_of(jnp, name)
    except DTypeError as error:
        assert "JAX_ENABLE_X64=1" in str(error)
    else:
        raise SystemExit(f"{name} was accepted")
assert backend.dtype_of(jnp, "float32") is jnp.float32
xpmlp.set_backend("jax")
try:
    xpmlp.asarray([1.0], "float64")
except DTypeError:
    print("refused")
"""
    done = in_subprocess(code, JAX_ENABLE_X64="0")
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


def test_synchronize_waits_on_every_library(library):
    assert xpmlp.synchronize() is None


def test_environment_reaches_a_new_process():
    code = "import xpmlp; print(xpmlp.get_backend().name, type(xpmlp.asarray([1.0])).__module__)"
    done = in_subprocess(code, XPMLP_BACKEND="array_api_strict")
    assert done.stdout.split()[0] == "array_api_strict", done.stderr
    assert done.stdout.split()[1].startswith("array_api_strict")


def test_asarray_like(library):
    like = library.array(np.ones(2, np.float32))
    made = backend.asarray_like(np.arange(3.0), like)
    assert type(made) is type(like)
    assert made.dtype == like.dtype


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_place_is_a_device_that_is_taken(name):
    if xpmlp.backend.backend_problems()[name] is not None:
        pytest.skip(xpmlp.backend.backend_problems()[name])
    backend = array_libraries.open_library(name, "cpu", "a test")
    assert array_libraries.open_library(name, backend.place, "a test").device == backend.device
