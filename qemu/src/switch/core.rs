//! The switch without its sockets: a frame and the time in, deliveries out. Pure; losses come from a seed.
//!
//! Invariants:
//! - a frame never returns to the port it came from;
//! - nothing passes a cut link, in the direction that is cut;
//! - frames of one link keep their order unless its delay is lowered meanwhile;
//! - frames in flight take at most `IN_FLIGHT_BYTES_MAX`; what is beyond is lost, as in a real switch.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Memory for delayed frames.
const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// Addresses remembered; a cluster has two per node.
const ADDRESSES_MAX: usize = 1024;
/// Destination, source and type of an Ethernet frame.
const HEADER_SIZE: usize = 14;

/// Number of a port.
pub type Port = usize;

/// What is wrong with a link, in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkFault {
    /// Nothing passes.
    pub cut: bool,
    /// Of a thousand frames, how many are lost.
    pub loss_per_mille: u16,
    /// Every frame is late by this.
    pub delay_ms: u32,
}

/// A frame that leaves the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Where.
    pub to: Port,
    /// What.
    pub frame: &'a [u8],
}

/// Frames since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Delivered to a port.
    pub delivered: u64,
    /// Lost on a faulty link.
    pub lost: u64,
}

/// The switch.
#[derive(Debug)]
pub struct Core {
    ports: usize,
    addresses: HashMap<[u8; 6], Port>,
    faults: BTreeMap<(Port, Port), LinkFault>,
    late: BinaryHeap<Reverse<(Duration, u64, Port, Vec<u8>)>>,
    late_bytes: usize,
    sequence: u64,
    random: u64,
    counters: Counters,
}

impl Core {
    /// A switch whose links are all good.
    pub fn new(ports: usize, seed: u64) -> Self {
        Self {
            ports,
            addresses: HashMap::new(),
            faults: BTreeMap::new(),
            late: BinaryHeap::new(),
            late_bytes: 0,
            sequence: 0,
            random: seed,
            counters: Counters::default(),
        }
    }

    /// Sets what is wrong with the link between two ports, in one direction.
    pub fn set_fault(&mut self, from: Port, to: Port, fault: LinkFault) {
        if fault == LinkFault::default() {
            self.faults.remove(&(from, to));
        } else {
            self.faults.insert((from, to), fault);
        }
    }

    /// Sets what is wrong with all links of a port, in both directions.
    pub fn set_port_fault(&mut self, port: Port, fault: LinkFault) {
        for other in (0..self.ports).filter(|&other| other != port) {
            self.set_fault(port, other, fault);
            self.set_fault(other, port, fault);
        }
    }

    /// Frames since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A frame came in.
    pub fn ingress(
        &mut self,
        now: Duration,
        from: Port,
        frame: &[u8],
        mut deliver: impl FnMut(Delivery<'_>),
    ) {
        let Some(header) = frame.first_chunk::<HEADER_SIZE>() else { return };
        let destination: [u8; 6] = header[..6].try_into().expect("the header has 14 bytes");
        let source: [u8; 6] = header[6..12].try_into().expect("the header has 14 bytes");
        if !is_group(source) && (self.addresses.len() < ADDRESSES_MAX || self.addresses.contains_key(&source))
        {
            self.addresses.insert(source, from);
        }
        match self.addresses.get(&destination).copied().filter(|_| !is_group(destination)) {
            Some(to) if to == from => {}
            Some(to) => self.forward(now, from, to, frame, &mut deliver),
            None => {
                for to in (0..self.ports).filter(|&to| to != from) {
                    self.forward(now, from, to, frame, &mut deliver);
                }
            }
        }
    }

    fn forward(
        &mut self,
        now: Duration,
        from: Port,
        to: Port,
        frame: &[u8],
        deliver: &mut impl FnMut(Delivery<'_>),
    ) {
        let fault = self.faults.get(&(from, to)).copied().unwrap_or_default();
        if fault.cut || (fault.loss_per_mille > 0 && self.draw(1000) < u64::from(fault.loss_per_mille)) {
            self.counters.lost += 1;
        } else if fault.delay_ms == 0 {
            self.counters.delivered += 1;
            deliver(Delivery { to, frame });
        } else if self.late_bytes + frame.len() > IN_FLIGHT_BYTES_MAX {
            self.counters.lost += 1;
        } else {
            let due = now + Duration::from_millis(u64::from(fault.delay_ms));
            self.sequence += 1;
            self.late_bytes += frame.len();
            self.late.push(Reverse((due, self.sequence, to, frame.to_vec())));
        }
    }

    /// When the next late frame is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.late.peek().map(|Reverse((due, ..))| *due)
    }

    /// Delivers what is due.
    pub fn deliver_due(&mut self, now: Duration, mut deliver: impl FnMut(Delivery<'_>)) {
        while self.next_due().is_some_and(|due| due <= now) {
            let Some(Reverse((_, _, to, frame))) = self.late.pop() else { return };
            self.late_bytes -= frame.len();
            self.counters.delivered += 1;
            deliver(Delivery { to, frame: &frame });
        }
    }

    /// SplitMix64, reduced to `0..below`.
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// Broadcast or multicast.
fn is_group(address: [u8; 6]) -> bool {
    address[0] & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROADCAST: u8 = 0xff;

    /// A frame from host `source` to host `destination`; hosts have even first octets.
    fn frame(source: u8, destination: u8) -> Vec<u8> {
        let address = |host| if host == BROADCAST { [0xff; 6] } else { [2, 0, 0, 0, 0, host] };
        let mut frame = address(destination).to_vec();
        frame.extend(address(source));
        frame.extend([8, 0, source, destination]);
        frame
    }

    fn send(core: &mut Core, now: Duration, from: Port, frame: &[u8]) -> Vec<Port> {
        let mut to = Vec::new();
        core.ingress(now, from, frame, |delivery| {
            assert_eq!(delivery.frame, frame);
            to.push(delivery.to);
        });
        to
    }

    /// Three hosts 0, 1, 2 on ports 0, 1, 2, all known to the switch.
    fn trained(seed: u64) -> Core {
        let mut core = Core::new(3, seed);
        for host in 0..3 {
            send(&mut core, Duration::ZERO, host.into(), &frame(host, BROADCAST));
        }
        core
    }

    #[test]
    fn unknown_and_group_destinations_go_everywhere_known_ones_to_one_port() {
        let mut core = Core::new(3, 0);
        assert_eq!(send(&mut core, Duration::ZERO, 0, &frame(0, 1)), [1, 2]);
        assert_eq!(send(&mut core, Duration::ZERO, 1, &frame(1, 0)), [0]);
        assert_eq!(send(&mut core, Duration::ZERO, 0, &frame(0, 1)), [1]);
        assert_eq!(send(&mut core, Duration::ZERO, 0, &frame(0, BROADCAST)), [1, 2]);
        assert_eq!(
            send(&mut core, Duration::ZERO, 1, &frame(0, 1)),
            Vec::<Port>::new(),
            "host 1 is on that port"
        );
    }

    #[test]
    fn a_host_that_moved_is_found_at_its_new_port() {
        let mut core = trained(0);
        send(&mut core, Duration::ZERO, 2, &frame(1, BROADCAST));
        assert_eq!(send(&mut core, Duration::ZERO, 0, &frame(0, 1)), [2]);
    }

    #[test]
    fn a_cut_link_is_cut_in_its_direction_only_until_it_is_healed() {
        let mut core = trained(0);
        core.set_fault(0, 1, LinkFault { cut: true, ..LinkFault::default() });
        assert!(send(&mut core, Duration::ZERO, 0, &frame(0, 1)).is_empty());
        assert_eq!(send(&mut core, Duration::ZERO, 1, &frame(1, 0)), [0]);
        assert_eq!(send(&mut core, Duration::ZERO, 0, &frame(0, BROADCAST)), [2]);
        core.set_fault(0, 1, LinkFault::default());
        assert_eq!(send(&mut core, Duration::ZERO, 0, &frame(0, 1)), [1]);
    }

    #[test]
    fn a_partitioned_port_hears_and_says_nothing() {
        let mut core = trained(0);
        core.set_port_fault(1, LinkFault { cut: true, ..LinkFault::default() });
        assert!(send(&mut core, Duration::ZERO, 1, &frame(1, BROADCAST)).is_empty());
        assert_eq!(send(&mut core, Duration::ZERO, 0, &frame(0, BROADCAST)), [2]);
        assert_eq!(core.counters().lost, 3);
    }

    #[test]
    fn losses_have_the_given_rate_and_repeat_with_the_seed() {
        let run = |seed| {
            let mut core = trained(seed);
            core.set_fault(0, 1, LinkFault { loss_per_mille: 300, ..LinkFault::default() });
            (0..10_000).map(|_| send(&mut core, Duration::ZERO, 0, &frame(0, 1)).len()).collect::<Vec<_>>()
        };
        let arrived: usize = run(1).iter().sum();
        assert!((6800..7200).contains(&arrived), "{arrived} of 10000 at 30 % loss");
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn late_frames_come_in_order_and_not_early() {
        let mut core = trained(0);
        core.set_fault(0, 1, LinkFault { delay_ms: 50, ..LinkFault::default() });
        let ms = Duration::from_millis;
        for at in [0, 10, 20] {
            let mut late = frame(0, 1);
            late.push(at);
            core.ingress(ms(at.into()), 0, &late, |_| panic!("a late frame came at once"));
        }
        let mut arrived = Vec::new();
        core.deliver_due(ms(49), |delivery| arrived.push(delivery.frame.to_vec()));
        assert!(arrived.is_empty());
        assert_eq!(core.next_due(), Some(ms(50)));
        core.deliver_due(ms(65), |delivery| arrived.push(delivery.frame.to_vec()));
        assert_eq!(arrived.iter().map(|frame| *frame.last().unwrap()).collect::<Vec<_>>(), [0, 10]);
    }

    #[test]
    fn runts_are_ignored() {
        let mut core = trained(0);
        core.ingress(Duration::ZERO, 0, &[0xff; 13], |_| panic!("a frame without a header passed"));
    }
}
