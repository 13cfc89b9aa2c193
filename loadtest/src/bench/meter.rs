//! What time and processor a piece of work took: of the whole machine, of this process, and memory of others.

use std::{fs, time::Instant};

use anyhow::{Context, Result};

/// Ticks a second in which Linux tells processor time to user space, on every machine.
const TICKS: f64 = 100.0;

/// Reads the machine's clocks at a start.
pub(crate) struct Meter {
    began: Instant,
    machine: f64,
    own: f64,
}

/// What passed between a start and a stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// Wall clock, in seconds.
    pub(crate) seconds: f64,
    /// Processor time of everything on the machine, in seconds.
    pub(crate) machine: f64,
    /// Of that, the time of this process, which is where the load is made, in seconds.
    pub(crate) own: f64,
}

impl Meter {
    /// Begins.
    pub(crate) fn start() -> Result<Self> {
        Ok(Self {
            machine: machine_seconds()?,
            own: own_seconds()?,
            began: Instant::now(),
        })
    }

    /// Ends.
    pub(crate) fn stop(&self) -> Result<Spent> {
        Ok(Spent {
            seconds: self.began.elapsed().as_secs_f64(),
            machine: machine_seconds()? - self.machine,
            own: own_seconds()? - self.own,
        })
    }
}

/// Microseconds of `seconds` for each of `count`.
pub(crate) fn micros_each(seconds: f64, count: u64) -> f64 {
    seconds * 1e6 / (count.max(1) as f64)
}

fn machine_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let line = stat.lines().next().context("an empty /proc/stat")?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    // user, nice, system, (idle, iowait), irq, softirq. Stolen time is another machine's.
    let busy: f64 = [0, 1, 2, 5, 6].iter().filter_map(|&index| ticks.get(index)).sum();
    Ok(busy / TICKS)
}

fn own_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    let (_, after_name) = stat.rsplit_once(')').context("a strange /proc/self/stat")?;
    let words: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| words.get(index).and_then(|word| word.parse::<f64>().ok());
    let (user, system) = (ticks(11).unwrap_or(0.0), ticks(12).unwrap_or(0.0));
    Ok((user + system) / TICKS)
}

/// Memory that a process has for itself, its share of what it shares included, in MiB.
pub(crate) fn memory_mib(id: u32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
    let line = rollup
        .lines()
        .find(|line| line.starts_with("Pss:"))
        .context("no Pss in smaps_rollup")?;
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .context("no number in Pss")?
        .parse()?;
    Ok(kib / 1024.0)
}

/// The same, of all processes of a group. One that ends meanwhile counts nothing.
pub(crate) fn group_memory_mib(group: u32) -> f64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|&id| group_of(id) == Some(group))
        .filter_map(|id| memory_mib(id).ok())
        .sum()
}

fn group_of(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_in_all_clocks() {
        let meter = Meter::start().unwrap();
        let mut sum = 0_u64;
        while meter.began.elapsed().as_millis() < 200 {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        let spent = meter.stop().unwrap();
        assert!(sum > 0 && spent.seconds >= 0.2);
        assert!(spent.own >= 0.02 && spent.machine >= 0.02, "{spent:?}");
        assert!(memory_mib(std::process::id()).unwrap() > 0.5);
    }
}
