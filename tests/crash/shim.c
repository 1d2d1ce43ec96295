/*
 * System calls that fail when the tests say so.  Built by tests/crash/shim.py with cc, loaded with LD_PRELOAD.
 *
 * In: CRASH_SHIM_CONTROL, a file of nine 32-bit numbers that all processes map, and CRASH_SHIM_ROOT, the directory below
 * which calls may fail; CRASH_SHIM_SPARE: a word, and paths that hold it are left alone.
 * Out: calls to the C library that fail, or do half of their work, or say that they have done what they have not.
 *
 * Kernel AIO is seen where it goes through syscall(2) of the C library: the result of a request is changed on its way back.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, FSYNC = 4, SYNCFS = 8, RENAME = 16, LINK = 32, UNLINK = 64, MKDIR = 128, TRUNCATE = 256 };
enum { GO_ON = -1, IGNORE = 0, SHORT = 4096 };
enum { DESCRIPTORS = 65536, REQUESTS = 1024 };

struct control {
    uint32_t calls;    /* which ones: the sum of the words above */
    int32_t error;     /* what they answer: an errno; IGNORE: success, and nothing is done; SHORT: half of a write */
    uint32_t skip;     /* so many of them work before the first that fails */
    uint32_t times;    /* so many fail */
    uint32_t seen;     /* out: how many there were */
    uint32_t failed;   /* out: how many have failed */
    uint32_t repeated; /* out: syncs of a descriptor of which a sync has failed before */
    uint32_t loaded;   /* out: processes that have this library */
    uint32_t aio;      /* out: requests of kernel AIO that were seen */
};

static struct control *control;
static char root[PATH_MAX];
static size_t root_length;
static const char *spare;
static unsigned char poisoned[DESCRIPTORS];
static struct { uint64_t request, data; int64_t result; int taken; } changed[REQUESTS];
static int nowhere = -1; /* what takes the place of a file in requests that shall not reach it */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CRASH_SHIM_CONTROL"), *below = getenv("CRASH_SHIM_ROOT");
    spare = getenv("CRASH_SHIM_SPARE");
    if (!path || !below || strlen(below) >= sizeof root)
        return;
    strcpy(root, below);
    root_length = strlen(root);
    int descriptor = REAL(open)(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    REAL(close)(descriptor);
    if (mapped == MAP_FAILED)
        return;
    control = mapped;
    nowhere = REAL(open)("/dev/null", O_RDWR | O_CLOEXEC);
    __atomic_add_fetch(&control->loaded, 1, __ATOMIC_SEQ_CST);
}

static int ours(const char *path)
{
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || !path[root_length])
        && !(spare && *spare && strstr(path, spare));
}

static int of_descriptor(int descriptor, char *path, size_t size)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return 1;
}

static int our_descriptor(int descriptor)
{
    char path[PATH_MAX];
    int before = errno, found = of_descriptor(descriptor, path, sizeof path) && ours(path);
    errno = before;
    return found;
}

static int our_path(int directory, const char *path)
{
    char whole[2 * PATH_MAX];
    if (!path || path[0] == '/')
        return path && ours(path);
    if (directory == AT_FDCWD) {
        if (!getcwd(whole, PATH_MAX))
            return 0;
    } else if (!of_descriptor(directory, whole, PATH_MAX))
        return 0;
    strcat(whole, "/");
    strncat(whole, path, PATH_MAX - 1);
    return ours(whole);
}

/* What shall become of a call of this kind to a file of ours. */
static int verdict(uint32_t call)
{
    if (!(control->calls & call))
        return GO_ON;
    uint32_t number = __atomic_fetch_add(&control->seen, 1, __ATOMIC_SEQ_CST);
    if (number < control->skip || number - control->skip >= control->times)
        return GO_ON;
    __atomic_add_fetch(&control->failed, 1, __ATOMIC_SEQ_CST);
    return control->error;
}

static int of_file(uint32_t call, int descriptor)
{
    return control && (control->calls & call) && our_descriptor(descriptor) ? verdict(call) : GO_ON;
}

static int of_path(uint32_t call, int directory, const char *path)
{
    return control && (control->calls & call) && our_path(directory, path) ? verdict(call) : GO_ON;
}

static int fail(int error)
{
    if (error == IGNORE || error == SHORT)
        return 0;
    errno = error;
    return -1;
}

/* Linux tells of lost pages once: a second sync of the same descriptor says that all is well, and is a lie. */
static void count_repeated(int descriptor)
{
    if (control && descriptor >= 0 && descriptor < DESCRIPTORS && poisoned[descriptor])
        __atomic_add_fetch(&control->repeated, 1, __ATOMIC_SEQ_CST);
}

static void poison(int descriptor, int error)
{
    if (error > 0 && descriptor >= 0 && descriptor < DESCRIPTORS)
        poisoned[descriptor] = 1;
}

#define SYNC(name)                             \
    int name(int descriptor)                   \
    {                                          \
        count_repeated(descriptor);            \
        int what = of_file(FSYNC, descriptor); \
        if (what == GO_ON)                     \
            return REAL(name)(descriptor);     \
        poison(descriptor, what);              \
        return fail(what);                     \
    }
SYNC(fsync)
SYNC(fdatasync)

/* It may come again for the same descriptor, when the files were written again meanwhile: a power cut tells. */
int syncfs(int descriptor)
{
    int what = of_file(SYNCFS, descriptor);
    return what == GO_ON ? REAL(syncfs)(descriptor) : fail(what);
}

int sync_file_range(int descriptor, off64_t offset, off64_t length, unsigned int flags)
{
    int what = of_file(FSYNC, descriptor);
    return what == GO_ON ? REAL(sync_file_range)(descriptor, offset, length, flags) : fail(what);
}

int close(int descriptor)
{
    if (descriptor >= 0 && descriptor < DESCRIPTORS)
        poisoned[descriptor] = 0;
    return REAL(close)(descriptor);
}

static int flags_of(int flags)
{
    /* Whoever ignores syncs ignores also those that each write brings along. */
    int lies = control && (control->calls & FSYNC) && control->error == IGNORE;
    return lies ? flags & ~(O_SYNC | O_DSYNC) : flags;
}

#define MODE_OF(flags)                      \
    mode_t mode = 0;                        \
    if (flags & (O_CREAT | O_TMPFILE)) {    \
        va_list more;                       \
        va_start(more, flags);              \
        mode = (mode_t)va_arg(more, int);   \
        va_end(more);                       \
    }

#define OPENING(name)                                                               \
    int name(const char *path, int flags, ...)                                      \
    {                                                                               \
        MODE_OF(flags)                                                              \
        int what = of_path(OPEN, AT_FDCWD, path);                                   \
        return what > 0 ? fail(what) : REAL(name)(path, flags_of(flags), mode);     \
    }
OPENING(open)
OPENING(open64)

#define OPENING_AT(name)                                                                   \
    int name(int directory, const char *path, int flags, ...)                              \
    {                                                                                      \
        MODE_OF(flags)                                                                     \
        int what = of_path(OPEN, directory, path);                                         \
        return what > 0 ? fail(what) : REAL(name)(directory, path, flags_of(flags), mode); \
    }
OPENING_AT(openat)
OPENING_AT(openat64)

static size_t half(size_t size) { return size > 1 ? size / 2 : size; }

ssize_t write(int descriptor, const void *data, size_t size)
{
    int what = of_file(WRITE, descriptor);
    if (what > 0 && what != SHORT)
        return fail(what);
    return REAL(write)(descriptor, data, what == SHORT ? half(size) : size);
}

#define WRITING(name, type)                                                               \
    ssize_t name(int descriptor, const void *data, size_t size, type offset)              \
    {                                                                                     \
        int what = of_file(WRITE, descriptor);                                            \
        if (what > 0 && what != SHORT)                                                    \
            return fail(what);                                                            \
        return REAL(name)(descriptor, data, what == SHORT ? half(size) : size, offset);   \
    }
WRITING(pwrite, off_t)
WRITING(pwrite64, off64_t)

/* Half of several pieces: the first one, or half of the only one. */
static int shorter(const struct iovec *pieces, int count, struct iovec *one)
{
    if (count < 1)
        return 0;
    *one = pieces[0];
    if (count == 1)
        one->iov_len = half(one->iov_len);
    return one->iov_len > 0;
}

#define GATHERING(name, parameters, arguments)                           \
    ssize_t name parameters                                              \
    {                                                                    \
        struct iovec one;                                                \
        int what = of_file(WRITE, descriptor);                           \
        if (what > 0 && what != SHORT)                                   \
            return fail(what);                                           \
        if (what == SHORT && shorter(pieces, count, &one)) {             \
            pieces = &one;                                               \
            count = 1;                                                   \
        }                                                                \
        return REAL(name) arguments;                                     \
    }
GATHERING(writev, (int descriptor, const struct iovec *pieces, int count), (descriptor, pieces, count))
GATHERING(pwritev, (int descriptor, const struct iovec *pieces, int count, off_t offset),
          (descriptor, pieces, count, offset))
GATHERING(pwritev64, (int descriptor, const struct iovec *pieces, int count, off64_t offset),
          (descriptor, pieces, count, offset))
GATHERING(pwritev2, (int descriptor, const struct iovec *pieces, int count, off_t offset, int flags),
          (descriptor, pieces, count, offset, flags))
GATHERING(pwritev64v2, (int descriptor, const struct iovec *pieces, int count, off64_t offset, int flags),
          (descriptor, pieces, count, offset, flags))

#define NAMING(name, call, parameters, directory, path, arguments)        \
    int name parameters                                                   \
    {                                                                     \
        int what = of_path(call, directory, path);                        \
        return what > 0 ? fail(what) : REAL(name) arguments;              \
    }
NAMING(rename, RENAME, (const char *old, const char *new), AT_FDCWD, new, (old, new))
NAMING(renameat, RENAME, (int from, const char *old, int to, const char *new), to, new, (from, old, to, new))
NAMING(renameat2, RENAME, (int from, const char *old, int to, const char *new, unsigned int flags), to, new,
       (from, old, to, new, flags))
NAMING(link, LINK, (const char *old, const char *new), AT_FDCWD, new, (old, new))
NAMING(linkat, LINK, (int from, const char *old, int to, const char *new, int flags), to, new,
       (from, old, to, new, flags))
NAMING(unlink, UNLINK, (const char *path), AT_FDCWD, path, (path))
NAMING(unlinkat, UNLINK, (int directory, const char *path, int flags), directory, path, (directory, path, flags))
NAMING(mkdir, MKDIR, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))
NAMING(mkdirat, MKDIR, (int directory, const char *path, mode_t mode), directory, path, (directory, path, mode))

int ftruncate(int descriptor, off_t size)
{
    int what = of_file(TRUNCATE, descriptor);
    return what > 0 ? fail(what) : REAL(ftruncate)(descriptor, size);
}

int ftruncate64(int descriptor, off64_t size)
{
    int what = of_file(TRUNCATE, descriptor);
    return what > 0 ? fail(what) : REAL(ftruncate64)(descriptor, size);
}

/* Unlike other calls these answer the errno itself. */
int posix_fallocate(int descriptor, off_t offset, off_t size)
{
    int what = of_file(TRUNCATE, descriptor);
    return what > 0 ? what : REAL(posix_fallocate)(descriptor, offset, size);
}

int posix_fallocate64(int descriptor, off64_t offset, off64_t size)
{
    int what = of_file(TRUNCATE, descriptor);
    return what > 0 ? what : REAL(posix_fallocate64)(descriptor, offset, size);
}

/* A request is told from others by its place in memory and its data: a place may be used again at once. */
static void change(const struct iocb *request, int64_t result)
{
    pthread_mutex_lock(&lock);
    for (int number = 0; number < REQUESTS; number++)
        if (!changed[number].taken) {
            changed[number].request = (uint64_t)(uintptr_t)request;
            changed[number].data = request->aio_data;
            changed[number].result = result;
            changed[number].taken = 1;
            break;
        }
    pthread_mutex_unlock(&lock);
}

static long submit(long context, long count, struct iocb **requests)
{
    struct iocb before[REQUESTS];
    if (count > REQUESTS)
        count = REQUESTS; /* a short answer is allowed: the caller submits the rest again */
    for (long number = 0; number < count; number++) {
        struct iocb *request = requests[number];
        before[number] = *request;
        int sync = request->aio_lio_opcode == IOCB_CMD_FSYNC || request->aio_lio_opcode == IOCB_CMD_FDSYNC;
        int writes = request->aio_lio_opcode == IOCB_CMD_PWRITE || request->aio_lio_opcode == IOCB_CMD_PWRITEV;
        int descriptor = (int)request->aio_fildes;
        if (!sync && !writes)
            continue;
        __atomic_add_fetch(&control->aio, 1, __ATOMIC_SEQ_CST);
        if (sync)
            count_repeated(descriptor);
        int what = of_file(sync ? FSYNC : WRITE, descriptor);
        if (what == GO_ON)
            continue;
        if (sync)
            poison(descriptor, what);
        else if (what == SHORT && request->aio_lio_opcode == IOCB_CMD_PWRITE) {
            request->aio_nbytes = half(request->aio_nbytes);
            continue;
        }
        /* A write of nothing to nowhere takes its place, and its result is changed when it comes back. */
        request->aio_lio_opcode = IOCB_CMD_PWRITE;
        request->aio_fildes = (uint32_t)nowhere;
        request->aio_buf = request->aio_nbytes = request->aio_rw_flags = 0;
        change(request, what > 0 && what != SHORT ? -what : 0);
    }
    long done = REAL(syscall)(SYS_io_submit, context, count, requests);
    for (long number = 0; number < count; number++)
        *requests[number] = before[number];
    return done;
}

static long collect(long number, long a, long b, long c, struct io_event *events, long e, long f)
{
    long count = REAL(syscall)(number, a, b, c, events, e, f);
    pthread_mutex_lock(&lock);
    for (long which = 0; which < count; which++)
        for (int slot = 0; slot < REQUESTS; slot++)
            if (changed[slot].taken && changed[slot].request == events[which].obj
                && changed[slot].data == events[which].data) {
                events[which].res = changed[slot].result;
                changed[slot].taken = 0;
                break;
            }
    pthread_mutex_unlock(&lock);
    return count;
}

long syscall(long number, ...)
{
    long values[6];
    va_list more;
    va_start(more, number);
    for (int index = 0; index < 6; index++)
        values[index] = va_arg(more, long);
    va_end(more);
    if (control && number == SYS_io_submit)
        return submit(values[0], values[1], (struct iocb **)values[2]);
    if (control && number == SYS_io_getevents)
        return collect(number, values[0], values[1], values[2], (struct io_event *)values[3], values[4], values[5]);
    return REAL(syscall)(number, values[0], values[1], values[2], values[3], values[4], values[5]);
}
