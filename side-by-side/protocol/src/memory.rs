//! How much memory a process has.

/// The most bytes that this process has had in memory at once, files that it maps included; `None` where the system does
/// not tell.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_written_is_counted() {
        let before = peak_memory().expect("Linux tells");
        let written = vec![1u8; 64 << 20];
        assert!(std::hint::black_box(&written).iter().all(|&b| b == 1));
        let after = peak_memory().expect("Linux tells");
        assert!(after >= before + (60 << 20), "{before} {after}");
    }
}
