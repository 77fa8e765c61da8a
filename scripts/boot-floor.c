/* The floor that scripts/bench-boot measures coracle as a board's first process against: the early mounts and then
 * the container of floor.c, made by the shortest C program that makes them: no config, no log, no supervision.
 *
 * As /init of an initramfs: the folder /srv/one becomes the root of /mark, with 8 MiB of memory. */
#define KERNEL_LOG /* the service's own line goes there */
#define main container
#include "floor.c"
#undef main

static void early(const char *kind, const char *target, unsigned long flags, const char *data) {
    mkdir(target, 0755);
    MUST(mount(kind, target, kind, flags, data), target);
}

int main(void) {
    setsid();
    umask(022);
    mkdir("/proc", 0755);
    /* pivot_root(2) does not leave the kernel's first file system: it is mounted over itself. */
    MUST(mount("/", "/proc", 0, MS_BIND, 0), "bind");
    MUST(chdir("/proc"), "chdir");
    MUST(mount(".", "/", 0, MS_MOVE, 0), "move");
    MUST(chroot("."), "chroot");
    MUST(chdir("/"), "chdir");
    early("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
    early("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
    early("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
    early("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666");
    early("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
    early("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755");
    early("cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
    char names[256] = "", words[512] = "", *rest = names, *name;
    int fd = open("/sys/fs/cgroup/cgroup.controllers", O_RDONLY | O_CLOEXEC);
    MUST(read(fd, names, sizeof names - 1), "cgroup.controllers");
    close(fd);
    while ((name = strsep(&rest, " \n")))
        if (*name) strcat(strcat(words, " +"), name);
    put("/sys/fs/cgroup", "cgroup.subtree_control", words);
    struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    MUST(ioctl(fd, SIOCSIFFLAGS, &lo), "loopback");
    close(fd);
    char *command[] = { "floor", "/srv/one", "8388608", "/mark", 0 };
    container(4, command);
    for (;;) pause();
}
