//! Can the Functions images start this binary?
//!
//! Pure: bytes in, a verdict out. A file that cannot be read to its end is refused, never guessed at.

use object::Endianness;
use object::elf::{EM_X86_64, ET_DYN, ET_EXEC, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

/// The C library of the oldest image that still runs custom handlers: Debian 11.
const IMAGE_GLIBC: Version = Version(2, 31);
/// The loader that every glibc image has.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// Why the Functions images could not start it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unportable {
    #[error("is not an ELF file, and the Functions host runs on Linux.")]
    NotElf,
    #[error("is not a 64-bit x86 program, and Azure Functions runs custom handlers on no other machine.")]
    OtherMachine,
    #[error("is an ELF file, but not a program: it may be cut off or an object file.")]
    NotAProgram,
    #[error("is started by `{0}`, which the Functions images do not have.")]
    OtherLoader(String),
    #[error("needs {needed} of `{library}`; the Functions images may have only GLIBC_2.31.")]
    NewerGlibc { needed: String, library: String },
}

/// A version of glibc, such as 2.31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

type Header = FileHeader64<Endianness>;

/// Refuses what is not an x86-64 program, and one whose C library is newer than the images' own.
pub(super) fn check(bytes: &[u8]) -> Result<(), Unportable> {
    if !bytes.starts_with(b"\x7fELF") {
        return Err(Unportable::NotElf);
    }
    // Byte 4 is the class (2 for 64 bits), byte 5 the order of bytes (1 for little-endian).
    if bytes.get(4..6) != Some(&[2, 1]) {
        return Err(Unportable::OtherMachine);
    }
    let header = Header::parse(bytes).map_err(|_| Unportable::NotAProgram)?;
    let endian = header.endian().map_err(|_| Unportable::NotAProgram)?;
    if header.e_machine(endian) != EM_X86_64 {
        return Err(Unportable::OtherMachine);
    }
    if ![ET_EXEC, ET_DYN].contains(&header.e_type(endian)) {
        return Err(Unportable::NotAProgram);
    }
    match loader(header, endian, bytes)? {
        None => Ok(()), // static: it asks for nothing
        Some(loader) if loader == LOADER => check_versions(header, endian, bytes),
        Some(loader) => Err(Unportable::OtherLoader(loader)),
    }
}

fn loader(header: &Header, endian: Endianness, bytes: &[u8]) -> Result<Option<String>, Unportable> {
    let segments = header.program_headers(endian, bytes).map_err(|_| Unportable::NotAProgram)?;
    if segments.is_empty() {
        return Err(Unportable::NotAProgram);
    }
    for segment in segments {
        let found = segment.interpreter(endian, bytes).map_err(|_| Unportable::NotAProgram)?;
        if let Some(path) = found {
            return Ok(Some(String::from_utf8_lossy(path).into_owned()));
        }
    }
    Ok(None)
}

fn check_versions(header: &Header, endian: Endianness, bytes: &[u8]) -> Result<(), Unportable> {
    let newest = newest_glibc(header, endian, bytes)
        .map_err(|_: object::Error| Unportable::NotAProgram)?
        // A dynamic program always asks for some version of its C library: this one's table is gone.
        .ok_or(Unportable::NotAProgram)?;
    if newest.version > IMAGE_GLIBC {
        return Err(Unportable::NewerGlibc { needed: newest.name, library: newest.library });
    }
    Ok(())
}

struct Need {
    version: Version,
    name: String,
    library: String,
}

fn newest_glibc(header: &Header, endian: Endianness, bytes: &[u8]) -> object::Result<Option<Need>> {
    let sections = header.sections(endian, bytes)?;
    let Some((mut libraries, names)) = sections.gnu_verneed(endian, bytes)? else {
        return Ok(None);
    };
    let names = sections.strings(endian, bytes, names)?;
    let mut newest: Option<Need> = None;
    while let Some((library, mut versions)) = libraries.next()? {
        while let Some(version) = versions.next()? {
            let name = String::from_utf8_lossy(version.name(endian, names)?).into_owned();
            let Some(version) = glibc_version(&name) else {
                continue;
            };
            if newest.as_ref().is_none_or(|need| version > need.version) {
                let library = String::from_utf8_lossy(library.file(endian, names)?).into_owned();
                newest = Some(Need { version, name, library });
            }
        }
    }
    Ok(newest)
}

/// `GLIBC_2.28` as a version; `None` for other libraries' names, such as `GCC_3.0`.
fn glibc_version(name: &str) -> Option<Version> {
    let version = name.strip_prefix("GLIBC_")?;
    let mut numbers = version.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some(Version(major, minor)),
        // `GLIBC_ABI_DT_RELR` and `GLIBC_PRIVATE` bind to a C library newer or more exact than any
        // number says.
        _ => Some(Version(u32::MAX, 0)),
    }
}

#[cfg(test)]
mod tests;
