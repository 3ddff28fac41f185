/* A disk that tells what is done to it, and fails where a test wants it to.
 *
 * Loaded by LD_PRELOAD into a process that keeps a pool. It stands before the calls of the C library by which SQLite
 * and Rust's standard library change files, and knows the files below one folder. Each call is done, or fails, and
 * becomes a record of the trace; all of them go one after another, so that the order of the records is that of what
 * they did. Nothing is ever synced: what a sync covers is a matter of the trace, from which the test builds what a
 * power cut leaves. Not here: reading (it changes nothing) and the file `-shm` (memory of SQLite that is made anew at
 * a start).
 *
 *   FOREBAY_DISK_FOLDER  the folder, as an absolute path without links; folders in it are not known
 *   FOREBAY_DISK_TRACE   where the records go, elsewhere
 *   FOREBAY_DISK_NOTES   a file, elsewhere: what is written to it becomes a record too. The process notes there what it
 *                        was told is durable, so the trace has the moment
 *   FOREBAY_DISK_FAULT   KIND:N:COUNT:ERRNO, may be absent: from the N-th call of a kind on, COUNT calls of it fail.
 *                        KIND is write, sync, open, truncate, rename, unlink or any. A write that fails leaves its
 *                        first half. ERRNO 0 is for syncs: the call says that it is done, and is not
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* The head of a record; behind it the name, the second name of a rename, and the bytes that were written. */
struct record {
    char kind; /* B begin, O open, W write, T length, R rename, U unlink, S sync, C close, N note */
    uint8_t flags;
    uint16_t name_length;
    uint16_t to_length;
    uint16_t pad;
    int32_t fd;
    int32_t error; /* of the call; 0: it was done */
    uint64_t offset;
    uint64_t length; /* of the bytes, or the length that a file got */
};
enum { CREATED = 1, TRUNCATED = 2, LIED = 4 };

enum kind { KIND_WRITE, KIND_SYNC, KIND_OPEN, KIND_TRUNCATE, KIND_RENAME, KIND_UNLINK, KIND_ANY };
static const char *const KINDS[] = {"write", "sync", "open", "truncate", "rename", "unlink", "any"};

enum { FILES_MAX = 4096, NAME_MAX_BYTES = 256 };
/* What a descriptor stands for: 0 nothing that is known, 1 a file of the folder, 2 the folder, 3 the notes. */
static uint8_t what[FILES_MAX];
enum { FILE_OF_FOLDER = 1, FOLDER = 2, NOTES = 3 };

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static size_t folder_length;
static const char *notes;
static int trace = -1;
static enum kind fault_kind = KIND_ANY;
static long fault_from, fault_count, fault_error;
static long calls;

static void record(char kind, int fd, int error, uint8_t flags, uint64_t offset, const char *name, const char *to,
                   const void *bytes, uint64_t length, int has_bytes)
{
    struct record head = {.kind = kind, .flags = flags, .fd = fd, .error = error, .offset = offset, .length = length};
    head.name_length = (uint16_t)strlen(name);
    head.to_length = (uint16_t)strlen(to);
    struct iovec parts[] = {
        {&head, sizeof head},
        {(void *)name, head.name_length},
        {(void *)to, head.to_length},
        {(void *)bytes, has_bytes ? length : 0},
    };
    size_t all = sizeof head + head.name_length + head.to_length + (has_bytes ? length : 0);
    if (syscall(SYS_writev, trace, parts, 4) != (long)all) {
        dprintf(2, "disk.c: the trace cannot be written\n");
        _exit(99);
    }
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FOREBAY_DISK_TRACE");
    folder = getenv("FOREBAY_DISK_FOLDER");
    notes = getenv("FOREBAY_DISK_NOTES");
    if (!path || !folder || !notes) {
        folder = NULL;
        return;
    }
    folder_length = strlen(folder);
    trace = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const char *fault = getenv("FOREBAY_DISK_FAULT");
    if (fault) {
        char kind[16];
        if (sscanf(fault, "%15[a-z]:%ld:%ld:%ld", kind, &fault_from, &fault_count, &fault_error) != 4) {
            dprintf(2, "disk.c: FOREBAY_DISK_FAULT=%s is not KIND:N:COUNT:ERRNO\n", fault);
            _exit(99);
        }
        for (fault_kind = 0; fault_kind < KIND_ANY && strcmp(KINDS[fault_kind], kind) != 0; fault_kind++) {
        }
    }
    if (trace < 0) {
        dprintf(2, "disk.c: %s cannot be opened\n", path);
        _exit(99);
    }
    record('B', -1, 0, 0, 0, "", "", NULL, 0, 0);
}

/* A process that ends kills its threads amid a call: no record may be cut off by that, so nobody gets a turn any more. */
__attribute__((destructor)) static void end(void)
{
    if (folder) {
        pthread_mutex_lock(&turn);
    }
}

/* Whether this call of a kind is one that fails. */
static int fails(enum kind kind)
{
    if (!fault_count || (fault_kind != kind && fault_kind != KIND_ANY)) {
        return 0;
    }
    calls++;
    return calls >= fault_from && calls - fault_from < fault_count;
}

/* The name of a path within the folder, "" for the folder itself; NULL for anything else. */
static const char *within(int at, const char *path)
{
    if (!folder || !path || strncmp(path, folder, folder_length) != 0 || (at != AT_FDCWD && path[0] != '/')) {
        return NULL;
    }
    const char *name = path + folder_length;
    while (*name == '/') {
        name++;
    }
    size_t length = strlen(name);
    int is_of_memory = length >= 4 && strcmp(name + length - 4, "-shm") == 0;
    if (path[folder_length] != '/' && path[folder_length] != '\0') {
        return NULL;
    }
    return is_of_memory || strchr(name, '/') || length > NAME_MAX_BYTES ? NULL : name;
}

static uint8_t of(int fd)
{
    return fd >= 0 && fd < FILES_MAX ? what[fd] : 0;
}

static int do_open(int at, const char *path, int flags, mode_t mode)
{
    const char *name = within(at, path);
    int is_notes = folder && strcmp(path, notes) == 0;
    if (!name && !is_notes) {
        return (int)syscall(SYS_openat, at, path, flags, mode);
    }
    pthread_mutex_lock(&turn);
    int was_there = syscall(SYS_faccessat, at, path, F_OK) == 0;
    int changes = (flags & O_ACCMODE) != O_RDONLY;
    int fd;
    if (name && *name && changes && fails(KIND_OPEN)) {
        fd = -1;
        errno = (int)fault_error;
        record('O', -1, errno, 0, 0, name, "", NULL, 0, 0);
    } else {
        fd = (int)syscall(SYS_openat, at, path, flags, mode);
    }
    int error = errno;
    if (fd >= 0 && fd < FILES_MAX) {
        what[fd] = is_notes ? NOTES : *name ? FILE_OF_FOLDER : FOLDER;
        if (!is_notes && *name) {
            uint8_t how = (was_there ? 0 : CREATED) | (flags & O_TRUNC ? TRUNCATED : 0);
            record('O', fd, 0, how, 0, name, "", NULL, 0, 0);
        }
    }
    pthread_mutex_unlock(&turn);
    errno = error;
    return fd;
}

/* Writes at an offset, or where the descriptor stands (-1). */
static ssize_t do_write(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (of(fd) != FILE_OF_FOLDER && of(fd) != NOTES) {
        return offset < 0 ? syscall(SYS_writev, fd, parts, count)
                          : syscall(SYS_pwritev, fd, parts, count, (long)offset, 0L);
    }
    pthread_mutex_lock(&turn);
    size_t length = 0;
    for (int i = 0; i < count; i++) {
        length += parts[i].iov_len;
    }
    char *bytes = malloc(length ? length : 1);
    size_t copied = 0;
    for (int i = 0; i < count; i++) {
        memcpy(bytes + copied, parts[i].iov_base, parts[i].iov_len);
        copied += parts[i].iov_len;
    }
    int is_file = of(fd) == FILE_OF_FOLDER;
    int is_failing = is_file && fails(KIND_WRITE);
    size_t some = is_failing ? length / 2 : length;
    off_t at = offset;
    if (offset < 0) {
        at = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    }
    ssize_t done = some == 0 && length > 0 ? 0 : offset < 0 ? syscall(SYS_write, fd, bytes, some)
                                                            : syscall(SYS_pwrite64, fd, bytes, some, (long)at);
    int error = errno;
    if (done > 0) {
        record(is_file ? 'W' : 'N', fd, 0, 0, (uint64_t)at, "", "", bytes, (uint64_t)done, 1);
    }
    if (is_failing) {
        record('W', fd, (int)fault_error, 0, (uint64_t)at, "", "", NULL, 0, 0);
        done = -1;
        error = (int)fault_error;
    }
    free(bytes);
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}

static int do_truncate(int fd, off_t length)
{
    if (of(fd) != FILE_OF_FOLDER) {
        return (int)syscall(SYS_ftruncate, fd, (long)length);
    }
    pthread_mutex_lock(&turn);
    int is_failing = fails(KIND_TRUNCATE);
    int done = is_failing ? -1 : (int)syscall(SYS_ftruncate, fd, (long)length);
    int error = is_failing ? (int)fault_error : errno;
    record('T', fd, done == 0 ? 0 : error, 0, 0, "", "", NULL, (uint64_t)length, 0);
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}

/* Makes a file longer; what it had is as it was. */
static int do_allocate(int fd, int mode, off_t offset, off_t length)
{
    if (of(fd) != FILE_OF_FOLDER) {
        return (int)syscall(SYS_fallocate, fd, mode, (long)offset, (long)length);
    }
    struct stat now;
    off_t end = offset + length;
    if (fstat(fd, &now) == 0 && (mode != 0 || now.st_size >= end)) {
        /* room alone, which no image needs; holes are not made by whom we watch */
        return mode == 0 || mode == FALLOC_FL_KEEP_SIZE ? 0 : (errno = EOPNOTSUPP, -1);
    }
    return do_truncate(fd, end);
}

static int do_sync(int fd, int is_data_only)
{
    (void)is_data_only;
    if (of(fd) != FILE_OF_FOLDER && of(fd) != FOLDER) {
        return (int)syscall(is_data_only ? SYS_fdatasync : SYS_fsync, fd);
    }
    pthread_mutex_lock(&turn);
    int is_failing = fails(KIND_SYNC);
    int error = is_failing ? (int)fault_error : 0;
    record('S', of(fd) == FOLDER ? -1 : fd, error, is_failing && !error ? LIED : 0, 0, "", "", NULL, 0, 0);
    pthread_mutex_unlock(&turn);
    errno = error ? error : errno;
    return error ? -1 : 0;
}

static int do_rename(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    const char *name = within(from_at, from);
    const char *other = within(to_at, to);
    if (!name || !other || !*name || !*other) {
        return (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    }
    pthread_mutex_lock(&turn);
    int is_failing = fails(KIND_RENAME);
    int done = is_failing ? -1 : (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    int error = is_failing ? (int)fault_error : errno;
    record('R', -1, done == 0 ? 0 : error, 0, 0, name, other, NULL, 0, 0);
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}

static int do_unlink(int at, const char *path, int flags)
{
    const char *name = within(at, path);
    if (!name || !*name) {
        return (int)syscall(SYS_unlinkat, at, path, flags);
    }
    pthread_mutex_lock(&turn);
    int is_failing = fails(KIND_UNLINK);
    int done = is_failing ? -1 : (int)syscall(SYS_unlinkat, at, path, flags);
    int error = is_failing ? (int)fault_error : errno;
    record('U', -1, done == 0 ? 0 : error, 0, 0, name, "", NULL, 0, 0);
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}

/* The names of the C library: with and without 64 in them, and those that a fortified build calls. */

static mode_t mode_of(int flags, va_list more)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
}
#define OPENS(NAME)                                      \
    int NAME(const char *path, int flags, ...)           \
    {                                                    \
        va_list more;                                    \
        va_start(more, flags);                           \
        mode_t mode = mode_of(flags, more);              \
        va_end(more);                                    \
        return do_open(AT_FDCWD, path, flags, mode);     \
    }
#define OPENS_AT(NAME)                                   \
    int NAME(int at, const char *path, int flags, ...)   \
    {                                                    \
        va_list more;                                    \
        va_start(more, flags);                           \
        mode_t mode = mode_of(flags, more);              \
        va_end(more);                                    \
        return do_open(at, path, flags, mode);           \
    }
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)
int __open_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }

int close(int fd)
{
    if (of(fd)) {
        pthread_mutex_lock(&turn);
        if (what[fd] == FILE_OF_FOLDER) {
            record('C', fd, 0, 0, 0, "", "", NULL, 0, 0);
        }
        what[fd] = 0;
        int done = (int)syscall(SYS_close, fd);
        pthread_mutex_unlock(&turn);
        return done;
    }
    return (int)syscall(SYS_close, fd);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    struct iovec part = {(void *)bytes, length};
    return of(fd) ? do_write(fd, &part, 1, -1) : syscall(SYS_write, fd, bytes, length);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    struct iovec part = {(void *)bytes, length};
    return of(fd) ? do_write(fd, &part, 1, offset) : syscall(SYS_pwrite64, fd, bytes, length, (long)offset);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) { return pwrite(fd, bytes, length, offset); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return do_write(fd, parts, count, -1); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return do_write(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return do_write(fd, parts, count, at); }

int ftruncate(int fd, off_t length) { return do_truncate(fd, length); }
int ftruncate64(int fd, off64_t length) { return do_truncate(fd, length); }
int fallocate(int fd, int mode, off_t offset, off_t length) { return do_allocate(fd, mode, offset, length); }
int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return do_allocate(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) { return do_allocate(fd, 0, offset, length) ? errno : 0; }
int posix_fallocate64(int fd, off64_t offset, off64_t length) { return do_allocate(fd, 0, offset, length) ? errno : 0; }

int fsync(int fd) { return do_sync(fd, 0); }
int fdatasync(int fd) { return do_sync(fd, 1); }

int rename(const char *from, const char *to) { return do_rename(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return do_rename(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned how) { return do_rename(a, from, b, to, how); }
int unlink(const char *path) { return do_unlink(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return do_unlink(at, path, flags); }
