//! How fast replay knows who an address, a container or a process was: `cargo run --release --example identities BUNDLE`.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use kfr_analyze::Input;
use kfr_analyze::replay::Facts;

const LOOKUPS: usize = 5_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args_os().nth(1).ok_or("name a bundle")?;
    let inputs = Input::open_all(&[bundle.into()])?;
    let began = Instant::now();
    let facts = Facts::read(&inputs);
    println!("read in {:.3} s", began.elapsed().as_secs_f64());
    let (start, end) = facts.window().ok_or("the bundle has no window")?;
    let kube = &facts.kube;
    println!("{} pods, {} workloads", kube.pods().len(), facts.cluster.workloads.len());
    // Every address that is anybody's, and some that are nobody's, in an order that no cache foresees.
    let known: Vec<IpAddr> = kube.addresses().collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let asked: Vec<(IpAddr, u64)> = (0..LOOKUPS)
        .map(|number| {
            let ip = match known.get((next() % known.len().max(1) as u64) as usize) {
                Some(ip) if number % 8 != 0 => *ip,
                _ => IpAddr::V4(Ipv4Addr::from(next() as u32)),
            };
            (ip, start + next() % (end - start).max(1))
        })
        .collect();
    let began = Instant::now();
    let found = asked.iter().filter(|(ip, time_ns)| black_box(kube.who(*ip, *time_ns)).is_some()).count();
    let rate = LOOKUPS as f64 / began.elapsed().as_secs_f64();
    println!("{found} of {LOOKUPS} addresses were somebody's");
    println!("lookups/s by address and time: {rate:.0}");
    let ids: Vec<String> = kube.containers().map(str::to_string).collect();
    let began = Instant::now();
    let mut found = 0;
    for number in 0..LOOKUPS {
        let id = ids.get((number.wrapping_mul(7919)) % ids.len().max(1)).map_or("", String::as_str);
        found += usize::from(black_box(kube.pod_of_container(id)).is_some());
    }
    let rate = LOOKUPS as f64 / began.elapsed().as_secs_f64();
    println!("{found} of {LOOKUPS} containers were a pod's");
    println!("lookups/s by container: {rate:.0}");
    Ok(())
}
