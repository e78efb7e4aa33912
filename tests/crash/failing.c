/* Calls of the C library that fail when a test wants it, and a clock that a test sets.
 *
 * LD_PRELOAD brings it into the program.  A statement of SQLite fails as a call does.  MTA_FAILING
 * names the file with a `struct wish`, which the test changes while the program runs.
 * tests/crash/failing.py has the numbers of the calls, and the same struct. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum call {
    NONE, OPEN, WRITE, FSYNC, SYNCFS, RENAME, LINK, UNLINK, MKDIR, TRUNCATE, READ, CLOSE, STEP,
    STAT, LIST, OWN, LOCK, MAP, ALLOCATE, MKNOD, TOUCH, READLINK, SYMLINK, SPACE, SHORT,
    SOCKET, CONNECT, ACCEPT, WATCH, SPAWN, THREAD, RANDOM
};

struct wish {
    int32_t call;
    int32_t error;  /* errno, or SQLite's extended result code */
    int32_t skip;   /* calls that succeed before */
    int32_t times;  /* calls that fail; below 0: all */
    int32_t failed; /* calls that have failed */
    int32_t unused;
    int64_t seconds; /* by which the clock of the program is wrong */
    char path[512];  /* a part of the paths that count; of SQLite "DATABASE STATEMENT" */
};

static struct wish *wish;

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("MTA_FAILING");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *where = mmap(NULL, sizeof *wish, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (where != MAP_FAILED)
        wish = where;
}

static int fails(enum call call, const char *path)
{
    if (!wish || wish->call != (int32_t)call || !wish->times || !path || !strstr(path, wish->path))
        return 0;
    if (__atomic_fetch_sub(&wish->skip, 1, __ATOMIC_SEQ_CST) > 0)
        return 0;
    if (wish->times > 0 && __atomic_fetch_sub(&wish->times, 1, __ATOMIC_SEQ_CST) <= 0)
        return 0;
    __atomic_fetch_add(&wish->failed, 1, __ATOMIC_SEQ_CST);
    errno = wish->error;
    return 1;
}

static int file_fails(enum call call, int file)
{
    char link[64], path[1024];
    if (!wish || wish->call != (int32_t)call)
        return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    errno = before;
    if (size < 0)
        return 0;
    path[size] = 0;
    return fails(call, path);
}

#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

#define OPENS(name)                                                        \
    int name(const char *path, int flags, ...)                             \
    {                                                                      \
        static int (*real)(const char *, int, ...);                        \
        va_list rest;                                                      \
        va_start(rest, flags);                                             \
        mode_t mode = va_arg(rest, mode_t);                                \
        va_end(rest);                                                      \
        if (!real)                                                         \
            real = REAL(int, name, const char *, int, ...);                \
        return fails(OPEN, path) ? -1 : real(path, flags, mode);           \
    }
OPENS(open)
OPENS(open64)

#define OPENSAT(name)                                                      \
    int name(int folder, const char *path, int flags, ...)                 \
    {                                                                      \
        static int (*real)(int, const char *, int, ...);                   \
        va_list rest;                                                      \
        va_start(rest, flags);                                             \
        mode_t mode = va_arg(rest, mode_t);                                \
        va_end(rest);                                                      \
        if (!real)                                                         \
            real = REAL(int, name, int, const char *, int, ...);           \
        return fails(OPEN, path) ? -1 : real(folder, path, flags, mode);   \
    }
OPENSAT(openat)
OPENSAT(openat64)

#define OF_FILE(call, type, name, parameters, ...)                         \
    type name parameters                                                   \
    {                                                                      \
        static type (*real) parameters;                                    \
        if (!real)                                                         \
            real = dlsym(RTLD_NEXT, #name);                                \
        return file_fails(call, file) ? (type)-1 : real(__VA_ARGS__);      \
    }
OF_FILE(WRITE, ssize_t, pwrite, (int file, const void *octets, size_t size, off_t at), file, octets, size, at)
OF_FILE(WRITE, ssize_t, pwrite64, (int file, const void *octets, size_t size, off64_t at), file, octets, size, at)
OF_FILE(READ, ssize_t, read, (int file, void *octets, size_t size), file, octets, size)
OF_FILE(READ, ssize_t, pread, (int file, void *octets, size_t size, off_t at), file, octets, size, at)
OF_FILE(READ, ssize_t, pread64, (int file, void *octets, size_t size, off64_t at), file, octets, size, at)
OF_FILE(FSYNC, int, fsync, (int file), file)
OF_FILE(FSYNC, int, fdatasync, (int file), file)
OF_FILE(SYNCFS, int, syncfs, (int file), file)
OF_FILE(TRUNCATE, int, ftruncate, (int file, off_t size), file, size)
OF_FILE(TRUNCATE, int, ftruncate64, (int file, off64_t size), file, size)
OF_FILE(STAT, int, fstat, (int file, struct stat *status), file, status)
OF_FILE(STAT, int, fstat64, (int file, struct stat64 *status), file, status)
OF_FILE(OWN, int, fchmod, (int file, mode_t mode), file, mode)
OF_FILE(OWN, int, fchown, (int file, uid_t user, gid_t group), file, user, group)
OF_FILE(LOCK, int, flock, (int file, int kind), file, kind)
OF_FILE(TOUCH, int, futimens, (int file, const struct timespec times[2]), file, times)
OF_FILE(ACCEPT, int, accept, (int file, struct sockaddr *from, socklen_t *size), file, from, size)
OF_FILE(ACCEPT, int, accept4, (int file, struct sockaddr *from, socklen_t *size, int flags), file, from, size, flags)

ssize_t write(int file, const void *octets, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (!real)
        real = REAL(ssize_t, write, int, const void *, size_t);
    if (file_fails(WRITE, file))
        return -1;
    return real(file, octets, size > 1 && file_fails(SHORT, file) ? size / 2 : size);
}

#define LOCKS(name)                                                        \
    int name(int file, int what, ...)                                      \
    {                                                                      \
        static int (*real)(int, int, ...);                                 \
        va_list rest;                                                      \
        va_start(rest, what);                                              \
        void *more = va_arg(rest, void *);                                 \
        va_end(rest);                                                      \
        if (!real)                                                         \
            real = REAL(int, name, int, int, ...);                         \
        int locks = what == F_SETLK || what == F_SETLKW || what == F_OFD_SETLK; \
        return locks && file_fails(LOCK, file) ? -1 : real(file, what, more); \
    }
LOCKS(fcntl)
LOCKS(fcntl64)

#define MAPS(name, offset)                                                 \
    void *name(void *where, size_t size, int rights, int flags, int file, offset at) \
    {                                                                      \
        static void *(*real)(void *, size_t, int, int, int, offset);       \
        if (!real)                                                         \
            real = REAL(void *, name, void *, size_t, int, int, int, offset); \
        int failed = file >= 0 && file_fails(MAP, file);                   \
        return failed ? MAP_FAILED : real(where, size, rights, flags, file, at); \
    }
MAPS(mmap, off_t)
MAPS(mmap64, off64_t)

#define ALLOCATES(name, offset) /* it returns its error */                 \
    int name(int file, offset at, offset size)                             \
    {                                                                      \
        static int (*real)(int, offset, offset);                           \
        if (!real)                                                         \
            real = REAL(int, name, int, offset, offset);                   \
        return file_fails(ALLOCATE, file) ? wish->error : real(file, at, size); \
    }
ALLOCATES(posix_fallocate, off_t)
ALLOCATES(posix_fallocate64, off64_t)

int close(int file) /* the descriptor is gone all the same, as Linux has it */
{
    static int (*real)(int);
    if (!real)
        real = REAL(int, close, int);
    int failed = file_fails(CLOSE, file), error = errno;
    int result = real(file);
    if (!failed)
        return result;
    errno = error;
    return -1;
}

#define OF_PATH(call, name, parameters, ...)                               \
    int name parameters                                                    \
    {                                                                      \
        static int (*real) parameters;                                     \
        if (!real)                                                         \
            real = dlsym(RTLD_NEXT, #name);                                \
        return fails(call, path) ? -1 : real(__VA_ARGS__);                 \
    }
OF_PATH(RENAME, rename, (const char *path, const char *to), path, to)
OF_PATH(LINK, link, (const char *path, const char *to), path, to)
OF_PATH(LINK, linkat, (int from, const char *path, int folder, const char *to, int flags), from, path, folder, to, flags)
OF_PATH(UNLINK, unlink, (const char *path), path)
OF_PATH(MKDIR, mkdir, (const char *path, mode_t mode), path, mode)
OF_PATH(MKNOD, mkfifo, (const char *path, mode_t mode), path, mode)
OF_PATH(STAT, stat, (const char *path, struct stat *status), path, status)
OF_PATH(STAT, stat64, (const char *path, struct stat64 *status), path, status)
OF_PATH(STAT, lstat, (const char *path, struct stat *status), path, status)
OF_PATH(STAT, lstat64, (const char *path, struct stat64 *status), path, status)
OF_PATH(STAT, fstatat, (int folder, const char *path, struct stat *status, int flags), folder, path, status, flags)
OF_PATH(STAT, fstatat64, (int folder, const char *path, struct stat64 *status, int flags), folder, path, status, flags)
OF_PATH(OWN, chmod, (const char *path, mode_t mode), path, mode)
OF_PATH(OWN, chown, (const char *path, uid_t user, gid_t group), path, user, group)
OF_PATH(OWN, lchown, (const char *path, uid_t user, gid_t group), path, user, group)
OF_PATH(SYMLINK, symlink, (const char *to, const char *path), to, path)
OF_PATH(SPACE, statvfs, (const char *path, struct statvfs *space), path, space)
OF_PATH(SPACE, statvfs64, (const char *path, struct statvfs64 *space), path, space)

ssize_t readlink(const char *path, char *to, size_t size)
{
    static ssize_t (*real)(const char *, char *, size_t);
    if (!real)
        real = REAL(ssize_t, readlink, const char *, char *, size_t);
    return fails(READLINK, path) ? -1 : real(path, to, size);
}

DIR *opendir(const char *path)
{
    static DIR *(*real)(const char *);
    if (!real)
        real = REAL(DIR *, opendir, const char *);
    return fails(LIST, path) ? NULL : real(path);
}

#define LISTS(name, entry)                                                 \
    struct entry *name(DIR *folder)                                        \
    {                                                                      \
        static struct entry *(*real)(DIR *);                               \
        if (!real)                                                         \
            real = REAL(struct entry *, name, DIR *);                      \
        return file_fails(LIST, dirfd(folder)) ? NULL : real(folder);      \
    }
LISTS(readdir, dirent)
LISTS(readdir64, dirent64)

/* What has no file: the path of a socket is the number of its family, or where it leads. */

int socket(int family, int type, int protocol)
{
    static int (*real)(int, int, int);
    char text[16];
    if (!real)
        real = REAL(int, socket, int, int, int);
    snprintf(text, sizeof text, "%d", family);
    return fails(SOCKET, text) ? -1 : real(family, type, protocol);
}

int connect(int file, const struct sockaddr *to, socklen_t size)
{
    static int (*real)(int, const struct sockaddr *, socklen_t);
    if (!real)
        real = REAL(int, connect, int, const struct sockaddr *, socklen_t);
    const char *path = to->sa_family == AF_UNIX ? ((const struct sockaddr_un *)to)->sun_path : "inet";
    return fails(CONNECT, path) ? -1 : real(file, to, size);
}

int epoll_ctl(int file, int what, int other, struct epoll_event *event)
{
    static int (*real)(int, int, int, struct epoll_event *);
    if (!real)
        real = REAL(int, epoll_ctl, int, int, int, struct epoll_event *);
    return what == EPOLL_CTL_ADD && file_fails(WATCH, other) ? -1 : real(file, what, other, event);
}

#define SPAWNS(name) /* it returns its error */                            \
    int name(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, \
             const posix_spawnattr_t *attributes, char *const words[], char *const environment[]) \
    {                                                                      \
        static typeof(name) *real;                                         \
        if (!real)                                                         \
            real = dlsym(RTLD_NEXT, #name);                                \
        if (fails(SPAWN, path))                                            \
            return wish->error;                                            \
        return real(pid, path, actions, attributes, words, environment);   \
    }
SPAWNS(posix_spawn)
SPAWNS(posix_spawnp)

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *more)
{
    static typeof(pthread_create) *real;
    if (!real)
        real = dlsym(RTLD_NEXT, "pthread_create");
    return fails(THREAD, "thread") ? wish->error : real(thread, attributes, run, more);
}

ssize_t getrandom(void *octets, size_t size, unsigned int flags)
{
    static ssize_t (*real)(void *, size_t, unsigned int);
    if (!real)
        real = REAL(ssize_t, getrandom, void *, size_t, unsigned int);
    return fails(RANDOM, "random") ? -1 : real(octets, size, flags);
}

int clock_gettime(clockid_t which, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = REAL(int, clock_gettime, clockid_t, struct timespec *);
    int result = real(which, now);
    if (wish && which == CLOCK_REALTIME && !result)
        now->tv_sec += wish->seconds;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    static int (*real)(struct timeval *, void *);
    if (!real)
        real = REAL(int, gettimeofday, struct timeval *, void *);
    int result = real(now, zone);
    if (wish && !result)
        now->tv_sec += wish->seconds;
    return result;
}

time_t time(time_t *where)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where)
        *where = now.tv_sec;
    return now.tv_sec;
}

/* SQLite: what a statement comes to.  Python loads the library for itself alone: RTLD_NEXT does not find it. */

typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;

static __thread sqlite3 *failed; /* the connection whose last statement we let fail, */
static __thread int code;        /* with this code */

static void *of_sqlite(const char *name)
{
    void *library = dlopen("libsqlite3.so.0", RTLD_LAZY | RTLD_NOLOAD);
    return library ? dlsym(library, name) : NULL;
}

#define OF_SQLITE(type, name, parameters)                                  \
    static type (*real_##name) parameters;                                 \
    if (!real_##name)                                                      \
        real_##name = of_sqlite(#name);

static int statement_fails(sqlite3_stmt *statement)
{
    OF_SQLITE(sqlite3 *, sqlite3_db_handle, (sqlite3_stmt *))
    OF_SQLITE(const char *, sqlite3_db_filename, (sqlite3 *, const char *))
    OF_SQLITE(const char *, sqlite3_sql, (sqlite3_stmt *))
    char text[1024];
    failed = NULL;
    if (!wish || wish->call != STEP)
        return 0;
    sqlite3 *database = real_sqlite3_db_handle(statement);
    const char *name = real_sqlite3_db_filename(database, "main"), *sql = real_sqlite3_sql(statement);
    snprintf(text, sizeof text, "%s %s", name ? name : "", sql ? sql : "");
    if (!fails(STEP, text))
        return 0;
    failed = database;
    code = wish->error;
    return 1;
}

int sqlite3_step(sqlite3_stmt *statement)
{
    OF_SQLITE(int, sqlite3_step, (sqlite3_stmt *))
    return statement_fails(statement) ? code & 0xff : real_sqlite3_step(statement);
}

int sqlite3_errcode(sqlite3 *database)
{
    OF_SQLITE(int, sqlite3_errcode, (sqlite3 *))
    return database == failed ? code & 0xff : real_sqlite3_errcode(database);
}

int sqlite3_extended_errcode(sqlite3 *database)
{
    OF_SQLITE(int, sqlite3_extended_errcode, (sqlite3 *))
    return database == failed ? code : real_sqlite3_extended_errcode(database);
}

const char *sqlite3_errmsg(sqlite3 *database)
{
    OF_SQLITE(const char *, sqlite3_errmsg, (sqlite3 *))
    OF_SQLITE(const char *, sqlite3_errstr, (int))
    return database == failed ? real_sqlite3_errstr(code) : real_sqlite3_errmsg(database);
}
