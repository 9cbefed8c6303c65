// CUDA's runtime, driver and NVRTC as far as CuPy calls them, on devices whose memory is the
// host's.
//
// A stream keeps its work and does it as late as it may: when somebody waits for it. So what reads
// memory without waiting for the work that fills it sees the memory as it was before, every time.
// MADE_UP_SCHEDULE=soon does all work at once instead, and drawn:7 some of it, drawn with seed 7.
//
// What CUDA refuses is refused with CUDA's number of the error, and noted: a wait, memory or the
// loading of a module in a capture; a copy of pageable memory in a capture, or one beyond an
// allocation; a stream, a kernel or memory of another device; grids and blocks beyond the limits;
// addresses that a type's alignment does not allow. In two points it is stricter: a capture finds
// no memory in any mode, and a kernel is not given another device's memory, though a peer's could
// be.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

enum Status {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    NO_MEMORY = 2,
    INVALID_CONFIGURATION = 9,
    INVALID_DEVICE = 101,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILURE = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906,
};

const int devices = 2;
const size_t memory_of_a_device = 8ull << 30;
const int most_threads = 1024;

typedef std::function<void()> Work;
struct Stream;

// That a stream has done so many pieces of work.
struct Point {
    Stream *stream = nullptr;
    long long count = 0;
};

struct Capture {
    std::vector<Work> nodes;
    std::vector<Stream *> streams;
    Stream *origin = nullptr;
    bool invalid = false;
};

struct Piece {
    std::vector<Point> after;
    Work work;
};

struct Stream {
    int device = 0;
    bool blocking = true;
    bool legacy = false;
    std::deque<Piece> pieces;
    long long done = 0;
    std::vector<Point> awaited;  // by the next piece
    std::shared_ptr<Capture> capture;
    long long given() const { return done + (long long)pieces.size(); }
};

struct Event {
    int device = 0;
    Point point;
    std::weak_ptr<Capture> capture;
    bool captured = false;
    std::shared_ptr<double> milliseconds = std::make_shared<double>(0);
};

struct Graph {
    std::vector<Work> nodes;
};

struct Block {
    size_t bytes;
    int device;
};

struct Module {
    std::string text;
    int device;
};

typedef int (*run_t)(long long, int, void **);  // 0 if its threads came to their end

struct Function {
    std::string name;
    int device;
    run_t run;
    std::vector<size_t> bytes;
    std::vector<int> is_pointer;
};

struct Program {
    std::string text;
};

// Never destroyed: modules of Python may call when the process ends.
struct State {
    std::recursive_mutex mutex;
    std::map<const char *, Block> allocated, pinned;
    size_t used[devices] = {};
    std::vector<Stream *> streams;
    Stream legacy[devices], per_thread[devices];
    int captures = 0;
    Status pending = SUCCESS;  // an error of work that was done later
    Status last = SUCCESS;
    std::map<std::string, long long> notes, calls;
    bool soon = false, drawn = false;
    std::mt19937 random;
    std::map<std::string, Function> functions;
};

State &made() {
    static State *state = [] {
        State *s = new State;
        for (int d = 0; d < devices; ++d) {
            s->legacy[d].device = s->per_thread[d].device = d;
            s->legacy[d].legacy = true;
            s->streams.push_back(&s->legacy[d]);
            s->streams.push_back(&s->per_thread[d]);
        }
        const char *schedule = getenv("MADE_UP_SCHEDULE");
        const std::string chosen = schedule ? schedule : "late";
        s->soon = chosen == "soon";
        s->drawn = chosen.rfind("drawn:", 0) == 0;
        if (s->drawn) {
            s->random.seed((unsigned)atoi(chosen.c_str() + 6));
        } else if (!s->soon && chosen != "late") {
            fprintf(stderr, "MADE_UP_SCHEDULE is late, soon or drawn:SEED, not %s\n", schedule);
            abort();
        }
        return s;
    }();
    return *state;
}

thread_local int current = 0;

struct Call {
    std::lock_guard<std::recursive_mutex> lock;
    Call(const char *name) : lock(made().mutex) { ++made().calls[name]; }
};
#define CALL Call call(__func__)
#define EXPORT extern "C" __attribute__((visibility("default")))

// With the test that runs, which pytest has put among the variables.
void note(const std::string &text) {
    const char *test = getenv("PYTEST_CURRENT_TEST");
    const std::string name = test ? test : "";
    ++made().notes[text + (test ? " in " + name.substr(0, name.find(' ')) : "")];
}

Status refuse(Status status, const std::string &why) {
    note("refused with " + std::to_string(status) + ": " + why);
    made().last = status;
    return status;
}

Stream *stream_of(void *handle) {
    if ((size_t)handle <= 1) {
        return &made().legacy[current];
    }
    return (size_t)handle == 2 ? &made().per_thread[current] : (Stream *)handle;
}

// ---- work

void finish(Stream *stream, long long count) {
    while (stream->done < count && !stream->pieces.empty()) {
        const std::vector<Point> after = stream->pieces.front().after;
        for (const Point &point : after) {
            finish(point.stream, point.count);
        }
        if (stream->done >= count) {
            return;
        }
        Work work = std::move(stream->pieces.front().work);
        stream->pieces.pop_front();
        ++stream->done;
        work();
    }
}

void finish_device(int device) {
    for (size_t k = 0; k < made().streams.size(); ++k) {
        Stream *stream = made().streams[k];
        if (stream->device == device) {
            finish(stream, stream->given());
        }
    }
}

void some_work() {
    State &state = made();
    while (state.random() % 2) {
        Stream *stream = state.streams[state.random() % state.streams.size()];
        finish(stream, stream->done + 1);
    }
}

// An error that is returned by whatever waits next.
Status waited() {
    const Status status = made().pending;
    made().pending = SUCCESS;
    if (status) {
        made().last = status;
    }
    return status;
}

bool blocking_capture(int device) {
    for (Stream *stream : made().streams) {
        if (stream->capture && stream->blocking && stream->device == device) {
            return true;
        }
    }
    return false;
}

void invalidate(int device) {
    for (Stream *stream : made().streams) {
        if (stream->capture && stream->device == device) {
            stream->capture->invalid = true;
        }
    }
}

// May a call give work to this stream? The null stream waits for blocking ones, which no capture
// may.
Status open(Stream *stream, const char *what) {
    if (stream->capture && stream->capture->invalid) {
        return refuse(CAPTURE_INVALIDATED, std::string(what) + " in a capture that has failed");
    }
    if (stream->legacy && blocking_capture(stream->device)) {
        invalidate(stream->device);
        return refuse(
            CAPTURE_IMPLICIT,
            std::string(what) + " on the null stream while a blocking stream captures"
        );
    }
    return SUCCESS;
}

void give(Stream *stream, Work work) {
    if (stream->capture) {
        stream->capture->nodes.push_back(std::move(work));
        return;
    }
    std::vector<Point> after;
    after.swap(stream->awaited);
    if (stream->legacy) {
        for (Stream *other : made().streams) {
            if (other->blocking && other->device == stream->device && other != stream) {
                after.push_back({other, other->given()});
            }
        }
    } else if (stream->blocking) {
        Stream *legacy = &made().legacy[stream->device];
        after.push_back({legacy, legacy->given()});
    }
    stream->pieces.push_back({std::move(after), std::move(work)});
    if (made().soon) {
        finish(stream, stream->given());
    } else if (made().drawn) {
        some_work();
    }
}

Status not_captured(const char *what) {
    if (!made().captures) {
        return SUCCESS;
    }
    for (int d = 0; d < devices; ++d) {
        invalidate(d);
    }
    return refuse(CAPTURE_UNSUPPORTED, std::string(what) + " in a capture");
}

Status wait_for(Stream *stream, const char *what) {
    if (stream->capture) {
        stream->capture->invalid = true;
        return refuse(CAPTURE_UNSUPPORTED, std::string(what) + " of a stream that captures");
    }
    if (Status status = open(stream, what)) {
        return status;
    }
    if (stream->legacy) {
        give(stream, [] {});  // which waits for the blocking streams
    }
    finish(stream, stream->given());
    return waited();
}

// ---- memory

typedef std::map<const char *, Block> Blocks;

const Blocks::value_type *block_of(const Blocks &blocks, const void *address) {
    auto after = blocks.upper_bound((const char *)address);
    if (after == blocks.begin()) {
        return nullptr;
    }
    const Blocks::value_type &block = *--after;
    return (const char *)address < block.first + block.second.bytes ? &block : nullptr;
}

// Is this memory of a device? If a copy leaves it, that is refused.
Status on_device(const void *address, size_t bytes, const char *what, bool &yes) {
    const auto *block = block_of(made().allocated, address);
    yes = block != nullptr;
    if (block && (const char *)address + bytes > block->first + block->second.bytes) {
        return refuse(INVALID_VALUE, std::string(what) + " beyond an allocation");
    }
    if (block && block->second.device != current) {
        note(std::string(what) + " of memory of a device that is not current");
    }
    return SUCCESS;
}

Status copy(void *to, const void *from, size_t bytes, int kind, Stream *stream, bool waits) {
    if (!bytes) {
        return SUCCESS;
    }
    bool to_device, from_device;
    if (Status status = on_device(to, bytes, "a copy to", to_device)) {
        return status;
    }
    if (Status status = on_device(from, bytes, "a copy from", from_device)) {
        return status;
    }
    if (kind != 4 && kind != 2 * from_device + to_device) {
        return refuse(
            INVALID_VALUE,
            "a copy of kind " + std::to_string(kind) + " whose addresses are of kind "
                + std::to_string(2 * from_device + to_device)
        );
    }
    if (Status status = open(stream, "a copy")) {
        return status;
    }
    const void *host = to_device ? from : to;
    const bool pageable = !(from_device && to_device) && !block_of(made().pinned, host);
    if (stream->capture && (pageable || waits)) {
        stream->capture->invalid = true;
        return refuse(CAPTURE_UNSUPPORTED, "a copy of pageable memory in a capture");
    }
    if (pageable && to_device) {
        // CUDA returns when it has read pageable memory, whenever the device may get it.
        auto bytes_read = std::make_shared<std::string>((const char *)from, bytes);
        give(stream, [=] { memcpy(to, bytes_read->data(), bytes); });
    } else {
        give(stream, [=] { memmove(to, from, bytes); });
    }
    // Copies within a device do not wait, even where the call is the synchronous one.
    if ((waits && !(from_device && to_device)) || (pageable && !to_device)) {
        finish(stream, stream->given());
        return waited();
    }
    return SUCCESS;
}

Status fill(void *to, int value, size_t bytes, Stream *stream) {
    bool device;
    if (Status status = on_device(to, bytes, "a fill", device)) {
        return status;
    }
    if (Status status = open(stream, "a fill")) {
        return status;
    }
    if (bytes) {
        give(stream, [=] { memset(to, value, bytes); });
    }
    return SUCCESS;
}

// ---- kernels

typedef int (*compile_t)(const char *text, const char *name, char *path, int bytes);
compile_t compile = nullptr;

// What arguments point to is of this device. Text without its own types of arguments: no check.
Status pointers(const Function &function, const std::vector<std::string> &values) {
    for (size_t k = 0; k < values.size(); ++k) {
        if (function.is_pointer[k]) {
            const void *address;
            memcpy(&address, values[k].data(), sizeof address);
            const auto *block = block_of(made().allocated, address);
            if (block && block->second.device != function.device) {
                return refuse(ILLEGAL_ADDRESS, function.name + " reads memory of another device");
            }
        }
    }
    return SUCCESS;
}

}  // namespace

// Compiled kernels call this before an access that the type's alignment does not allow.
EXPORT void __ubsan_handle_type_mismatch_v1(void *, uintptr_t) {
    note("refused with 716: a misaligned address");
    made().pending = MISALIGNED_ADDRESS;
}

// ---- for the tests

EXPORT void made_up_compiler(compile_t function) { compile = function; }

// The notes, a line each with how often, and then the calls.
EXPORT int made_up_report(char *text, int bytes) {
    std::lock_guard<std::recursive_mutex> lock(made().mutex);
    std::string all;
    for (const auto &entry : made().notes) {
        all += entry.first + " (" + std::to_string(entry.second) + ")\n";
    }
    all += "--\n";
    for (const auto &entry : made().calls) {
        all += entry.first + " " + std::to_string(entry.second) + "\n";
    }
    snprintf(text, bytes, "%s", all.c_str());
    return (int)all.size();
}

namespace {

// NaN comes last, as it does for NumPy and Thrust.
template <class T> bool before(const T &a, const T &b) { return a < b || (a == a && b != b); }

template <class T> void sort_rows(void *data, long long *positions, long long rows, long long n) {
    for (long long r = 0; r < rows; ++r) {
        T *row = (T *)data + r * n;
        if (!positions) {
            std::stable_sort(row, row + n, before<T>);
            continue;
        }
        long long *order = positions + r * n;
        for (long long k = 0; k < n; ++k) {
            order[k] = k;
        }
        const std::vector<T> old(row, row + n);
        std::stable_sort(order, order + n, [&](long long a, long long b) {
            return before(old[a], old[b]);
        });
        for (long long k = 0; k < n; ++k) {
            row[k] = old[order[k]];
        }
    }
}

typedef void (*sort_t)(void *, long long *, long long, long long);
const std::map<std::string, sort_t> sorts = {
    {"|b1", sort_rows<bool>},     {"|i1", sort_rows<int8_t>},   {"|u1", sort_rows<uint8_t>},
    {"<i2", sort_rows<int16_t>},  {"<u2", sort_rows<uint16_t>}, {"<i4", sort_rows<int32_t>},
    {"<u4", sort_rows<uint32_t>}, {"<i8", sort_rows<int64_t>},  {"<u8", sort_rows<uint64_t>},
    {"<f4", sort_rows<float>},    {"<f8", sort_rows<double>},
};

}  // namespace

// Thrust's sort of rows in place, with the positions that they had if asked for.
EXPORT int made_up_sort(
    const char *type, void *data, long long *positions, long long rows, long long n, void *handle
) {
    CALL;
    Stream *stream = stream_of(handle);
    const auto found = sorts.find(type);
    if (found == sorts.end()) {
        return refuse(NOT_SUPPORTED, std::string("a sort of ") + type);
    }
    if (Status status = open(stream, "a sort")) {
        return status;
    }
    const sort_t sort = found->second;
    give(stream, [=] { sort(data, positions, rows, n); });
    return SUCCESS;
}

// ---- errors, versions, devices

EXPORT const char *cudaGetErrorName(int status) {
    static const std::map<int, const char *> names = {
        {SUCCESS, "cudaSuccess"},
        {INVALID_VALUE, "cudaErrorInvalidValue"},
        {NO_MEMORY, "cudaErrorMemoryAllocation"},
        {INVALID_CONFIGURATION, "cudaErrorInvalidConfiguration"},
        {INVALID_DEVICE, "cudaErrorInvalidDevice"},
        {INVALID_HANDLE, "cudaErrorInvalidResourceHandle"},
        {NOT_FOUND, "cudaErrorSymbolNotFound"},
        {NOT_READY, "cudaErrorNotReady"},
        {ILLEGAL_ADDRESS, "cudaErrorIllegalAddress"},
        {MISALIGNED_ADDRESS, "cudaErrorMisalignedAddress"},
        {LAUNCH_FAILURE, "cudaErrorLaunchFailure"},
        {NOT_SUPPORTED, "cudaErrorNotSupported"},
        {CAPTURE_UNSUPPORTED, "cudaErrorStreamCaptureUnsupported"},
        {CAPTURE_INVALIDATED, "cudaErrorStreamCaptureInvalidated"},
        {CAPTURE_UNMATCHED, "cudaErrorStreamCaptureUnmatched"},
        {CAPTURE_ISOLATION, "cudaErrorStreamCaptureIsolation"},
        {CAPTURE_IMPLICIT, "cudaErrorStreamCaptureImplicit"},
    };
    const auto found = names.find(status);
    return found == names.end() ? "cudaErrorUnknown" : found->second;
}
EXPORT const char *cudaGetErrorString(int) { return "(made-up runtime)"; }
EXPORT int cudaGetLastError() {
    CALL;
    const Status status = made().last;
    made().last = SUCCESS;
    return status;
}
EXPORT int made_up_missing(const char *name) {
    std::lock_guard<std::recursive_mutex> lock(made().mutex);
    return refuse(NOT_SUPPORTED, name);
}
EXPORT int cudaDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
EXPORT int cudaRuntimeGetVersion(int *version) { return *version = 12090, SUCCESS; }
EXPORT int cudaGetDevice(int *device) { return *device = current, SUCCESS; }
EXPORT int cudaGetDeviceCount(int *count) { return *count = devices, SUCCESS; }
EXPORT int cudaSetDevice(int device) {
    CALL;
    if (device < 0 || device >= devices) {
        return refuse(INVALID_DEVICE, "a device that there is not");
    }
    current = device;
    return SUCCESS;
}
EXPORT int cudaDeviceGetAttribute(int *value, int attribute, int) {
    static const std::map<int, int> known = {
        {1, most_threads}, {8, 48 << 10}, {10, 32}, {13, 1755000}, {16, 132},
        {38, 50 << 20},    {39, 2048},    {75, 9},  {76, 0},       {106, 32},
    };
    const auto found = known.find(attribute);
    *value = found == known.end() ? 0 : found->second;
    return SUCCESS;
}

EXPORT int cudaGetDeviceProperties(void *, int) { return SUCCESS; }  // CuPy is told elsewhere
EXPORT int cudaDeviceCanAccessPeer(int *can, int, int) { return *can = 0, SUCCESS; }
EXPORT int cudaDeviceSynchronize() {
    CALL;
    for (Stream *stream : made().streams) {
        if (stream->capture && stream->device == current) {
            invalidate(current);
            return refuse(CAPTURE_UNSUPPORTED, "a wait for a device in a capture");
        }
    }
    finish_device(current);
    return waited();
}

// ---- memory

EXPORT int cudaMalloc(void **address, size_t bytes) {
    CALL;
    if (Status status = not_captured("cudaMalloc")) {
        return status;
    }
    if (made().used[current] + bytes > memory_of_a_device) {
        return NO_MEMORY;
    }
    // Memory that somebody has used before, and more of it, so that allocations do not touch.
    char *at = (char *)aligned_alloc(512, (bytes + 1023) / 512 * 512);
    memset(at, 0xA5, bytes);
    made().allocated[at] = {bytes, current};
    made().used[current] += bytes;
    *address = at;
    return SUCCESS;
}
EXPORT int cudaFree(void *address) {
    CALL;
    if (!address) {
        return SUCCESS;
    }
    const auto found = made().allocated.find((char *)address);
    if (found == made().allocated.end()) {
        return refuse(INVALID_VALUE, "cudaFree of what is not allocated");
    }
    if (Status status = not_captured("cudaFree")) {
        return status;
    }
    finish_device(found->second.device);
    made().used[found->second.device] -= found->second.bytes;
    made().allocated.erase(found);
    free(address);
    return waited();
}
EXPORT int cudaHostAlloc(void **address, size_t bytes, unsigned) {
    CALL;
    if (Status status = not_captured("cudaHostAlloc")) {
        return status;
    }
    *address = aligned_alloc(4096, (bytes + 4096) / 4096 * 4096);
    made().pinned[(char *)*address] = {bytes, current};
    return SUCCESS;
}
EXPORT int cudaFreeHost(void *address) {
    CALL;
    for (int d = 0; d < devices; ++d) {
        finish_device(d);
    }
    made().pinned.erase((char *)address);
    free(address);
    return SUCCESS;
}
EXPORT int cudaMemGetInfo(size_t *left, size_t *all) {
    CALL;
    *left = memory_of_a_device - made().used[current];
    *all = memory_of_a_device;
    return SUCCESS;
}
EXPORT int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
    CALL;
    return copy(to, from, bytes, kind, stream_of(nullptr), true);
}
EXPORT int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
    CALL;
    return copy(to, from, bytes, kind, stream_of(stream), false);
}
EXPORT int cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t bytes, void *stream) {
    CALL;
    return copy(to, from, bytes, 3, stream_of(stream), false);
}
EXPORT int cudaMemcpyPeer(void *to, int, const void *from, int, size_t bytes) {
    CALL;
    return copy(to, from, bytes, 3, stream_of(nullptr), false);
}
EXPORT int cudaMemset(void *to, int value, size_t bytes) {
    CALL;
    return fill(to, value, bytes, stream_of(nullptr));
}
EXPORT int cudaMemsetAsync(void *to, int value, size_t bytes, void *stream) {
    CALL;
    return fill(to, value, bytes, stream_of(stream));
}
struct PointerAttributes {
    int type, device;
    void *of_device, *of_host;
};
EXPORT int cudaPointerGetAttributes(PointerAttributes *attributes, const void *address) {
    CALL;
    void *at = (void *)address;
    *attributes = {0, -2, nullptr, nullptr};
    if (const auto *block = block_of(made().pinned, address)) {
        *attributes = {1, block->second.device, at, at};
    } else if (const auto *block = block_of(made().allocated, address)) {
        *attributes = {2, block->second.device, at, nullptr};
    }
    return SUCCESS;
}

// ---- streams and events

EXPORT int cudaStreamCreateWithPriority(void **handle, unsigned flags, int) {
    CALL;
    Stream *stream = new Stream;
    stream->device = current;
    stream->blocking = !(flags & 1);
    made().streams.push_back(stream);
    *handle = stream;
    return SUCCESS;
}
EXPORT int cudaStreamCreateWithFlags(void **handle, unsigned flags) {
    return cudaStreamCreateWithPriority(handle, flags, 0);
}
EXPORT int cudaStreamCreate(void **handle) { return cudaStreamCreateWithPriority(handle, 0, 0); }
EXPORT int cudaStreamDestroy(void *) {
    CALL;  // its work goes on; what refers to it may remain
    return SUCCESS;
}
EXPORT int cudaStreamGetFlags(void *stream, unsigned *flags) {
    return *flags = !stream_of(stream)->blocking, SUCCESS;
}
EXPORT int cudaStreamGetPriority(void *, int *priority) { return *priority = 0, SUCCESS; }
EXPORT int cudaStreamSynchronize(void *stream) {
    CALL;
    return wait_for(stream_of(stream), "a wait");
}
EXPORT int cudaStreamQuery(void *handle) {
    CALL;
    Stream *stream = stream_of(handle);
    if (stream->capture) {
        stream->capture->invalid = true;
        return refuse(CAPTURE_UNSUPPORTED, "a query of a stream that captures");
    }
    finish(stream, stream->done + 1);
    return stream->pieces.empty() ? SUCCESS : NOT_READY;
}
EXPORT int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    CALL;
    if (Status status = open(stream_of(stream), "a function of the host")) {
        return status;
    }
    give(stream_of(stream), [=] { function(data); });
    return SUCCESS;
}

EXPORT int cudaEventCreateWithFlags(void **handle, unsigned) {
    CALL;
    Event *event = new Event;
    event->device = current;
    *handle = event;
    return SUCCESS;
}
EXPORT int cudaEventCreate(void **handle) { return cudaEventCreateWithFlags(handle, 0); }
EXPORT int cudaEventDestroy(void *handle) {
    CALL;
    delete (Event *)handle;
    return SUCCESS;
}
EXPORT int cudaEventRecord(void *handle, void *on) {
    CALL;
    Event *event = (Event *)handle;
    Stream *stream = stream_of(on);
    if (event->device != stream->device) {
        return refuse(INVALID_HANDLE, "an event recorded on a stream of another device");
    }
    if (Status status = open(stream, "an event")) {
        return status;
    }
    event->captured = stream->capture != nullptr;
    event->capture = stream->capture;
    if (!event->captured) {
        auto time = event->milliseconds = std::make_shared<double>(0);
        give(stream, [time] {
            const auto now = std::chrono::steady_clock::now().time_since_epoch();
            *time = std::chrono::duration<double, std::milli>(now).count();
        });
        event->point = {stream, stream->given()};
    }
    return SUCCESS;
}
EXPORT int cudaStreamWaitEvent(void *handle, void *what, unsigned) {
    CALL;
    Event *event = (Event *)what;
    Stream *stream = stream_of(handle);
    if (Status status = open(stream, "a stream's wait")) {
        return status;
    }
    if (event->captured) {
        const auto capture = event->capture.lock();
        if (!capture || (stream->capture && stream->capture != capture)) {
            return refuse(CAPTURE_ISOLATION, "a stream's wait for another capture");
        }
        if (!stream->capture) {
            stream->capture = capture;
            capture->streams.push_back(stream);
        }
        return SUCCESS;
    }
    if (stream->capture) {
        stream->capture->invalid = true;
        return refuse(CAPTURE_ISOLATION, "a wait in a capture for an event from before it");
    }
    if (event->point.stream) {
        stream->awaited.push_back(event->point);
        give(stream, [] {});
    }
    return SUCCESS;
}
EXPORT int cudaEventSynchronize(void *handle) {
    CALL;
    Event *event = (Event *)handle;
    if (event->captured) {
        return refuse(CAPTURE_UNSUPPORTED, "a wait for an event that was captured");
    }
    if (event->point.stream) {
        finish(event->point.stream, event->point.count);
    }
    return waited();
}
EXPORT int cudaEventQuery(void *handle) {
    CALL;
    Event *event = (Event *)handle;
    if (event->captured) {
        return refuse(CAPTURE_UNSUPPORTED, "a query of an event that was captured");
    }
    const Point point = event->point;
    if (!point.stream || point.stream->done >= point.count) {
        return SUCCESS;
    }
    finish(point.stream, point.stream->done + 1);
    return point.stream->done >= point.count ? SUCCESS : NOT_READY;
}
EXPORT int cudaEventElapsedTime(float *milliseconds, void *first, void *second) {
    CALL;
    Event *a = (Event *)first, *b = (Event *)second;
    for (Event *event : {a, b}) {
        if (!event->point.stream) {
            return refuse(INVALID_HANDLE, "the time of an event that was not recorded");
        }
        if (event->point.stream->done < event->point.count) {
            return NOT_READY;
        }
    }
    *milliseconds = (float)(*b->milliseconds - *a->milliseconds);
    return SUCCESS;
}

// ---- captures and graphs

EXPORT int cudaStreamBeginCapture(void *handle, int) {
    CALL;
    Stream *stream = stream_of(handle);
    if (stream->legacy || stream->capture) {
        return refuse(CAPTURE_UNSUPPORTED, "a capture of the null stream, or a second one");
    }
    stream->capture = std::make_shared<Capture>();
    stream->capture->origin = stream;
    stream->capture->streams.push_back(stream);
    ++made().captures;
    return SUCCESS;
}
EXPORT int cudaStreamEndCapture(void *handle, void **graph) {
    CALL;
    Stream *stream = stream_of(handle);
    *graph = nullptr;
    if (!stream->capture || stream->capture->origin != stream) {
        return refuse(CAPTURE_UNMATCHED, "the end of a capture that did not begin here");
    }
    const auto capture = stream->capture;
    for (Stream *one : capture->streams) {
        one->capture.reset();
    }
    --made().captures;
    if (capture->invalid) {
        made().last = CAPTURE_INVALIDATED;
        return CAPTURE_INVALIDATED;
    }
    *graph = new Graph{capture->nodes};
    return SUCCESS;
}
EXPORT int cudaStreamIsCapturing(void *handle, int *status) {
    CALL;
    Stream *stream = stream_of(handle);
    if (stream->legacy && blocking_capture(stream->device)) {
        return refuse(
            CAPTURE_IMPLICIT, "a question to the null stream while a blocking one captures"
        );
    }
    *status = !stream->capture ? 0 : stream->capture->invalid ? 2 : 1;
    return SUCCESS;
}
EXPORT int cudaGraphInstantiate(void **executable, void *graph, unsigned long long) {
    CALL;
    *executable = new Graph(*(Graph *)graph);
    return SUCCESS;
}
EXPORT int cudaGraphDestroy(void *graph) {
    CALL;
    delete (Graph *)graph;
    return SUCCESS;
}
EXPORT int cudaGraphExecDestroy(void *) { return SUCCESS; }  // it may still have to run
EXPORT int cudaGraphUpload(void *, void *) { return SUCCESS; }
EXPORT int cudaGraphLaunch(void *executable, void *handle) {
    CALL;
    Stream *stream = stream_of(handle);
    if (Status status = open(stream, "a graph")) {
        return status;
    }
    Graph *graph = (Graph *)executable;
    give(stream, [graph] {
        for (const Work &node : graph->nodes) {
            node();
        }
    });
    return SUCCESS;
}

// ---- the driver

EXPORT int cuGetErrorName(int status, const char **name) {
    return *name = cudaGetErrorName(status), SUCCESS;
}
EXPORT int cuGetErrorString(int, const char **text) { return *text = "(made-up runtime)", SUCCESS; }
EXPORT int cuCtxGetCurrent(void **context) {
    return *context = (void *)(size_t)(current + 1), SUCCESS;
}
EXPORT int cuCtxSetCurrent(void *context) { return current = (int)(size_t)context - 1, SUCCESS; }
EXPORT int cuCtxGetDevice(int *device) { return *device = current, SUCCESS; }
EXPORT int cuStreamGetCtx(void *stream, void **context) {
    return *context = (void *)(size_t)(stream_of(stream)->device + 1), SUCCESS;
}
EXPORT int cuModuleLoadData(void **module, const char *image) {
    CALL;
    if (Status status = not_captured("the loading of a module")) {
        return status;
    }
    *module = new Module{image, current};
    return SUCCESS;
}
EXPORT int cuModuleUnload(void *module) {
    delete (Module *)module;
    return SUCCESS;
}
EXPORT int cuModuleGetFunction(void **function, void *handle, const char *name) {
    Module *module = (Module *)handle;
    char path[4096];
    // Without the lock: the compiler is Python's, which another thread may be running.
    if (!compile || compile(module->text.c_str(), name, path, sizeof path)) {
        CALL;
        return refuse(NOT_FOUND, std::string("no kernel ") + name);
    }
    CALL;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return refuse(NOT_FOUND, std::string("no library for ") + name);
    }
    auto *made_function = new Function{name, module->device, (run_t)dlsym(library, "run"), {}, {}};
    auto arguments = (int (*)(size_t *, int *))dlsym(library, "made_up_arguments");
    const int count = arguments(nullptr, nullptr);
    made_function->bytes.resize(count);
    made_function->is_pointer.resize(count);
    arguments(made_function->bytes.data(), made_function->is_pointer.data());
    *function = made_function;
    return SUCCESS;
}
EXPORT int cuFuncGetAttribute(int *value, int attribute, void *) {
    return *value = attribute == 0 ? most_threads : attribute == 4 ? 32 : 0, SUCCESS;
}
EXPORT int cuFuncSetAttribute(void *, int, int) { return SUCCESS; }
EXPORT int cuLaunchKernel(
    void *handle, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
    unsigned threads_z, unsigned, void *on, void **arguments, void **
) {
    CALL;
    Function *function = (Function *)handle;
    Stream *stream = stream_of(on);
    if (x < 1 || x > 0x7fffffffu || y != 1 || z != 1 || threads < 1 || threads > most_threads
        || threads_y != 1 || threads_z != 1) {
        return refuse(
            INVALID_VALUE,
            function->name + " with " + std::to_string(x) + " blocks of " + std::to_string(threads)
                + " threads"
        );
    }
    if (function->device != current || stream->device != current) {
        return refuse(
            INVALID_HANDLE,
            function->name + ": its kernel is of device " + std::to_string(function->device)
                + ", its stream of " + std::to_string(stream->device) + ", current is "
                + std::to_string(current)
        );
    }
    if (Status status = open(stream, function->name.c_str())) {
        return status;
    }
    std::vector<std::string> values;
    for (size_t k = 0; k < function->bytes.size(); ++k) {
        values.emplace_back((const char *)arguments[k], function->bytes[k]);
    }
    if (Status status = pointers(*function, values)) {
        return status;
    }
    give(stream, [=] {
        // Each argument starts where any type may.
        std::vector<std::unique_ptr<char, decltype(&free)>> kept;
        std::vector<void *> given;
        for (const std::string &value : values) {
            const size_t bytes = (value.size() + 63) / 64 * 64;
            kept.emplace_back((char *)aligned_alloc(64, bytes), &free);
            memcpy(kept.back().get(), value.data(), value.size());
            given.push_back(kept.back().get());
        }
        if (function->run(x, (int)threads, given.data())) {
            note("refused with 719: threads of " + function->name + " wait in vain");
            made().pending = LAUNCH_FAILURE;
        }
    });
    return SUCCESS;
}

// ---- NVRTC, whose binary is the text

EXPORT const char *nvrtcGetErrorString(int) { return "(made-up runtime)"; }
EXPORT int nvrtcVersion(int *major, int *minor) { return *major = 12, *minor = 9, SUCCESS; }
EXPORT int nvrtcCreateProgram(
    void **program, const char *text, const char *, int, const char **, const char **
) {
    return *program = new Program{text}, SUCCESS;
}
EXPORT int nvrtcDestroyProgram(void **program) {
    delete (Program *)*program;
    return SUCCESS;
}
EXPORT int nvrtcCompileProgram(void *, int, const char **) { return SUCCESS; }
EXPORT int nvrtcGetCUBINSize(void *program, size_t *bytes) {
    return *bytes = ((Program *)program)->text.size() + 1, SUCCESS;
}
EXPORT int nvrtcGetCUBIN(void *program, char *image) {
    strcpy(image, ((Program *)program)->text.c_str());
    return SUCCESS;
}
EXPORT int nvrtcGetPTXSize(void *program, size_t *bytes) {
    return nvrtcGetCUBINSize(program, bytes);
}
EXPORT int nvrtcGetPTX(void *program, char *image) { return nvrtcGetCUBIN(program, image); }
EXPORT int nvrtcGetProgramLogSize(void *, size_t *bytes) { return *bytes = 1, SUCCESS; }
EXPORT int nvrtcGetProgramLog(void *, char *text) { return *text = 0, SUCCESS; }
EXPORT int nvrtcAddNameExpression(void *, const char *) { return SUCCESS; }
EXPORT int nvrtcGetLoweredName(void *, const char *name, const char **lowered) {
    return *lowered = name, SUCCESS;
}
EXPORT int nvrtcGetNumSupportedArchs(int *count) { return *count = 4, SUCCESS; }
EXPORT int nvrtcGetSupportedArchs(int *archs) {
    const int known[] = {70, 80, 90, 100};
    memcpy(archs, known, sizeof known);
    return SUCCESS;
}
