/* Holds a process behind a system call, from inside and from its first moment: what /hold.rs/ asks for stands in a page that both map
 * (HOLD_FILE), and so does the answer.
 *
 * It wraps no function of the C library, because Varve calls most of its files' system calls without it: rustix has the instruction in its
 * own code (pwrite64, fdatasync, renameat2, fsync of the log), only std asks the library (mkdir, rename, unlink). So the kernel is asked to
 * trap the calls, whoever makes them: a filter (seccomp) turns each into a SIGSYS of the thread that makes it, from the first thread on
 * and in all that follow, and the handler makes the call in its place. It marks its own by a sixth argument, which none of these
 * calls has: the filter lets those through.
 *
 * When the last call of the plan has succeeded, and before the thread that made it sees that, the whole process stops itself (SIGSTOP).
 * The lock is kept meanwhile: where another thread still runs for a moment, it comes behind no call of these. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define OURS 0x686f6c64 /* "hold" */
#define PAGE_BYTES 4096
#define CALLS_MAX 8
#define PARTS_MAX 6
#define TOLD_BYTES (4096 + 4) /* of a path, with what is around it */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#define ARGUMENT(at, n) ((at)->uc_mcontext.gregs[(const int[]){REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8}[n]])
#define RESULT(at) ((at)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#define ARGUMENT(at, n) ((at)->uc_mcontext.regs[n])
#define RESULT(at) ((at)->uc_mcontext.regs[0])
#else
#error "no processor that this knows"
#endif

/* What the test writes (armed, times, plan) and what we do. `armed` comes last, and is a number of its own for each plan. */
static struct {
    _Atomic uint32_t armed, held, loaded;
    uint32_t times;
    char plan[PAGE_BYTES - 16];
} *page;

/* A call's name in plans, and what its arguments are: d a descriptor, p a path. */
static const struct kind {
    long number;
    const char *name, *arguments;
} kinds[] = {
#ifdef SYS_rename
    {SYS_rename, "rename", "pp"}, {SYS_link, "link", "pp"}, {SYS_unlink, "unlink", "p"}, {SYS_mkdir, "mkdir", "p"},
#endif
#ifdef SYS_renameat
    {SYS_renameat, "rename", "dpdp"},
#endif
    {SYS_renameat2, "rename", "dpdp"}, {SYS_linkat, "link", "dpdp"}, {SYS_unlinkat, "unlink", "dp"},
    {SYS_mkdirat, "mkdir", "dp"}, {SYS_pwrite64, "pwrite64", "d"}, {SYS_fdatasync, "fdatasync", "d"},
    {SYS_fsync, "fsync", "d"},
};
#define KINDS (sizeof kinds / sizeof *kinds)

/* All of it under the lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t armed, step, steps, left;
static char plan[PAGE_BYTES - 16];
static struct { char *name, *parts[PARTS_MAX + 1]; } calls[CALLS_MAX];
static char told[4 * TOLD_BYTES];

/* A line for each call: its name and the parts of its arguments, in order, each behind a tab. */
static void read_plan(void) {
    step = steps = 0;
    left = page->times;
    memcpy(plan, page->plan, sizeof plan - 1);
    char *lines, *line = strtok_r(plan, "\n", &lines);
    for (; line; line = strtok_r(NULL, "\n", &lines)) {
        if (steps == CALLS_MAX) abort();
        char *words;
        calls[steps].name = strtok_r(line, "\t", &words);
        int part = 0;
        while ((calls[steps].parts[part] = strtok_r(NULL, "\t", &words)))
            if (++part > PARTS_MAX) abort();
        steps++;
    }
}

/* The arguments as text: "/a/path" as it was given, and </a/path> for a descriptor. */
static void tell(const struct kind *kind, ucontext_t *at) {
    char *end = told;
    for (int n = 0; kind->arguments[n]; n++) {
        if (kind->arguments[n] == 'p') {
            end += snprintf(end, TOLD_BYTES, "\"%s\" ", (const char *)ARGUMENT(at, n));
        } else if ((int)ARGUMENT(at, n) != AT_FDCWD) {
            char link[32], path[4096];
            snprintf(link, sizeof link, "/proc/self/fd/%d", (int)ARGUMENT(at, n));
            ssize_t bytes = readlink(link, path, sizeof path - 1);
            path[bytes < 0 ? 0 : bytes] = 0;
            end += snprintf(end, TOLD_BYTES, "<%s> ", path);
        }
    }
    *end = 0;
}

static int is_next(const struct kind *kind, ucontext_t *at) {
    if (!steps || strcmp(kind->name, calls[step].name)) return 0;
    tell(kind, at);
    const char *rest = told;
    for (char **part = calls[step].parts; *part; part++) {
        if (!(rest = strstr(rest, *part))) return 0;
        rest += strlen(*part);
    }
    return 1;
}

static void succeeded(const struct kind *kind, ucontext_t *at) {
    pthread_mutex_lock(&lock);
    if (page->armed != armed) {
        armed = page->armed;
        read_plan();
    }
    if (left && is_next(kind, at)) {
        step = (step + 1) % steps;
        if (!step && !--left) {
            page->held = armed;
            syscall(SYS_tgkill, getpid(), gettid(), SIGSTOP);
        }
    }
    pthread_mutex_unlock(&lock);
}

static void on_call(int signal, siginfo_t *info, void *context) {
    (void)signal;
    int before = errno;
    ucontext_t *at = context;
    long result = syscall(info->si_syscall, ARGUMENT(at, 0), ARGUMENT(at, 1), ARGUMENT(at, 2), ARGUMENT(at, 3),
                          ARGUMENT(at, 4), (long)OURS);
    if (result < 0) {
        result = -errno;
    } else if (page->armed) {
        const struct kind *kind = kinds;
        while (kind->number != info->si_syscall) kind++;
        succeeded(kind, at);
    }
    RESULT(at) = result;
    errno = before;
}

#define READ(what) (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, what))
#define WHERE(value, then, otherwise) (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, then, otherwise)
#define ANSWER(what) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, what)

static int trap(void) {
    struct sock_filter filter[KINDS + 7];
    unsigned short length = 0;
    filter[length++] = READ(arch);
    filter[length++] = WHERE(ARCH, 0, KINDS + 3);
    filter[length++] = READ(args[5]);
    filter[length++] = WHERE(OURS, KINDS + 1, 0);
    filter[length++] = READ(nr);
    for (unsigned kind = 0; kind < KINDS; kind++) filter[length++] = WHERE(kinds[kind].number, KINDS - kind, 0);
    filter[length++] = ANSWER(SECCOMP_RET_ALLOW);
    filter[length++] = ANSWER(SECCOMP_RET_TRAP);
    struct sock_fprog program = {length, filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

__attribute__((constructor)) static void start(void) {
    const char *file = getenv("HOLD_FILE");
    int opened = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
    void *mapped = opened < 0 ? MAP_FAILED : mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, opened, 0);
    if (mapped == MAP_FAILED) abort();
    close(opened);
    page = mapped;
    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigfillset(&action.sa_mask);
    if (!sigaction(SIGSYS, &action, NULL) && !trap()) page->loaded = getpid();
}
