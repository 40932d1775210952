"""Launches cover their work and stay within what a device allows, also for extreme sizes."""

from __future__ import annotations

import math

import pytest

from xpmlp.kernels.cuda import geometry
from xpmlp.kernels.cuda.geometry import Device

DEVICES = (Device(), Device(75, 40, 65_536), Device(80, 108, 166_912), Device(89, 24, 101_376))
SUFFIXES = ("f32", "f64", "f16", "bf16")
ROWS = (1, 127, 128, 129, 65_536, 10**7)
STATIC = 6 * 1024  # the most that any kernel has besides


def check(launch, device, opt_in=False):
    assert all(isinstance(size, int) and size >= 1 for size in (*launch.grid, *launch.block))
    assert launch.grid[0] <= 2**31 - 1
    assert max(launch.grid[1:]) <= 65_535
    assert launch.block[0] * launch.block[1] * launch.block[2] <= 1024
    assert launch.shared + STATIC <= (device.shared_optin if opt_in else 49_152 + STATIC)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("device", DEVICES)
def test_every_row_of_every_width_has_its_threads(suffix, device):
    item = geometry.ITEMSIZE[suffix]
    widths = {int(1100 * 1.02**i) for i in range(300)}  # up to 400,000
    for classes in (*range(1, 1100), *widths, 50_257, 128_256, 2**31 - 64):
        for aligned in (False, True):
            for rows in ROWS:
                launch = geometry.softmax_cross_entropy(
                    rows, classes, suffix, device, aligned=aligned
                )
                check(launch, device, opt_in=True)
                layout = launch.kernel.removeprefix("softmax_cross_entropy_")[: -len(suffix) - 1]
                width = classes if aligned else classes + 16 // item - 1
                threads = math.prod(launch.block)
                if layout == "thread":
                    assert launch.grid[0] * threads >= rows > (launch.grid[0] - 1) * threads
                    accumulator = 8 if suffix == "f64" else 4
                    assert launch.shared >= threads * classes * accumulator
                    assert threads % 16 == 0  # so that tiles begin at multiples of 16 bytes
                elif "x" in layout:
                    lanes, pieces = map(int, layout.split("x"))
                    assert lanes * pieces * 16 // item >= width
                    assert launch.grid[0] * threads // lanes >= rows
                    assert threads % 32 == 0
                elif layout == "stream":
                    assert launch.grid[0] == rows
                    blocks = 8 if device.capability >= 90 else 1
                    too_wide = geometry.row_share(classes, suffix, blocks, aligned)
                    assert too_wide > device.shared_optin - STATIC or rows * 8 > 2**31 - 1
                else:
                    blocks = int(layout[7:]) if layout.startswith("cluster") else 1
                    assert blocks == 1 or device.capability >= 90
                    assert launch.grid[0] == rows * blocks
                    assert launch.shared * blocks >= width * item
                    assert threads % 32 == 0


def test_layouts_stand_where_they_are_meant_to():
    def layout(classes, suffix="f32", device=DEVICES[0]):
        launch = geometry.softmax_cross_entropy(1000, classes, suffix, device)
        return launch.kernel.removeprefix("softmax_cross_entropy_").removesuffix(f"_{suffix}")

    names = [layout(c) for c in (1, 32, 33, 64, 65, 1000, 1024, 1025, 50_257, 128_256, 10**6)]
    assert names == [
        *("thread", "thread", "16x1", "16x1", "32x1", "32x8", "32x8", "block"),
        *("cluster4", "cluster8", "stream"),
    ]
    assert layout(50_257, "bf16") == "cluster2"
    assert layout(1024, "f64") == "block"
    assert [layout(c, device=DEVICES[1]) for c in (1024, 10_000, 20_000)] == [
        *("32x8", "block", "stream"),
    ]


@pytest.mark.parametrize("members", [1, 3, 65_535, 10**6])
@pytest.mark.parametrize("size", [1, 4, 1023, 10**9])
def test_elementwise_launches_fit(members, size):
    for device in DEVICES:
        launch = geometry.elementwise("dropout", size, members, "f32", device)
        check(launch, device)
        assert launch.grid[0] * 256 * 4 >= min(size, 16 * device.multiprocessors * 1024)
        assert launch.grid[1] == min(members, 65_535)


@pytest.mark.parametrize(
    "batch, features, members",
    [
        (1, 1, 1),
        (512, 512, 1),
        (65_536, 10, 1),
        (64, 100, 5_000),
        (10**7, 1, 10**5),
    ],
)
def test_sums_over_the_batch_fit(batch, features, members):
    for device in DEVICES:
        chunks = geometry.column_chunks(batch, features, members, device)
        launch = geometry.columns("batch_norm_partial", batch, features, members, "f32", device)
        check(launch, device)
        assert launch.grid[0] * 32 >= features > (launch.grid[0] - 1) * 32
        assert launch.grid[1] == chunks <= max(1, math.ceil(batch / 32))
        assert launch.block == (32, 8, 1)  # as columns.cuh has it


def test_every_chunk_of_every_parameter_has_its_block():
    sizes = [1, 4096, 4097, 0, 401_408, 10]
    chunks = geometry.update_chunks(sizes)
    assert chunks == [0, 1, 2, 4, 4, 102, 103]
    assert geometry.update("adam_update", sizes, "f32").grid == (103, 1, 1)
    launch = geometry.squared_norm(401_408, 6, 10**6, "f32")
    check(launch, DEVICES[0])
    assert launch.grid == (32, 6, 65_535)
    for launch in (geometry.tick("f32"), geometry.adjust_scale("f32")):
        assert launch.grid == (1, 1, 1)


@pytest.mark.parametrize("count", [1, 128, 129, 10**9])
def test_one_thread_a_result_or_one_warp_a_row(count):
    assert geometry.finish("advance", count, "f32").grid[0] * 128 >= count
    launch = geometry.gather("gather_uint8", count, "f32")
    check(launch, DEVICES[0])
    assert launch.grid[0] * launch.block[0] // 32 >= count
    for launch in (geometry.normalizer(count, "f32"), geometry.reduce_losses(count, "f32")):
        assert launch.grid[0] == count


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("features", [1, 32, 1024, 1025, 100_000])
def test_rows_of_layer_normalization_fit(suffix, features):
    launch = geometry.layer_norm("layer_norm", 1001, features, suffix, DEVICES[0])
    check(launch, DEVICES[0])
    assert launch.grid[0] * launch.block[1] >= 1001
    assert math.prod(launch.block) <= 256
    assert launch.block[0] % 32 == 0
    assert launch.block[1] == 1 or launch.block[0] == 32


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_small_products_fit(suffix, tensor):
    for batches in (1, 7, 4096, 2**31 - 1):
        for m, n in ((1, 1), (16, 16), (17, 3), (3, 33), (64, 64), (65, 1000)):
            launch = geometry.batched_matmul(batches, m, 64, n, suffix, tensor)
            check(launch, DEVICES[0])
            *_, tile, _ = launch.kernel.split("_")
            tile = int(tile)
            assert ("tensor" in launch.kernel) == (tensor and max(m, n) > 16)
            assert launch.grid[1] * tile >= m
            assert launch.grid[2] * tile >= n
            assert math.prod(launch.block) <= 256
            assert launch.block[0] == (
                (tile // 32) ** 2 * 32 if tensor and tile > 16 else tile**2 // 16
            )
            assert launch.grid[0] * launch.block[2] >= batches
