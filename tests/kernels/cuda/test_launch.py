"""Compiling, launching and recording, with a CuPy that only does what it is told."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from step import device_memory, device_streams, numpy_graph

from xpmlp.errors import BackendError, OutOfMemoryError
from xpmlp.kernels.cuda import geometry, graph, launch, source


class CupysOutOfMemoryError(MemoryError):
    pass


class CompileException(Exception):
    def get_message(self):
        return "kern.cu(3): error: identifier is undefined"


class Kernel:
    """Has 148 bytes of static shared memory, which count among the 48 KB that nobody asks for."""

    functions: ClassVar[dict[str, int]] = {}

    def __init__(self, log, name):
        self.log, self.kernel, self.name = log, object(), name

    @property
    def max_dynamic_shared_size_bytes(self):
        """As on a device, it belongs to the function of that name, not to this object."""
        return self.functions.get(self.name, 48 * 1024 - 148)

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        self.functions[self.name] = size

    def __call__(self, grid, block, arguments, shared_mem):
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self.log.append((grid, block, arguments, shared_mem))


@pytest.fixture
def cupy(monkeypatch):
    """A stand-in that compiles whatever there is, and keeps a log."""
    log: list = []
    modules: list = []

    def raw_module(code, options):
        modules.append((code, options))
        if fake.problem is not None:
            raise fake.problem
        return SimpleNamespace(get_function=lambda name: Kernel(log, name))

    def empty(shape, dtype):
        if fake.problem is not None:
            raise fake.problem
        return np.empty(shape, dtype)

    runtime = SimpleNamespace(
        getDevice=lambda: 0,
        memGetInfo=lambda: (3 << 20, 8 << 20),
        driverGetVersion=lambda: 11080,
        runtimeGetVersion=lambda: 13000,
    )
    fake = SimpleNamespace(
        problem=None,
        log=log,
        modules=modules,
        RawModule=raw_module,
        empty=empty,
        cuda=SimpleNamespace(
            runtime=runtime,
            compiler=SimpleNamespace(CompileException=CompileException),
            memory=SimpleNamespace(OutOfMemoryError=CupysOutOfMemoryError),
        ),
    )
    monkeypatch.setattr(launch, "library", lambda: fake)
    monkeypatch.setattr(Kernel, "functions", {})
    for cached in (launch._module, launch._kernel):
        cached.cache_clear()
    yield fake
    for cached in (launch._module, launch._kernel):
        cached.cache_clear()


def test_a_kernel_is_compiled_once_for_each_type(cupy):
    size = (3, 2, 1), (256, 1, 1)
    plan = geometry.Launch("dropout_f32", *size)
    for _ in range(2):
        launch.run("dropout", "f32", plan, 5, None, np.float32(2))
    launch.run("dropout", "f64", geometry.Launch("dropout_f64", *size))
    assert cupy.modules == [
        (source.unit("dropout", suffix, f"dropout_{suffix}"), source.OPTIONS)
        for suffix in ("f32", "f64")
    ]
    assert cupy.log[0] == ((3, 2, 1), (256, 1, 1), (5, 0, np.float32(2)), 0)  # None: a null pointer


def test_much_shared_memory_is_asked_for(cupy):
    large = geometry.Launch("dropout_f32", (1, 1, 1), (32, 1, 1), 100_000)
    launch.run("dropout", "f32", large)
    kernel = launch._kernel("dropout", "f32", "dropout_f32", 100_000, 0)
    assert kernel.max_dynamic_shared_size_bytes == 100_000
    assert cupy.log[0][3] == 100_000


@pytest.mark.parametrize(
    ("classes", "suffix"), [(12_288, "f32"), (49_152, "f32"), (6_144, "f64"), (98_304, "bf16")]
)
def test_shared_memory_just_below_48_kb_is_asked_for_too(cupy, classes, suffix):
    plan = geometry.softmax_cross_entropy(8, classes, suffix, geometry.Device())
    assert plan.shared == 48 * 1024
    launch.run("softmax_cross_entropy", suffix, plan)
    assert Kernel.functions[plan.kernel] == 48 * 1024


def test_what_one_launch_may_have_is_not_taken_from_another(cupy):
    """The driver keeps one bound for a function, whatever shapes it is launched for."""
    for shared in (100_000, 60_000, 49_000, 100_000, 200_000, 1000):
        launch.run("dropout", "f32", geometry.Launch("dropout_f32", (1,) * 3, (32, 1, 1), shared))
        assert Kernel.functions["dropout_f32"] >= shared
    assert Kernel.functions["dropout_f32"] == 200_000


def test_a_kernel_that_does_not_compile_is_named_with_the_compilers_words(cupy):
    cupy.problem = CompileException()
    plan = geometry.Launch("dropout_f32", (1, 1, 1), (32, 1, 1))
    with pytest.raises(BackendError, match=r"(?s)dropout.cu does not compile for f32.*undefined"):
        launch.run("dropout", "f32", plan)


@pytest.mark.parametrize(
    "error", ["cudaErrorInsufficientDriver: too old", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION: no"]
)
def test_a_driver_that_is_too_old_is_named_with_both_versions(cupy, error):
    cupy.problem = RuntimeError(error)
    plan = geometry.Launch("dropout_f32", (1, 1, 1), (32, 1, 1))
    with pytest.raises(BackendError, match=r"too old.*supports CUDA 11.8.*built with CUDA 13.0"):
        launch.run("dropout", "f32", plan)
    cupy.problem = RuntimeError("cudaErrorIllegalAddress")
    with pytest.raises(RuntimeError) as found:
        launch.run("dropout", "f64", plan)
    assert found.value is cupy.problem  # not ours to explain


def test_memory_that_runs_out_is_explained(cupy):
    cupy.problem = CupysOutOfMemoryError("Out of memory allocating 4,194,304 bytes (limit: 0)")
    words = (
        r"expected 4\.0 MiB of device memory for an array of shape \(1024, 1024\), got 3\.0 MiB "
        r"that are free, of 8\.0 MiB; lower the batch size, or the precision, or end other"
    )
    with pytest.raises(OutOfMemoryError, match=words) as found:
        launch.empty((1024, 1024), np.float32)
    assert isinstance(found.value, MemoryError)
    with (
        pytest.raises(OutOfMemoryError, match=r"`CapturedStep`: expected more of .*; use less, or"),
        graph.explained_memory("CapturedStep", "a step", "use less"),
    ):
        raise CupysOutOfMemoryError("some other words")


# --- Recording


class Logged(device_streams.Stream):
    """A stream that writes down what it is told."""

    def __init__(self, log, non_blocking):
        assert non_blocking  # a blocking one could not be recorded beside the default stream
        super().__init__(non_blocking)
        self.log = log

    def synchronize(self):
        super().synchronize()
        self.log.append("wait")

    def begin_capture(self):
        super().begin_capture()
        self.log.append("begin")

    def end_capture(self):
        self.log.append("end")
        graph = super().end_capture()
        if "invalid" in self.log:
            raise RuntimeError("cudaErrorStreamCaptureInvalidated")
        return graph


@pytest.fixture
def recorder(cupy, monkeypatch):
    """The real one on streams and memory of the tests."""
    monkeypatch.setattr(graph, "_own", SimpleNamespace())
    for name in ("Event", "MemoryPool", "using_allocator", "get_current_stream"):
        setattr(cupy.cuda, name, getattr(device_streams.cuda, name))
    cupy.cuda.Stream = lambda non_blocking: Logged(cupy.log, non_blocking)
    return graph.Recorder()


def fill(array, value):
    numpy_graph.launch(lambda memory: memory.fill(value), array, name=f"fill {value}")


def test_a_recording_is_made_in_a_stream_of_its_own(cupy, recorder):
    def work():
        cupy.log.append("work")
        assert recorder.recording and not gc.isenabled()
        return 7

    replay, result = recorder.record(work)
    assert result == 7 and replay.graph.nodes == []
    assert cupy.log == ["begin", "work", "end"]
    assert not recorder.recording and gc.isenabled()


def test_recorders_share_their_streams_but_no_memory(cupy, recorder):
    other = graph.Recorder()
    assert other._stream is recorder._stream and other._side is recorder._side
    assert other._pool is not recorder._pool


def test_a_rehearsal_really_runs_and_waits(cupy, recorder):
    assert recorder.rehearse(lambda: recorder.recording) is False
    assert cupy.log == ["wait"] * 2
    with pytest.raises(ZeroDivisionError):
        recorder.rehearse(lambda: 1 // 0)
    assert cupy.log == ["wait"] * 4


def test_a_failed_recording_ends_the_capture_and_keeps_the_first_error(cupy, recorder):
    def work():
        cupy.log.append("invalid")
        recorder.send(lambda: cupy.log.append("sent"))
        raise ValueError("the first error")

    with pytest.raises(ValueError, match="the first error"):
        recorder.record(work)
    assert cupy.log[-1] == "end"
    assert not recorder.recording and gc.isenabled()
    cupy.log.clear()
    recorder.record(lambda: None)
    assert "sent" not in cupy.log


def test_a_recording_holds_all_memory_that_it_has_asked_for(recorder):
    """Also what the work itself lets go of: the graph still writes there."""

    def work():
        inner, outer = (numpy_graph.empty((3,), np.float32) for _ in range(2))
        fill(inner, 2.0)
        outer[...] = inner
        return outer

    replay, outer = recorder.record(work)
    gc.collect()
    replay()
    assert outer.tolist() == [2.0] * 3
    launches = replay.graph.launch
    del replay
    with device_memory.refused("freed memory"):
        launches()


def test_a_recording_holds_the_workspaces_of_its_products(recorder, monkeypatch):
    monkeypatch.setattr(graph.cublas, "workspaces", lambda: ["a workspace"])
    replay, _ = recorder.record(lambda: None)
    assert replay.memory == ["a workspace"]


def test_a_rehearsal_holds_its_memory_until_it_has_run(recorder):
    """Streams run beside each other: what one lets go of, the other may still read."""
    seen = []

    def work():
        array = numpy_graph.empty((3,), np.float32)
        seen.append(array.ctypes.data)
        del array
        device_memory.whole(seen[0])

    recorder.rehearse(work)
    with device_memory.refused("freed memory"):
        device_memory.whole(seen[0])


def test_what_travels_is_sent_when_a_recording_is_over(recorder):
    sent = []
    recorder.rehearse(lambda: recorder.send(lambda: sent.append("at once")))
    assert sent == ["at once"]

    def work():
        recorder.send(lambda: sent.append(recorder.recording))
        assert len(sent) == 1

    recorder.record(work)
    assert sent == ["at once", False]


@pytest.mark.parametrize("side_first", [False, True])
def test_work_beside_other_work_comes_after_its_fork_and_before_its_join(
    recorder, monkeypatch, side_first
):
    monkeypatch.setattr(device_streams.Graph, "side_first", side_first)
    a, b, c = (numpy_graph.traced(np.zeros(2)) for _ in range(3))

    def work():
        fill(a, 1.0)
        with recorder.beside():
            b[...] = a
        fill(c, 3.0)
        recorder.join()
        fill(a, 4.0)

    replay, _ = recorder.record(work)
    order = []
    for own in replay.graph._work:
        for at, (kind, what) in enumerate(own):
            if kind == "do":
                own[at] = kind, (what[0], lambda what=what: (order.append(what[0]), what[1]()))
    replay()
    middle = ["copy", "fill 3.0"] if side_first else ["fill 3.0", "copy"]
    assert order == ["fill 1.0", *middle, "fill 4.0"]
    assert (a[0], b[0], c[0]) == (4, 1, 3)


def test_work_that_is_not_joined_is_refused(recorder):
    def work():
        with recorder.beside():
            fill(numpy_graph.empty((2,), float), 1.0)

    with pytest.raises(RuntimeError, match="Unjoined"):
        recorder.record(work)


def test_precision_is_refused_where_there_are_no_such_tensor_cores(monkeypatch):
    cupy = SimpleNamespace(__version__="14.2.0")
    monkeypatch.setattr(launch, "library", lambda: cupy)

    def of(capability):
        monkeypatch.setattr(launch, "device", lambda: geometry.Device(capability))
        return [graph.precision_problem(p) is None for p in (None, "tf32", "bf16", "fp16")]

    assert of(90) == of(80) == [True, True, True, True]
    assert of(75) == of(70) == [True, False, False, True]
    assert "8.0 on, and this device has 7.5" in (of(75), graph.precision_problem("bf16"))[1]
    cupy.__version__ = "13.6.0"
    assert of(90) == [True, True, False, True]
    assert graph.precision_problem("bf16") == (
        "CuPy knows bfloat16 from version 14 on, and this is 13.6.0"
    )
