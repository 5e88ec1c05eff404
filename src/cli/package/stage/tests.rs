use super::*;

const SETTINGS: &str = r#"{"IsEncrypted": false, "Values": {"MINE": "1"}}"#;

fn staged() -> (tempfile::TempDir, Staged) {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("binary"), b"\x7fELF and so on").unwrap();
    let staged = again(&scratch).unwrap();
    (scratch, staged)
}

fn again(scratch: &tempfile::TempDir) -> Result<Staged, Error> {
    stage(&scratch.path().join("binary"), &scratch.path().join("dist"))
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_folder_is_flat_and_the_handler_alone_may_be_executed() {
    let (_scratch, staged) = staged();
    for name in &staged.files {
        let mode = fs::metadata(staged.folder.join(name)).unwrap().permissions().mode();
        let expected = if name == "handler" { 0o755 } else { 0o644 };
        assert_eq!(mode & 0o777, expected, "{name}");
    }
    assert!(staged.folder.join("host.json").is_file());
    assert!(staged.folder.join("openai/function.json").is_file());
    assert!(!staged.folder.join("function-definitions").exists());
}

#[test]
fn the_zip_has_the_modes_that_core_tools_gives() {
    let (_scratch, staged) = staged();
    let mut zip = zip::ZipArchive::new(File::open(&staged.zip).unwrap()).unwrap();
    let mut names = Vec::new();
    for index in 0..zip.len() {
        let entry = zip.by_index(index).unwrap();
        let name = entry.name().unwrap().into_owned();
        let expected = if name == "handler" { 0o100_777 } else { 0o100_666 };
        assert_eq!(entry.unix_mode(), Some(expected), "{name}");
        names.push(name);
    }
    names.sort();
    let mut expected: Vec<_> = FUNCTIONS
        .iter()
        .map(|(name, _)| format!("{name}/function.json"))
        .chain(["handler".to_owned(), "host.json".to_owned()])
        .collect();
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn the_same_files_make_the_same_zip() {
    let (scratch, staged) = staged();
    let first = fs::read(&staged.zip).unwrap();
    again(&scratch).unwrap();
    assert_eq!(fs::read(&staged.zip).unwrap(), first);
}

#[test]
fn staging_again_replaces_all_but_the_developers_settings() {
    let (scratch, staged) = staged();
    assert!(!staged.has_local_settings);
    fs::write(staged.folder.join(LOCAL_SETTINGS), SETTINGS).unwrap();
    fs::create_dir(staged.folder.join("gone")).unwrap();
    fs::write(staged.folder.join("gone/function.json"), "{}").unwrap();
    fs::write(scratch.path().join("binary"), "newer").unwrap();

    let newer = again(&scratch).unwrap();
    assert!(newer.has_local_settings);
    assert!(!newer.folder.join("gone").exists());
    assert_eq!(fs::read(newer.folder.join("handler")).unwrap(), b"newer");
    assert_eq!(fs::read_to_string(newer.folder.join(LOCAL_SETTINGS)).unwrap(), SETTINGS);
    let mut zip = zip::ZipArchive::new(File::open(&newer.zip).unwrap()).unwrap();
    assert!(zip.by_name(LOCAL_SETTINGS).is_err(), "settings were zipped");
}

#[test]
fn nothing_is_left_beside_the_stage() {
    let (scratch, _staged) = staged();
    again(&scratch).unwrap();
    assert_eq!(names_in(&scratch.path().join("dist")), ["functionapp", "functionapp.zip"]);
}

#[test]
fn a_folder_that_is_not_a_stage_is_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("binary"), "x").unwrap();
    let foreign = scratch.path().join("dist/functionapp");
    fs::create_dir_all(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "years of work").unwrap();
    let refusal = again(&scratch).unwrap_err();
    assert!(matches!(refusal, Error::NotAStage(_)), "{refusal}");
    assert_eq!(names_in(&foreign), ["thesis.txt"]);
}

#[test]
fn a_stage_that_cannot_be_finished_leaves_the_older_one() {
    let (scratch, staged) = staged();
    // A folder where the developer's settings belong cannot be carried over.
    fs::create_dir(staged.folder.join(LOCAL_SETTINGS)).unwrap();
    let before = names_in(&staged.folder);
    again(&scratch).unwrap_err();
    assert_eq!(names_in(&staged.folder), before);
    assert_eq!(names_in(&scratch.path().join("dist")), ["functionapp", "functionapp.zip"]);
}
