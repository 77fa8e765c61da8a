//! The unwinder of a program that never unwinds.
//!
//! A released binary aborts on panic, yet std's default panic hook refers to the unwinder, and through it to readers of
//! ELF, DWARF and mangled names: 130 KB that could only print addresses, as the binary is stripped. The functions here
//! take the place of the toolchain's libunwind (they are the interface of the Itanium C++ ABI, "Exception Handling",
//! level 1, that std's `unwind` crate declares): a panic still prints its message and its place, the list of frames is
//! empty. Not for 32-bit Arm, whose unwinder has another interface.

use core::ffi::{c_int, c_void};

/// The end of the stack has been reached: `_Unwind_Reason_Code` 5.
const END_OF_STACK: c_int = 5;

/// `_Unwind_Backtrace(callback, argument)`: calls the callback for no frame at all.
// SAFETY: the name is the C ABI's own; the function has its signature and touches neither argument.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_callback: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

/// What only runs while a stack is unwound, which never happens.
macro_rules! unreachable_in_abort {
    ($($name:ident)*) => {$(
        // SAFETY: the name is the C ABI's own; the function never returns, so that no caller reads an answer, and on
        // these architectures the caller may pass arguments that the callee does not take.
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> ! {
            std::process::abort()
        }
    )*};
}

unreachable_in_abort! {
    _Unwind_DeleteException
    _Unwind_FindEnclosingFunction
    _Unwind_GetCFA
    _Unwind_GetDataRelBase
    _Unwind_GetGR
    _Unwind_GetIP
    _Unwind_GetIPInfo
    _Unwind_GetLanguageSpecificData
    _Unwind_GetRegionStart
    _Unwind_GetTextRelBase
    _Unwind_RaiseException
    _Unwind_Resume
    _Unwind_SetGR
    _Unwind_SetIP
}
