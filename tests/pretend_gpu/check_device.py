"""The pretend device against what a real one refuses: each problem is provoked and must be noted.

ENV/bin/python -m pytest -p pretend_device.plugin tests/pretend_gpu/check_device.py
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

cupy = pytest.importorskip("cupy")
device = pytest.importorskip("pretend_device.device", reason="see tests/pretend_gpu/README.md")

SCALE = 'extern "C" __global__ void scale(float* x, int n) '
SCALE += "{ int i = threadIdx.x; if (i < n) x[i] *= 2; }"


@contextmanager
def noted(words: str) -> Iterator[None]:
    """A problem in these words inside, and none besides."""
    assert not device.problems
    try:
        yield
        assert len(device.problems) == 1 and words in next(iter(device.problems)), device.problems
    finally:
        device.problems.clear()


def kernel(text: str, name: str):
    """As xpmlp's, whose arguments are checked by their types."""
    return cupy.RawModule(code=f"#define XPMLP_TEST\n{text}", options=("-std=c++20",)).get_function(
        name
    )


def test_it_computes():
    a = cupy.asarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    np.testing.assert_array_equal(cupy.asnumpy(a @ a.T), cupy.asnumpy(a) @ cupy.asnumpy(a).T)
    x = cupy.ones(40, np.float32)
    kernel(SCALE, "scale")((1,), (64,), (x, np.int32(40)))
    assert float(x.sum()) == 80


def test_freed_memory_is_known_even_if_a_kernel_does_not_read_it():
    x = cupy.ones(40, np.float32)
    address, run = x.data.ptr, kernel(SCALE, "scale")
    run((1,), (64,), (x, np.int32(0)))
    del x
    with noted("not on the device, or freed"), pytest.raises(Exception, match="IllegalAddress"):
        run((1,), (64,), (np.uint64(address), np.int32(0)))


def test_freed_memory_behind_a_table_of_addresses_ends_a_kernel():
    text = 'extern "C" __global__ void read(const long long* table, float* y) '
    text += "{ *y = **(const float* const*)table; }"
    x, y = cupy.ones(4, np.float32), cupy.zeros(1, np.float32)
    table = cupy.asarray(np.array([x.data.ptr]))
    run = kernel(text, "read")
    run((1,), (1,), (table, y))
    assert float(y[0]) == 1
    del x
    with noted("read: signal 11 at address"), pytest.raises(Exception, match="IllegalAddress"):
        run((1,), (1,), (table, y))


def test_a_graph_that_outlives_its_arrays_is_known():
    stream = cupy.cuda.Stream(non_blocking=True)
    x, run = cupy.ones(40, np.float32), kernel(SCALE, "scale")
    run((1,), (64,), (x, np.int32(40)))
    with stream:
        stream.begin_capture()
        run((1,), (64,), (x, np.int32(40)))
        graph = stream.end_capture()
    graph.launch()
    assert float(x[0]) == 4
    del x
    with noted("scale: argument at address"), pytest.raises(Exception, match="IllegalAddress"):
        graph.launch()


def test_a_write_behind_an_array_is_seen_when_it_is_freed():
    text = 'extern "C" __global__ void past(float* x) { x[3] = 1; }'
    x = cupy.zeros(3, np.float32)
    kernel(text, "past")((1,), (1,), (x,))
    with noted("something was written behind it"):
        del x


def test_a_write_far_behind_an_array_ends_the_kernel():
    text = 'extern "C" __global__ void far(float* x) { x[5000] = 1; }'
    x = cupy.zeros(3, np.float32)
    run = kernel(text, "far")
    with noted("far: signal 11"), pytest.raises(Exception, match="IllegalAddress"):
        run((1,), (1,), (x,))


@pytest.mark.parametrize(
    ("grid", "block", "shared", "words"),
    [((1,), (2048,), 0, "2048 threads"), ((1, 70000), (1,), 0, "a grid of"),
     ((1,), (1,), 50_000, "50000 bytes of dynamic shared memory, 49152 allowed")],
)  # fmt: skip
def test_launches_that_a_device_refuses(grid, block, shared, words):
    x, run = cupy.zeros(3, np.float32), kernel(SCALE, "scale")
    with noted(words), pytest.raises(Exception, match="INVALID_VALUE"):
        run(grid, block, (x, np.int32(3)), shared_mem=shared)


def test_a_grid_that_is_no_multiple_of_the_cluster_is_refused():
    text = 'extern "C" __global__ void CLUSTER pairs(float* x) { *x = 1; }'
    text = "#define CLUSTER __cluster_dims__(2, 1, 1)\n" + text
    x, run = cupy.zeros(3, np.float32), kernel(text, "pairs")
    with noted("3 blocks in clusters of 2"), pytest.raises(Exception, match="INVALID_VALUE"):
        run((3,), (1,), (x,))


def test_a_barrier_that_not_all_reach_is_known():
    text = 'extern "C" __global__ void part(float* x) { if (threadIdx.x < 3) __syncthreads(); }'
    x, run = cupy.zeros(3, np.float32), kernel(text, "part")
    with noted("part: deadlock"), pytest.raises(Exception, match="cuda"):
        run((1,), (8,), (x,))


@contextmanager
def recording() -> Iterator:
    """A recording that is refused inside, and ends."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(Exception, match="StreamCapture"):
            yield stream
        with pytest.raises(Exception, match="StreamCapture"):
            stream.end_capture()


def test_waits_are_refused_in_a_recording():
    with recording() as stream:
        stream.synchronize()
    with recording():
        cupy.cuda.runtime.deviceSynchronize()


def test_another_stream_takes_part_in_a_recording_and_must_be_waited_for():
    x, y, run = cupy.ones(4, np.float32), cupy.ones(4, np.float32), kernel(SCALE, "scale")
    run((1,), (4,), (x, np.int32(0)))
    first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    for waits in (True, False):
        fork, join = cupy.cuda.Event(), cupy.cuda.Event()
        first.begin_capture()
        fork.record(first)
        second.wait_event(fork)
        with second:
            run((1,), (4,), (x, np.int32(4)))
        with first:
            run((1,), (4,), (y, np.int32(4)))
        if waits:
            join.record(second)
            first.wait_event(join)
            first.end_capture().launch()
        else:
            with pytest.raises(Exception, match="StreamCaptureUnjoined"):
                first.end_capture()
    assert float(x[0]) == float(y[0]) == 2


def test_what_it_does_not_have_says_so():
    with noted("cudaMallocManaged was called"), pytest.raises(Exception, match="NotSupported"):
        cupy.cuda.runtime.mallocManaged(64)


def test_too_much_memory_is_refused_as_a_pool_refuses_it():
    free, _ = cupy.cuda.runtime.memGetInfo()
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
        cupy.empty(free + 1, np.uint8)
