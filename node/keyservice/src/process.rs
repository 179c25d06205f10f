//! The service as a process of its own: `noded key-service`, with one end of a socket pair as its standard input.
//!
//! After the first request it can do little else: it has a user of its own and nothing but its directory (as far as
//! who started it was root), no core files, its memory is locked, its network is empty, and the kernel refuses it
//! sockets, programs, other processes' memory and more. What of this it could not have, it says in its log and in
//! [`Confinement`].

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader},
    os::{
        fd::AsFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt, chown},
            net::UnixStream,
        },
    },
    path::Path,
    process::ExitCode,
    sync::{Arc, mpsc},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        mman::{MlockAllFlags, mlockall},
        prctl::{set_dumpable, set_no_new_privs, set_pdeathsig},
        resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
        signal::Signal,
    },
    unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid},
};
use parking_lot::Mutex;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use crate::{
    Core,
    protocol::{Confinement, KeyError, Opening, Protect, Reply, Request, receive, send},
};

/// User and group of the key service where it is started by root. Nobody else has it.
pub const KEY_SERVICE_USER: u32 = 977;

/// Memory in bytes that must be allowed to be locked, where not all is: a passphrase takes 64 MiB.
const LOCKABLE_MIN: u64 = 512 * 1024 * 1024;

/// Requests waiting at most that may take long.
const WAITING_MAX: usize = 256;

type Line = Arc<Mutex<UnixStream>>;

/// Serves on standard input until it ends.
#[must_use]
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "key service");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut from = BufReader::new(stream.try_clone()?);
    let to: Line = Arc::new(Mutex::new(stream));
    let Some((number, request)) = receive::<Request>(&mut from)? else { return Ok(()) };
    let Request::Open(opening) = request else { return Err(io::ErrorKind::InvalidData.into()) };
    let opened = confine(&opening)
        .map_err(|error| KeyError::Store(format!("{}: {error}", opening.dir.display())))
        .and_then(|confinement| Core::open(&opening, Path::new("."), confinement));
    let core = match opened {
        Ok(core) => Arc::new(core),
        Err(error) => return send(&mut *to.lock(), number, &Err::<Reply, KeyError>(error)),
    };
    drop(opening);
    send(&mut *to.lock(), number, &Ok::<_, KeyError>(Reply::State(Box::new(core.state()))))?;
    let (slow, waiting) = mpsc::sync_channel::<(u64, Request)>(WAITING_MAX);
    let worker = {
        let (core, to) = (Arc::clone(&core), Arc::clone(&to));
        std::thread::Builder::new().name("slow".to_owned()).spawn(move || {
            for (number, request) in waiting {
                answer(&core, &to, number, request)?;
            }
            io::Result::Ok(())
        })?
    };
    while let Some((number, request)) = receive::<Request>(&mut from)? {
        if Core::takes_long(&request) {
            slow.send((number, request)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        } else {
            answer(&core, &to, number, request)?;
        }
    }
    drop(slow);
    // Whoever asked is gone: what is still being answered is not waited for.
    drop(worker);
    Ok(())
}

fn answer(core: &Core, to: &Line, number: u64, request: Request) -> io::Result<()> {
    let answer = core.handle(request);
    send(&mut *to.lock(), number, &answer)
}

/// Gives up what is not needed.
fn confine(opening: &Opening) -> io::Result<Confinement> {
    let is_root = geteuid().is_root();
    fs::create_dir_all(&opening.dir)?;
    fs::set_permissions(&opening.dir, fs::Permissions::from_mode(0o700))?;
    let mut uses_sockets = false;
    if let Protect::Tpm(device) = &opening.protect
        && let Ok(found) = fs::metadata(device)
    {
        uses_sockets = found.file_type().is_socket();
        if is_root {
            chown(device, Some(KEY_SERVICE_USER), Some(KEY_SERVICE_USER))?;
        }
    }
    let mut confinement = Confinement { pid: std::process::id(), ..Confinement::default() };
    confinement.memory_unlocked = lock_memory().err();
    confinement.shares_network = unshare(CloneFlags::CLONE_NEWNET).err().map(|error| error.to_string());
    std::env::set_current_dir(&opening.dir)?;
    if is_root {
        take_over(Path::new("."))?;
        setgroups(&[])?;
        setgid(Gid::from_raw(KEY_SERVICE_USER))?;
        setuid(Uid::from_raw(KEY_SERVICE_USER))?;
    } else {
        confinement.shares_user = Some("it was not started by root".to_owned());
    }
    // Both are reset with the user.
    set_dumpable(false)?;
    set_pdeathsig(Signal::SIGKILL)?;
    set_no_new_privs()?;
    for filter in filters(uses_sockets).map_err(io::Error::other)? {
        apply_filter(&filter).map_err(io::Error::other)?;
    }
    let said = [
        ("its memory is not locked", &confinement.memory_unlocked),
        ("it has no user of its own", &confinement.shares_user),
        ("it has no network namespace of its own", &confinement.shares_network),
    ];
    for (what, why) in said {
        if let Some(why) = why {
            tracing::warn!(why, "key service: {what}");
        }
    }
    if uses_sockets {
        tracing::warn!("key service: it may connect sockets, because its TPM is behind one");
    }
    Ok(confinement)
}

/// Makes everything in the directory the service's own.
fn take_over(dir: &Path) -> io::Result<()> {
    let own = |path: &Path| chown(path, Some(KEY_SERVICE_USER), Some(KEY_SERVICE_USER));
    own(dir)?;
    for entry in fs::read_dir(dir)? {
        own(&entry?.path())?;
    }
    File::open(dir)?.sync_all()
}

/// Has every page locked as it comes to be used.
fn lock_memory() -> Result<(), String> {
    let raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    if raised.is_err() {
        let (allowed, _) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(|error| error.to_string())?;
        if allowed < LOCKABLE_MIN {
            return Err(format!(
                "this process may lock {allowed} bytes (RLIMIT_MEMLOCK), {LOCKABLE_MIN} are needed"
            ));
        }
    }
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)
        .map_err(|error| error.to_string())
}

/// What the kernel refuses.
const REFUSED: &[i64] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bind,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_fork,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_kill,
    libc::SYS_listen,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_socketpair,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vfork,
    libc::SYS_vmsplice,
];

/// Filters for `execve`, sockets and the like; `uses_sockets` lets it connect, to a TPM behind a socket.
fn filters(uses_sockets: bool) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    if !uses_sockets {
        refused.insert(libc::SYS_socket, Vec::new());
        refused.insert(libc::SYS_connect, Vec::new());
    }
    // Threads may begin (a passphrase is hashed by four), processes may not.
    let thread = u64::try_from(libc::CLONE_THREAD).unwrap_or_default();
    let no_thread = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(thread), 0)?;
    refused.insert(libc::SYS_clone, vec![SeccompRule::new(vec![no_thread])?]);
    let refusal = |number: i32| SeccompAction::Errno(u32::try_from(number).unwrap_or_default());
    let refused = SeccompFilter::new(refused, SeccompAction::Allow, refusal(libc::EPERM), arch)?;
    // What its flags are, a filter cannot see; libraries then use the older call.
    let unseen = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let unseen = SeccompFilter::new(unseen, SeccompAction::Allow, refusal(libc::ENOSYS), arch)?;
    Ok(vec![refused.try_into()?, unseen.try_into()?])
}
