// The device itself, its modules and launches; what CuPy asks of libcuda and of the runtime's rest.
#include <Python.h>
#include <cuda_profiler_api.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "device.h"

static Hooks installed;
static std::map<std::string, long> counts;
static std::recursive_mutex lock;

API void pretend_install(const Hooks* given) { installed = *given; }

// When Python ends: arrays and graphs are still freed afterwards, and nobody listens any more.
API void pretend_end() {
    installed.graph = [](const char*, long) { return 0; };
    installed.complain = [](const char* what) { fprintf(stderr, "pretend GPU: %s\n", what); };
}

const Hooks& hooks() {
    if (!installed.load) {  // the first time that the device is used
        PyGILState_STATE state = PyGILState_Ensure();
        PyObject* module = PyImport_ImportModule("pretend_device.device");
        if (!module) PyErr_Print();
        if (!installed.load) abort();
        PyGILState_Release(state);
    }
    return installed;
}

void complain(const char* format, ...) {
    char text[400];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    hooks().complain(text);
}

long counted(const char* what) {
    std::lock_guard<std::recursive_mutex> held(lock);
    return counts[what]++;
}

API long pretend_count(const char* what) {
    std::lock_guard<std::recursive_mutex> held(lock);
    return counts[what];
}

static int attribute(int which) {
    switch (which) {
        case cudaDevAttrComputeCapabilityMajor: return 9;
        case cudaDevAttrComputeCapabilityMinor: return 0;
        case cudaDevAttrMultiProcessorCount: return 132;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: return 232448;
        case cudaDevAttrMaxSharedMemoryPerBlock: return 49152;
        case cudaDevAttrMaxThreadsPerBlock: return 1024;
        case cudaDevAttrWarpSize: return 32;
        case cudaDevAttrMaxBlockDimX: return 1024;
        case cudaDevAttrMaxGridDimX: return 2147483647;
        case cudaDevAttrMaxGridDimY: return 65535;
        case cudaDevAttrMaxGridDimZ: return 65535;
        default: return 1;
    }
}

API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
    *value = attribute(which);
    return cudaSuccess;
}

API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* about, int) {
    memset(about, 0, sizeof *about);
    strcpy(about->name, "Pretend GPU");
    size_t unused;
    cudaMemGetInfo(&unused, &about->totalGlobalMem);
    about->major = 9;
    about->warpSize = 32;
    about->maxThreadsPerBlock = 1024;
    about->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount);
    about->sharedMemPerBlock = attribute(cudaDevAttrMaxSharedMemoryPerBlock);
    about->sharedMemPerBlockOptin = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    about->maxGridSize[0] = attribute(cudaDevAttrMaxGridDimX);
    about->maxGridSize[1] = about->maxGridSize[2] = 65535;
    about->l2CacheSize = 50 << 20;
    return cudaSuccess;
}

API cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
API cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13020, cudaSuccess; }
API cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
API cudaError_t cudaSetDevice(int device) {
    return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}
API cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
API cudaError_t cudaDeviceGetByPCIBusId(int* device, const char*) {
    return *device = 0, cudaSuccess;
}
// Each process has a device of its own, also those that mpiexec has started together.
API cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int) {
    const char* rank = getenv("PMI_RANK");
    snprintf(text, size, "0000:%02x:00.0", rank ? atoi(rank) : 0);
    return cudaSuccess;
}
API cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 0, cudaSuccess; }
API cudaError_t cudaDeviceGetLimit(size_t* value, cudaLimit) { return *value = 0, cudaSuccess; }
API cudaError_t cudaGetLastError() { return cudaSuccess; }
API cudaError_t cudaProfilerStart() { return cudaSuccess; }
API cudaError_t cudaProfilerStop() { return cudaSuccess; }

// Names as CUDA has them, for those that this device returns.
API const char* cudaGetErrorName(cudaError_t error) {
    switch (error) {
#define NAMED(name) case name: return #name;
        NAMED(cudaSuccess)
        NAMED(cudaErrorInvalidValue)
        NAMED(cudaErrorInvalidDevice)
        NAMED(cudaErrorMemoryAllocation)
        NAMED(cudaErrorNotSupported)
        NAMED(cudaErrorIllegalState)
        NAMED(cudaErrorIllegalAddress)
        NAMED(cudaErrorCapturedEvent)
        NAMED(cudaErrorStreamCaptureUnsupported)
        NAMED(cudaErrorStreamCaptureInvalidated)
        NAMED(cudaErrorStreamCaptureImplicit)
        NAMED(cudaErrorStreamCaptureIsolation)
        NAMED(cudaErrorStreamCaptureMerge)
        NAMED(cudaErrorStreamCaptureUnmatched)
        NAMED(cudaErrorStreamCaptureUnjoined)
        default: return "cudaErrorUnknown";
    }
}

API const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory" : "as the pretend device says";
}

API CUresult cuGetErrorName(CUresult result, const char** name) {
    *name = result == CUDA_ERROR_INVALID_VALUE  ? "CUDA_ERROR_INVALID_VALUE"
            : result == CUDA_ERROR_NOT_FOUND    ? "CUDA_ERROR_NOT_FOUND"
            : result == CUDA_ERROR_INVALID_IMAGE ? "CUDA_ERROR_INVALID_IMAGE"
                                                 : cudaGetErrorName((cudaError_t)result);
    return CUDA_SUCCESS;
}

API CUresult cuGetErrorString(CUresult, const char** text) {
    *text = "as the pretend device says";
    return CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
API CUresult cuCtxGetCurrent(CUcontext* context) { return *context = (CUcontext)1, CUDA_SUCCESS; }
API CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
API CUresult cuCtxDestroy_v2(CUcontext) { return CUDA_SUCCESS; }
API CUresult cuCtxGetDevice(CUdevice* device) { return *device = 0, CUDA_SUCCESS; }
API CUresult cuStreamGetCtx(CUstream, CUcontext* context) {
    return *context = (CUcontext)1, CUDA_SUCCESS;
}

API CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    *module = (CUmodule)hooks().load(image);
    return *module ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}

API CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }

API CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    *function = (CUfunction)hooks().function((long)module, name);
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

API CUresult cuFuncGetAttribute(int* value, CUfunction_attribute which, CUfunction function) {
    *value = hooks().attribute((long)function, which, 0, 0);
    return CUDA_SUCCESS;
}

API CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value) {
    return (CUresult)hooks().attribute((long)function, which, value, 1);
}

API CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                            unsigned by, unsigned bz, unsigned shared, CUstream handle,
                            void** values, void**) {
    counted("launch");
    Stream* stream = stream_of(handle);
    if (!stream && any_recording(true)) {
        break_recordings();
        return (CUresult)cudaErrorStreamCaptureImplicit;
    }
    unsigned sizes[] = {gx, gy, gz, bx, by, bz};
    long graph = graph_of(handle);
    int result = hooks().launch((long)function, sizes, shared, values, graph);
    if (result && graph) stream->broken = true;
    return (CUresult)result;
}

API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction, int, size_t) {
    return *blocks = 2, CUDA_SUCCESS;
}

API CUresult cuOccupancyMaxPotentialBlockSize(int* grid, int* block, CUfunction, CUoccupancyB2DSize,
                                              size_t, int) {
    return *grid = 132, *block = 256, CUDA_SUCCESS;
}

extern "C" void pretend_unsupported(const char* name) { complain("%s was called", name); }
