use super::*;

/// The smallest ELF file with what [`check`] reads: a header, a loader's name, and a table of needed
/// versions.
struct Program {
    class: u8,
    machine: u16,
    kind: u16,
    loader: Option<&'static str>,
    needs: &'static [&'static str],
}

const PORTABLE: Program =
    Program { class: 2, machine: 62, kind: 3, loader: Some(LOADER), needs: &["GLIBC_2.2.5", "GLIBC_2.28"] };

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;

impl Program {
    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER_BYTES + 2 * SEGMENT_BYTES];
        let (loader, loader_at) = (self.loader.unwrap_or(""), out.len());
        out.extend(loader.bytes());
        out.push(0);
        let (names, offsets) = self.names();
        let names_at = out.len();
        out.extend(&names);
        let needs_at = out.len();
        out.extend(self.table(&offsets));
        let sections_at = out.len();
        // The first section is always empty; then the table (linked to its names), then the names.
        out.extend([0; 64]);
        out.extend(section(0x6fff_fffe, needs_at, sections_at - needs_at, 2, 1));
        out.extend(section(3, names_at, names.len(), 0, 0));
        self.write_header(&mut out, sections_at);
        let kind = if self.loader.is_some() { 3 } else { 1 };
        write_segment(&mut out, kind, loader_at, loader.len() + 1);
        out
    }

    fn names(&self) -> (Vec<u8>, Vec<u32>) {
        let mut names = b"\0libc.so.6\0".to_vec();
        let mut offsets = Vec::new();
        for need in self.needs {
            offsets.push(u32::try_from(names.len()).unwrap());
            names.extend(need.bytes());
            names.push(0);
        }
        (names, offsets)
    }

    fn table(&self, offsets: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(1_u16.to_le_bytes());
        out.extend(u16::try_from(self.needs.len()).unwrap().to_le_bytes());
        out.extend(1_u32.to_le_bytes()); // the library's name
        out.extend(16_u32.to_le_bytes()); // where its versions begin
        out.extend(0_u32.to_le_bytes());
        for (index, offset) in offsets.iter().enumerate() {
            let next: u32 = if index + 1 == offsets.len() { 0 } else { 16 };
            out.extend([0; 8]);
            out.extend(offset.to_le_bytes());
            out.extend(next.to_le_bytes());
        }
        out
    }

    fn write_header(&self, out: &mut [u8], sections_at: usize) {
        out[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', self.class, 1, 1]);
        out[16..18].copy_from_slice(&self.kind.to_le_bytes());
        out[18..20].copy_from_slice(&self.machine.to_le_bytes());
        out[20] = 1;
        out[32..40].copy_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
        out[40..48].copy_from_slice(&(sections_at as u64).to_le_bytes());
        for (at, value) in [(52, 64_u16), (54, 56), (56, 2), (58, 64), (60, 3), (62, 2)] {
            out[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
    }
}

fn section(kind: u32, at: usize, bytes: usize, link: u32, info: u32) -> Vec<u8> {
    let mut out = vec![0; 64];
    out[4..8].copy_from_slice(&kind.to_le_bytes());
    out[24..32].copy_from_slice(&(at as u64).to_le_bytes());
    out[32..40].copy_from_slice(&(bytes as u64).to_le_bytes());
    out[40..44].copy_from_slice(&link.to_le_bytes());
    out[44..48].copy_from_slice(&info.to_le_bytes());
    out
}

fn write_segment(out: &mut [u8], kind: u32, at: usize, bytes: usize) {
    let segment = &mut out[HEADER_BYTES..HEADER_BYTES + SEGMENT_BYTES];
    segment[..4].copy_from_slice(&kind.to_le_bytes());
    segment[8..16].copy_from_slice(&(at as u64).to_le_bytes());
    segment[32..40].copy_from_slice(&(bytes as u64).to_le_bytes());
}

#[test]
fn an_old_enough_or_a_static_program_is_taken() {
    assert_eq!(check(&PORTABLE.bytes()), Ok(()));
    for needs in [&["GLIBC_2.31"][..], &["GLIBC_2.4", "GCC_4.2.0"]] {
        let program = Program { needs, ..PORTABLE };
        assert_eq!(check(&program.bytes()), Ok(()), "{needs:?}");
    }
    let program = Program { loader: None, needs: &[], ..PORTABLE };
    assert_eq!(check(&program.bytes()), Ok(()), "static");
}

#[test]
fn a_newer_c_library_is_refused_by_name() {
    for (needs, needed) in [
        (&["GLIBC_2.2.5", "GLIBC_2.34", "GLIBC_2.4"][..], "GLIBC_2.34"),
        (&["GLIBC_2.31.1", "GLIBC_2.32"], "GLIBC_2.32"),
        (&["GLIBC_3.0"], "GLIBC_3.0"),
        (&["GLIBC_2.17", "GLIBC_ABI_DT_RELR"], "GLIBC_ABI_DT_RELR"),
    ] {
        let program = Program { needs, ..PORTABLE };
        let refused = Unportable::NewerGlibc { needed: needed.to_owned(), library: "libc.so.6".to_owned() };
        assert_eq!(check(&program.bytes()), Err(refused), "{needs:?}");
    }
}

#[test]
fn what_is_not_a_linux_program_for_this_machine_is_refused() {
    let refused = |program: Program| check(&program.bytes()).unwrap_err();
    assert_eq!(check(b"MZ\x90\0"), Err(Unportable::NotElf));
    assert_eq!(check(b""), Err(Unportable::NotElf));
    assert_eq!(refused(Program { class: 1, ..PORTABLE }), Unportable::OtherMachine);
    // 183 is AArch64.
    assert_eq!(refused(Program { machine: 183, ..PORTABLE }), Unportable::OtherMachine);
    // 1 is an object file.
    assert_eq!(refused(Program { kind: 1, ..PORTABLE }), Unportable::NotAProgram);
    let musl = "/lib/ld-musl-x86_64.so.1";
    assert_eq!(refused(Program { loader: Some(musl), ..PORTABLE }), Unportable::OtherLoader(musl.to_owned()));
    assert_eq!(
        refused(Program { needs: &[], ..PORTABLE }),
        Unportable::NotAProgram,
        "a dynamic program without its table of versions"
    );
}

#[test]
fn a_file_cut_off_anywhere_is_refused_and_never_a_panic() {
    let whole = PORTABLE.bytes();
    for length in 0..whole.len() {
        assert!(check(&whole[..length]).is_err(), "{length} bytes");
    }
}
