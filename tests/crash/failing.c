/* Calls of the C library that fail when a test wants it, and a clock that a test sets.
 *
 * LD_PRELOAD brings it into the program.  A statement of SQLite fails as a call does.  MTA_FAILING
 * names the file with a `struct wish`, which the test changes while the program runs.
 * tests/crash/failing.py has the numbers of the calls, and the same struct. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum call { NONE, OPEN, WRITE, FSYNC, SYNCFS, RENAME, LINK, UNLINK, MKDIR, TRUNCATE, READ, CLOSE, STEP };

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
OF_FILE(WRITE, ssize_t, write, (int file, const void *octets, size_t size), file, octets, size)
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
