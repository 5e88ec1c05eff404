//! The staged folder: the host loads it, finds each route in it, and can start what it carries.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::super::app::Mode;
use super::super::function::{Shape, Trigger};
use super::super::rig::Stage;
use super::super::template::Template;

fn stage() -> Stage {
    Stage::new("http://127.0.0.1:9", Mode::Proxying)
}

fn templates(stage: &Stage) -> Vec<(String, Template)> {
    let app = stage.app();
    app.functions
        .iter()
        .filter_map(|function| match &function.trigger {
            Trigger::Http { template, .. } => Some((function.name.clone(), template.clone())),
            Trigger::EventHub { .. } | Trigger::Timer { .. } => None,
        })
        .collect()
}

#[test]
fn the_host_loads_the_staged_folder_without_a_fault() {
    let app = stage().app();
    let names: Vec<_> = app.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "dashboard",
            "deployments",
            "healthz",
            "openai",
            "openapi",
            "reports",
            "subscriptions",
            "token-accounting",
            "upkeep",
            "v1"
        ]
    );
    let host = &app.host_json;
    assert_eq!(host["version"], "2.0");
    assert_eq!(host["customHandler"]["enableProxyingHttpRequest"], true);
    assert_eq!(host["customHandler"]["enableForwardingHttpRequest"], true);
    // Each of these changes what the other functions do, or is not known to every host.
    for key in ["configurationProfile", "retry"] {
        assert!(host[key].is_null(), "{key}");
    }
    assert!(host["customHandler"]["http"].is_null());
}

#[test]
fn nothing_lies_in_a_functions_folder_but_its_definition() {
    let stage = stage();
    for function in &stage.app().functions {
        let inside: Vec<_> = std::fs::read_dir(stage.root().join(&function.name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(inside, ["function.json"], "{}", function.name);
    }
}

#[test]
fn routes_do_not_overlap_so_their_order_is_nobodys_matter() {
    let stage = stage();
    let templates = templates(&stage);
    for (index, (one, left)) in templates.iter().enumerate() {
        for (two, right) in &templates[index + 1..] {
            assert!(!left.overlaps(right), "{one} and {two}");
        }
    }
}

#[test]
fn no_outsider_can_name_a_trigger() {
    let stage = stage();
    let templates = templates(&stage);
    for function in stage.app().functions {
        if let Trigger::EventHub { .. } | Trigger::Timer { .. } = function.trigger {
            for (name, template) in &templates {
                let path = Template::parse(&function.name).unwrap();
                assert!(!template.overlaps(&path), "{name} can be asked for /{}", function.name);
            }
        }
    }
}

#[test]
fn http_functions_have_one_trigger_and_one_output_and_let_the_gateway_judge_callers() {
    for function in stage().app().functions {
        if let Trigger::Http { is_plain, needs_key, methods, .. } = function.trigger {
            assert!(is_plain && !needs_key && methods.is_empty(), "{}", function.name);
        }
    }
}

#[test]
fn every_route_of_the_contract_reaches_a_function() {
    let stage = stage();
    let templates = templates(&stage);
    for (path, function) in [
        ("/openai/deployments/gpt-4o-mini/chat/completions", "openai"),
        ("/openai/v1/chat/completions", "openai"),
        ("/deployments/gpt-4o-mini/embeddings", "deployments"),
        ("/v1/chat/completions", "v1"),
        ("/subscriptions", "subscriptions"),
        ("/subscriptions/7/keys/primary", "subscriptions"),
        ("/reports/usage", "reports"),
        ("/reports/dead-letters/replay", "reports"),
        ("/openapi.json", "openapi"),
        ("/dashboard", "dashboard"),
        ("/healthz", "healthz"),
    ] {
        let found = templates.iter().find(|(_, template)| template.matches(path));
        assert_eq!(found.map(|(name, _)| name.as_str()), Some(function), "{path}");
    }
}

#[test]
fn the_accounting_trigger_takes_many_strings_and_never_gives_a_batch_up() {
    let app = stage().app();
    let Trigger::EventHub { shape, retry, .. } = app.function("token-accounting").trigger else { panic!() };
    assert_eq!(shape, Shape::ManyStrings);
    assert_eq!(retry.expect("a failed batch is lost without a policy").max, None);
}

/// With the portable binary's path in `TOLLGATE_TEST_PORTABLE`.
#[test]
#[ignore = "needs a portable build"]
fn a_portable_build_packages_itself_and_stays_executable() {
    #[expect(clippy::disallowed_methods, reason = "the setting is the test's own")]
    let binary = std::env::var("TOLLGATE_TEST_PORTABLE").expect("the path of a portable build");
    let out = tempfile::tempdir().unwrap();
    let done = Command::new(&binary).arg("package").arg("--out").arg(out.path()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let program = std::fs::read(&binary).unwrap();
    let staged = out.path().join("functionapp/handler");
    assert_eq!(std::fs::read(&staged).unwrap(), program);
    assert_eq!(staged.metadata().unwrap().permissions().mode() & 0o777, 0o755);

    let host = std::fs::read(out.path().join("functionapp/host.json")).unwrap();
    let host: serde_json::Value = serde_json::from_slice(&host).unwrap();
    let executable = host["customHandler"]["description"]["defaultExecutablePath"].as_str().unwrap();
    let mut zip = zip::ZipArchive::new(File::open(out.path().join("functionapp.zip")).unwrap()).unwrap();
    for index in 0..zip.len() {
        let entry = zip.by_index(index).unwrap();
        let name = entry.name().unwrap();
        assert!(!name.contains("local.settings"), "{name} would be published");
        let mode = if name == executable { 0o100_777 } else { 0o100_666 };
        assert_eq!(entry.unix_mode(), Some(mode), "{name}");
    }
    let handler = zip.by_name(executable).unwrap();
    assert_eq!(handler.size(), program.len() as u64);
    assert_eq!(handler.crc32(), crc32fast::hash(&program));
}
