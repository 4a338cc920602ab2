/* SPDX-License-Identifier: Apache-2.0
 *
 * Stands between a process and libc (LD_PRELOAD) and sees every durable operation below one folder, whoever asks:
 * Python, the C library's callers, SQLite. It counts them, and writes them down with their bytes, kills the process
 * before or after the K-th, or lets some of them fail. Nothing is armed until crash_arm() is called.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OFF = -1, COUNT = 0, KILL_BEFORE = 1, KILL_AFTER = 2, FAIL = 3 };

static char root[PATH_MAX];
static size_t root_length;
static int how = OFF, error_number, log_handle = -1;
static long count, from, to;

void crash_arm(const char *folder, int mode, long first, long last, int error) {
    if (!realpath(folder, root)) root[0] = 0;
    root_length = strlen(root);
    how = mode, from = first, to = last, error_number = error, count = 0;
}

long crash_count(void) { return count; }

void crash_log(const char *path) {
    log_handle = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

static void put(const void *data, size_t size) {
    const char *bytes = data;
    while (size) {
        long done = syscall(SYS_write, log_handle, bytes, size);
        if (done <= 0) abort();
        bytes += done, size -= (size_t)done;
    }
}

/* One record: a line "op<TAB>offset<TAB>size<TAB>path<TAB>other<LF>", then size bytes. */
static void record(const char *op, const char *path, const char *other, long offset, const void *data, long size) {
    char line[3 * PATH_MAX];
    if (log_handle < 0) return;
    put(line, (size_t)snprintf(line, sizeof line, "%s\t%ld\t%ld\t%s\t%s\n", op, offset, size, path, other));
    if (size > 0) put(data, (size_t)size);
}

void crash_mark(const char *text) { record("mark", text, "", 0, "", 0); }

static int inside(const char *path) {
    return how != OFF && root_length && !strncmp(path, root, root_length) && path[root_length] == '/';
}

/* The folder itself counts, too: it is fsynced. */
static int concerns(const char *path) { return inside(path) || (how != OFF && !strcmp(path, root)); }

static const char *of_handle(int handle, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    long size = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[size > 0 ? size : 0] = 0;
    return path;
}

static const char *of_name(int folder, const char *name, char *path) {
    if (name[0] == '/') return strncpy(path, name, PATH_MAX - 1);
    if (folder == AT_FDCWD) {
        if (!getcwd(path, PATH_MAX)) path[0] = 0;
    } else {
        of_handle(folder, path);
    }
    size_t at = strlen(path);
    snprintf(path + at, PATH_MAX - at, "/%s", name);
    return path;
}

/* Return 1 if the operation is to fail. */
static int before(const char *path) {
    if (!concerns(path)) return 0;
    count++;
    if (how == KILL_BEFORE && count == from) kill(getpid(), SIGKILL);
    if (how == FAIL && count >= from && count <= to) {
        errno = error_number;
        return 1;
    }
    return 0;
}

static void after(const char *path) {
    int kept = errno;
    if (concerns(path) && how == KILL_AFTER && count == from) kill(getpid(), SIGKILL);
    errno = kept;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int opened(int (*real)(int, const char *, int, ...), int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX] = "";
    struct stat seen;
    of_name(folder, name, path);
    int is_change = inside(path) && (flags & (O_CREAT | O_TRUNC)) && !(flags & O_DIRECTORY);
    int is_new = is_change && (flags & O_CREAT) && stat(path, &seen) != 0;
    if (!is_new && !(flags & O_TRUNC)) is_change = 0;
    if (is_change && before(path)) return -1;
    int handle = real(folder, name, flags, mode);
    if (is_change && handle >= 0) {
        record(is_new ? "create" : "truncate", path, "", 0, "", 0);
        after(path);
    }
    return handle;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & O_CREAT) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *name, int flags, ...) { MODE(flags) return opened(REAL(openat), AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return opened(REAL(openat64), AT_FDCWD, name, flags, mode); }
int openat(int at, const char *name, int flags, ...) { MODE(flags) return opened(REAL(openat), at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) {
    MODE(flags) return opened(REAL(openat64), at, name, flags, mode);
}

static long at_now(int handle) {
    if (fcntl(handle, F_GETFL) & O_APPEND) return lseek(handle, 0, SEEK_END);
    return lseek(handle, 0, SEEK_CUR);
}

ssize_t write(int handle, const void *data, size_t size) {
    char path[PATH_MAX];
    if (!inside(of_handle(handle, path))) return REAL(write)(handle, data, size);
    if (before(path)) return -1;
    long offset = at_now(handle);
    ssize_t done = REAL(write)(handle, data, size);
    if (done > 0) record("write", path, "", offset, data, done);
    after(path);
    return done;
}

ssize_t pwrite64(int handle, const void *data, size_t size, off64_t offset) {
    char path[PATH_MAX];
    if (!inside(of_handle(handle, path))) return REAL(pwrite64)(handle, data, size, offset);
    if (before(path)) return -1;
    ssize_t done = REAL(pwrite64)(handle, data, size, offset);
    if (done > 0) record("write", path, "", offset, data, done);
    after(path);
    return done;
}

ssize_t pwrite(int handle, const void *data, size_t size, off_t offset) { return pwrite64(handle, data, size, offset); }

/* A copy inside the kernel: the same bytes are written by hand, so that they can be seen. */
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size) {
    char path[PATH_MAX], bytes[65536];
    if (!inside(of_handle(out, path)) || !offset) return REAL(sendfile64)(out, in, offset, size);
    ssize_t had = pread64(in, bytes, size < sizeof bytes ? size : sizeof bytes, *offset);
    ssize_t done = had > 0 ? write(out, bytes, (size_t)had) : had;
    if (done > 0) *offset += done;
    return done;
}

ssize_t sendfile(int out, int in, off_t *offset, size_t size) { return sendfile64(out, in, offset, size); }

static int on_handle(const char *op, int (*real)(int), int handle) {
    char path[PATH_MAX];
    of_handle(handle, path);
    if (before(path)) return -1;
    int done = real(handle);
    if (!done && concerns(path)) record(op, path, "", 0, "", 0);
    after(path);
    return done;
}

int fsync(int handle) { return on_handle("fsync", REAL(fsync), handle); }
int fdatasync(int handle) { return on_handle("fsync", REAL(fdatasync), handle); }

int ftruncate64(int handle, off64_t size) {
    char path[PATH_MAX];
    if (!inside(of_handle(handle, path))) return REAL(ftruncate64)(handle, size);
    if (before(path)) return -1;
    int done = REAL(ftruncate64)(handle, size);
    if (!done) record("truncate", path, "", size, "", 0);
    after(path);
    return done;
}

int ftruncate(int handle, off_t size) { return ftruncate64(handle, size); }

#define NAMED(op, at, name, other, call) \
    char path[PATH_MAX] = ""; \
    of_name(at, name, path); \
    if (!inside(path)) return call; \
    if (before(path)) return -1; \
    int done = call; \
    if (!done) record(op, path, other, 0, "", 0); \
    after(path); \
    return done;

int mkdir(const char *name, mode_t mode) { NAMED("mkdir", AT_FDCWD, name, "", REAL(mkdir)(name, mode)) }
int rmdir(const char *name) { NAMED("rmdir", AT_FDCWD, name, "", REAL(rmdir)(name)) }
int unlink(const char *name) { NAMED("unlink", AT_FDCWD, name, "", REAL(unlink)(name)) }
int unlinkat(int at, const char *name, int flags) {
    NAMED(flags & AT_REMOVEDIR ? "rmdir" : "unlink", at, name, "", REAL(unlinkat)(at, name, flags))
}
int symlink(const char *target, const char *name) {
    NAMED("symlink", AT_FDCWD, name, target, REAL(symlink)(target, name))
}

int rename(const char *old, const char *name) {
    char target[PATH_MAX] = "";
    of_name(AT_FDCWD, name, target);
    NAMED("rename", AT_FDCWD, old, target, REAL(rename)(old, name))
}
