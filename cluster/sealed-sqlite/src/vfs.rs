//! SQLite's file system interface, implemented by passing on to SQLite's own.
//!
//! The only unsafe code of the crate. What its arguments rest on, throughout:
//! - SQLite calls a file's methods with the pointer it opened the file with, from one thread at a time (our
//!   connections are opened without a mutex and used by one thread at a time), never after `xClose`;
//! - that pointer is to `szOsFile` bytes, aligned for any C type: [`File`], then the file of SQLite's own VFS;
//! - the VFS and its tables are never freed.

use std::{
    collections::HashMap,
    ffi::{CStr, c_char, c_int, c_void},
    mem::size_of,
    ptr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use holdfast_crypt::{FileKey, PAGE_RESERVE};
use parking_lot::Mutex;
use rusqlite::{Connection, ffi};

use crate::pages::{Below, Kind, Sealed};

const NAME: &CStr = c"holdfast-sealed";

/// Name of the URI's parameter that names the key.
pub(crate) const KEY_PARAMETER: &str = "holdfast_key";
const KEY_PARAMETER_C: &CStr = c"holdfast_key";

/// Keys by the number that a URI names them by.
static KEYS: LazyLock<Mutex<HashMap<u64, Arc<FileKey>>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicU64 = AtomicU64::new(1);

pub(crate) fn register(key: Arc<FileKey>) -> u64 {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    KEYS.lock().insert(number, key);
    number
}

pub(crate) fn forget(number: u64) {
    KEYS.lock().remove(&number);
}

/// The VFS, registered with SQLite.
struct Registered(*mut ffi::sqlite3_vfs);

// SAFETY: the table behind the pointer is written once, before SQLite gets it, and never freed.
unsafe impl Send for Registered {}
// SAFETY: as above; SQLite guards its list of tables with a mutex of its own.
unsafe impl Sync for Registered {}

static VFS: LazyLock<Registered> = LazyLock::new(|| {
    // SAFETY: finding the default VFS has no preconditions; it initializes SQLite when nobody did.
    let own = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
    assert!(!own.is_null(), "SQLite is built with a file system interface of its own");
    // SAFETY: the default VFS is never freed.
    let (size, longest_path) = unsafe { ((*own).szOsFile, (*own).mxPathname) };
    let size = size + c_int::try_from(size_of::<File>()).expect("two pointers");
    let table = Box::new(ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size,
        mxPathname: longest_path,
        pNext: ptr::null_mut(),
        zName: NAME.as_ptr(),
        pAppData: own.cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_path),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    });
    let table = Box::into_raw(table);
    // SAFETY: the table is whole, and leaked on purpose.
    let code = unsafe { ffi::sqlite3_vfs_register(table, 0) };
    assert_eq!(code, ffi::SQLITE_OK, "registering fails only when memory is out");
    Registered(table)
});

/// The name to open connections with.
pub(crate) fn name() -> &'static CStr {
    let _registered = VFS.0;
    NAME
}

/// Reserves room in every page of a database that has none yet.
pub(crate) fn reserve(connection: &Connection) -> rusqlite::Result<()> {
    let mut bytes = c_int::try_from(PAGE_RESERVE).expect("40");
    // SAFETY: the handle is the connection's and lives as long as it; this operation takes a pointer to an int.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_RESERVE_BYTES,
            (&raw mut bytes).cast(),
        )
    };
    if code == ffi::SQLITE_OK {
        Ok(())
    } else {
        Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some("reserving room in pages".to_owned())))
    }
}

/// Our part of an open file; the part of SQLite's own VFS follows it.
#[repr(C)]
struct File {
    methods: *const ffi::sqlite3_io_methods,
    sealed: *mut Sealed,
}

const _: () = assert!(size_of::<File>() == 16, "what follows stays aligned for any C type");

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Version 2 has shared memory and no mapped files.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The file of SQLite's own VFS that stands behind ours.
///
/// # Safety
/// `file` is one of ours.
unsafe fn own_file(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: our files are `szOsFile` bytes long, `File` and then SQLite's own.
    unsafe { file.cast::<u8>().add(size_of::<File>()).cast() }
}

/// SQLite's own VFS.
///
/// # Safety
/// `vfs` is ours.
unsafe fn own_vfs(vfs: *mut ffi::sqlite3_vfs) -> *mut ffi::sqlite3_vfs {
    // SAFETY: set when ours was made, and never freed.
    unsafe { (*vfs).pAppData.cast() }
}

/// Passes a call on to the file behind: `pass!(file, xSync(flags))`.
macro_rules! pass {
    ($file:expr, $method:ident ( $($argument:expr),* ), $otherwise:expr) => {{
        // SAFETY: SQLite's own file was opened together with ours, its table of methods is static, and the
        // arguments are SQLite's.
        unsafe {
            let own = own_file($file);
            match (*(*own).pMethods).$method {
                Some(method) => method(own, $($argument),*),
                None => $otherwise,
            }
        }
    }};
}

/// Passes a call on to SQLite's own VFS.
macro_rules! pass_vfs {
    ($vfs:expr, $method:ident ( $($argument:expr),* ), $otherwise:expr) => {{
        // SAFETY: the VFS is ours, the one behind it is never freed, and the arguments are SQLite's.
        unsafe {
            let own = own_vfs($vfs);
            match (*own).$method {
                Some(method) => method(own, $($argument),*),
                None => $otherwise,
            }
        }
    }};
}

/// What kind of file the flags of `xOpen` ask for; `None` for one that would hold pages in the clear.
fn kind(flags: c_int) -> Option<Kind> {
    if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
        Some(Kind::Database)
    } else if flags & ffi::SQLITE_OPEN_WAL != 0 {
        Some(Kind::WriteAhead)
    } else {
        None
    }
}

/// The key that the URI of a file's name names.
///
/// # Safety
/// `name` is what SQLite gave to `xOpen` for a database or its write-ahead file.
unsafe fn key_of(name: ffi::sqlite3_filename) -> Option<Arc<FileKey>> {
    if name.is_null() {
        return None;
    }
    // SAFETY: such names carry the URI's parameters.
    let value = unsafe { ffi::sqlite3_uri_parameter(name, KEY_PARAMETER_C.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: a parameter's value is text with a zero at its end, alive as long as the name.
    let number: u64 = unsafe { CStr::from_ptr(value) }.to_str().ok()?.parse().ok()?;
    KEYS.lock().get(&number).cloned()
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let ours = file.cast::<File>();
    // SAFETY: SQLite gives `szOsFile` writable bytes. Without methods `xClose` is not called.
    unsafe { ours.write(File { methods: ptr::null(), sealed: ptr::null_mut() }) };
    // SAFETY: the name is SQLite's, for this kind of file.
    let Some((kind, key)) = kind(flags).and_then(|kind| Some((kind, unsafe { key_of(name) }?))) else {
        return ffi::SQLITE_CANTOPEN;
    };
    // SAFETY: the bytes behind ours are for SQLite's own file.
    let own = unsafe { own_file(file) };
    let code = pass_vfs!(vfs, xOpen(name, own, flags, flags_out), ffi::SQLITE_CANTOPEN);
    if code != ffi::SQLITE_OK {
        // SAFETY: after a failure the file is to be closed if it has methods, as SQLite would.
        unsafe {
            if let Some(close) = (*own).pMethods.as_ref().and_then(|methods| methods.xClose) {
                close(own);
            }
        }
        return code;
    }
    let sealed = Box::into_raw(Box::new(Sealed::new(kind, key.sealer())));
    // SAFETY: as above; from here on `xClose` frees what is put there.
    unsafe { ours.write(File { methods: &raw const METHODS, sealed }) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let code = pass!(file, xClose(), ffi::SQLITE_OK);
    // SAFETY: made by `open`, taken back once: SQLite does not use a closed file.
    unsafe {
        let ours = file.cast::<File>();
        drop(Box::from_raw((*ours).sealed));
        ours.write(File { methods: ptr::null(), sealed: ptr::null_mut() });
    }
    code
}

/// SQLite's own file, for reading and writing.
struct Own(*mut ffi::sqlite3_file);

impl Below for Own {
    fn read(&mut self, out: &mut [u8], offset: u64) -> c_int {
        // SAFETY: the file is open, the buffer is as long as said; pages are far below an int's limit.
        unsafe {
            match (*(*self.0).pMethods).xRead {
                Some(read) => read(self.0, out.as_mut_ptr().cast(), out.len() as c_int, offset.cast_signed()),
                None => ffi::SQLITE_IOERR_READ,
            }
        }
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> c_int {
        // SAFETY: as above.
        unsafe {
            match (*(*self.0).pMethods).xWrite {
                Some(write) => {
                    write(self.0, bytes.as_ptr().cast(), bytes.len() as c_int, offset.cast_signed())
                }
                None => ffi::SQLITE_IOERR_WRITE,
            }
        }
    }
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: the file is open and used by this thread alone; the buffer is SQLite's, of that length, and
    // nobody else's meanwhile.
    unsafe {
        let sealed = &mut *(*file.cast::<File>()).sealed;
        let out = std::slice::from_raw_parts_mut(out.cast::<u8>(), amount);
        sealed.read(&mut Own(own_file(file)), out, offset)
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: as in `read`.
    unsafe {
        let sealed = &mut *(*file.cast::<File>()).sealed;
        let bytes = std::slice::from_raw_parts(bytes.cast::<u8>(), amount);
        sealed.write(&mut Own(own_file(file)), bytes, offset)
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    pass!(file, xTruncate(size), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    pass!(file, xSync(flags), ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut ffi::sqlite3_int64) -> c_int {
    pass!(file, xFileSize(size), ffi::SQLITE_IOERR_FSTAT)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass!(file, xLock(level), ffi::SQLITE_IOERR_LOCK)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass!(file, xUnlock(level), ffi::SQLITE_IOERR_UNLOCK)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, held: *mut c_int) -> c_int {
    pass!(file, xCheckReservedLock(held), ffi::SQLITE_IOERR_CHECKRESERVEDLOCK)
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, what: c_int, argument: *mut c_void) -> c_int {
    pass!(file, xFileControl(what, argument), ffi::SQLITE_NOTFOUND)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    pass!(file, xSectorSize(), 0)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // Pages are opened whole: reading a part of one is no saving.
    pass!(file, xDeviceCharacteristics(), 0) & !ffi::SQLITE_IOCAP_SUBPAGE_READ
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    pass!(file, xShmMap(region, size, extend, out), ffi::SQLITE_IOERR_SHMMAP)
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    pass!(file, xShmLock(offset, count, flags), ffi::SQLITE_IOERR_SHMLOCK)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    pass!(file, xShmBarrier(), ());
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    pass!(file, xShmUnmap(delete), ffi::SQLITE_OK)
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    pass_vfs!(vfs, xDelete(name, sync_dir), ffi::SQLITE_IOERR_DELETE)
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    pass_vfs!(vfs, xAccess(name, flags, out), ffi::SQLITE_IOERR_ACCESS)
}

unsafe extern "C" fn full_path(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    pass_vfs!(vfs, xFullPathname(name, size, out), ffi::SQLITE_CANTOPEN)
}

unsafe extern "C" fn randomness(vfs: *mut ffi::sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    pass_vfs!(vfs, xRandomness(size, out), 0)
}

unsafe extern "C" fn sleep(vfs: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    pass_vfs!(vfs, xSleep(micros), 0)
}

unsafe extern "C" fn current_time(vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    pass_vfs!(vfs, xCurrentTime(out), ffi::SQLITE_ERROR)
}

unsafe extern "C" fn current_time_64(vfs: *mut ffi::sqlite3_vfs, out: *mut ffi::sqlite3_int64) -> c_int {
    pass_vfs!(vfs, xCurrentTimeInt64(out), ffi::SQLITE_ERROR)
}

unsafe extern "C" fn last_error(vfs: *mut ffi::sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    pass_vfs!(vfs, xGetLastError(size, out), 0)
}
