//! A small disk that can be filled.

use std::{
    ffi::OsStr,
    fs::{File, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::process::Cleaner;

/// How much ballast is written at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// What is needed where a disk can't be mounted.
const NEEDED: &str = "a small disk needs the right to mount a tmpfs: run as root, or allow `sudo -n mount` and \
                      `sudo -n umount`; in a container, add the capability SYS_ADMIN";

/// A disk of its own, in memory, on which everybody may write. It is unmounted when dropped, and when the test process
/// ends in any other way.
///
/// Programs that still use it then keep it until they end, but nobody else sees it any more.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    /// Unmounts it.
    _cleaner: Cleaner,
}

impl SmallDisk {
    /// Mounts an empty disk with room for that many bytes.
    ///
    /// # Errors
    /// Where we may not mount anything: that takes root, or `sudo` without a password for `mount` and `umount`.
    pub fn mount(bytes: u64) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("forebay-disk-").tempdir()?;
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let is_root = std::fs::metadata("/proc/self").context("look who we are")?.uid() == 0;
        let prefix = if is_root { "" } else { "sudo -n" };
        // Before the mount, so that there is no moment in which its end would be forgotten.
        let (cleaner, _) = Cleaner::start(
            "",
            "$2 umount -l \"$1\"; rmdir \"$1\"",
            &[folder.path().as_os_str(), OsStr::new(prefix)],
            &[],
        )?;
        let disk = Self {
            path: folder.keep(),
            _cleaner: cleaner,
        };
        let words = prefix.split_whitespace().chain(["mount", "-t", "tmpfs", "-o"]);
        let words: Vec<&str> = words.collect();
        let output = Command::new(words[0])
            .args(&words[1..])
            .arg(format!("size={bytes},mode=0777"))
            .arg("forebay-disk")
            .arg(&disk.path)
            .output()
            .context(NEEDED)?;
        if !output.status.success() {
            bail!("{NEEDED}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all the room that is left, until [`Self::free_up`]. Room that somebody else frees meanwhile is free: fill
    /// it again, where it matters.
    ///
    /// # Errors
    /// Where something other than a full disk prevents it.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .context("open the ballast")?;
        let chunk = vec![0; CHUNK_BYTES];
        loop {
            match ballast.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("write ballast"),
            }
        }
    }

    /// Gives back the room that [`Self::fill`] took.
    ///
    /// # Errors
    /// Where it can't be given back.
    pub fn free_up(&self) -> Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("remove the ballast"),
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBIBYTE: u64 = 1024 * 1024;

    fn write(disk: &SmallDisk, bytes: usize) -> std::io::Result<()> {
        std::fs::write(disk.path().join("file"), vec![1; bytes])
    }

    #[test]
    fn holds_what_it_should_fills_and_is_freed() {
        let disk = SmallDisk::mount(4 * MEBIBYTE).unwrap();
        write(&disk, 3 << 20).unwrap();
        disk.fill().unwrap();
        disk.fill().unwrap();
        let grown = write(&disk, 4 << 20).unwrap_err();
        assert_eq!(grown.kind(), ErrorKind::StorageFull);
        disk.free_up().unwrap();
        disk.free_up().unwrap();
        write(&disk, 3 << 20).unwrap();
    }

    #[test]
    fn is_gone_once_it_is_dropped_even_in_use() {
        let disk = SmallDisk::mount(MEBIBYTE).unwrap();
        let path = disk.path().to_owned();
        let mut file = File::create(path.join("file")).unwrap();
        drop(disk);
        assert!(!path.exists());
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains(path.to_str().unwrap()), "{mounts}");
        file.write_all(b"who still has it open may write").unwrap();
    }
}
