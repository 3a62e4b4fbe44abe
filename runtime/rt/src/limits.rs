//! What the machine lets this process use: CPUs by affinity and cgroup quota, memory by
//! /proc/meminfo and cgroup limits (versions 1 and 2), and what it uses now.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sys::affinity;

/// Where cgroup file systems are mounted.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// CPUs that the process may keep busy: the smaller of its affinity and its quota rounded up.
pub fn cpus() -> usize {
    let affinity = match affinity::allowed().len() {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    match cpu_quota() {
        Some(quota) => affinity.min(quota.ceil().max(1.0) as usize),
        None => affinity,
    }
}

/// CPUs' worth of time that the process's cgroups grant; none where there is no limit.
pub fn cpu_quota() -> Option<f64> {
    let v2 = group_files("", "cpu.max").filter_map(|text| parse_cpu_max(&text));
    let quota = group_files("cpu", "cpu.cfs_quota_us");
    let period = group_files("cpu", "cpu.cfs_period_us");
    let v1 = quota.zip(period).filter_map(|(quota, period)| parse_cfs(&quota, &period));
    v2.chain(v1).reduce(f64::min)
}

/// Bytes of memory that can be taken without swapping or passing a limit.
pub fn memory_available() -> Option<u64> {
    let machine = meminfo_kib(&read("/proc/meminfo")?, "MemAvailable").map(|kib| kib * 1024);
    let v2 = group_room("", "memory.max", "memory.current");
    let v1 = group_room("memory", "memory.limit_in_bytes", "memory.usage_in_bytes");
    [machine, v2, v1].into_iter().flatten().min()
}

/// Memory of this process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Most resident at any time (VmHWM), mapped files included.
    pub peak_rss: u64,
    /// Anonymous memory resident now (RssAnon).
    pub anonymous: u64,
}

/// What this process uses now.
pub fn usage() -> Usage {
    let status = read("/proc/self/status").unwrap_or_default();
    let bytes = |key| meminfo_kib(&status, key).unwrap_or(0) * 1024;
    Usage { peak_rss: bytes("VmHWM"), anonymous: bytes("RssAnon") }
}

/// Room left in the tightest group. Page cache that the group holds counts as room: it is given up
/// before the limit bites.
fn group_room(controller: &str, limit: &str, used: &str) -> Option<u64> {
    let cache = |stat: &str| {
        let field = |key: &str| stat.lines().find_map(|l| l.strip_prefix(key)?.trim().parse::<u64>().ok());
        field("inactive_file ").unwrap_or(0) + field("active_file ").unwrap_or(0)
    };
    group_folders(controller)
        .into_iter()
        .filter_map(|folder| {
            let limit: u64 = read(folder.join(limit))?.trim().parse().ok()?;
            let used: u64 = read(folder.join(used))?.trim().parse().ok()?;
            let cached = read(folder.join("memory.stat")).map_or(0, |stat| cache(&stat));
            Some(limit.saturating_sub(used.saturating_sub(cached)))
        })
        .min()
}

/// The file `name` of the process's group for `controller` and of all groups above it.
fn group_files(controller: &'static str, name: &'static str) -> impl Iterator<Item = String> {
    group_folders(controller).into_iter().filter_map(move |folder| read(folder.join(name)))
}

/// Folders of the process's group and of those above it; version 2 where `controller` is empty.
fn group_folders(controller: &str) -> Vec<PathBuf> {
    let Some(groups) = read("/proc/self/cgroup") else { return Vec::new() };
    let Some(path) = group_path(&groups, controller) else { return Vec::new() };
    let root = Path::new(CGROUP_ROOT);
    let mounts = match controller {
        "" => vec![root.to_path_buf(), root.join("unified")],
        name => vec![root.join(name), root.join("cpu,cpuacct")],
    };
    let relative = path.trim_start_matches('/');
    let mut folders = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.is_dir()) {
        // Inside a container the path may not exist below the mount; the mount's root always does.
        folders.extend(mount.join(relative).ancestors().take_while(|a| a.starts_with(mount)).map(Path::to_path_buf));
    }
    folders
}

/// The path of the process's group in the text of /proc/self/cgroup.
fn group_path<'a>(groups: &'a str, controller: &str) -> Option<&'a str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = if controller.is_empty() { names.is_empty() } else { names.split(',').any(|n| n == controller) };
        // A path outside what the process can see starts with "/..".
        ours.then_some(path).filter(|p| !p.split('/').any(|part| part == ".."))
    })
}

/// `cpu.max` of version 2: `max 100000` or `150000 100000`.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let mut fields = text.split_whitespace();
    let (quota, period): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (period > 0.0).then_some(quota / period)
}

/// Quota and period of version 1; a quota below zero is none.
fn parse_cfs(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

/// A field of /proc/meminfo or /proc/self/status, in KiB.
fn meminfo_kib(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix(':')?;
        value.split_whitespace().next()?.parse().ok()
    })
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas() {
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(parse_cfs("-1\n", "100000\n"), None);
        assert_eq!(parse_cfs("50000\n", "100000\n"), Some(0.5));
        assert_eq!(parse_cfs("50000\n", "0\n"), None);
    }

    #[test]
    fn group_paths() {
        let groups = "5:cpu,cpuacct:/a/b\n4:memory:/../x\n0::/user.slice/s\n";
        assert_eq!(group_path(groups, "cpu"), Some("/a/b"));
        assert_eq!(group_path(groups, ""), Some("/user.slice/s"));
        assert_eq!(group_path(groups, "memory"), None);
        assert_eq!(group_path(groups, "pids"), None);
    }

    #[test]
    fn fields() {
        assert_eq!(meminfo_kib("MemTotal: 5 kB\nMemAvailable:   77 kB\n", "MemAvailable"), Some(77));
        assert_eq!(meminfo_kib("MemTotal: 5 kB\n", "MemAvailable"), None);
    }

    #[test]
    fn this_machine() {
        assert!(cpus() >= 1);
        assert!(memory_available().is_some_and(|bytes| bytes > 0));
        assert!(usage().peak_rss >= usage().anonymous);
    }
}
