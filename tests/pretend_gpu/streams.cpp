// Streams, events and the recording of graphs. All work is done at once, in the order it is given;
// what may not happen while a stream records is refused as CUDA refuses it.
#include <cstdlib>
#include <ctime>
#include <map>
#include <mutex>

#include "device.h"

namespace {

struct Event {
    double seconds = 0;
    long graph = 0;         // it was recorded into, if any
    Stream* stream = nullptr;
};

std::recursive_mutex lock;
std::map<const void*, Stream*> streams;
long graphs = 1000;

double now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

}  // namespace

Stream* stream_of(const void* handle) {
    std::lock_guard<std::recursive_mutex> held(lock);
    auto found = streams.find(handle);
    if (found != streams.end()) return found->second;
    if ((size_t)handle > 2) complain("stream %p does not exist any more", handle);
    return nullptr;
}

long graph_of(const void* handle) {
    Stream* stream = stream_of(handle);
    if (!stream || !stream->graph) return 0;
    stream->joined = stream->origin;  // whoever asks has work for it
    return stream->graph;
}

bool any_recording(bool blocking_only) {
    std::lock_guard<std::recursive_mutex> held(lock);
    for (auto& [handle, stream] : streams)
        if (stream->graph && (stream->blocking || !blocking_only)) return true;
    return false;
}

bool global_recording() {
    std::lock_guard<std::recursive_mutex> held(lock);
    for (auto& [handle, stream] : streams)
        if (stream->graph && stream->mode == cudaStreamCaptureModeGlobal) return true;
    return false;
}

void break_recordings() {
    std::lock_guard<std::recursive_mutex> held(lock);
    for (auto& [handle, stream] : streams)
        if (stream->graph) stream->broken = true;
}

API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* handle, unsigned flags, int) {
    std::lock_guard<std::recursive_mutex> held(lock);
    Stream* made = new Stream{flags != cudaStreamNonBlocking, 0, false, true, false, 0};
    streams[made] = made;
    *handle = (cudaStream_t)made;
    return cudaSuccess;
}

API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned flags) {
    return cudaStreamCreateWithPriority(handle, flags, 0);
}

API cudaError_t cudaStreamCreate(cudaStream_t* handle) {
    return cudaStreamCreateWithPriority(handle, cudaStreamDefault, 0);
}

API cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    std::lock_guard<std::recursive_mutex> held(lock);
    streams.erase(handle);  // its memory stays: no other stream may get the same address
    return cudaSuccess;
}

API cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
    Stream* stream = stream_of(handle);
    *flags = stream && !stream->blocking ? cudaStreamNonBlocking : cudaStreamDefault;
    return cudaSuccess;
}

API cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
    *priority = 0;
    return cudaSuccess;
}

// Waiting for a stream that records, or for something that it is a part of, ends the recording.
static cudaError_t wait_for(const void* handle) {
    Stream* stream = stream_of(handle);
    if (stream && stream->graph) return stream->broken = true, cudaErrorStreamCaptureUnsupported;
    if (!stream && any_recording(true)) return break_recordings(), cudaErrorStreamCaptureImplicit;
    return cudaSuccess;
}

API cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    counted("wait");
    return wait_for(handle);
}

API cudaError_t cudaStreamQuery(cudaStream_t handle) { return wait_for(handle); }

API cudaError_t cudaDeviceSynchronize() {
    counted("wait");
    if (!any_recording(false)) return cudaSuccess;
    break_recordings();
    return cudaErrorStreamCaptureUnsupported;
}

API cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
    Stream* stream = stream_of(handle);
    if (!stream) return cudaErrorStreamCaptureUnsupported;
    if (stream->graph) return cudaErrorIllegalState;
    *stream = {stream->blocking, ++graphs, true, true, false, mode};
    return (cudaError_t)hooks().graph("begin", stream->graph);
}

API cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
    std::lock_guard<std::recursive_mutex> held(lock);
    Stream* origin = stream_of(handle);
    *graph = nullptr;
    if (!origin || !origin->graph) return cudaErrorIllegalState;
    if (!origin->origin) return cudaErrorStreamCaptureUnmatched;
    bool broken = false, joined = true;
    long number = origin->graph;
    for (auto& [other, stream] : streams) {
        if (stream->graph != number) continue;
        broken |= stream->broken;
        joined &= stream->joined;
        stream->graph = 0;
    }
    if (broken) return cudaErrorStreamCaptureInvalidated;
    if (!joined) return cudaErrorStreamCaptureUnjoined;
    *graph = (cudaGraph_t)number;
    return cudaSuccess;
}

API cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
    Stream* stream = stream_of(handle);
    *status = cudaStreamCaptureStatusNone;
    if (!stream && any_recording(true)) return cudaErrorStreamCaptureImplicit;
    if (stream && stream->graph)
        *status = stream->broken ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = (cudaEvent_t) new Event;
    return cudaSuccess;
}

API cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }

API cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete (Event*)event;
    return cudaSuccess;
}

API cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t on) {
    Stream* stream = stream_of(on);
    *(Event*)handle = {now(), stream ? stream->graph : 0, stream};
    return cudaSuccess;
}

// A stream that waits for an event of a recording takes part in it from then on. The recording may
// end only when for all that these streams did there is another stream that waits for it.
API cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
    std::lock_guard<std::recursive_mutex> held(lock);
    Stream* stream = stream_of(handle);
    const Event& recorded = *(Event*)event;
    if (!recorded.graph) {
        if (stream && stream->graph && recorded.seconds)
            return stream->broken = true, cudaErrorStreamCaptureIsolation;
        return cudaSuccess;
    }
    if (!stream) return cudaErrorStreamCaptureImplicit;
    if (!stream->graph) {
        *stream = {stream->blocking, recorded.graph, false, false, false, recorded.stream->mode};
    } else if (stream->graph != recorded.graph) {
        return stream->broken = true, cudaErrorStreamCaptureMerge;
    }
    if (recorded.stream != stream) {
        recorded.stream->joined = true;
        stream->joined = stream->origin;
    }
    return cudaSuccess;
}

static cudaError_t ask(cudaEvent_t event) {
    if (!((Event*)event)->graph) return cudaSuccess;
    break_recordings();
    return cudaErrorCapturedEvent;
}

API cudaError_t cudaEventQuery(cudaEvent_t event) { return ask(event); }

API cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    counted("wait");
    return ask(event);
}

API cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    *milliseconds = 1e3 * (((Event*)end)->seconds - ((Event*)begin)->seconds);
    return cudaSuccess;
}

API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
    *made = (cudaGraphExec_t)graph;
    return cudaSuccess;
}

API cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t stream) {
    return graph_of(stream) ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

API cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    counted("graph launch");
    if (graph_of(stream)) return cudaErrorStreamCaptureUnsupported;
    return (cudaError_t)hooks().graph("run", (long)graph);
}

// CuPy's graph owns both: they go together.
API cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    return (cudaError_t)hooks().graph("forget", (long)graph);
}

API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }
