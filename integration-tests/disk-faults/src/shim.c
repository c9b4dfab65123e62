/*
 * Stands between a process and the files of one directory: keeps apart what would survive a power failure, and makes
 * reads, writes and syncs fail. See src/lib.rs for what it promises and how it is switched.
 *
 * Names. Every file gets a number when it is first seen. The durable content of file N is `SHADOW/N`; the durable names
 * are `SHADOW/names`, lines "N name", written anew when the directory is synced. A file that was there at the start
 * and has not been changed has no shadow: its content is that of the directory. A new file's shadow is empty until its
 * first sync. What is changed, renamed over or removed before the directory is synced keeps its shadow.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FAULT_NONE, FAULT_WRITE_EIO, FAULT_WRITE_ENOSPC, FAULT_SYNC_EIO, FAULT_READ_ONLY, FAULT_READ_EIO, FAULT_SYNC_LIES };
enum { KILL_BEFORE, KILL_AFTER, KILL_HALFWAY };

struct control {
    volatile uint64_t fault;      /* one of FAULT_… */
    volatile uint64_t kill_at;    /* operation at which the process is killed; 0: never */
    volatile uint64_t kill_when;  /* one of KILL_… */
    volatile uint64_t operations; /* writes, syncs, renames and removals seen */
    volatile uint64_t failed;     /* calls that were made to fail */
};

#define FILES_MAX 65536
#define DESCRIPTORS_MAX 65536

struct file {
    char name[NAME_MAX + 1]; /* empty: removed */
    ino_t inode;
    int has_shadow;
    off_t dirty_from, dirty_to;
};

static char root[PATH_MAX], shadow[PATH_MAX];
static size_t root_length;
static struct control fallback, *control = &fallback;
static struct file files[FILES_MAX];
static int file_count;
static int descriptors[DESCRIPTORS_MAX]; /* 0: not ours, -1: the directory, else file number */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static ssize_t real_pwrite(int fd, const void *bytes, size_t count, off_t at) { NEXT(pwrite64); return next(fd, bytes, count, at); }
static ssize_t real_pread(int fd, void *bytes, size_t count, off_t at) { NEXT(pread64); return next(fd, bytes, count, at); }
static int real_open(const char *path, int flags, mode_t mode) { NEXT(open64); return next(path, flags, mode); }
static int real_close(int fd) { NEXT(close); return next(fd); }
static int real_rename(const char *from, const char *to) { NEXT(rename); return next(from, to); }

static void shadow_path(char *path, int number) { snprintf(path, PATH_MAX, "%.4000s/%d", shadow, number); }
static void live_path(char *path, const char *name) { snprintf(path, PATH_MAX, "%.3800s/%.255s", root, name); }

/* The name inside the root of an absolute path; NULL: elsewhere. Empty: the root itself. */
static const char *inside(const char *path) {
    if (!root_length || !path || strncmp(path, root, root_length)) return NULL;
    const char *rest = path + root_length;
    if (!*rest) return rest;
    if (*rest != '/') return NULL;
    while (*rest == '/') rest++;
    return strchr(rest, '/') ? NULL : rest;
}

static int find(const char *name) {
    for (int number = file_count; number > 0; number--)
        if (!strcmp(files[number].name, name)) return number;
    return 0;
}

static int add(const char *name, ino_t inode) {
    if (file_count + 1 >= FILES_MAX) abort();
    struct file *file = &files[++file_count];
    snprintf(file->name, sizeof file->name, "%s", name);
    file->inode = inode;
    return file_count;
}

static void copy_range(int from, int to, off_t start, off_t end) {
    static char buffer[1 << 16];
    while (start < end) {
        size_t want = (size_t)(end - start) < sizeof buffer ? (size_t)(end - start) : sizeof buffer;
        ssize_t got = real_pread(from, buffer, want, start);
        if (got <= 0) return;
        if (real_pwrite(to, buffer, (size_t)got, start) != got) abort();
        start += got;
    }
}

static int raw_truncate(int fd, off_t size) { NEXT(ftruncate64); return next(fd, size); }

/* Before a file that was there at the start is changed: its durable content is what it has now. */
static void keep(int number) {
    struct file *file = &files[number];
    if (!shadow[0] || file->has_shadow) return;
    char live[PATH_MAX], kept[PATH_MAX];
    live_path(live, file->name);
    shadow_path(kept, number);
    int from = real_open(live, O_RDONLY | O_CLOEXEC, 0);
    int to = real_open(kept, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct stat status;
    if (from < 0 || to < 0 || fstat(from, &status)) abort();
    copy_range(from, to, 0, status.st_size);
    real_close(from);
    real_close(to);
    file->has_shadow = 1;
}

/* Before a name goes away or to another file: the durable name still needs the content. */
static void keep_linked(int number) {
    struct file *file = &files[number];
    if (!shadow[0] || file->has_shadow) return;
    char live[PATH_MAX], kept[PATH_MAX];
    live_path(live, file->name);
    shadow_path(kept, number);
    if (link(live, kept)) return keep(number);
    file->has_shadow = 1;
}

static void sync_file(int fd, int number) {
    struct file *file = &files[number];
    struct stat status;
    if (!shadow[0] || !file->has_shadow || fstat(fd, &status)) return;
    char live[64], kept[PATH_MAX];
    snprintf(live, sizeof live, "/proc/self/fd/%d", fd);
    shadow_path(kept, number);
    int from = real_open(live, O_RDONLY | O_CLOEXEC, 0), to = real_open(kept, O_WRONLY | O_CLOEXEC, 0600);
    if (from < 0 || to < 0) abort();
    off_t end = file->dirty_to < status.st_size ? file->dirty_to : status.st_size;
    copy_range(from, to, file->dirty_from, end);
    if (raw_truncate(to, status.st_size)) abort();
    real_close(from);
    real_close(to);
    file->dirty_from = file->dirty_to = 0;
}

static void sync_names(void) {
    if (!shadow[0]) return;
    char path[PATH_MAX], partial[PATH_MAX];
    snprintf(path, sizeof path, "%.4000s/names", shadow);
    snprintf(partial, sizeof partial, "%.4000s/names.partial", shadow);
    int fd = real_open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) abort();
    off_t at = 0;
    for (int number = 1; number <= file_count; number++) {
        char line[NAME_MAX + 32];
        if (!files[number].name[0]) continue;
        int length = snprintf(line, sizeof line, "%d %s\n", number, files[number].name);
        if (real_pwrite(fd, line, (size_t)length, at) != length) abort();
        at += length;
    }
    real_close(fd);
    if (real_rename(partial, path)) abort();
}

__attribute__((constructor)) static void start(void) {
    const char *of = getenv("GRAPEVINE_DISK_ROOT");
    if (!of || !*of) return;
    const char *switches = getenv("GRAPEVINE_DISK_CONTROL"), *keeps = getenv("GRAPEVINE_DISK_SHADOW");
    if (switches) {
        int fd = real_open(switches, O_RDWR | O_CLOEXEC, 0);
        void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (mapped == MAP_FAILED) abort();
        control = mapped;
        real_close(fd);
    }
    snprintf(root, sizeof root, "%.4000s", of);
    DIR *directory = opendir(root);
    struct dirent *entry;
    while (directory && (entry = readdir(directory)))
        if (entry->d_type == DT_REG) add(entry->d_name, entry->d_ino);
    if (directory) closedir(directory);
    if (keeps) snprintf(shadow, sizeof shadow, "%.4000s", keeps);
    sync_names();
    root_length = strlen(root);
}

static int is_ours(int fd) { return fd >= 0 && fd < DESCRIPTORS_MAX && descriptors[fd] != 0; }

/* Counts an operation; kills the process there if that is wanted. `before` says which side of it this is. */
static int reach(int before) {
    if (before) control->operations++;
    if (!control->kill_at || control->operations != control->kill_at) return 0;
    if (control->kill_when == (before ? KILL_BEFORE : KILL_AFTER)) kill(getpid(), SIGKILL);
    return before && control->kill_when == KILL_HALFWAY;
}

static int fails(int error) {
    control->failed++;
    errno = error;
    return -1;
}

static int write_fault(void) {
    switch (control->fault) {
    case FAULT_WRITE_EIO: return EIO;
    case FAULT_WRITE_ENOSPC: return ENOSPC;
    case FAULT_READ_ONLY: return EROFS;
    default: return 0;
    }
}

static int opened(int fd, const char *name, int created) {
    if (fd < 0 || fd >= DESCRIPTORS_MAX) return fd;
    struct stat status;
    if (!*name || fstat(fd, &status) || S_ISDIR(status.st_mode)) {
        descriptors[fd] = -1;
        return fd;
    }
    int number = find(name);
    if (!number || created) {
        number = add(name, status.st_ino);
        if (shadow[0]) {
            char kept[PATH_MAX];
            shadow_path(kept, number);
            int empty = real_open(kept, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
            if (empty < 0) abort();
            real_close(empty);
        }
        files[number].has_shadow = 1;
    }
    descriptors[fd] = number;
    return fd;
}

static int open_as(const char *path, int flags, mode_t mode) {
    const char *name = inside(path);
    if (!name) return real_open(path, flags, mode);
    pthread_mutex_lock(&lock);
    int writes = (flags & O_ACCMODE) != O_RDONLY, fd;
    if (writes && control->fault == FAULT_READ_ONLY) {
        fd = fails(EROFS);
    } else {
        struct stat status;
        int created = (flags & O_CREAT) && stat(path, &status);
        if (!created && (flags & O_TRUNC) && find(name)) keep(find(name));
        fd = opened(real_open(path, flags, mode), name, created);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open(const char *path, int flags, ...) { MODE(flags) return open_as(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_as(path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_as(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open_as(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    if (inside(path)) return open_as(path, flags, mode);
    NEXT(openat);
    return next(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    MODE(flags)
    if (inside(path)) return open_as(path, flags, mode);
    NEXT(openat64);
    return next(at, path, flags, mode);
}

int close(int fd) {
    if (is_ours(fd)) {
        pthread_mutex_lock(&lock);
        descriptors[fd] = 0;
        pthread_mutex_unlock(&lock);
    }
    return real_close(fd);
}

/* Writes at `at`, or where the file stands if that is negative. */
static ssize_t write_as(int fd, const void *bytes, size_t count, off_t at) {
    pthread_mutex_lock(&lock);
    ssize_t wrote;
    int halfway = reach(1), error = write_fault(), number = descriptors[fd];
    if (error) {
        wrote = fails(error);
    } else {
        struct stat status;
        if (number > 0) keep(number);
        off_t from = at >= 0 ? at : lseek(fd, 0, SEEK_CUR);
        if ((fcntl(fd, F_GETFL) & O_APPEND) && !fstat(fd, &status)) from = status.st_size;
        if (halfway) count /= 2;
        if (at >= 0) {
            wrote = real_pwrite(fd, bytes, count, at);
        } else {
            NEXT(write);
            wrote = next(fd, bytes, count);
        }
        if (halfway) kill(getpid(), SIGKILL);
        if (wrote > 0 && number > 0) {
            struct file *file = &files[number];
            if (file->dirty_to == 0 || from < file->dirty_from) file->dirty_from = from;
            if (from + wrote > file->dirty_to) file->dirty_to = from + wrote;
        }
    }
    int kept = errno;
    reach(0);
    errno = kept;
    pthread_mutex_unlock(&lock);
    return wrote;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (is_ours(fd)) return write_as(fd, bytes, count, -1);
    NEXT(write);
    return next(fd, bytes, count);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    return is_ours(fd) ? write_as(fd, bytes, count, at) : real_pwrite(fd, bytes, count, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    return is_ours(fd) ? write_as(fd, bytes, count, at) : real_pwrite(fd, bytes, count, at);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (is_ours(fd)) {
        ssize_t sum = 0;
        for (int part = 0; part < count; part++) {
            ssize_t wrote = write_as(fd, parts[part].iov_base, parts[part].iov_len, -1);
            if (wrote < 0) return sum ? sum : -1;
            sum += wrote;
            if ((size_t)wrote < parts[part].iov_len) break;
        }
        return sum;
    }
    NEXT(writev);
    return next(fd, parts, count);
}

static int truncate_as(int fd, off_t size) {
    pthread_mutex_lock(&lock);
    if (descriptors[fd] > 0) keep(descriptors[fd]);
    int done = write_fault() == EROFS ? fails(EROFS) : raw_truncate(fd, size);
    pthread_mutex_unlock(&lock);
    return done;
}
int ftruncate(int fd, off_t size) { return is_ours(fd) ? truncate_as(fd, size) : raw_truncate(fd, size); }
int ftruncate64(int fd, off64_t size) { return is_ours(fd) ? truncate_as(fd, size) : raw_truncate(fd, size); }

static int allocate_fault(int fd) {
    if (!is_ours(fd)) return 0;
    if (descriptors[fd] > 0) {
        pthread_mutex_lock(&lock);
        keep(descriptors[fd]);
        pthread_mutex_unlock(&lock);
    }
    return write_fault();
}
int fallocate(int fd, int mode, off_t from, off_t length) {
    int error = allocate_fault(fd);
    if (error) return fails(error);
    NEXT(fallocate);
    return next(fd, mode, from, length);
}
int fallocate64(int fd, int mode, off64_t from, off64_t length) {
    int error = allocate_fault(fd);
    if (error) return fails(error);
    NEXT(fallocate64);
    return next(fd, mode, from, length);
}

/* Only what these report as done is durable; sync_file_range promises nothing about a file's length and is let through. */
static int sync_as(int fd, int data_only) {
    pthread_mutex_lock(&lock);
    int done;
    reach(1);
    if (control->fault == FAULT_SYNC_EIO) {
        done = fails(EIO);
    } else if (control->fault == FAULT_SYNC_LIES) {
        done = 0;
    } else {
        if (data_only) {
            NEXT(fdatasync);
            done = next(fd);
        } else {
            NEXT(fsync);
            done = next(fd);
        }
        if (!done && descriptors[fd] > 0) sync_file(fd, descriptors[fd]);
        if (!done && descriptors[fd] < 0) sync_names();
    }
    reach(0);
    pthread_mutex_unlock(&lock);
    return done;
}
int fsync(int fd) {
    if (is_ours(fd)) return sync_as(fd, 0);
    NEXT(fsync);
    return next(fd);
}
int fdatasync(int fd) {
    if (is_ours(fd)) return sync_as(fd, 1);
    NEXT(fdatasync);
    return next(fd);
}

int rename(const char *from, const char *to) {
    const char *of = inside(from), *name = inside(to);
    if (!of || !name) return real_rename(from, to);
    pthread_mutex_lock(&lock);
    int done;
    reach(1);
    if (write_fault() == EROFS) {
        done = fails(EROFS);
    } else {
        int moved = find(of), replaced = find(name);
        if (moved) keep_linked(moved);
        if (replaced) keep_linked(replaced);
        done = real_rename(from, to);
        if (!done && replaced) files[replaced].name[0] = 0;
        if (!done && moved) snprintf(files[moved].name, sizeof files[moved].name, "%s", name);
    }
    reach(0);
    pthread_mutex_unlock(&lock);
    return done;
}

int unlink(const char *path) {
    const char *name = inside(path);
    NEXT(unlink);
    if (!name) return next(path);
    pthread_mutex_lock(&lock);
    int done;
    reach(1);
    if (write_fault() == EROFS) {
        done = fails(EROFS);
    } else {
        int number = find(name);
        if (number) keep_linked(number);
        done = next(path);
        if (!done && number) files[number].name[0] = 0;
    }
    reach(0);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pread(int fd, void *bytes, size_t count, off_t at) {
    if (is_ours(fd) && control->fault == FAULT_READ_EIO) return fails(EIO);
    return real_pread(fd, bytes, count, at);
}
ssize_t pread64(int fd, void *bytes, size_t count, off64_t at) {
    if (is_ours(fd) && control->fault == FAULT_READ_EIO) return fails(EIO);
    return real_pread(fd, bytes, count, at);
}
