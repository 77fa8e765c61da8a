/* What scripts/bench-boot starts beside a first process.
 *
 *   mark               the first service: one line in the kernel's log, with its stamp, and then nothing for ever
 *   mark watch CMD...  the first process: executes CMD; a child of it, unknown to CMD, looks after a while at what
 *                      memory every process has, says so on the kernel's log, and switches the board off */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

static int log_fd;

/* The number behind `key` in a file of the kernel's, -1 if there is none. */
static long field(const char *path, const char *key) {
    char line[256];
    long value = -1;
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, strlen(key))) value = atol(line + strlen(key));
    if (file) fclose(file);
    return value;
}

static void name_of(const char *pid, char *name, size_t size) {
    char path[300];
    snprintf(path, sizeof path, "/all/%s/comm", pid);
    FILE *file = fopen(path, "re");
    if (!file || !fgets(name, (int)size, file)) *name = 0;
    name[strcspn(name, " \n")] = 0;
    if (file) fclose(file);
}

static void watch(void) {
    sleep(3);
    /* A /proc of its own: what the first process does to the mounts is not this one's concern. */
    unshare(CLONE_NEWNS);
    mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
    mount("proc", "/all", "proc", 0, 0);
    dprintf(log_fd, "<0>bench: available %ld\n", field("/all/meminfo", "MemAvailable:"));
    DIR *all = opendir("/all");
    for (struct dirent *entry; all && (entry = readdir(all));) {
        char path[300], name[64];
        if (*entry->d_name < '1' || *entry->d_name > '9' || atoi(entry->d_name) == getpid()) continue;
        snprintf(path, sizeof path, "/all/%s/smaps_rollup", entry->d_name);
        long own = field(path, "Pss_Anon:"); /* none: a thread of the kernel */
        name_of(entry->d_name, name, sizeof name);
        if (own >= 0) dprintf(log_fd, "<0>bench: process %s %ld\n", name, own);
    }
    dprintf(log_fd, "<0>bench: end\n");
    reboot(RB_POWER_OFF);
}

int main(int argc, char **argv) {
    log_fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    if (argc > 2 && !strcmp(argv[1], "watch")) {
        mkdir("/all", 0755); /* while the root can be written */
        if (fork() == 0) {
            setsid();
            watch();
        }
        execv(argv[2], argv + 2);
        return 1;
    }
    dprintf(log_fd, "<5>bench: mark\n");
    for (;;) pause();
}
