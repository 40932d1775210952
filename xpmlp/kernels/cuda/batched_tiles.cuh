// What all kinds of batched products share: staging tiles of A and B, and writing C.
//
// `outer` is a row of A or a column of B: of both operands a tile holds some outers and a stretch of
// K. A kind of product says where in its tile an element goes (`put`, `put_along_k`), how two tiles
// are multiplied, and which elements of C a thread then has.
#ifndef XPMLP_BATCHED_TILES_CUH
#define XPMLP_BATCHED_TILES_CUH

#include "types.cuh"
#include "vectors.cuh"

struct Operand {
    const T* data;
    Index outer, k, batch;  // steps

    // Whether 16 bytes can be read at once along an axis, given the step of the other one.
    __device__ bool has_vectors(Index along, Index across) const {
        Index steps = across | batch;
        return along == 1 && shift_of(data) == 0 && steps % VECTOR == 0;
    }
};

struct Result {
    T* data;
    Index row;
    int rows, columns;
    bool has_vectors;  // whether aligned groups of columns can be written at once

    // Elements (row, column), … (row, column + COUNT − 1), as far as they exist.
    template <int COUNT>
    __device__ void write(int r, int c, const A (&values)[COUNT]) const {
        if (r >= rows) return;
        T* to = data + r * row + c;
        if constexpr (COUNT % VECTOR == 0) {
            if (has_vectors && c + COUNT <= columns) {
#pragma unroll
                for (int i = 0; i < COUNT; i += VECTOR) {
                    A some[VECTOR];
#pragma unroll
                    for (int j = 0; j < VECTOR; j++) some[j] = values[i + j];
                    store_whole(to + i, some);
                }
                return;
            }
        }
        if constexpr (COUNT == 2) {
            struct alignas(2 * sizeof(T)) Pair {
                T first, second;
            };
            if (has_vectors && c + 2 <= columns) {
                *reinterpret_cast<Pair*>(to) = {to_element(values[0]), to_element(values[1])};
                return;
            }
        }
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            if (c + i < columns) to[i] = to_element(values[i]);
        }
    }
};

// Stages OUTERS outers from outer0 on, and Kind::DEPTH of K from k0 on; what does not exist is 0.
// Neighbouring threads read neighbouring elements, whichever way they lie.
template <class Kind, int OUTERS>
__device__ inline void stage(const Operand& from, int outer0, int k0, int outers, int depth,
                             unsigned char* tile) {
    constexpr int DEPTH = Kind::DEPTH, THREADS = Kind::THREADS;
    const T* data = from.data + outer0 * from.outer + k0 * from.k;
    outers -= outer0;
    depth -= k0;
    T zero = to_element(0);
    if (from.has_vectors(from.k, from.outer)) {
        constexpr int COUNT = DEPTH / VECTOR;
#pragma unroll 2
        for (int i = threadIdx.x; i < OUTERS * COUNT; i += THREADS) {
            int outer = i / COUNT, k = i % COUNT * VECTOR;
            const T* row = data + outer * from.outer;
            Vector vector = outer < outers && k + VECTOR <= depth
                                ? load_whole(row + k)
                                : load_part(row, k, outer < outers ? depth : 0, 0);
            Kind::put_along_k(tile, outer, k, vector);
        }
    } else if (from.has_vectors(from.outer, from.k)) {
        constexpr int COUNT = OUTERS / VECTOR;
#pragma unroll 2
        for (int i = threadIdx.x; i < DEPTH * COUNT; i += THREADS) {
            int k = i / COUNT, outer = i % COUNT * VECTOR;
            const T* row = data + k * from.k;
            Vector vector = k < depth && outer + VECTOR <= outers
                                ? load_whole(row + outer)
                                : load_part(row, outer, k < depth ? outers : 0, 0);
#pragma unroll
            for (int j = 0; j < VECTOR; j++) Kind::put(tile, outer + j, k, vector.at[j]);
        }
    } else {
        bool along_k = from.k == 1 || from.outer != 1;
#pragma unroll 2
        for (int i = threadIdx.x; i < OUTERS * DEPTH; i += THREADS) {
            int outer = along_k ? i / DEPTH : i % OUTERS, k = along_k ? i % DEPTH : i / OUTERS;
            bool exists = outer < outers && k < depth;
            Kind::put(tile, outer, k, exists ? data[outer * from.outer + k * from.k] : zero);
        }
    }
}

template <class Kind, int TILE>
__device__ inline void products(Operand a, Operand b, T* c, Index c_batch, Index c_row,
                                int batches, int m, int k, int n) {
    SHARED_BYTES(bytes);
    unsigned char *tile_a = bytes + threadIdx.z * 2 * Kind::SIZE, *tile_b = tile_a + Kind::SIZE;
    int row0 = blockIdx.y * TILE, column0 = blockIdx.z * TILE;
    bool has_vectors = shift_of(c) == 0 && (c_batch | c_row) % VECTOR == 0;

    int step = gridDim.x * blockDim.z;
    for (int first = blockIdx.x * blockDim.z; first < batches; first += step) {
        int batch = first + threadIdx.z;
        bool exists = batch < batches;  // the others still meet at the barriers
        Operand own_a = a, own_b = b;
        own_a.data += exists ? batch * a.batch : 0;
        own_b.data += exists ? batch * b.batch : 0;
        Kind product;
        for (int depth = 0; depth < k; depth += Kind::DEPTH) {
            stage<Kind, TILE>(own_a, row0, depth, m, k, tile_a);
            stage<Kind, TILE>(own_b, column0, depth, n, k, tile_b);
            __syncthreads();
            product.multiply(tile_a, tile_b);
            __syncthreads();
        }
        if (exists) product.store({c + batch * c_batch, c_row, m, n, has_vectors}, row0, column0);
    }
}

#endif
