//! What the kernel says of this process, under the names that Prometheus clients share.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// Kernel ticks a second and bytes a page: constants of every Linux that Rust supports as a server.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: i64 = 4_096;

#[derive(Debug)]
pub(super) struct ProcessCollector;

/// Reads `/proc/self`; elsewhere than on Linux there is nothing to say.
fn cpu_seconds_and_resident_bytes() -> Option<(f64, i64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name, in parentheses, may hold spaces: count from behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    let pages: i64 = fields.get(21)?.parse().ok()?;
    Some((ticks / TICKS_PER_SECOND, pages * PAGE_BYTES))
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some((cpu_seconds, resident_bytes)) = cpu_seconds_and_resident_bytes() else {
            return Ok(());
        };
        let cpu = ConstCounter::new(cpu_seconds);
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time used",
            None,
            cpu.metric_type(),
        )?)?;
        let resident = ConstGauge::new(resident_bytes);
        resident.encode(encoder.encode_descriptor(
            "process_resident_memory_bytes",
            "Memory in use",
            None,
            resident.metric_type(),
        )?)?;
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let open = ConstGauge::new(i64::try_from(open.count()).unwrap_or(i64::MAX));
            open.encode(encoder.encode_descriptor(
                "process_open_fds",
                "Open files and sockets",
                None,
                open.metric_type(),
            )?)?;
        }
        Ok(())
    }
}
