//! What `/proc` says of this process, under the names that Prometheus' client libraries use. Elsewhere than on
//! Linux only the start time is known.

use std::sync::{Mutex, PoisonError};

use prometheus::{Counter, Gauge, IntGauge, Registry};

use crate::clock::Timestamp;

/// Linux counts processor time for user programs in hundredths of a second, whatever the kernel's own tick is
/// (proc(5), `sysconf(_SC_CLK_TCK)`).
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(super) struct Process {
    cpu_seconds: Counter,
    resident: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
    /// Two scrapes at once would count processor time twice.
    reading: Mutex<()>,
}

impl Process {
    pub(super) fn register(registry: &Registry, started: Timestamp) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let start = Gauge::new("process_start_time_seconds", "When the process started, in Unix seconds.")?;
        registry.register(Box::new(start.clone()))?;
        let cpu_seconds = Counter::new("process_cpu_seconds_total", "Processor time used, user and system.")?;
        registry.register(Box::new(cpu_seconds.clone()))?;
        let whole = started.as_seconds();
        let rest = started.as_micros().rem_euclid(1_000_000);
        start.set(whole as f64 + rest as f64 / 1e6);
        Ok(Self {
            cpu_seconds,
            resident: gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.")?,
            open_fds: gauge("process_open_fds", "Open file descriptors.")?,
            max_fds: gauge("process_max_fds", "Most file descriptors that may be open.")?,
            threads: gauge("process_threads", "Threads of the process.")?,
            reading: Mutex::default(),
        })
    }

    /// Reads the values anew; one that cannot be read keeps its old value.
    pub(super) fn update(&self) {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            set(&self.resident, field(&status, "VmRSS:").map(|kib| kib.saturating_mul(1024)));
            set(&self.threads, field(&status, "Threads:"));
        }
        if let Ok(limits) = std::fs::read_to_string("/proc/self/limits") {
            set(&self.max_fds, field(&limits, "Max open files"));
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // Reading the directory has one open itself.
            set(&self.open_fds, i64::try_from(entries.count()).ok().map(|count| count.saturating_sub(1)));
        }
        if let Some(seconds) =
            std::fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds)
        {
            self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
        }
    }
}

fn set(gauge: &IntGauge, value: Option<i64>) {
    if let Some(value) = value {
        gauge.set(value);
    }
}

/// The first number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<i64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of proc(5) `stat`; the second, the program's name in parentheses, may hold spaces.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let after_name = stat.rsplit_once(") ")?.1;
    let mut times = after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Some((times.next()? + times.next()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_program_names_do_no_harm() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("7 (a"), None);
        assert_eq!(field("Threads:\t12\n", "Threads:"), Some(12));
        assert_eq!(
            field("Max open files            1024                 4096", "Max open files"),
            Some(1024)
        );
        assert_eq!(field("Max open files            unlimited", "Max open files"), None);
    }
}
