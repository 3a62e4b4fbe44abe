// A fake CUDA driver: device memory is host memory, and what is enqueued runs only when somebody
// waits for it, so that a missing wait shows. Of CUDA it has what the runtime uses.
//
//   MOCK_CUDA_DEVICES       number of devices (1)
//   MOCK_CUDA_DRIVER        version of the driver (12080); 0: a stub
//   MOCK_CUDA_ARCH          compute capability, 10 * major + minor (90)
//   MOCK_CUDA_MEMORY        bytes of device memory (1 GiB)
//   MOCK_CUDA_REFUSE_CUBIN  set: machine code is refused
//   MOCK_CUDA_BY_NAME       set: cuGetProcAddress knows nothing and cuFuncGetParamInfo is refused
//
// Code is text, in a cubin after the ELF header. It has the kernel `fill(address, value, count)`,
// which writes 8-byte values, if it contains that word, and likewise `step(arguments)`, a model whose logits
// are largest at the token that comes next. Text with the word `broken` does not compile.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, STUB_LIBRARY = 34, NO_DEVICE = 100,
    NO_BINARY_FOR_GPU = 209, INVALID_PTX = 218, NOT_FOUND = 500, NOT_READY = 600, TOO_LARGE = 720,
    NOT_SUPPORTED = 801,
};
enum { ELF_HEADER = 64, MAX_WORK = 4096, VOCAB = 97 };

static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

// ---------------------------------------------------------------- the stream

struct event { int recorded, happened; };
struct work {
    enum { COPY, SET, FILL, STEP, RECORD } kind;
    void *to;
    const void *from;
    uint64_t value;
    size_t count;
};
static struct work queue[MAX_WORK];
static int first, last;

static int enqueue(struct work work) {
    if (last - first == MAX_WORK) return INVALID_VALUE;
    queue[last++ % MAX_WORK] = work;
    return SUCCESS;
}

// The arguments are 8-byte words: 3 logits, 4 ids, 5 positions, 7 rows, 11 the number of rows, 14 tokens
// chosen, 15 the sampling, whose word 3 asks for them.
static void run_step(uint64_t *arguments) {
    float *logits = (float *)arguments[3];
    int *ids = (int *)arguments[4], *positions = (int *)arguments[5], *rows = (int *)arguments[7];
    int count = (int)arguments[11], *sampled = (int *)arguments[14];
    for (int r = 0; r < count; r++) {
        int next = (ids[rows[r]] * 31 + positions[rows[r]] * 7 + 1) % VOCAB;
        for (int t = 0; t < VOCAB; t++) logits[r * VOCAB + t] = (float)-abs(t - next);
        if (((uint64_t *)arguments[15])[3]) sampled[r] = sampled[count + r] = next;
    }
}

static void run_one(void) {
    struct work *w = &queue[first++ % MAX_WORK];
    switch (w->kind) {
    case COPY: memcpy(w->to, w->from, w->count); break;
    case SET: memset(w->to, (int)w->value, w->count); break;
    case FILL: for (size_t i = 0; i < w->count; i++) ((uint64_t *)w->to)[i] = w->value; break;
    case STEP: run_step(w->to); break;
    case RECORD: ((struct event *)w->to)->happened = 1; break;
    }
}

int cuStreamCreate(void **stream, unsigned flags) { *stream = queue; return SUCCESS; }
int cuStreamDestroy_v2(void *stream) { return SUCCESS; }
int cuStreamSynchronize(void *stream) { while (first < last) run_one(); return SUCCESS; }

int cuEventCreate(struct event **event, unsigned flags) { *event = calloc(1, sizeof **event); return SUCCESS; }
int cuEventDestroy_v2(struct event *event) { cuStreamSynchronize(queue); free(event); return SUCCESS; }
int cuEventRecord(struct event *event, void *stream) {
    *event = (struct event){1, 0};
    return enqueue((struct work){RECORD, event});
}
int cuEventSynchronize(struct event *event) {
    while (event->recorded && !event->happened) run_one();
    return SUCCESS;
}
int cuEventQuery(struct event *event) {
    if (!event->recorded || event->happened) return SUCCESS;
    run_one();
    return event->happened ? SUCCESS : NOT_READY;
}
int cuEventElapsedTime(float *milliseconds, struct event *begin, struct event *end) {
    if (!begin->happened || !end->happened) return NOT_READY;
    *milliseconds = 1.5f;
    return SUCCESS;
}

// ---------------------------------------------------------------- devices

int cuDriverGetVersion(int *version) {
    *version = (int)setting("MOCK_CUDA_DRIVER", 12080);
    return *version ? SUCCESS : STUB_LIBRARY;
}
int cuDeviceGetCount(int *count) { *count = (int)setting("MOCK_CUDA_DEVICES", 1); return SUCCESS; }
int cuInit(unsigned flags) { return setting("MOCK_CUDA_DEVICES", 1) ? SUCCESS : NO_DEVICE; }
int cuDeviceGet(int *device, int index) { *device = index; return SUCCESS; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Mock %d", device); return SUCCESS; }
int cuDeviceGetPCIBusId(char *bus, int size, int device) {
    snprintf(bus, size, "0000:%02x:00.0", device);
    return SUCCESS;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = setting("MOCK_CUDA_MEMORY", 1L << 30); return SUCCESS; }
/* Bytes of shared memory that a block may have. */
static int shared_bytes(void) { return (setting("MOCK_CUDA_ARCH", 90) == 90 ? 227 : 99) << 10; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int arch = (int)setting("MOCK_CUDA_ARCH", 90);
    switch (attribute) {
    case 16: *value = 4; return SUCCESS;
    case 38: *value = 8 << 20; return SUCCESS;
    case 75: *value = arch / 10; return SUCCESS;
    case 76: *value = arch % 10; return SUCCESS;
    case 97: *value = shared_bytes(); return SUCCESS;
    }
    return INVALID_VALUE;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &queue; return SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int device) { return SUCCESS; }
int cuCtxSetCurrent(void *context) { return SUCCESS; }

// ---------------------------------------------------------------- memory

// Each allocation begins with its size.
enum { PREFIX = 256 };
static size_t used;

int cuMemGetInfo_v2(size_t *free, size_t *total) {
    cuDeviceTotalMem_v2(total, 0);
    *free = *total - used;
    return SUCCESS;
}
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    size_t free, total;
    cuMemGetInfo_v2(&free, &total);
    if (bytes == 0) return INVALID_VALUE;
    if (bytes > free) return OUT_OF_MEMORY;
    char *base = aligned_alloc(PREFIX, (PREFIX + bytes + PREFIX - 1) / PREFIX * PREFIX);
    if (!base) return OUT_OF_MEMORY;
    memcpy(base, &bytes, sizeof bytes);
    memset(base + PREFIX, 0xcd, bytes);
    used += bytes;
    *address = (uint64_t)(base + PREFIX);
    return SUCCESS;
}
int cuMemFree_v2(uint64_t address) {
    cuStreamSynchronize(queue);
    size_t bytes;
    memcpy(&bytes, (char *)address - PREFIX, sizeof bytes);
    used -= bytes;
    free((char *)address - PREFIX);
    return SUCCESS;
}
int cuMemHostAlloc(void **base, size_t bytes, unsigned flags) {
    *base = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    return *base ? SUCCESS : OUT_OF_MEMORY;
}
// Does not wait for what is enqueued.
int cuMemFreeHost(void *base) { free(base); return SUCCESS; }
int cuMemHostGetDevicePointer_v2(uint64_t *address, void *base, unsigned flags) {
    *address = (uint64_t)base;
    return SUCCESS;
}
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t count, void *stream) {
    return enqueue((struct work){SET, (void *)to, NULL, value, count});
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t count, void *stream) {
    return enqueue((struct work){COPY, (void *)to, from, 0, count});
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t count, void *stream) {
    return enqueue((struct work){COPY, to, (void *)from, 0, count});
}

// ---------------------------------------------------------------- code

int cuModuleLoadDataEx(void **module, const char *code, unsigned count, const int *options, void **values) {
    int binary = memcmp(code, "\x7f" "ELF", 4) == 0;
    if (binary && getenv("MOCK_CUDA_REFUSE_CUBIN")) return NO_BINARY_FOR_GPU;
    const char *text = code + (binary ? ELF_HEADER : 0);
    if (strstr(text, "broken")) {
        for (unsigned i = 0; i + 1 < count; i++)
            if (options[i] == 5)
                snprintf(values[i], (size_t)values[i + 1], "ptxas application ptx input, line 7\nfatal: broken");
        return INVALID_PTX;
    }
    *module = strdup(text);
    return SUCCESS;
}
static struct kernel { const char *name; size_t parameters; } kernels[] = {{"fill", 3}, {"step", 1}};

int cuModuleUnload(void *module) { free(module); return SUCCESS; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    if (!strstr(module, name)) return NOT_FOUND;
    for (int i = 0; i < 2; i++)
        if (strstr(name, kernels[i].name)) {
            *function = &kernels[i];
            return SUCCESS;
        }
    return NOT_FOUND;
}
int cuFuncGetParamInfo(struct kernel *function, size_t index, size_t *offset, size_t *bytes) {
    if (getenv("MOCK_CUDA_BY_NAME")) return NOT_SUPPORTED;
    if (index >= function->parameters) return INVALID_VALUE;
    *offset = 8 * index;
    *bytes = 8;
    return SUCCESS;
}
int cuFuncGetAttribute(int *value, int attribute, void *function) {
    static const int values[] = {1024, 16, 0, 8, 32};
    if (attribute < 0 || attribute > 4) return INVALID_VALUE;
    *value = values[attribute];
    return SUCCESS;
}
int cuFuncSetAttribute(void *function, int attribute, int value) {
    return attribute == 8 && value <= shared_bytes() ? SUCCESS : INVALID_VALUE;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t shared) {
    *blocks = 2048 / threads;
    return SUCCESS;
}
int cuLaunchKernel(struct kernel *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
    if (bx > 1024) return INVALID_VALUE;
    uint64_t **p = (uint64_t **)parameters;
    if (function == &kernels[1]) return enqueue((struct work){STEP, (void *)*p[0]});
    return enqueue((struct work){FILL, (void *)*p[0], NULL, *p[1], *p[2]});
}
int cuLaunchCooperativeKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                              unsigned bz, unsigned shared, void *stream, void **parameters) {
    if (gx > 4 * 2048 / bx) return TOO_LARGE;
    return cuLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, parameters, NULL);
}

// ---------------------------------------------------------------- results and addresses

int cuGetErrorName(int error, const char **text) {
    switch (error) {
    case INVALID_VALUE: *text = "CUDA_ERROR_INVALID_VALUE"; return SUCCESS;
    case OUT_OF_MEMORY: *text = "CUDA_ERROR_OUT_OF_MEMORY"; return SUCCESS;
    case NO_DEVICE: *text = "CUDA_ERROR_NO_DEVICE"; return SUCCESS;
    case NO_BINARY_FOR_GPU: *text = "CUDA_ERROR_NO_BINARY_FOR_GPU"; return SUCCESS;
    case INVALID_PTX: *text = "CUDA_ERROR_INVALID_PTX"; return SUCCESS;
    case NOT_FOUND: *text = "CUDA_ERROR_NOT_FOUND"; return SUCCESS;
    }
    *text = NULL;
    return INVALID_VALUE;
}
int cuGetErrorString(int error, const char **text) {
    *text = error == NO_DEVICE ? "no CUDA-capable device is detected" : "mock";
    return SUCCESS;
}

// By plain name, for the functions whose newest version in CUDA 12.0 is the second.
int cuGetProcAddress_v2(const char *name, void **address, int version, uint64_t flags, int *found) {
    static const struct { const char *name; void *address; } second[] = {
        {"cuDeviceTotalMem", cuDeviceTotalMem_v2}, {"cuMemAlloc", cuMemAlloc_v2}, {"cuMemFree", cuMemFree_v2},
        {"cuDevicePrimaryCtxRelease", cuDevicePrimaryCtxRelease_v2}, {"cuMemGetInfo", cuMemGetInfo_v2},
    };
    for (size_t i = 0; !getenv("MOCK_CUDA_BY_NAME") && i < sizeof second / sizeof *second; i++) {
        if (strcmp(name, second[i].name) == 0) {
            *address = second[i].address;
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}
