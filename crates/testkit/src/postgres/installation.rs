//! Where PostgreSQL is installed, and whom it runs as.

use std::{os::unix::fs::MetadataExt, path::PathBuf};

use anyhow::{Context, Result};

/// The folder of the server's programs: what `FOREBAY_POSTGRES_BIN` names, else Debian's newest, else that on `PATH`.
pub(super) fn find_programs() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("FOREBAY_POSTGRES_BIN") {
        return Ok(folder.into());
    }
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    versions.sort();
    let search = std::env::var_os("PATH").unwrap_or_default();
    versions
        .into_iter()
        .rev()
        .map(|(_, folder)| folder)
        .chain(std::env::split_paths(&search))
        .find(|folder| folder.join("initdb").is_file())
        .context("PostgreSQL is not installed: run `make test-tools`, or set FOREBAY_POSTGRES_BIN")
}

/// Where we are root: the user and group that the server runs as.
pub(super) fn unprivileged_user() -> Result<Option<(u32, u32)>> {
    if std::fs::metadata("/proc/self").context("look who we are")?.uid() != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").context("look for a user without privileges")?;
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres")
        .or_else(|| ids("nobody"))
        .map(Some)
        .context("there is no user to run PostgreSQL as")
}
