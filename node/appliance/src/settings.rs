//! Kernel settings and limits that hold for the whole machine.
//!
//! Each sysctl closes a way to look into, or out of, a process that was taken over. What the kernel at
//! hand does not have is named on the console: a kernel update must not drop a protection unseen.

use std::{fs, path::Path};

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use crate::console::say;

const SYSCTLS: &[(&str, &str)] = &[
    ("kernel/kptr_restrict", "2"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/kexec_load_disabled", "1"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/yama/ptrace_scope", "3"),
    ("kernel/sysrq", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/core_pattern", "|/bin/false"),
    ("user/max_user_namespaces", "0"),
    ("fs/suid_dumpable", "0"),
    ("fs/protected_fifos", "2"),
    ("fs/protected_regular", "2"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("vm/unprivileged_userfaultfd", "0"),
    ("vm/mmap_rnd_bits", "32"),
    ("dev/tty/ldisc_autoload", "0"),
    ("net/core/bpf_jit_harden", "2"),
    ("net/ipv4/tcp_syncookies", "1"),
    ("net/ipv4/tcp_rfc1337", "1"),
    ("net/ipv4/conf/all/rp_filter", "1"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_source_route", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
];

/// Descriptors a process may have open: connections, drives, catalog files, with room.
const DESCRIPTORS_MAX: u64 = 65_536;

/// Writes the sysctls below `proc_sys` and sets the limits that children inherit.
pub fn apply(proc_sys: &Path) {
    for (name, value) in SYSCTLS {
        if let Err(error) = fs::write(proc_sys.join(name), value) {
            say(&format!("cannot set {name} to {value}: {error}"));
        }
    }
    // Registered I/O buffers count as locked memory.
    let limits = [
        (Resource::RLIMIT_NOFILE, DESCRIPTORS_MAX),
        (Resource::RLIMIT_MEMLOCK, RLIM_INFINITY),
        (Resource::RLIMIT_CORE, 0),
    ];
    for (resource, limit) in limits {
        if let Err(errno) = setrlimit(resource, limit, limit) {
            say(&format!("cannot set the limit {resource:?} to {limit}: {errno}"));
        }
    }
    // No program that anything here starts may ever gain privileges by being started.
    if let Err(errno) = nix::sys::prctl::set_no_new_privs() {
        say(&format!("cannot give up gaining privileges: {errno}"));
    }
}

/// Names the machine.
pub fn host_name(name: &str) {
    if let Err(errno) = nix::unistd::sethostname(name) {
        say(&format!("cannot name the machine {name}: {errno}"));
    }
}
