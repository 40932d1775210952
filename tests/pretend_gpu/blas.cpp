// cuBLAS's entry points that CuPy and xpmlp call. Sizes, types and addresses go to products.py, which
// checks and multiplies. The others are missing, and CuPy says so when one is called.
#include <cstddef>

#include "device.h"

namespace {

struct Handle {
    void* stream = nullptr;
    void* workspace = nullptr;
    int pointer_mode = 0, math_mode = 0;
};

enum Type { FLOAT = 0, DOUBLE = 1 };
enum Compute { COMPUTE_32F = 68, COMPUTE_64F = 70 };
enum Algorithm { OF_A_TYPE = -2 };  // for sgemm and the like, which have none

struct Matrix {
    const void* at;
    int type, stride;   // elements from column to column
    long long next;     // elements from matrix to matrix
};

int multiply(void* handle, int transposed_a, int transposed_b, int m, int n, int k,
             const void* alpha, Matrix a, Matrix b, const void* beta, Matrix c, int count,
             int compute, int algorithm) {
    Handle* own = (Handle*)handle;
    counted("product");
    const long numbers[] = {
        transposed_a, transposed_b, m, n, k, count, compute, algorithm, graph_of(own->stream),
        (long)own->workspace, own->pointer_mode,
        (long)a.at, a.type, a.stride, (long)a.next,
        (long)b.at, b.type, b.stride, (long)b.next,
        (long)c.at, c.type, c.stride, (long)c.next};
    return hooks().product(numbers, alpha, beta);
}

template <class T>
int by_vector(void* handle, int transposed, int m, int n, const T* alpha, const T* a, int stride,
              const T* x, int x_step, const T* beta, T* y, int y_step) {
    // Column vectors whose elements lie a step apart: matrices of one row.
    int type = sizeof(T) == 8 ? DOUBLE : FLOAT, compute = sizeof(T) == 8 ? COMPUTE_64F : COMPUTE_32F;
    int rows = transposed ? n : m, depth = transposed ? m : n;
    return multiply(handle, 0, !transposed, 1, rows, depth, alpha, {x, type, x_step, 0},
                    {a, type, stride, 0}, beta, {y, type, y_step, 0}, 1, compute, OF_A_TYPE);
}

}  // namespace

API int cublasCreate_v2(void** handle) { return *handle = new Handle, 0; }
API int cublasDestroy_v2(void* handle) { return delete (Handle*)handle, 0; }
API int cublasGetVersion_v2(void*, int* version) { return *version = 130002, 0; }

API int cublasSetStream_v2(void* handle, void* stream) {
    ((Handle*)handle)->stream = stream;
    ((Handle*)handle)->workspace = nullptr;  // as cuBLAS does: the workspace belongs to a stream
    return 0;
}
API int cublasGetStream_v2(void* handle, void** stream) {
    return *stream = ((Handle*)handle)->stream, 0;
}
API int cublasSetPointerMode_v2(void* handle, int mode) {
    return ((Handle*)handle)->pointer_mode = mode, 0;
}
API int cublasGetPointerMode_v2(void* handle, int* mode) {
    return *mode = ((Handle*)handle)->pointer_mode, 0;
}
API int cublasSetMathMode(void* handle, int mode) { return ((Handle*)handle)->math_mode = mode, 0; }
API int cublasGetMathMode(void* handle, int* mode) { return *mode = ((Handle*)handle)->math_mode, 0; }

API int cublasSetWorkspace_v2(void* handle, void* workspace, size_t bytes) {
    if ((size_t)workspace % 256 || (bytes && !on_device(workspace, bytes))) {
        complain("cublasSetWorkspace: %zu bytes at %p", bytes, workspace);
        return 7;  // CUBLAS_STATUS_INVALID_VALUE
    }
    ((Handle*)handle)->workspace = workspace;
    return 0;
}

API int cublasGemmStridedBatchedEx(void* handle, int ta, int tb, int m, int n, int k,
                                   const void* alpha, const void* a, int a_type, int a_stride,
                                   long long a_next, const void* b, int b_type, int b_stride,
                                   long long b_next, const void* beta, void* c, int c_type,
                                   int c_stride, long long c_next, int count, int compute,
                                   int algorithm) {
    return multiply(handle, ta, tb, m, n, k, alpha, {a, a_type, a_stride, a_next},
                    {b, b_type, b_stride, b_next}, beta, {c, c_type, c_stride, c_next}, count,
                    compute, algorithm);
}

API int cublasGemmEx(void* handle, int ta, int tb, int m, int n, int k, const void* alpha,
                     const void* a, int a_type, int a_stride, const void* b, int b_type,
                     int b_stride, const void* beta, void* c, int c_type, int c_stride, int compute,
                     int algorithm) {
    return multiply(handle, ta, tb, m, n, k, alpha, {a, a_type, a_stride, 0},
                    {b, b_type, b_stride, 0}, beta, {c, c_type, c_stride, 0}, 1, compute,
                    algorithm);
}

#define OF_TYPE(letter, T, type, compute)                                                         \
    API int cublas##letter##gemm_v2(void* handle, int ta, int tb, int m, int n, int k,            \
                                    const T* alpha, const T* a, int a_stride, const T* b,         \
                                    int b_stride, const T* beta, T* c, int c_stride) {            \
        return multiply(handle, ta, tb, m, n, k, alpha, {a, type, a_stride, 0},                   \
                        {b, type, b_stride, 0}, beta, {c, type, c_stride, 0}, 1, compute,         \
                        OF_A_TYPE);                                                               \
    }                                                                                             \
    API int cublas##letter##gemmStridedBatched(                                                   \
        void* handle, int ta, int tb, int m, int n, int k, const T* alpha, const T* a,            \
        int a_stride, long long a_next, const T* b, int b_stride, long long b_next,               \
        const T* beta, T* c, int c_stride, long long c_next, int count) {                         \
        return multiply(handle, ta, tb, m, n, k, alpha, {a, type, a_stride, a_next},              \
                        {b, type, b_stride, b_next}, beta, {c, type, c_stride, c_next}, count,    \
                        compute, OF_A_TYPE);                                                      \
    }                                                                                             \
    API int cublas##letter##gemmBatched(void* handle, int ta, int tb, int m, int n, int k,        \
                                        const T* alpha, const T* const* a, int a_stride,          \
                                        const T* const* b, int b_stride, const T* beta,           \
                                        T* const* c, int c_stride, int count) {                   \
        int result = 0;                                                                           \
        for (int i = 0; i < count && !result; i++)                                                \
            result = cublas##letter##gemm_v2(handle, ta, tb, m, n, k, alpha, a[i], a_stride,      \
                                             b[i], b_stride, beta, c[i], c_stride);               \
        return result;                                                                            \
    }                                                                                             \
    API int cublas##letter##gemv_v2(void* handle, int transposed, int m, int n, const T* alpha,   \
                                    const T* a, int stride, const T* x, int x_step,               \
                                    const T* beta, T* y, int y_step) {                            \
        return by_vector(handle, transposed, m, n, alpha, a, stride, x, x_step, beta, y, y_step); \
    }

OF_TYPE(S, float, FLOAT, COMPUTE_32F)
OF_TYPE(D, double, DOUBLE, COMPUTE_64F)
