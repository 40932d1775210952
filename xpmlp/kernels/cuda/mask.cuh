// Dropout's mask: a function of (seed, stream, step, element), bit for bit that of xpmlp.random.
#ifndef XPMLP_MASK_CUH
#define XPMLP_MASK_CUH

#include "philox.cuh"

struct Mask {
    const unsigned* keys;  // each member's seed, low and high word; null: nothing is dropped
    const unsigned* thresholds;  // each member's rate · 2^24
    const T* scales;             // each member's 1/(1 − rate)
    unsigned stream;
    unsigned step;  // on the device, so that a captured graph draws another mask at each replay

    __device__ Mask(const unsigned* keys, const unsigned* thresholds, const T* scales,
                    unsigned stream, const Index* step, Index step_offset)
        : keys(keys), thresholds(thresholds), scales(scales), stream(stream) {
        this->step = (unsigned)((step ? *step : 0) + step_offset);
    }

    // What element / 4 = block of a member draws.
    __device__ Words words(int member, Index block) const {
        return philox((unsigned)block, step, stream, 0, keys[2 * member], keys[2 * member + 1]);
    }

    __device__ A factor(int member, unsigned word) const {
        return word >> 8 >= thresholds[member] ? widen(scales[member]) : 0;
    }

    // x times its factor, rounded as the op rounds it; 0 where dropped, even for infinite x.
    __device__ static A apply(A x, A factor) {
        return factor > 0 ? widen(to_element(widen(to_element(x)) * factor)) : 0;
    }
};

#define MASK_LIST                                                                         \
    const unsigned *keys, const unsigned *thresholds, const T *scales, unsigned stream,   \
        const Index *step, Index step_offset
#define MASK Mask(keys, thresholds, scales, stream, step, step_offset)

#endif
