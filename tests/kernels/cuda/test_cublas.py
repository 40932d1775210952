"""The cuBLAS handle, with a library that writes down what it is asked."""

from __future__ import annotations

import ctypes
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from xpmlp.errors import BackendError
from xpmlp.kernels.cuda import cublas, geometry, launch, products


class Library:
    """Every function returns 0 and is written down, pointers as numbers."""

    def __init__(self):
        self.calls = []
        self.status = {}

    def __getattr__(self, name):
        def function(*arguments):
            self.calls.append((name, *(getattr(a, "value", a) for a in arguments)))
            return self.status.get(name, 0)

        return function

    def names(self):
        return [name for name, *_ in self.calls]


def cupy_built_with(major):
    runtime = SimpleNamespace(runtimeGetVersion=lambda: 1000 * major + 80)
    return SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))


@pytest.fixture
def library(monkeypatch):
    monkeypatch.setattr(launch, "empty", lambda shape, dtype: SimpleNamespace(shape=shape))
    monkeypatch.setattr(launch, "address", lambda space: 4096 + space.shape[0])
    monkeypatch.setattr(launch, "driver_text", lambda: "the driver supports CUDA 11.0")
    monkeypatch.setattr(launch, "library", lambda: cupy_built_with(13))
    return Library()


def one_call(count=1):
    lead = () if count == 1 else (count,)
    a, b = np.zeros((*lead, 4, 3)), np.zeros((*lead, 3, 5))
    steps = [tuple(s // 8 for s in x.strides) for x in (a, b)]
    return next(products.calls(lead, 4, 3, 5, a.shape, steps[0], b.shape, steps[1]))


def test_each_stream_has_a_workspace_given_after_the_stream(library):
    """Setting the stream makes cuBLAS forget the workspace."""
    handle = cublas.Handle(library, 1000)
    for stream in (7, 7, 8, 7):
        handle.use_stream(stream)
    assert library.names() == ["cublasCreate_v2", "cublasSetMathMode"] + 3 * [
        "cublasSetStream_v2",
        "cublasSetWorkspace_v2",
    ]
    assert [call[2] for call in library.calls if call[0] == "cublasSetStream_v2"] == [7, 8, 7]
    spaces = [call[2:] for call in library.calls if call[0] == "cublasSetWorkspace_v2"]
    assert spaces == [(5096, 1000)] * 3
    assert len(handle.workspaces) == 2


def test_half_precision_is_added_up_in_float32_also_where_a_product_is_cut(library):
    """CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION of cublas_api.h is 16."""
    cublas.Handle(library, 1000)
    assert [call[2] for call in library.calls if call[0] == "cublasSetMathMode"] == [16]


def test_workspaces_are_those_of_this_thread(monkeypatch, library):
    """A recording holds them: its thread may end, and the handle with it."""
    monkeypatch.setattr(cublas, "_local", threading.local())
    monkeypatch.setattr(cublas, "_library", lambda: library)
    streams = iter((7, 8))
    cuda = launch.library().cuda
    cuda.get_current_stream = lambda: SimpleNamespace(ptr=next(streams))
    monkeypatch.setattr(launch, "library", lambda: SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(launch, "device_number", lambda: 0)
    monkeypatch.setattr(launch, "device", geometry.Device)
    assert cublas.workspaces() == []
    handle = cublas.handle()
    assert cublas.handle() is handle
    assert cublas.workspaces() == list(handle.workspaces.values()) and len(handle.workspaces) == 2
    seen = []
    other = threading.Thread(target=lambda: seen.append(cublas.workspaces()))
    other.start()
    other.join()
    assert seen == [[]]


@pytest.mark.parametrize(
    ("suffix", "kind", "compute"),
    [("f32", 0, 68), ("f64", 1, 70), ("f16", 2, 68), ("bf16", 14, 68)],
)
def test_one_product(library, suffix, kind, compute):
    cublas.Handle(library, 1).multiply(one_call(), suffix, 1000, 2000, 3000)
    name, _, *arguments = library.calls[-1]
    assert name == "cublasGemmEx"
    # Flags, then columns, rows and depth: b comes first, since cuBLAS thinks in columns.
    assert arguments[:5] == [0, 0, 5, 4, 3]
    assert arguments[6:9] == [2000, kind, 5] and arguments[9:12] == [1000, kind, 3]
    assert arguments[13:16] == [3000, kind, 5] and arguments[16:] == [compute, -1]


def test_a_batch_of_products_and_tf32(library):
    handle = cublas.Handle(library, 1)
    with cublas.tensor_float_32():
        handle.multiply(one_call(6), "f32", 1000, 2000, 3000)
    name, _, *arguments = library.calls[-1]
    assert name == "cublasGemmStridedBatchedEx"
    assert arguments[6:10] == [2000, 0, 5, 15] and arguments[10:14] == [1000, 0, 3, 12]
    assert arguments[15:19] == [3000, 0, 5, 20] and arguments[19:] == [6, 77, -1]
    assert cublas.compute_type("f32") == 68
    with cublas.tensor_float_32():
        assert cublas.compute_type("f64") == 70 and cublas.compute_type("bf16") == 68


def test_scalars_are_in_the_type_of_the_sums(library):
    for suffix, kind in (
        ("f32", ctypes.c_float),
        ("f16", ctypes.c_float),
        ("f64", ctypes.c_double),
    ):
        one, zero = cublas._SCALARS["f64" if suffix == "f64" else "f32"]
        assert type(one._obj) is kind and (one._obj.value, zero._obj.value) == (1.0, 0.0)


def test_a_failure_is_named(library):
    library.status["cublasGemmEx"] = 15
    with pytest.raises(BackendError, match=r"cublasGemmEx.*CUBLAS_STATUS_NOT_SUPPORTED.*CUDA 11.0"):
        cublas.Handle(library, 1).multiply(one_call(), "f32", 1000, 2000, 3000)


def test_the_declared_types_fit_the_calls(monkeypatch, library):
    """ctypes would refuse a call with another number of arguments than it was told."""
    functions = SimpleNamespace(
        **{f"cublas{name}": SimpleNamespace() for name in cublas._FUNCTIONS}
    )
    monkeypatch.setattr(cublas, "_load", lambda: functions)
    cublas._library.cache_clear()
    try:
        declared = cublas._library()
    finally:
        cublas._library.cache_clear()
    handle = cublas.Handle(library, 1)
    handle.use_stream(3)
    handle.multiply(one_call(), "f32", 1, 2, 3)
    handle.multiply(one_call(2), "f32", 1, 2, 3)
    for name, *arguments in library.calls:
        assert len(getattr(declared, name).argtypes) == len(arguments), name


@pytest.mark.parametrize("major", [12, 13])
def test_the_library_is_of_the_cuda_that_cupy_was_built_with(monkeypatch, major):
    tried = []

    def absent(name=None):
        tried.append(name)
        raise OSError("not here")

    monkeypatch.setattr(launch, "library", lambda: cupy_built_with(major))
    monkeypatch.setattr(cublas, "_found_by_cupy", absent)
    monkeypatch.setattr(cublas.ctypes, "CDLL", absent)
    with pytest.raises(BackendError, match=rf"expected cuBLAS {major} .*cupy-cuda{major}x\[ctk"):
        cublas._load()
    assert tried[1:] == [f"libcublas.so.{major}", f"cublas64_{major}.dll"]


def test_a_library_that_is_missing_is_looked_for_once(monkeypatch, library):
    looked = []

    def absent():
        looked.append(0)
        raise BackendError("no cuBLAS")

    monkeypatch.setattr(cublas, "_library", absent)
    cublas.is_missing.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"go through CuPy, .* not recorded: no cuBLAS"):
            assert cublas.is_missing()
        assert cublas.is_missing() and len(looked) == 1
        cublas.is_missing.cache_clear()
        monkeypatch.setattr(cublas, "_library", lambda: library)
        assert not cublas.is_missing()
    finally:
        cublas.is_missing.cache_clear()


def test_a_library_that_is_not_there_is_explained(monkeypatch, library):
    def absent():
        raise RuntimeError("no such file: libcublas\nsearched in: everywhere")

    monkeypatch.setattr(cublas, "_found_by_cupy", absent)
    monkeypatch.setattr(cublas, "_NAMES", ("libcublas-of-nobody.so",))
    with pytest.raises(BackendError, match=r"no such file: libcublas; .*nobody.*\[ctk\]"):
        cublas._load()
