/* Another clock for one process, loaded before its C library: CLOCK_FILE holds how many milliseconds the wall clock is ahead (a signed
 * 64-bit number that may change at any time), CLOCK_PERMILLE how fast time that never goes back passes: 2000 is twice as fast as it
 * does. Both ends of every wait are told in that time: what a thread is to sleep, and when it is to be woken. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BILLION 1000000000LL

static int (*real_gettime)(clockid_t, struct timespec *);
static int (*real_nanosleep)(clockid_t, int, const struct timespec *, struct timespec *);
static int (*real_epoll_wait)(int, struct epoll_event *, int, int);
static int (*real_poll)(struct pollfd *, nfds_t, int);
static long (*real_syscall)(long, ...);
static volatile int64_t *ahead_ms;
static int64_t permille = 1000;
static int64_t begin;

static int64_t nanos(const struct timespec *at) { return at->tv_sec * BILLION + at->tv_nsec; }

static struct timespec span(int64_t nanos) {
    struct timespec at = {nanos / BILLION, nanos % BILLION};
    return at;
}

static int64_t scaled(int64_t nanos, int64_t by, int64_t of) { return (int64_t)((__int128)nanos * by / of); }

/* Some time of this process as the kernel counts it. */
static int64_t outside(int64_t inside) { return begin + scaled(inside - begin, 1000, permille); }

__attribute__((constructor)) static void start(void) {
    if (real_gettime) return;
    real_nanosleep = dlsym(RTLD_NEXT, "clock_nanosleep");
    real_epoll_wait = dlsym(RTLD_NEXT, "epoll_wait");
    real_poll = dlsym(RTLD_NEXT, "poll");
    real_syscall = dlsym(RTLD_NEXT, "syscall");
    real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    struct timespec now;
    real_gettime(CLOCK_MONOTONIC, &now);
    begin = nanos(&now);
    const char *file = getenv("CLOCK_FILE"), *pace = getenv("CLOCK_PERMILLE");
    if (pace) permille = atoll(pace);
    int opened = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    void *page = opened < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, opened, 0);
    if (page == MAP_FAILED || permille <= 0) abort();
    ahead_ms = page;
    close(opened);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    start();
    int failed = real_gettime(clock, at);
    if (failed) return failed;
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        *at = span(nanos(at) + *ahead_ms * 1000000);
    } else if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE) {
        *at = span(begin + scaled(nanos(at) - begin, permille, 1000));
    }
    return 0;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wanted, struct timespec *left) {
    start();
    int64_t told = nanos(wanted);
    int64_t until = flags & TIMER_ABSTIME ? outside(told) : scaled(told, 1000, permille);
    struct timespec real = clock == CLOCK_MONOTONIC || !(flags & TIMER_ABSTIME) ? span(until) : *wanted;
    int failed = real_nanosleep(clock, flags, &real, left);
    if (failed && left && !(flags & TIMER_ABSTIME)) *left = span(scaled(nanos(left), permille, 1000));
    return failed;
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
    return clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, left) ? -1 : 0;
}

static int rounded_up(int ms) { return ms <= 0 ? ms : (int)(((int64_t)ms * 1000 + permille - 1) / permille); }

int epoll_wait(int epoll, struct epoll_event *events, int most, int ms) {
    start();
    return real_epoll_wait(epoll, events, most, rounded_up(ms));
}

int poll(struct pollfd *files, nfds_t count, int ms) {
    start();
    return real_poll(files, count, rounded_up(ms));
}

/* Rust waits for locks and channels by this: FUTEX_WAIT_BITSET until a time, or FUTEX_WAIT for a while. */
long syscall(long number, ...) {
    start();
    va_list given;
    va_start(given, number);
    long a = va_arg(given, long), b = va_arg(given, long), c = va_arg(given, long);
    long d = va_arg(given, long), e = va_arg(given, long), f = va_arg(given, long);
    va_end(given);
    struct timespec real;
    if (number == SYS_futex && d) {
        long kind = b & FUTEX_CMD_MASK;
        const struct timespec *told = (const struct timespec *)d;
        if (kind == FUTEX_WAIT_BITSET && !(b & FUTEX_CLOCK_REALTIME)) {
            real = span(outside(nanos(told)));
            d = (long)&real;
        } else if (kind == FUTEX_WAIT) {
            real = span(scaled(nanos(told), 1000, permille));
            d = (long)&real;
        }
    }
    return real_syscall(number, a, b, c, d, e, f);
}
