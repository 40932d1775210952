// A minibatch from data that stay on the device: rows picked, converted, normalised; labels with
// them. Which row comes at which place of an epoch is computed, not stored: see `order_of`.

#include "philox.cuh"
#include "quads.cuh"
#include "reductions.cuh"

// The order of an epoch's rows, as xpmlp.random.permutation gives it.
//
// A Feistel network of eight rounds permutes the integers of 2b bits, b = ⌈log₂(n)/2⌉; what lands
// outside of 0 … n−1 is sent through again (cycle walking). Round keys are Philox words.
constexpr unsigned PERMUTATION_STREAM = 0xFFFF0001u;

__device__ inline unsigned mix(unsigned value, unsigned key) {
    unsigned h = value ^ key;  // the finalizer of MurmurHash3 (Appleby, public domain)
    h = (h ^ h >> 16) * 0x85EBCA6Bu;
    h = (h ^ h >> 13) * 0xC2B2AE35u;
    return h ^ h >> 16;
}

__device__ inline Index order_of(Index place, Index n, unsigned long long seed, Index epoch) {
    if (n < 2) return place;
    int bits = 64 - __clzll(n - 1), half = (bits + 1) / 2;
    unsigned mask = (1u << half) - 1, low = (unsigned)seed, high = (unsigned)(seed >> 32);
    Words keys[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        keys[i] = philox(i, (unsigned)epoch, PERMUTATION_STREAM, 0, low, high);
    }
    do {
        unsigned left = (unsigned)(place >> half), right = (unsigned)place & mask;
#pragma unroll
        for (int round = 0; round < 8; round++) {
            unsigned swapped = left ^ (mix(right, keys[round / 4].at[round % 4]) & mask);
            left = right;
            right = swapped;
        }
        place = (Index)left << half | right;
    } while (place >= n);
    return place;
}

// Where a minibatch stands in its epoch.
struct Order {
    Index n, batch, batches;
    const unsigned long long* seeds;  // one a member
    int shuffle;
    const Index* order;  // a given order instead, or null
    Index epoch, begin;

    __device__ Index row(int member, Index i) const {
        Index place = begin + i;
        if (order) return order[place];
        return shuffle ? order_of(place, n, seeds[member], epoch) : place;
    }
};

#define ORDER_LIST                                                                             \
    Index n, Index batch, Index batches, const unsigned long long *seeds, int shuffle,         \
        const Index *order, const Index *step, Index step_offset

// A warp takes a row: its lanes compute the row's number together, and copy it side by side.
template <class S>
__device__ inline void gather(const S* x, T* out, Index features, const A* mean, const A* std,
                              int per_feature, const void* labels, void* labels_out,
                              int label_bytes, Index rows, int members, ORDER_LIST) {
    Index at = ((Index)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    int lane = threadIdx.x % WARP;
    if (at >= rows * members) return;
    Index now = (step ? *step : 0) + step_offset;
    Order sequence{n, batch, batches, seeds, shuffle, order, now / batches, now % batches * batch};
    Index row = sequence.row((int)(at / rows), at % rows);

    const S* from = x + row * features;
    T* to = out + at * features;
    for (Index first = 4 * lane; first < features; first += 4 * WARP) {
        A values[4];
        load_quad(from, first, features, values);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (!mean || first + i >= features) continue;
            Index feature = per_feature ? first + i : 0;
            values[i] = (values[i] - mean[feature]) / std[feature];
        }
        store_quad(to, first, features, values);
    }
    const unsigned char* label = static_cast<const unsigned char*>(labels) + row * label_bytes;
    unsigned char* label_out = static_cast<unsigned char*>(labels_out) + at * label_bytes;
    for (int byte = lane; byte < label_bytes; byte += WARP) label_out[byte] = label[byte];
}

#define GATHER(name, S)                                                                         \
    KERNEL(gather_##name, 128)(const S* x, T* out, Index features, const A* mean, const A* std, \
                               int per_feature, const void* labels, void* labels_out,           \
                               int label_bytes, Index rows, int members, ORDER_LIST) {          \
        gather(x, out, features, mean, std, per_feature, labels, labels_out, label_bytes, rows, \
               members, n, batch, batches, seeds, shuffle, order, step, step_offset);           \
    }

GATHER(uint8, unsigned char)
GATHER(int8, signed char)
GATHER(uint16, unsigned short)
GATHER(int16, short)
GATHER(same, T)
#if defined(XPMLP_F16) || defined(XPMLP_BF16)
GATHER(float32, float)
#endif

// out[i] = the row at place first + i of an epoch.
KERNEL(epoch_order, 128)(Index* out, Index n, Index count, Index first, unsigned long long seed,
                         Index epoch) {
    Index i = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = order_of(first + i, n, seed, epoch);
}
