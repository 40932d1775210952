// Many small products C[i] = A[i] B[i], for matrices that keep a library's large tiles idle.
//
// A square of threads makes a tile of C, every thread 4 × 4 elements of it in registers; small
// tiles share a block, one product along threadIdx.z each. Strides are in elements and may be
// anything (transposed operands are read as they lie; a batch stride of 0 shares an operand), but
// C's columns are neighbours. Sizes beyond the tile take several blocks, or steps along K.

#include "types.cuh"

constexpr int EACH = 4;   // rows and columns of C a thread makes
constexpr int DEPTH = 16;  // of K that is staged at a time

struct Operand {
    const T* data;
    Index row, column;

    __device__ A at(int i, int j, int rows, int columns) const {
        return i < rows && j < columns ? widen(data[i * row + j * column]) : 0;
    }
};

// Stages elements [row0 + r, column0 + c] for r < ROWS, c < COLUMNS as tile[r][c] (or, if FLIP,
// tile[c][r]): neighbouring threads read neighbouring elements, whichever way they lie.
template <int ROWS, int COLUMNS, int PITCH, bool FLIP>
__device__ inline void stage(const Operand& from, int row0, int column0, int rows, int columns,
                             A* tile, int thread, int threads) {
    bool by_rows = from.column == 1 || from.row != 1;
    for (int i = thread; i < ROWS * COLUMNS; i += threads) {
        int r = by_rows ? i / COLUMNS : i % ROWS, c = by_rows ? i % COLUMNS : i / ROWS;
        A& place = tile[FLIP ? c * PITCH + r : r * PITCH + c];
        place = from.at(row0 + r, column0 + c, rows, columns);
    }
}

template <int TILE>
__device__ inline void product(Operand a, Index a_batch, Operand b, Index b_batch, T* c,
                               Index c_batch, Index c_row, int batches, int m, int k, int n) {
    constexpr int SIDE = TILE / EACH, THREADS = SIDE * SIDE;
    constexpr int PITCH = TILE + 1;  // so that a column of a tile meets different banks
    SHARED_BYTES(bytes);
    A* tile_a = reinterpret_cast<A*>(bytes) + threadIdx.z * 2 * DEPTH * PITCH;
    A* tile_b = tile_a + DEPTH * PITCH;
    // Both tiles have K as their first index, so a thread's operands lie side by side.
    int across = threadIdx.x % SIDE, down = threadIdx.x / SIDE;
    int row0 = blockIdx.y * TILE, column0 = blockIdx.z * TILE;

    int step = gridDim.x * blockDim.z;
    for (int first = blockIdx.x * blockDim.z; first < batches; first += step) {
        int batch = first + threadIdx.z;
        bool exists = batch < batches;  // the others still meet at the barriers
        Operand own_a = a, own_b = b;
        own_a.data += exists ? batch * a_batch : 0;
        own_b.data += exists ? batch * b_batch : 0;
        A sums[EACH][EACH] = {};
        for (int depth = 0; depth < k; depth += DEPTH) {
            stage<TILE, DEPTH, PITCH, true>(own_a, row0, depth, m, k, tile_a, threadIdx.x, THREADS);
            stage<DEPTH, TILE, PITCH, false>(own_b, depth, column0, k, n, tile_b, threadIdx.x,
                                             THREADS);
            __syncthreads();
#pragma unroll
            for (int d = 0; d < DEPTH; d++) {
                A left[EACH], right[EACH];
#pragma unroll
                for (int i = 0; i < EACH; i++) {
                    left[i] = tile_a[d * PITCH + down + i * SIDE];
                    right[i] = tile_b[d * PITCH + across + i * SIDE];
                }
#pragma unroll
                for (int i = 0; i < EACH; i++) {
#pragma unroll
                    for (int j = 0; j < EACH; j++) sums[i][j] += left[i] * right[j];
                }
            }
            __syncthreads();
        }
        if (!exists) continue;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int row = row0 + down + i * SIDE;
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                int column = column0 + across + j * SIDE;
                if (row < m && column < n) {
                    c[batch * c_batch + row * c_row + column] = to_element(sums[i][j]);
                }
            }
        }
    }
}

#define PRODUCT(tile)                                                                            \
    KERNEL(batched_matmul_##tile, 256)(                                                          \
        const T* a, Index a_batch, Index a_row, Index a_column, const T* b, Index b_batch,       \
        Index b_row, Index b_column, T* c, Index c_batch, Index c_row, int batches, int m,       \
        int k, int n) {                                                                          \
        product<tile>({a, a_row, a_column}, a_batch, {b, b_row, b_column}, b_batch, c, c_batch,  \
                      c_row, batches, m, k, n);                                                  \
    }

PRODUCT(16)
PRODUCT(32)
PRODUCT(64)
