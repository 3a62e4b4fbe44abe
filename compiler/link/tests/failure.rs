//! What goes wrong while an artifact is made leaves nothing behind and says why.

mod support;

use llmc_link::{Error, executable};
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, thread, time};
use support::{Folder, STEP, Source, make, step_object, variant};

/// Names the output of the helper process below.
const OUT: &str = "LLMC_LINK_TEST_OUT";

#[test]
fn an_undefined_symbol_is_named() {
    let folder = Folder::new();
    let out = folder.0.join("model");
    let result = executable(&[], &[variant()], &mut Source::new(), &out, None);
    let error = result.expect_err("no object defines the step").to_string();
    assert!(error.contains(STEP), "{error}");
    assert!(folder.names().is_empty());
}

#[test]
fn a_broken_object_is_named() {
    let folder = Folder::new();
    let objects = [("broken".to_owned(), b"\x7fELF not really".to_vec()), step_object(STEP)];
    let error = executable(&objects, &[variant()], &mut Source::new(), &folder.0.join("model"), None);
    let error = error.expect_err("a broken object").to_string();
    assert!(error.contains("broken"), "{error}");
    assert!(folder.names().is_empty());
}

#[test]
fn the_sources_own_error_comes_through() {
    let folder = Folder::new();
    let mut source = Source { failure: Some("tensor x is damaged"), ..Source::new() };
    let result = executable(&[step_object(STEP)], &[variant()], &mut source, &folder.0.join("model"), None);
    let error = result.expect_err("the source fails");
    assert!(matches!(error, Error::Source(_)), "{error:?}");
    assert_eq!(error.to_string(), "tensor x is damaged");
    assert!(folder.names().is_empty());
}

#[test]
fn weights_must_have_the_announced_length() {
    let folder = Folder::new();
    for difference in [-1i64, 1] {
        let mut source = Source::new();
        source.announced = source.announced.checked_add_signed(difference).expect("small");
        let result = executable(&[step_object(STEP)], &[variant()], &mut source, &folder.0.join("model"), None);
        assert!(matches!(result, Err(Error::WeightsLength { .. })), "{result:?}");
        assert!(folder.names().is_empty());
    }
}

#[test]
fn a_full_disk_is_told_before_the_weights_are_packed() {
    let folder = Folder::new();
    let mut source = Source { announced: 1 << 46, failure: Some("asked for weights"), ..Source::new() };
    let result = executable(&[step_object(STEP)], &[variant()], &mut source, &folder.0.join("model"), None);
    match result {
        Err(Error::Output { source, .. }) => {
            assert!([ErrorKind::StorageFull, ErrorKind::FileTooLarge].contains(&source.kind()), "{source:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(folder.names().is_empty());
}

#[test]
fn an_unusable_output_is_told_at_once() {
    let folder = Folder::new();
    fs::write(folder.0.join("file"), b"").expect("written");
    let cases = [folder.0.join("missing/model"), folder.0.join("file/model"), folder.0.clone(), "/dev/null".into()];
    for out in cases {
        let check = llmc_link::check_output(&out).expect_err("unusable").to_string();
        let result = executable(&[step_object(STEP)], &[variant()], &mut Source::new(), &out, None);
        assert_eq!(result.expect_err("unusable").to_string(), check);
        assert!(check.contains(&out.display().to_string()), "{check}");
    }
    assert_eq!(folder.names(), ["file"]);
}

#[test]
fn a_linker_that_fails_is_named() {
    let folder = Folder::new();
    for linker in ["/no/such/linker", "/bin/false"] {
        let linker = Path::new(linker);
        let out = folder.0.join("model");
        let result = executable(&[step_object(STEP)], &[variant()], &mut Source::new(), &out, Some(linker));
        let error = result.expect_err("no linker").to_string();
        assert!(error.contains(&linker.display().to_string()), "{error}");
    }
    assert!(folder.names().is_empty());
}

#[test]
fn a_killed_compile_leaves_no_output_and_the_next_one_no_leftover() {
    let folder = Folder::new();
    let out = folder.0.join("model");
    for millis in [0, 60, 200, 500, 900] {
        let mut helper = Command::new(env::current_exe().expect("this test"))
            .args(["--exact", "link_slowly", "--ignored"])
            .env(OUT, &out)
            .stdout(Stdio::null())
            .spawn()
            .expect("started");
        thread::sleep(time::Duration::from_millis(millis));
        helper.kill().and_then(|()| helper.wait()).expect("killed");
        assert!(!out.exists(), "after {millis} ms");
    }
    make(&out);
    assert_eq!(folder.names(), ["model"]);
}

#[test]
#[ignore = "the process that a_killed_compile_leaves_no_output kills"]
fn link_slowly() {
    let Some(out) = env::var_os(OUT) else { return };
    let mut source = Source { pause: time::Duration::from_secs(60), ..Source::new() };
    let _ = executable(&[step_object(STEP)], &[variant()], &mut source, Path::new(&out), None);
}
