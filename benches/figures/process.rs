//! What a process used, as the kernel counts it.

use std::fs;

/// CPU, memory and disk of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub cpu_s: f64,
    pub resident_mb: f64,
    pub resident_peak_mb: f64,
    pub written_bytes: f64,
}

/// Clock ticks a second in /proc/PID/stat: fixed at 100 on Linux.
const TICKS: f64 = 100.0;

/// Reads /proc; zeros for what it does not say.
pub fn usage(pid: u32) -> Usage {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let stat = read("stat");
    // the command name may hold blanks; fields count from the parenthesis that closes it
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
    let cpu = fields.get(11).unwrap_or(&0.0) + fields.get(12).unwrap_or(&0.0);
    let status = read("status");
    let kb = |key: &str| -> f64 {
        let line = status.lines().find(|l| l.starts_with(key)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0)
    };
    let io = read("io");
    let written = io.lines().find_map(|l| l.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0.0);
    Usage {
        cpu_s: cpu / TICKS,
        resident_mb: kb("VmRSS:") / 1024.0,
        resident_peak_mb: kb("VmHWM:") / 1024.0,
        written_bytes: written,
    }
}

impl Usage {
    /// CPU and writes since `before`; memory as it is now.
    pub fn since(self, before: &Usage) -> Usage {
        Usage { cpu_s: self.cpu_s - before.cpu_s, written_bytes: self.written_bytes - before.written_bytes, ..self }
    }
}
