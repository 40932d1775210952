// Many small products C[i] = A[i] B[i], for matrices that keep a library's large tiles idle.
//
// Some threads make a tile of C; small tiles share a block, one product along threadIdx.z each.
// Strides are in elements and may be anything (transposed operands are read as they lie; a batch
// stride of 0 shares an operand), but C's columns are neighbours. Sizes beyond the tile take several
// blocks, or steps along K. Two kinds:
//
//     batched_matmul_N           every thread 4 × 4 elements in registers
//     batched_matmul_tensor_N    every warp 32 × 32 elements by tensor cores (capability 8.0): 16-bit
//                                types, and float32 with its operands rounded to TF32

#include "batched_tiles.cuh"

constexpr int EACH = 4;  // rows and columns of C a thread makes

template <int TILE>
struct ByThreads {
    static constexpr int SIDE = TILE / EACH, THREADS = SIDE * SIDE, DEPTH = 16;
    // Four more than the tile: rows begin at multiples of 16 bytes, and a column meets 8 banks.
    static constexpr int PITCH = TILE + 4, SIZE = DEPTH * PITCH * sizeof(A);
    static constexpr int PER_LOAD = 16 / sizeof(A);
    struct alignas(16) Some {
        A at[PER_LOAD];
    };

    // Both tiles have K as their first index, so a thread's operands lie side by side.
    static __device__ void put(unsigned char* tile, int outer, int k, T value) {
        reinterpret_cast<A*>(tile)[k * PITCH + outer] = widen(value);
    }
    static __device__ void put_along_k(unsigned char* tile, int outer, int k, const Vector& v) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) put(tile, outer, k + i, v.at[i]);
    }

    A sums[EACH][EACH] = {};

    static __device__ void load(const A* from, A (&values)[EACH]) {
#pragma unroll
        for (int i = 0; i < EACH; i += PER_LOAD) {
            Some some = *reinterpret_cast<const Some*>(from + i);
#pragma unroll
            for (int j = 0; j < PER_LOAD; j++) values[i + j] = some.at[j];
        }
    }

    __device__ void multiply(const unsigned char* tile_a, const unsigned char* tile_b) {
        const A* a = reinterpret_cast<const A*>(tile_a) + threadIdx.x / SIDE * EACH;
        const A* b = reinterpret_cast<const A*>(tile_b) + threadIdx.x % SIDE * EACH;
#pragma unroll 4
        for (int d = 0; d < DEPTH; d++) {
            A left[EACH], right[EACH];
            load(a + d * PITCH, left);
            load(b + d * PITCH, right);
#pragma unroll
            for (int i = 0; i < EACH; i++) {
#pragma unroll
                for (int j = 0; j < EACH; j++) sums[i][j] += left[i] * right[j];
            }
        }
    }

    __device__ void store(const Result& c, int row0, int column0) const {
        int row = row0 + threadIdx.x / SIDE * EACH, column = column0 + threadIdx.x % SIDE * EACH;
#pragma unroll
        for (int i = 0; i < EACH; i++) c.template write<EACH>(row + i, column, sums[i]);
    }
};

#if defined(XPMLP_TENSOR_CORES) && !defined(XPMLP_F64)
// A tile's operands as 32-bit words along K: one TF32 number or two 16-bit ones. An instruction takes
// 8 words of K, from 16 rows of A and 8 columns of B; lane l holds, with g = l / 4 and t = l % 4,
// A's words (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4), B's (t, g), (t + 4, g), and of C the
// elements (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1) (PTX ISA, "mma.m16n8k8", "m16n8k16").
template <int TILE>
struct ByTensorCores {
    static constexpr int KIND = sizeof(T) == 4 ? 0 : is_bfloat16<T> ? 2 : 1;
    static constexpr int WORDS = 16, PER_WORD = 4 / sizeof(T), DEPTH = WORDS * PER_WORD;
    // Rows of 20 words: the 8 × 4 words that a warp reads at once lie in 32 different banks.
    static constexpr int PITCH = WORDS + 4, SIZE = TILE * PITCH * 4;
    static constexpr int SIDE = TILE / 32, THREADS = SIDE * SIDE * 32;

    static __device__ void put(unsigned char* tile, int outer, int k, T value) {
        if constexpr (sizeof(T) == 4) {
            reinterpret_cast<unsigned*>(tile)[outer * PITCH + k] = tensor_float(widen(value));
        } else {
            reinterpret_cast<T*>(tile)[outer * PITCH * PER_WORD + k] = value;
        }
    }
    static __device__ void put_along_k(unsigned char* tile, int outer, int k, const Vector& v) {
        Vector rounded = v;
        if constexpr (sizeof(T) == 4) {
            unsigned words[4];
#pragma unroll
            for (int i = 0; i < 4; i++) words[i] = tensor_float(widen(v.at[i]));
            memcpy(&rounded, words, sizeof words);
        }
        *reinterpret_cast<Vector*>(tile + outer * PITCH * 4 + k * sizeof(T)) = rounded;
    }

    float sums[2][4][4] = {};  // of 16 × 8 elements each

    __device__ void multiply(const unsigned char* tile_a, const unsigned char* tile_b) {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
        const unsigned* a = reinterpret_cast<const unsigned*>(tile_a) + warp / SIDE * 32 * PITCH;
        const unsigned* b = reinterpret_cast<const unsigned*>(tile_b) + warp % SIDE * 32 * PITCH;
        a += g * PITCH + t;
        b += g * PITCH + t;
#pragma unroll
        for (int k = 0; k < WORDS; k += 8) {
            unsigned left[2][4], right[4][2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    left[i][j] = a[(i * 16 + j % 2 * 8) * PITCH + k + j / 2 * 4];
                }
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int j = 0; j < 2; j++) right[i][j] = b[i * 8 * PITCH + k + j * 4];
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) tensor_multiply<KIND>(sums[i][j], left[i], right[j]);
            }
        }
    }

    __device__ void store(const Result& c, int row0, int column0) const {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        int row = row0 + warp / SIDE * 32 + lane / 4, column = column0 + warp % SIDE * 32;
        column += lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float(&four)[4] = sums[i][j];
                const A upper[2] = {four[0], four[1]}, lower[2] = {four[2], four[3]};
                c.template write<2>(row + i * 16, column + j * 8, upper);
                c.template write<2>(row + i * 16 + 8, column + j * 8, lower);
            }
        }
    }
};
#endif

#define PRODUCT(name, Kind, tile)                                                                \
    KERNEL(batched_matmul_##name, 256)(                                                          \
        const T* a, Index a_batch, Index a_row, Index a_column, const T* b, Index b_batch,       \
        Index b_row, Index b_column, T* c, Index c_batch, Index c_row, int batches, int m,       \
        int k, int n) {                                                                          \
        products<Kind<tile>, tile>({a, a_row, a_column, a_batch}, {b, b_column, b_row, b_batch}, \
                                   c, c_batch, c_row, batches, m, k, n);                         \
    }

PRODUCT(16, ByThreads, 16)
PRODUCT(32, ByThreads, 32)
PRODUCT(64, ByThreads, 64)
#if defined(XPMLP_TENSOR_CORES) && !defined(XPMLP_F64)
PRODUCT(tensor_32, ByTensorCores, 32)
PRODUCT(tensor_64, ByTensorCores, 64)
#endif
