/* Runs one compiled entry on buffers from standard input and writes them, as they are then, to standard output.
 *
 * Input, little-endian 64-bit numbers: the number of buffers, of pointers and of workers; for each buffer its size and
 * its bytes; for each pointer the buffer it lies in, its offset there, and the buffer it points to. The first buffer
 * is the entry's argument. The name of the entry is the program's argument. */

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void entry(void *args, int64_t worker, int64_t workers);

/* The entries of the objects this is linked with; the list ends with a null name. */
extern const struct { const char *name; entry *run; } entries[];

static pthread_barrier_t barrier;
static entry *chosen;
static void *argument;
static int64_t workers;

void llmc_barrier(void *sync, int64_t worker, int64_t count, int64_t phase) {
    (void)sync, (void)worker, (void)count, (void)phase;
    pthread_barrier_wait(&barrier);
}

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void take(void *to, size_t bytes) {
    if (fread(to, 1, bytes, stdin) != bytes) fail("the input ends too early");
}

static uint64_t number(void) {
    uint64_t n;
    take(&n, sizeof n);
    return n;
}

static void *work(void *worker) {
    chosen(argument, (int64_t)(intptr_t)worker, workers);
    return NULL;
}

int main(int argc, char **argv) {
    for (int i = 0; argc == 2 && entries[i].name; i++)
        if (!strcmp(entries[i].name, argv[1])) chosen = entries[i].run;
    if (!chosen) fail("no such entry");
    uint64_t buffers = number(), pointers = number();
    workers = (int64_t)number();
    unsigned char **base = calloc(buffers, sizeof *base);
    uint64_t *size = calloc(buffers, sizeof *size);
    pthread_t *threads = calloc((size_t)workers, sizeof *threads);
    if (!base || !size || !threads || !buffers) fail("no memory");
    for (uint64_t i = 0; i < buffers; i++) {
        size[i] = number();
        base[i] = aligned_alloc(4096, (size[i] / 4096 + 1) * 4096);
        if (!base[i]) fail("no memory");
        take(base[i], size[i]);
    }
    for (uint64_t i = 0; i < pointers; i++) {
        uint64_t holder = number(), at = number(), target = number();
        if (holder >= buffers || target >= buffers || at + sizeof(void *) > size[holder]) fail("a pointer out of range");
        memcpy(base[holder] + at, &base[target], sizeof(void *));
    }
    argument = base[0];
    pthread_barrier_init(&barrier, NULL, (unsigned)workers);
    for (int64_t i = 0; i < workers; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i)) fail("no thread");
    for (int64_t i = 0; i < workers; i++) pthread_join(threads[i], NULL);
    for (uint64_t i = 0; i < buffers; i++)
        if (fwrite(base[i], 1, size[i], stdout) != size[i]) fail("the output cannot be written");
    return fflush(stdout) ? 1 : 0;
}
