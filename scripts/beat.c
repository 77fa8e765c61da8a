/* What the supervisors of scripts/bench-restart supervise: tells when it began, and dies when it is told to.
 *
 *   beat PREFIX        (the environment variable BEAT goes before it: some supervisors have words of their own)
 *
 * Writes "start TIME" to the named pipe PREFIX.out, TIME being nanoseconds of the monotonic clock; waits for a byte from
 * PREFIX.in; writes "crash TIME", and kills itself. Without PREFIX.in it waits for ever. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static char path[256];

static int open_pipe(const char *prefix, const char *suffix, int flags) {
    snprintf(path, sizeof path, "%s%s", prefix, suffix);
    return open(path, flags | O_CLOEXEC);
}

static void tell(int fd, const char *word, struct timespec time) {
    dprintf(fd, "%s %lld\n", word, time.tv_sec * 1000000000LL + time.tv_nsec);
}

int main(int argc, char **argv) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    const char *set = getenv("BEAT"), *prefix = set ? set : argc > 1 ? argv[1] : 0;
    int out = prefix ? open_pipe(prefix, ".out", O_WRONLY) : -1, in = prefix ? open_pipe(prefix, ".in", O_RDONLY) : -1;
    char byte;
    if (out < 0) return 1;
    tell(out, "start", time);
    while (in < 0) pause();
    if (read(in, &byte, 1) != 1) return 1;
    clock_gettime(CLOCK_MONOTONIC, &time);
    tell(out, "crash", time);
    kill(getpid(), SIGKILL);
    for (;;) pause();
}
