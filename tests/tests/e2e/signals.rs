//! Signals and closed pipes: artifacts end as a user expects, and quietly.

use llmc_tests::command::{Ended, llmc, piped, tinywiki};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

/// An artifact that generates for long.
fn busy() -> Child {
    let mut command = Command::new(tinywiki());
    command.args(["run", "The river", "--raw", "-n", "480", "--ignore-eos", "-t", "1"]);
    piped(command.env_clear())
}

fn send(child: &Child, signal: i32) {
    // SAFETY: the child is ours and has not been waited for.
    unsafe { libc::kill(child.id().cast_signed(), signal) };
}

/// Reads the first bytes of a stream and gives it back.
fn first(child: &mut Child) {
    let mut byte = [0];
    let out = child.stdout.as_mut().expect("piped");
    assert_eq!(out.read(&mut byte).expect("readable"), 1, "the stream begins");
}

#[test]
fn while_generating() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let mut child = busy();
        first(&mut child);
        send(&child, signal);
        let ended = Ended::wait(child, "run");
        assert_eq!((ended.code, ended.err.as_str()), (code, ""));
        assert!(ended.text().ends_with('\n'), "the terminal's next line is clean");
    }
}

#[test]
fn while_waiting_for_input() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let mut child = piped(Command::new(tinywiki()).args(["chat", "-q", "-n", "2"]).env_clear());
        let mut input = child.stdin.take().expect("piped");
        input.write_all(b"a\n").expect("the child reads");
        first(&mut child);
        send(&child, signal);
        let ended = Ended::wait(child, "chat");
        assert_eq!((ended.code, ended.err.as_str()), (code, ""));
    }
}

#[test]
fn while_benchmarking() {
    let mut child = piped(Command::new(tinywiki()).args(["bench", "-r", "1000"]).env_clear());
    drop(child.stdin.take());
    std::thread::sleep(std::time::Duration::from_millis(700));
    send(&child, libc::SIGINT);
    assert_eq!(Ended::wait(child, "bench").code, 130);
}

/// As in `run | head -c 1`: SIGPIPE or success, but no word.
#[test]
fn a_closed_pipe_is_quiet() {
    let mut child = busy();
    first(&mut child);
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ours");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.signal() == Some(libc::SIGPIPE) || output.status.success(), "{}", output.status);
    for args in [&["completions", "bash"][..], &["doctor"], &["doctor", "--json"]] {
        let mut child = piped(&mut llmc(args));
        drop(child.stdout.take());
        let ended = Ended::wait(child, "llmc");
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{args:?}");
    }
}
