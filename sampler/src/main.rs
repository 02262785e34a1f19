//! Entry point.
fn main() {
    let p = sampler::kernel::probe::Probe::load(sampler::kernel::load::Size {
        slots: 64,
        shards: 2,
    });
    match p {
        Ok(mut p) => {
            if let Err(sampler::kernel::load::KernelError::Refused { log, .. }) =
                p.attach(&sampler::kernel::load::cgroup_root().unwrap())
            {
                println!("{}", &log[log.len().saturating_sub(4000)..]);
                return;
            }
            println!("attached");
            let mut r = Vec::new();
            p.walk(&mut r).unwrap();
            p.fold().unwrap();
            println!("{:?} {}", p.report(), r.len());
        }
        Err(sampler::kernel::load::KernelError::Refused { part, reason, log }) => {
            println!("{part} {reason}");
            println!("{}", &log[log.len().saturating_sub(4000)..]);
        }
        Err(e) => println!("{e}"),
    }
}
