//! The lists of the policies. Every call of the table stands in exactly one group of [`GROUPS`] or has a rule in
//! [`super::rules`]; a test checks it. 32-bit twins (`_time64`, `64`, `32`) stand beside their originals.

use super::policy::Access::{Always, Never, NotStrict, With};
use super::policy::{Group, REFUSED, UNKNOWN};
use super::syscalls::Sys;
use crate::plan::CapSet;

/// A list of calls without commas, so that it stays dense.
macro_rules! calls {
    ($($name:ident)*) => { &[$(Sys::$name,)*] };
}

const fn cap(number: u8) -> CapSet {
    CapSet::EMPTY.with(number)
}

const DAC_READ_SEARCH: u8 = 2;
const SYS_MODULE: u8 = 16;
const SYS_RAWIO: u8 = 17;
const SYS_CHROOT: u8 = 18;
const SYS_PTRACE: u8 = 19;
const SYS_PACCT: u8 = 20;
const SYS_ADMIN: u8 = 21;
const SYS_BOOT: u8 = 22;
const SYS_NICE: u8 = 23;
const SYS_TIME: u8 = 25;
const SYS_TTY_CONFIG: u8 = 26;
const SYSLOG: u8 = 34;
const PERFMON: u8 = 38;
const BPF: u8 = 39;

/// The groups of the default policy, which strict and log derive from.
pub static GROUPS: &[Group] = &[
    Group {
        name: "files",
        access: Always,
        calls: calls![
            _llseek access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat
            faccessat2 fadvise64 fadvise64_64 arm_fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown
            fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fstat fstat64 fstatat64 fstatfs
            fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat
            inotify_add_watch inotify_init inotify_init1 inotify_rm_watch lchown lchown32 lgetxattr link linkat
            listxattr listxattrat llistxattr lseek lstat lstat64 mkdir mkdirat newfstatat oldfstat oldlstat oldstat
            open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readdir
            readlink readlinkat readv rename renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs
            statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs tee truncate truncate64
            umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev cachestat
            file_getattr
        ],
    },
    Group {
        name: "waiting",
        access: Always,
        calls: calls![
            _newselect epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 poll
            ppoll ppoll_time64 pselect6 pselect6_time64 select
        ],
    },
    Group {
        name: "aio",
        access: NotStrict,
        calls: calls![io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit],
    },
    Group {
        name: "sockets",
        access: Always,
        calls: calls![
            accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
            recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall
        ],
    },
    Group {
        name: "memory",
        access: Always,
        calls: calls![
            brk madvise membarrier memfd_create mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync
            munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect map_shadow_stack
        ],
    },
    Group { name: "memory, rare", access: NotStrict, calls: calls![memfd_secret remap_file_pages] },
    Group {
        name: "processes",
        access: Always,
        calls: calls![
            execve execveat exit exit_group fork getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
            getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32
            getrlimit getrusage getsid gettid getuid getuid32 kill pidfd_open pidfd_send_signal prlimit64 setpgid
            setpriority setrlimit setsid tgkill times tkill ugetrlimit vfork wait4 waitid waitpid nice
        ],
    },
    Group {
        name: "identity",
        access: Always,
        calls: calls![
            capget capset setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid
            setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32
        ],
    },
    Group {
        name: "threads",
        access: Always,
        calls: calls![
            arch_prctl breakpoint cacheflush futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
            get_robust_list get_thread_area get_tls getcpu restart_syscall riscv_flush_icache riscv_hwprobe rseq
            sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
            sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_yield
            set_robust_list set_thread_area set_tid_address set_tls uretprobe usr26 usr32
        ],
    },
    Group {
        name: "scheduling",
        access: NotStrict,
        calls: calls![ioprio_get ioprio_set sched_setattr sched_setparam sched_setscheduler],
    },
    Group {
        name: "signals",
        access: Always,
        calls: calls![
            pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
            rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sgetmask sigaction sigaltstack signal signalfd
            signalfd4 sigpending sigprocmask sigreturn sigsuspend ssetmask
        ],
    },
    Group {
        name: "clocks",
        access: Always,
        calls: calls![
            alarm clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
            clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete
            timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
            timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
        ],
    },
    Group {
        name: "system",
        access: Always,
        calls: calls![getrandom oldolduname olduname seccomp sysinfo uname
            landlock_add_rule landlock_create_ruleset landlock_restrict_self],
    },
    Group {
        name: "extended attributes, written",
        access: NotStrict,
        calls: calls![
            fremovexattr fsetxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat file_setattr
        ],
    },
    Group {
        name: "ipc",
        access: NotStrict,
        calls: calls![
            ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
            mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop
            semtimedop_time64 shmat shmctl shmdt shmget
        ],
    },
    Group { name: "nodes", access: NotStrict, calls: calls![mknod mknodat name_to_handle_at process_mrelease] },
    Group {
        name: "mounts",
        access: With(cap(SYS_ADMIN)),
        calls: calls![
            fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree open_tree_attr pivot_root umount
            umount2 setns sethostname setdomainname fanotify_init fanotify_mark quotactl quotactl_fd lookup_dcookie
            swapoff swapon
        ],
    },
    Group { name: "chroot", access: With(cap(SYS_CHROOT)), calls: calls![chroot] },
    Group {
        name: "other processes",
        access: With(cap(SYS_PTRACE)),
        calls: calls![
            kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace
        ],
    },
    Group {
        name: "numa",
        access: With(cap(SYS_NICE)),
        calls: calls![
            get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node
        ],
    },
    Group {
        name: "clock setting",
        access: With(cap(SYS_TIME)),
        calls: calls![
            adjtimex clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday stime
        ],
    },
    Group { name: "modules", access: With(cap(SYS_MODULE)), calls: calls![delete_module finit_module init_module] },
    Group { name: "reboot", access: With(cap(SYS_BOOT)), calls: calls![reboot] },
    Group { name: "ports", access: With(cap(SYS_RAWIO)), calls: calls![ioperm iopl] },
    Group { name: "accounting", access: With(cap(SYS_PACCT)), calls: calls![acct] },
    Group { name: "terminals", access: With(cap(SYS_TTY_CONFIG)), calls: calls![vhangup] },
    Group { name: "kernel log", access: With(cap(SYSLOG)), calls: calls![syslog] },
    Group { name: "handles", access: With(cap(DAC_READ_SEARCH)), calls: calls![open_by_handle_at] },
    Group { name: "bpf", access: With(cap(BPF).with(SYS_ADMIN)), calls: calls![bpf] },
    Group { name: "perf", access: With(cap(PERFMON).with(SYS_ADMIN)), calls: calls![perf_event_open] },
    Group {
        name: "never: large attack surface or no business in a container",
        access: Never(REFUSED),
        calls: calls![
            add_key io_uring_enter io_uring_register io_uring_setup kexec_file_load kexec_load keyctl modify_ldt
            pciconfig_iobase pciconfig_read pciconfig_write request_key userfaultfd vm86 vm86old
        ],
    },
    Group {
        name: "never: programs do well without, as on an older kernel",
        access: Never(UNKNOWN),
        calls: calls![
            listmount lsm_get_self_attr lsm_list_modules lsm_set_self_attr statmount sysfs ustat
        ],
    },
];

/// A service's init after it started main: wait, reap, signal, copy output to the ring, write the exit record.
pub static INIT: &[Sys] = calls![
    accept4 brk clock_gettime rt_sigtimedwait rt_sigtimedwait_time64 clock_gettime64 close dup dup3 epoll_ctl epoll_pwait epoll_wait exit exit_group fcntl fcntl64
    fdatasync fstat fstat64 fsync ftruncate ftruncate64 getpid gettimeofday kill lseek _llseek madvise munmap newfstatat
    openat poll ppoll ppoll_time64 pread64 pwrite64 pwritev read readv recv recvfrom recvmsg renameat renameat2
    restart_syscall rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait rt_sigtimedwait_time64 send sendmsg sendto sigreturn socketcall statx time
    unlinkat wait4 waitid waitpid write writev signalfd4 timerfd_settime timerfd_settime64 nanosleep clock_nanosleep
    clock_nanosleep_time64 fstatat64 rename unlink open gettid tgkill sched_yield futex
];

/// The unpacking of images: file calls beneath directories it was given, memory, pipes; no socket, no exec, no process.
pub static WORKER: &[Sys] = calls![
    _llseek brk chdir clock_gettime clock_gettime64 close close_range copy_file_range dup dup3 exit exit_group faccessat
    faccessat2 fadvise64 fadvise64_64 arm_fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32
    fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64
    fsync ftruncate ftruncate64 futex futex_time64 getcwd getdents64 getegid getegid32 geteuid geteuid32 getgid
    getgid32 getpid getrandom gettid gettimeofday getuid getuid32 getxattr lgetxattr linkat llistxattr lseek lsetxattr
    madvise mkdirat mmap mmap2 mprotect mremap munmap newfstatat open openat openat2 poll ppoll ppoll_time64 pread64
    preadv pwrite64 pwritev read readlink readlinkat readv renameat renameat2 restart_syscall rt_sigaction
    rt_sigprocmask rt_sigreturn sched_yield setxattr sigaltstack sigreturn stat stat64 lstat lstat64 statfs statfs64
    statx symlinkat sync_file_range sync_file_range2 syncfs tgkill time umask unlinkat utimensat utimensat_time64 write
    writev set_robust_list cacheflush mkdir unlink rmdir rename access rseq kill
];
