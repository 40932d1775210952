// The tensor cores' instruction as the PTX ISA defines it ("Matrix Fragments for mma.m16n8k8" with
// .tf32, and for mma.m16n8k16 with .f16 and .bf16). Included by shim.h.
//
// Each lane gives the words that it holds; the two matrices are put together from everybody's, by the
// tables of the specification, and multiplied plainly.
#ifndef TENSOR_CORES_H
#define TENSOR_CORES_H

inline float float_from_half(unsigned short bits);
inline float float_from_bfloat16(unsigned short bits);

// Element `i` of the words that a fragment has, in the order of the specification (a0, a1, …).
inline float fragment_element(const unsigned* words, int i) {
#if defined(XPMLP_F32)
    return shim::from_slot<float>(words[i] & ~0x1fffu);
#else
    unsigned short bits = (unsigned short)(words[i / 2] >> 16 * (i % 2));
#if defined(XPMLP_F16)
    return float_from_half(bits);
#else
    return float_from_bfloat16(bits);
#endif
#endif
}

inline void tensor_multiply(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    const shim::Words* all = shim::everybodys({{a[0], a[1], a[2], a[3], b[0], b[1]}});
#if defined(XPMLP_F32)
    constexpr int K = 8, OF_A = 4, OF_B = 2;
#else
    constexpr int K = 16, OF_A = 8, OF_B = 4;
#endif
    float A_[16][K], B_[K][8];
    for (int lane = 0; lane < 32; lane++) {
        int group = lane >> 2, in_group = lane % 4;
        for (int i = 0; i < OF_A; i++) {
#if defined(XPMLP_F32)
            int row = i % 2 == 0 ? group : group + 8;       // a0, a2; a1, a3
            int column = i < 2 ? in_group : in_group + 4;   // a0, a1; a2, a3
#else
            int row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8;
            int column = in_group * 2 + (i & 1) + (i < 4 ? 0 : 8);
#endif
            A_[row][column] = fragment_element(all[lane].at, i);
        }
        for (int i = 0; i < OF_B; i++) {
#if defined(XPMLP_F32)
            int row = i == 0 ? in_group : in_group + 4;
#else
            int row = in_group * 2 + (i & 1) + (i < 2 ? 0 : 8);
#endif
            B_[row][group] = fragment_element(all[lane].at + 4, i);
        }
    }
    int lane = shim::current->number % 32, group = lane >> 2, in_group = lane % 4;
    for (int i = 0; i < 4; i++) {
        int row = i < 2 ? group : group + 8, column = in_group * 2 + (i & 1);
        for (int k = 0; k < K; k++) sums[i] += A_[row][k] * B_[k][column];
    }
}

#endif
