//! Files that appear whole or not at all.
//!
//! A [`PendingFile`] is written under another name in the directory of its target and renamed when complete. It is
//! removed when dropped early; a program that is interrupted removes all of them with [`remove_pending_files`].

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

static PENDING: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn pending() -> MutexGuard<'static, Vec<PathBuf>> {
    PENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all incomplete files that this process is writing.
///
/// For an interrupted program that is about to exit. It takes a lock, so it must run on a normal thread, such as those
/// that signal crates offer, not in a signal handler itself.
pub fn remove_pending_files() {
    for path in pending().drain(..) {
        // Whoever exits can do nothing about a failure.
        let _ = std::fs::remove_file(path);
    }
}

/// Writes a file that appears under its name when it is complete.
///
/// # Errors
/// If the file cannot be written; then nothing is left of it.
pub fn write_whole(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = PendingFile::create(target)?;
    file.write_all(bytes)?;
    file.finish()
}

/// A file being written. Until [`Self::finish`] it has another name beside its target; it is removed when dropped early.
pub struct PendingFile {
    file: BufWriter<File>,
    path: PathBuf,
    target: PathBuf,
}

impl PendingFile {
    /// Starts a file that will be at `target`.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn create(target: &Path) -> io::Result<Self> {
        let name = target
            .file_name()
            .ok_or_else(|| io::Error::other("the path names no file"))?;
        for attempt in 0..1000 {
            let mut partial = std::ffi::OsString::from(".");
            partial.push(name);
            partial.push(format!(".{}-{attempt}.partial", std::process::id()));
            let path = target.with_file_name(partial);
            // Created under the lock: whoever removes the pending files finds either both or neither.
            let mut pending = pending();
            match OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
            {
                Ok(file) => {
                    pending.push(path.clone());
                    return Ok(PendingFile {
                        file: BufWriter::new(file),
                        path,
                        target: target.into(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("too many unfinished files of this name"))
    }

    /// The file, to be read or written at other places than its end.
    pub(crate) fn file_mut(&mut self) -> io::Result<&mut File> {
        self.file.flush()?;
        Ok(self.file.get_mut())
    }

    /// Gives the complete file its name, replacing what has it.
    ///
    /// # Errors
    /// If the file cannot be completed; then nothing is left of it.
    pub fn finish(mut self) -> io::Result<()> {
        self.file_mut()?.sync_data()?;
        std::fs::rename(&self.path, &self.target)?;
        self.forget();
        Ok(())
    }

    fn forget(&mut self) -> bool {
        let mut pending = pending();
        let before = pending.len();
        pending.retain(|p| *p != self.path);
        pending.len() < before
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if self.forget() {
            // There is no one to tell; the name says what is left over.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
