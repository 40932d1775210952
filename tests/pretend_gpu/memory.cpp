// Device memory: an address is used once. What was freed cannot be read or written any more, by
// anyone, and neither can the page after an array: a kernel that does ends with the address.
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "device.h"

namespace {

constexpr size_t PAGE = 4096, ALIGNED = 256, ROOM = (size_t)16 << 40;
constexpr unsigned char FENCE = 0xA5;
constexpr size_t POISONED = (size_t)64 << 20;  // new memory is NaN bits, up to so many bytes

std::recursive_mutex lock;
std::map<uintptr_t, size_t> arrays;
std::map<void*, size_t> pinned;
size_t used, total = (size_t)8 << 30;
uintptr_t room, next_page;

size_t whole_pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }
size_t aligned(size_t bytes) { return (bytes + ALIGNED - 1) / ALIGNED * ALIGNED; }

// The array that an address lies in, or the end.
std::map<uintptr_t, size_t>::iterator array_at(uintptr_t address) {
    auto after = arrays.upper_bound(address);
    if (after == arrays.begin()) return arrays.end();
    auto found = std::prev(after);
    return address < found->first + std::max<size_t>(found->second, 1) ? found : arrays.end();
}

}  // namespace

bool on_device(const void* address, size_t bytes) {
    std::lock_guard<std::recursive_mutex> held(lock);
    auto found = array_at((uintptr_t)address);
    return found != arrays.end() && (uintptr_t)address + bytes <= found->first + found->second;
}

API int pretend_on_device(const void* address, size_t bytes) { return on_device(address, bytes); }
API void pretend_total(size_t bytes) { total = bytes; }

API cudaError_t cudaMalloc(void** pointer, size_t bytes) {
    std::lock_guard<std::recursive_mutex> held(lock);
    counted("cudaMalloc");
    if (global_recording()) {
        break_recordings();
        return cudaErrorStreamCaptureUnsupported;
    }
    if (bytes > total || used + bytes > total) return cudaErrorMemoryAllocation;
    if (!room) {
        void* made = mmap(nullptr, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                          -1, 0);
        if (made == MAP_FAILED) return cudaErrorMemoryAllocation;
        next_page = room = (uintptr_t)made;
    }
    size_t pages = whole_pages(aligned(bytes));
    if (next_page + pages + PAGE > room + ROOM) {
        complain("the room for addresses is used up");
        return cudaErrorMemoryAllocation;
    }
    if (mprotect((void*)next_page, pages, PROT_READ | PROT_WRITE)) return cudaErrorMemoryAllocation;
    // As near to the page that may not be touched as its alignment lets it.
    uintptr_t start = next_page + pages - aligned(bytes);
    memset((void*)next_page, FENCE, start - next_page);
    memset((void*)start, 0xFF, std::min(bytes, POISONED));
    memset((void*)(start + bytes), FENCE, next_page + pages - start - bytes);
    next_page += pages + PAGE;
    arrays[start] = bytes;
    used += bytes;
    *pointer = (void*)start;
    return cudaSuccess;
}

API cudaError_t cudaFree(void* pointer) {
    std::lock_guard<std::recursive_mutex> held(lock);
    if (!pointer) return cudaSuccess;
    counted("cudaFree");
    auto found = arrays.find((uintptr_t)pointer);
    if (found == arrays.end()) {
        complain("cudaFree of %p, which is not allocated", pointer);
        return cudaErrorInvalidValue;
    }
    uintptr_t start = found->first, first = start / PAGE * PAGE;
    size_t bytes = found->second;
    uintptr_t end = first + whole_pages(aligned(bytes));
    for (uintptr_t at = first; at < end; at++)
        if ((at < start || at >= start + bytes) && *(unsigned char*)at != FENCE) {
            complain("an array of %zu bytes: something was written %s it", bytes,
                     at < start ? "before" : "behind");
            break;
        }
    // Mapped anew and not only protected: what had pages does not join its neighbours, and a process
    // may have 65,530 mappings.
    mmap((void*)first, end - first, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    used -= bytes;
    arrays.erase(found);
    return cudaSuccess;
}

API cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
    std::lock_guard<std::recursive_mutex> held(lock);
    *pointer = aligned_alloc(PAGE, whole_pages(bytes ? bytes : 1));
    pinned[*pointer] = bytes;
    return cudaSuccess;
}

API cudaError_t cudaFreeHost(void* pointer) {
    std::lock_guard<std::recursive_mutex> held(lock);
    pinned.erase(pointer);
    free(pointer);
    return cudaSuccess;
}

API cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* all) {
    *free_bytes = total - used;
    *all = total;
    return cudaSuccess;
}

API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* about, const void* pointer) {
    memset(about, 0, sizeof *about);
    about->type = cudaMemoryTypeUnregistered;
    if (on_device(pointer, 1)) {
        about->type = cudaMemoryTypeDevice;
        about->devicePointer = const_cast<void*>(pointer);
    }
    return cudaSuccess;
}

static cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, bool waits,
                        cudaStream_t handle) {
    if (!bytes) return cudaSuccess;
    const char* names[] = {"host to host", "host to device", "device to host", "device to device",
                           "default"};
    counted(names[kind]);
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind != cudaMemcpyDefault &&
        (on_device(to, bytes) != to_device || on_device(from, bytes) != from_device)) {
        complain("a copy of %zu bytes %s, but %p or %p is not there", bytes, names[kind], to, from);
        return cudaErrorInvalidValue;
    }
    Stream* stream = stream_of(handle);
    if (stream && stream->graph) {
        if (waits) return stream->broken = true, cudaErrorStreamCaptureUnsupported;
        return (cudaError_t)hooks().copy(graph_of(handle), to, from, bytes);
    }
    if (!stream && any_recording(true)) return break_recordings(), cudaErrorStreamCaptureImplicit;
    memmove(to, from, bytes);
    return cudaSuccess;
}

API cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    return copy(to, from, bytes, kind, true, nullptr);
}

API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                                cudaStream_t stream) {
    return copy(to, from, bytes, kind, false, stream);
}

API cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t handle) {
    counted("fill");
    if (!bytes) return cudaSuccess;
    if (!on_device(to, bytes)) {
        complain("a fill of %zu bytes at %p, which is not on the device", bytes, to);
        return cudaErrorInvalidValue;
    }
    if (long graph = graph_of(handle)) return (cudaError_t)hooks().fill(graph, to, value, bytes);
    memset(to, value, bytes);
    return cudaSuccess;
}

API cudaError_t cudaMemset(void* to, int value, size_t bytes) {
    return cudaMemsetAsync(to, value, bytes, nullptr);
}
