/* Times commands against each other in one run: each round runs every command once, in a new random order, with a pause
 * between, and waits for it. Prints a line per command: median, 10th and 90th percentile in microseconds, largest
 * resident set of the command or a child it waited for in KiB, failures.
 *
 *   race ROUNDS PAUSE-MS SEED NAME COMMAND... -- NAME COMMAND... [-- ...]     (output of the commands goes to /dev/null) */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RUNNERS = 16 };
static struct { char *name, **argv; long *us; long rss; int failed; } runners[RUNNERS];

static long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static int by_value(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static long run(int which, char **env) {
    posix_spawn_file_actions_t actions;
    struct rusage usage;
    pid_t pid;
    int status;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    long start = now_us();
    if (posix_spawnp(&pid, runners[which].argv[0], &actions, 0, runners[which].argv, env)) {
        runners[which].failed++;
        return 0;
    }
    wait4(pid, &status, 0, &usage);
    long took = now_us() - start;
    posix_spawn_file_actions_destroy(&actions);
    if (usage.ru_maxrss > runners[which].rss) runners[which].rss = usage.ru_maxrss;
    if (status) runners[which].failed++;
    return took;
}

int main(int argc, char **argv, char **env) {
    if (argc < 6) return fprintf(stderr, "usage: race ROUNDS PAUSE-MS SEED NAME COMMAND... [-- NAME COMMAND...]\n"), 2;
    int rounds = atoi(argv[1]), pause = atoi(argv[2]), count = 0;
    srand(atoi(argv[3]));
    for (char **word = argv + 4; *word && count < RUNNERS; count++) {
        runners[count].name = *word++;
        runners[count].argv = word;
        runners[count].us = calloc(rounds, sizeof(long));
        while (*word && strcmp(*word, "--")) word++;
        if (*word) *word++ = 0;
    }
    for (int round = 0; round < rounds; round++) {
        int order[RUNNERS];
        for (int i = 0; i < count; i++) {
            int j = rand() % (i + 1);
            order[i] = order[j];
            order[j] = i;
        }
        for (int i = 0; i < count; i++) {
            usleep(pause * 1000);
            runners[order[i]].us[round] = run(order[i], env);
        }
    }
    for (int i = 0; i < count; i++) {
        qsort(runners[i].us, rounds, sizeof(long), by_value);
        printf("%s %ld %ld %ld %ld %d\n", runners[i].name, runners[i].us[rounds / 2], runners[i].us[rounds / 10],
               runners[i].us[rounds * 9 / 10], runners[i].rss, runners[i].failed);
    }
    return 0;
}
