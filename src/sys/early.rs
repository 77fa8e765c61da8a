//! What has to happen before std's own start.
//!
//! std opens /dev/null for each of the descriptors 0, 1 and 2 that is closed, and aborts where it cannot. The kernel
//! starts the first process without them where /dev/console cannot be opened, and an initramfs has no /dev/null; the end
//! of the first process is a kernel panic. So they are opened here, called by the C library before `main`.

/// The C library calls what this section points to (System V ABI, "Initialization and Termination Functions").
#[used]
// SAFETY: the section takes pointers to C functions; this one needs nothing that is set up later.
#[unsafe(link_section = ".init_array")]
static EARLY: extern "C" fn() = open_standard_descriptors;

/// `open(2)` of something for each descriptor below 3 that is closed: the lowest free number is what it gets.
extern "C" fn open_standard_descriptors() {
    // `/` can always be opened; reading and writing it are errors that nobody needs to see.
    let choices = [(c"/dev/null", libc::O_RDWR), (c"/", libc::O_RDONLY | libc::O_DIRECTORY)];
    for fd in 0..3 {
        // SAFETY: an integer.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1 {
            continue;
        }
        for (path, flags) in choices {
            // SAFETY: a NUL-terminated path.
            if unsafe { libc::open(path.as_ptr(), flags) } != -1 {
                break;
            }
        }
    }
}
