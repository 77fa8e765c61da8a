/* The floor that scripts/bench-restart measures coracle against: containers of floor.c, or plain processes in the same
 * cgroups, each started again as soon as it has ended, by the shortest C program that does that: no config, no log, no state.
 *
 *   restart-floor isolated|host ROOTFS MEMORY-BYTES COUNT COMMAND...
 *
 * As with coracle each command has an init of its own, whose end is the end of everything in the container; the cgroup and
 * the network namespace belong to the service and outlive the init. */
#define main container
#define MEASURED , "cpuacct"
#include "floor.c"
#undef main

enum { MOST = 128 };
static struct service {
    pid_t init;
    int net, joined, v2, tasks[CONTROLLERS];
    char groups[CONTROLLERS][512];
} services[MOST];
static int isolated;
static const char *rootfs;
static char **command;

static void run_host(void) {
    for (int i = 0; i < joined; i++) MUST(write(tasks[i], "0", 1), "join");
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    MUST(syscall(SYS_close_range, 3, ~0u, 4u), "close_range");
    execv(command[0], command);
    die(command[0]);
}

static void init_of(struct service *service) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 0);
    if (isolated && service->net >= 0) MUST(setns(service->net, CLONE_NEWNET), "setns");
    if (isolated) build_root(rootfs);
    else prctl(PR_SET_CHILD_SUBREAPER, 1);
    int status;
    pid_t child = clone_with(0, v2);
    if (child == 0 && isolated) run_main(command);
    if (child == 0) run_host();
    if (isolated) drop_capabilities();
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    if (!isolated) { /* is anything left? */
        char path[600], text[64];
        snprintf(path, sizeof path, "%s/cgroup.procs", service->groups[0]);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        MUST(read(fd, text, sizeof text), path);
    }
    _exit(0);
}

static void start(struct service *service) {
    memcpy(tasks, service->tasks, sizeof tasks);
    joined = service->joined, v2 = service->v2;
    int fresh = isolated && service->net < 0;
    service->init = clone_with(isolated ? CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | (fresh ? CLONE_NEWNET : 0) : 0, -1);
    if (service->init == 0) init_of(service);
    if (fresh) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/ns/net", service->init);
        MUST(service->net = open(path, O_RDONLY | O_CLOEXEC), path);
    }
}

static volatile sig_atomic_t over;
static void end(int signal) { over = signal; }

int main(int argc, char **argv) {
    if (argc < 6) die("usage: restart-floor isolated|host ROOTFS MEMORY COUNT COMMAND...");
    isolated = !strcmp(argv[1], "isolated");
    rootfs = argv[2];
    command = argv + 5;
    int count = atoi(argv[4]);
    if (count > MOST) die("COUNT");
    struct sigaction action = { .sa_handler = end };
    sigaction(SIGTERM, &action, 0);
    for (nth = 0; nth < count; nth++) {
        memset(groups, 0, sizeof groups);
        joined = 0, v2 = -1;
        make_groups(argv[3]);
        struct service *service = services + nth;
        memcpy(service->tasks, tasks, sizeof tasks);
        memcpy(service->groups, groups, sizeof groups);
        service->joined = joined, service->v2 = v2, service->net = -1;
        start(service);
    }
    while (!over) {
        pid_t ended = wait(0);
        for (int i = 0; i < count && !over && ended > 0; i++)
            if (services[i].init == ended) start(services + i);
    }
    for (int i = 0; i < count; i++) kill(services[i].init, SIGKILL);
    while (wait(0) > 0 || errno == EINTR) {}
    for (int i = 0; i < count; i++) {
        memcpy(groups, services[i].groups, sizeof groups);
        /* On the host what an init has left ends a moment after it. */
        for (int look = 0; look < 100; look++) {
            drop_groups();
            if (access(groups[0], F_OK) < 0) break;
            usleep(10000);
        }
    }
    return 0;
}
