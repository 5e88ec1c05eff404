//! Writes the folder and the zip, each whole or not at all.
//!
//! # What it must never do
//! Put a developer's `local.settings.json` in the zip, or lose it: everything else in the folder is
//! made again, that file is carried over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::Error;
use super::definitions::{FUNCIGNORE, FUNCTIONS, HANDLER, HOST_JSON, SAMPLE_SETTINGS};

const LOCAL_SETTINGS: &str = "local.settings.json";

/// What was put where.
#[derive(Debug)]
pub struct Staged {
    /// The folder to run `func` in.
    pub folder: PathBuf,
    pub zip: PathBuf,
    pub zip_bytes: u64,
    /// The files of the folder that were staged, by their path in it.
    pub files: Vec<String>,
    /// Whether a developer's settings stand in the folder, kept from before.
    pub has_local_settings: bool,
}

/// One file of the stage.
struct Entry<'a> {
    name: String,
    content: &'a [u8],
    /// Whether it is published, or only of use on a developer's machine.
    published: bool,
}

impl Entry<'_> {
    fn is_handler(&self) -> bool {
        self.name == HANDLER
    }
}

/// Stages `binary` under `out`, in place of an older stage. Whether the Functions images can run it
/// is not asked here.
pub fn stage(binary: &Path, out: &Path) -> Result<Staged, Error> {
    let program = fs::read(binary).map_err(|source| Error::Unreadable { path: binary.to_owned(), source })?;
    let entries = entries(&program);
    let folder = out.join("functionapp");
    refuse_foreign(&folder)?;
    fs::create_dir_all(out).map_err(unwritable(out))?;

    // Both are whole beside their places before either is put there.
    let scratch = tempfile_in(out)?;
    let new_folder = scratch.path.join("functionapp");
    let new_zip = scratch.path.join("functionapp.zip");
    write_folder(&new_folder, &entries)?;
    let zip_bytes = write_zip(&new_zip, &entries)?;
    let has_local_settings = keep_local_settings(&folder, &new_folder)?;

    let zip = out.join("functionapp.zip");
    replace(&new_folder, &folder, &scratch.path.join("older"))?;
    fs::rename(&new_zip, &zip).map_err(unwritable(&zip))?;
    Ok(Staged {
        folder,
        zip,
        zip_bytes,
        files: entries.into_iter().map(|entry| entry.name).collect(),
        has_local_settings,
    })
}

fn entries(program: &[u8]) -> Vec<Entry<'_>> {
    let file = |name: &str, content: &'static str, published| Entry {
        name: name.to_owned(),
        content: content.as_bytes(),
        published,
    };
    let mut entries = vec![
        file("host.json", HOST_JSON, true),
        file(".funcignore", FUNCIGNORE, false),
        file("local.settings.sample.json", SAMPLE_SETTINGS, false),
        Entry { name: HANDLER.to_owned(), content: program, published: true },
    ];
    entries.extend(FUNCTIONS.iter().map(|(name, json)| file(&format!("{name}/function.json"), json, true)));
    entries
}

/// A folder that is not ours is not replaced: `--out` may name any place.
fn refuse_foreign(folder: &Path) -> Result<(), Error> {
    let is_absent = match fs::read_dir(folder) {
        Ok(mut inside) => inside.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(_) => false,
    };
    if is_absent || folder.join("host.json").is_file() {
        Ok(())
    } else {
        Err(Error::NotAStage(folder.to_owned()))
    }
}

/// A folder that is gone when this is dropped, whatever happened in between.
struct Scratch {
    path: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind is a hidden folder that the next run does not trip over.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Beside the stage, so that putting it in place is a rename on one file system.
fn tempfile_in(out: &Path) -> Result<Scratch, Error> {
    let path = out.join(format!(".staging-{}", std::process::id()));
    fs::create_dir(&path).map_err(unwritable(&path))?;
    Ok(Scratch { path })
}

fn write_folder(folder: &Path, entries: &[Entry<'_>]) -> Result<(), Error> {
    for entry in entries {
        let path = folder.join(&entry.name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(unwritable(parent))?;
        let mode = if entry.is_handler() { 0o755 } else { 0o644 };
        write_file(&path, entry.content, mode).map_err(unwritable(&path))?;
    }
    Ok(())
}

fn write_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    // The mode at creation is cut by the umask; the host needs all of it.
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// As Core Tools makes it: the handler alone may be executed, and everyone may read everything.
/// Entries have the zip format's first date, so that the same files make the same zip.
fn write_zip(path: &Path, entries: &[Entry<'_>]) -> Result<u64, Error> {
    let mut zip = ZipWriter::new(File::create_new(path).map_err(unwritable(path))?);
    for entry in entries.iter().filter(|entry| entry.published) {
        let mode = if entry.is_handler() { 0o777 } else { 0o666 };
        zip.start_file(entry.name.as_str(), SimpleFileOptions::default().unix_permissions(mode))?;
        zip.write_all(entry.content).map_err(unwritable(path))?;
    }
    let file = zip.finish()?;
    Ok(file.metadata().map_err(unwritable(path))?.len())
}

fn keep_local_settings(older: &Path, newer: &Path) -> Result<bool, Error> {
    let (from, to) = (older.join(LOCAL_SETTINGS), newer.join(LOCAL_SETTINGS));
    match fs::copy(&from, &to) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unwritable(&to)(error)),
    }
}

/// Puts `newer` where `place` is; on a failure the older one stands there again.
fn replace(newer: &Path, place: &Path, aside: &Path) -> Result<(), Error> {
    let had_older = match fs::rename(place, aside) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(unwritable(place)(error)),
    };
    fs::rename(newer, place).map_err(|error| {
        if had_older && let Err(second) = fs::rename(aside, place) {
            return unwritable(place)(second);
        }
        unwritable(place)(error)
    })
}

fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::Unwritable { path, source }
}

#[cfg(test)]
mod tests;
