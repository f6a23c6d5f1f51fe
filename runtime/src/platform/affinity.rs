//! Keeping threads on cores.

use std::io;
use std::thread::JoinHandle;

/// The first `count` cores that this process may use.
#[cfg(target_os = "linux")]
pub(crate) fn cores(count: usize) -> io::Result<Vec<usize>> {
    // SAFETY: a set of cores is plain bits, for which zeros are the empty set.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: fills the set, of the size given.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut allowed) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: reads bits below the capacity of the set.
    let is_allowed = |core: &usize| unsafe { libc::CPU_ISSET(*core, &allowed) };
    let cores: Vec<_> = (0..libc::CPU_SETSIZE as usize)
        .filter(is_allowed)
        .take(count)
        .collect();
    if cores.len() < count {
        let reason = format!("{count} threads cannot be pinned to {} cores", cores.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    Ok(cores)
}

/// Keeps a thread on a core.
#[cfg(target_os = "linux")]
pub(crate) fn pin(thread: &JoinHandle<()>, core: usize) -> io::Result<()> {
    use std::os::unix::thread::JoinHandleExt;
    // SAFETY: as in `cores`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` came from a set of the same capacity.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the thread is not yet joined, so its handle is valid; the set is read, of the size given.
    let status = unsafe {
        libc::pthread_setaffinity_np(
            thread.as_pthread_t(),
            size_of::<libc::cpu_set_t>(),
            &raw const set,
        )
    };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(status))
    }
}

/// Not offered here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn cores(_count: usize) -> io::Result<Vec<usize>> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "threads can be pinned to cores only on Linux",
    ))
}

/// Not offered here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_thread: &JoinHandle<()>, _core: usize) -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "threads can be pinned to cores only on Linux",
    ))
}
