/* The floor that scripts/bench measures coracle against: the same namespaces, cgroup, mounts, masks, pivot_root,
 * capabilities, system call filter, init, fork and exec as `coracle run --rootfs DIR`, made by the shortest C program
 * that makes them: no config, no image, no error messages beyond the step's name.
 *
 *   floor ROOTFS MEMORY-BYTES COMMAND...
 *
 * cgroup v1 or hybrid: joins by writing 0 to each `tasks` file (no RCU grace period); v2: CLONE_INTO_CGROUP, and the
 * devices by a program. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *step) { dprintf(2, "floor: %s: %s\n", step, strerror(errno)); _exit(125); }
#define MUST(call, step) do { if ((call) < 0) die(step); } while (0)

static void put(const char *dir, const char *file, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = openat(AT_FDCWD, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) die(path);
    close(fd);
}

static char membership[4096]; /* /proc/self/cgroup */

/* The cgroup of this process in `controller`'s v1 hierarchy, or in the v2 tree for an empty name. */
static int own_group(const char *controller, char *out, size_t size) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, ":%s:", controller);
    char *path = strstr(membership, wanted);
    if (!path) return 0;
    path += strlen(wanted);
    int length = strcspn(path, "\n");
    if (length == 1) length = 0; /* the root */
    snprintf(out, size, "/sys/fs/cgroup%s%s%.*s", *controller ? "/" : "", controller, length, path);
    return 1;
}

#ifndef MEASURED /* a service's group also counts its processor time */
#define MEASURED
#endif
static const char *const V1[] = { "memory", "pids", "devices", "freezer" MEASURED };
#define CONTROLLERS (int)(sizeof V1 / sizeof *V1)
static char groups[CONTROLLERS][512];
static int tasks[CONTROLLERS], joined, v2 = -1, nth; /* nth: which of this process's containers */

/* What v1's devices.allow says, as a v2 program: the answer is 1 for the first pair of numbers that matches, else 0. */
static void allow_devices(int group) {
    static const int allow[][2] = { { 1, 3 }, { 1, 5 }, { 1, 7 }, { 1, 8 }, { 1, 9 }, { 5, 0 }, { 5, 2 }, { 136, -1 },
#ifdef KERNEL_LOG
        { 1, 11 },
#endif
    };
    struct bpf_insn code[3 + 4 * sizeof allow / sizeof *allow + 2];
    unsigned n = 0;
    for (short i = 0; i < 3; i++) /* access and kind, major, minor to registers 2, 3, 4 */
        code[n++] = (struct bpf_insn){ BPF_LDX | BPF_MEM | BPF_W, (unsigned char)(i + 2) & 15, 1, (short)(4 * i), 0 };
    for (unsigned i = 0; i < sizeof allow / sizeof *allow; i++) {
        int any = allow[i][1] < 0;
        code[n++] = (struct bpf_insn){ BPF_JMP | BPF_JNE | BPF_K, 3, 0, any ? 2 : 3, allow[i][0] };
        if (!any) code[n++] = (struct bpf_insn){ BPF_JMP | BPF_JNE | BPF_K, 4, 0, 2, allow[i][1] };
        code[n++] = (struct bpf_insn){ BPF_ALU | BPF_MOV | BPF_K, 0, 0, 0, 1 };
        code[n++] = (struct bpf_insn){ BPF_JMP | BPF_EXIT, 0, 0, 0, 0 };
    }
    code[n++] = (struct bpf_insn){ BPF_ALU | BPF_MOV | BPF_K, 0, 0, 0, 0 };
    code[n++] = (struct bpf_insn){ BPF_JMP | BPF_EXIT, 0, 0, 0, 0 };
    union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insn_cnt = n, .insns = (uintptr_t)code, .license = (uintptr_t)"GPL" };
    int program = syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
    MUST(program, "device program");
    attr = (union bpf_attr){ .target_fd = (unsigned)group, .attach_bpf_fd = (unsigned)program, .attach_type = BPF_CGROUP_DEVICE };
    MUST(syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof attr), "attach the device program");
    close(program);
}

static void make_groups(const char *memory) {
    char base[400];
    int fd = openat(AT_FDCWD, "/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, membership, sizeof membership - 1) < 0) die("/proc/self/cgroup");
    close(fd);
    for (int i = 0; i < CONTROLLERS; i++) {
        if (!own_group(V1[i], base, sizeof base)) continue;
        snprintf(groups[joined], sizeof groups[0], "%s/floor-%d-%d", base, getpid(), nth);
        MUST(mkdir(groups[joined], 0755), groups[joined]);
        if (!strcmp(V1[i], "memory")) {
            put(groups[joined], "memory.limit_in_bytes", memory);
            put(groups[joined], "memory.memsw.limit_in_bytes", memory);
        }
        if (!strcmp(V1[i], "pids")) put(groups[joined], "pids.max", "64");
        if (!strcmp(V1[i], "devices")) {
            static const char *const allow[] = { "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm" };
            put(groups[joined], "devices.deny", "a");
            char path[600];
            snprintf(path, sizeof path, "%s/devices.allow", groups[joined]);
            MUST(fd = openat(AT_FDCWD, path, O_WRONLY | O_CLOEXEC), path);
            for (unsigned n = 0; n < sizeof allow / sizeof *allow; n++) MUST(write(fd, allow[n], strlen(allow[n])), path);
            close(fd);
        }
        char path[600];
        snprintf(path, sizeof path, "%s/tasks", groups[joined]);
        MUST(tasks[joined] = openat(AT_FDCWD, path, O_WRONLY | O_CLOEXEC), path);
        joined++;
    }
    if (!joined && own_group("", base, sizeof base)) {
        put(base, "cgroup.subtree_control", "+memory +pids");
        snprintf(groups[0], sizeof groups[0], "%s/floor-%d-%d", base, getpid(), nth);
        MUST(mkdir(groups[0], 0755), groups[0]);
        put(groups[0], "memory.max", memory);
        put(groups[0], "memory.swap.max", "0");
        put(groups[0], "memory.oom.group", "1");
        put(groups[0], "pids.max", "64");
        MUST(v2 = open(groups[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC), groups[0]);
        allow_devices(v2);
        joined = 0;
    }
}

static void drop_groups(void) {
    for (int i = 0; i < CONTROLLERS && groups[i][0]; i++) rmdir(groups[i]);
}

static void node(const char *path, int mode, int major_number, int minor_number) {
    MUST(mknod(path, S_IFCHR | mode, makedev(major_number, minor_number)), path);
    chmod(path, mode);
}

static void build_root(const char *rootfs) {
    MUST(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0), "private");
    MUST(mount(rootfs, rootfs, 0, MS_BIND | MS_REC, 0), "bind root");
    MUST(mount(0, rootfs, 0, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, 0), "read-only root");
    MUST(chdir(rootfs), "chdir");
    MUST(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0), "proc");
    MUST(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, 0), "sys");
    MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=64k"), "dev");
    umask(0);
    node("dev/null", 0666, 1, 3);
    node("dev/zero", 0666, 1, 5);
    node("dev/full", 0666, 1, 7);
    node("dev/random", 0666, 1, 8);
    node("dev/urandom", 0666, 1, 9);
    node("dev/tty", 0666, 5, 0);
#ifdef KERNEL_LOG
    node("dev/kmsg", 0600, 1, 11);
#endif
    symlink("/proc/self/fd", "dev/fd");
    symlink("/proc/self/fd/0", "dev/stdin");
    symlink("/proc/self/fd/1", "dev/stdout");
    symlink("/proc/self/fd/2", "dev/stderr");
    symlink("pts/ptmx", "dev/ptmx");
    mkdir("dev/pts", 0755);
    mkdir("dev/shm", 01777);
    mkdir("dev/mqueue", 0755);
    MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"), "devpts");
    MUST(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=64m"), "shm");
    MUST(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0), "mqueue");
    static const char *const scratch[] = { "tmp", "run", "var/tmp" };
    for (int i = 0; i < 3; i++) mount("tmpfs", scratch[i], "tmpfs", MS_NOSUID | MS_NODEV, i == 1 ? "mode=755" : "mode=1777");
    static const char *const files[] = { "proc/interrupts", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/sched_debug",
        "proc/timer_list", "proc/timer_stats" };
    static const char *const folders[] = { "proc/acpi", "proc/asound", "proc/scsi", "sys/devices/virtual/powercap", "sys/fs/cgroup" };
    MUST(mount("tmpfs", "sys/firmware", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k"), "mask");
    for (unsigned i = 0; i < sizeof folders / sizeof *folders; i++) mount("sys/firmware", folders[i], 0, MS_BIND, 0);
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) mount("dev/null", files[i], 0, MS_BIND, 0);
    static const char *const readonly[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger" };
    for (unsigned i = 0; i < sizeof readonly / sizeof *readonly; i++) {
        if (mount(readonly[i], readonly[i], 0, MS_BIND | MS_REC, 0) < 0) continue;
        mount(0, readonly[i], 0, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
    }
    MUST(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    MUST(umount2(".", MNT_DETACH), "detach");
    MUST(chdir("/"), "chdir /");
    sethostname("floor", 5);
    struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    MUST(ioctl(fd, SIOCSIFFLAGS, &lo), "loopback");
    close(fd);
}

static void filter(void) {
    enum { RANGES = 40 };
    struct sock_filter code[4 + 2 * RANGES + 2];
    unsigned n = 0;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4);
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
    for (unsigned i = 0; i < RANGES; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 1000 + i, 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 38);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = { (unsigned short)n, code };
    MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), "seccomp");
}

static void drop_capabilities(void) {
    for (int cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++) {}
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct none[2] = { { 0 } };
    MUST(syscall(SYS_capset, &header, none), "capset");
}

static pid_t clone_with(uint64_t flags, int group) {
    struct clone_args args = { 0 };
    args.flags = flags | (group >= 0 ? CLONE_INTO_CGROUP : 0);
    args.exit_signal = SIGCHLD;
    args.cgroup = group >= 0 ? (uint64_t)group : 0;
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    MUST(pid, "clone3");
    return pid;
}

static void run_main(char **argv) {
    for (int i = 0; i < joined; i++) MUST(write(tasks[i], "0", 1), "join");
    MUST(unshare(CLONE_NEWCGROUP), "cgroup namespace");
    setsid();
    struct rlimit core = { 0, 0 };
    setrlimit(RLIMIT_CORE, &core);
    MUST(syscall(SYS_close_range, 3, ~0u, 4u /* CLOSE_RANGE_CLOEXEC, 5.11 */), "close_range");
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    drop_capabilities();
    filter();
    static char *const env[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", 0 };
    execve(argv[0], argv, env);
    die(argv[0]);
}

int main(int argc, char **argv) {
    if (argc < 4) die("usage: floor ROOTFS MEMORY COMMAND...");
    make_groups(argv[2]);
    pid_t init = clone_with(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET, -1);
    int status = 0;
    if (init == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_DUMPABLE, 0);
        build_root(argv[1]);
        pid_t child = clone_with(0, v2);
        if (child == 0) run_main(argv + 3);
        drop_capabilities();
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
    while (waitpid(init, &status, 0) < 0 && errno == EINTR) {}
    drop_groups();
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
