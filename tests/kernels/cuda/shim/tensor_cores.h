// The tensor cores' instruction as the PTX ISA defines it ("Matrix Fragments for mma.m16n8k8" with
// .tf32, and for mma.m16n8k16 with .f16 and .bf16). Included by shim.h.
//
// Each lane gives the words that it holds; the two matrices are put together from everybody's, by the
// tables of the specification, and multiplied plainly.
#ifndef TENSOR_CORES_H
#define TENSOR_CORES_H

inline float float_from_half(unsigned short bits);
inline float float_from_bfloat16(unsigned short bits);

// Element `i` of the words that a fragment has, in the order of the specification (a0, a1, …), for
// operands of TF32 (KIND 0), float16 (1), bfloat16 (2).
template <int KIND>
float fragment_element(const unsigned* words, int i) {
    if (KIND == 0) return shim::from_slot<float>(words[i] & ~0x1fffu);
    unsigned short bits = (unsigned short)(words[i / 2] >> 16 * (i % 2));
    return KIND == 1 ? float_from_half(bits) : float_from_bfloat16(bits);
}

template <int KIND>
void tensor_multiply(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    const shim::Words* all = shim::everybodys({{a[0], a[1], a[2], a[3], b[0], b[1]}});
    constexpr int K = KIND == 0 ? 8 : 16, OF_A = K / 2, OF_B = K / 4;
    float left[16][K], right[K][8];
    for (int lane = 0; lane < 32; lane++) {
        int group = lane >> 2, in_group = lane % 4;
        for (int i = 0; i < OF_A; i++) {
            int row, column;
            if (KIND == 0) {
                row = i == 0 || i == 2 ? group : group + 8;
                column = i == 0 || i == 1 ? in_group : in_group + 4;
            } else {
                row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8;
                column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
            }
            left[row][column] = fragment_element<KIND>(all[lane].at, i);
        }
        for (int i = 0; i < OF_B; i++) {
            int row = KIND == 0 ? in_group + (i == 1 ? 4 : 0)
                                : in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0);
            right[row][group] = fragment_element<KIND>(all[lane].at + 4, i);
        }
    }
    int lane = shim::current->number % 32, group = lane >> 2, in_group = lane % 4;
    for (int i = 0; i < 4; i++) {
        int row = i < 2 ? group : group + 8, column = in_group * 2 + (i & 1);
        for (int k = 0; k < K; k++) sums[i] += left[row][k] * right[k][column];
    }
}

#endif
