//! The window stage: cumulative counts in, events out.
//!
//! Pure: every time is an argument, nothing here reads a clock, a file or the kernel.
//!
//! ```text
//! clock: which window?   streams: which slot is which stream and rate?
//!                              │
//! cells ──► counts ──► window, pulse ──► events
//! walk records ──► walk ──┘         heartbeat ──┘
//! ```

pub mod clock;
pub mod counts;
pub mod heartbeat;
pub mod pulse;
mod sparse;
pub mod state;
pub mod streams;
mod unseen;
pub mod walk;
pub mod window;

use ebpf_abi::{rules::StreamEntry, walk::WalkRecord};
use sampler_event::{Event, LifeCycle};

use self::{
    clock::{Closed, Now, WindowClock},
    counts::{Cells, Counts},
    heartbeat::{FlowTotals, Outside},
    pulse::PulseFrame,
    state::StageState,
    streams::{Order, Streams, StreamsError, Wanted},
    unseen::Unseen,
    walk::Walks,
    window::{Frame, Identity},
};

/// What the stage asks of the kernel side.
pub trait Kernel: Cells {
    /// Begins a window: distinct flows and extremes are counted for `number` from now on.
    fn begin_window(&self, number: u32);
    /// Carries out an order.
    fn obey(&self, order: &Order);
    /// Flows admitted and not closed, over all streams.
    fn flows_open(&self) -> u64;
    /// So many of them have ended, though no callback said so.
    fn ended_unseen(&self, flows: u64);
}

/// A closed window with its events.
pub struct Output {
    /// Its times.
    pub closed: Closed,
    /// Its events, the heartbeat last.
    pub events: Vec<Event>,
    /// Rates were halved or doubled after it.
    pub adapted: bool,
}

/// The stage's whole state.
pub struct Stage {
    /// What is the same in every event.
    pub identity: Identity,
    /// Streams and epochs.
    pub streams: Streams,
    /// The state is asked for after every window: it is made ready while the window is closed.
    pub with_books: bool,
    ledger: FlowTotals,
    walks: Walks,
    unseen: Unseen,
    clock: WindowClock,
    pulses: Vec<WindowClock>,
    number: u32,
    skipped: u32,
    life_cycle: LifeCycle,
}

impl Stage {
    /// Begins the first window now.
    pub fn new(
        identity: Identity,
        slots: u32,
        window_ms: u32,
        now: Now,
        kernel: &impl Kernel,
    ) -> Self {
        kernel.begin_window(1);
        Self {
            identity,
            streams: Streams::new(slots),
            with_books: false,
            ledger: FlowTotals::default(),
            walks: Walks::default(),
            unseen: Unseen::default(),
            clock: WindowClock::new(window_ms, now),
            pulses: Vec::new(),
            number: 1,
            skipped: 0,
            life_cycle: LifeCycle::Start,
        }
    }

    /// Goes on where an earlier life stopped, with its books and the kernel side that counted on: `entry` is where a stream's new
    /// flows go, `window` the number of the window that it counts for. `None`: the books do not fit it.
    pub fn resume(
        identity: Identity,
        slots: u32,
        state: &StageState,
        window: u32,
        entry: &dyn Fn(u32) -> StreamEntry,
        kernel: &impl Kernel,
    ) -> Option<Self> {
        let now = |slot| Counts::read_all(kernel, slot);
        let clock = state.clock.as_ref()?;
        Some(Self {
            identity,
            streams: Streams::resume(slots, state, entry, &now)?,
            with_books: false,
            ledger: state.totals()?,
            walks: Walks::resume(clock.start_us),
            unseen: Unseen::default(),
            clock: WindowClock::resume(clock)?,
            pulses: Vec::new(),
            number: window,
            skipped: 0,
            life_cycle: LifeCycle::Start,
        })
    }

    /// Makes the streams those of a configuration; the order in which they are to be used as
    /// rules is that of `wanted`.
    pub fn apply(
        &mut self,
        wanted: &[Wanted],
        window_ms: u32,
        now: Now,
        kernel: &impl Kernel,
    ) -> Vec<(String, StreamsError)> {
        let mut orders = Vec::new();
        let failed = self.streams.apply(wanted, &mut orders);
        for order in &orders {
            kernel.obey(order);
        }
        self.clock.set_window_ms(window_ms);
        let mut lengths: Vec<u32> = wanted
            .iter()
            .map(|w| w.pulse_ms)
            .filter(|ms| *ms != 0)
            .collect();
        lengths.sort_unstable();
        lengths.dedup();
        self.pulses = lengths
            .into_iter()
            .map(|ms| WindowClock::new(ms, now))
            .collect();
        failed
    }

    /// Gives new flows of a stream another rate, in a new epoch.
    ///
    /// # Errors
    /// Without a slot the stream stays as it is.
    pub fn set_rate(
        &mut self,
        id: u32,
        rate: f64,
        kernel: &impl Kernel,
    ) -> Result<(), StreamsError> {
        let mut orders = Vec::new();
        let set = self.streams.set_rate(id, rate, &mut orders);
        orders.iter().for_each(|order| kernel.obey(order));
        set
    }

    /// Divides the rates of new flows by 2 to this power, because the sampler costs too much.
    pub fn lower_rates(&mut self, halvings: u32, kernel: &impl Kernel) {
        let mut orders = Vec::new();
        self.streams.lower(halvings, &mut orders);
        orders.iter().for_each(|order| kernel.obey(order));
    }

    /// Takes all streams away, before the kernel side goes: the window that is closed next counts all of their flows as ended.
    pub fn give_up(&mut self, window_ms: u32, now: Now, kernel: &impl Kernel) {
        self.apply(&[], window_ms, now, kernel);
        self.streams.give_up();
    }

    /// When the next window or pulse ends, on the monotonic clock.
    pub fn next_edge_us(&self) -> u64 {
        let pulses = self.pulses.iter().map(WindowClock::edge_us);
        pulses.fold(self.clock.edge_us(), u64::min)
    }

    /// When the running window ends.
    pub fn window_edge_us(&self) -> u64 {
        self.clock.edge_us()
    }

    /// Takes in a walk made now.
    pub fn observe(&mut self, records: &[WalkRecord], window_ms: u32) {
        self.walks.observe(records, self.number, window_ms);
    }

    /// Flows that the last walk met.
    pub fn walked_flows(&self) -> u64 {
        self.walks.flows()
    }

    /// Totals so far.
    pub fn ledger(&self) -> &FlowTotals {
        &self.ledger
    }

    /// What a new life would go on from: the state at the end of the last window.
    pub fn state(&self) -> StageState {
        StageState::of(
            &self.ledger,
            &self.streams,
            self.clock.books(),
            self.identity.sampling_key_id,
        )
    }

    /// Closes the pulses that are due.
    pub fn close_pulses(&mut self, now: Now, kernel: &impl Kernel) -> Vec<Event> {
        let mut events = Vec::new();
        for clock in &mut self.pulses {
            if clock.edge_us() > now.monotonic_us {
                continue;
            }
            let closed = clock.close(now);
            let (streams, epochs) = self.streams.epochs_mut();
            for epoch in epochs {
                let stream = &mut streams[epoch.stream];
                if stream.wanted.pulse_ms != closed.window_ms {
                    continue;
                }
                let frame = PulseFrame {
                    pulse_start_ms: closed.window_start_ms,
                    pulse_ms: closed.window_ms,
                    observed_ms: closed.observed_ms,
                    number: self.number,
                    walk_stalls_open: self.walks.stalls_open(epoch.slot),
                };
                let pulse = pulse::close(&self.identity, &frame, stream, epoch, kernel);
                events.extend(pulse.map(Event::Pulse));
            }
        }
        self.ledger.events_produced += events.len() as u64;
        events
    }

    /// Closes the running window. `stopping`: it is the last one.
    pub fn close_window(
        &mut self,
        now: Now,
        kernel: &impl Kernel,
        max_flows: u32,
        stopping: bool,
        outside: &Outside,
    ) -> Output {
        let closed = self.clock.close(now);
        let frame = Frame {
            closed,
            number: self.number,
            skipped: self.skipped,
            emitted_ms: now.wall_ms,
            flags: outside.flags,
        };
        // Numbers follow the time, so that "10 s ago" stays true after a late read; the parity
        // must change, because the kernel side keeps two windows apart by it.
        let step = closed.windows() | 1;
        self.number = self.number.wrapping_add(step);
        self.skipped = step - 1;
        kernel.begin_window(self.number);

        let mut events = Vec::new();
        let mut spoke = vec![false; self.streams.streams().len()];
        self.ledger.begin_window();
        let walked = self.walks.take_fresh();
        if walked {
            let gone = self.unseen.observe(kernel.flows_open(), self.walks.flows());
            if gone != 0 {
                kernel.ended_unseen(gone);
            }
        }
        let (streams, epochs) = self.streams.epochs_mut();
        for epoch in epochs {
            let walk = self.walks.take(epoch.slot);
            if walked {
                epoch.walked(walk.flows);
            }
            let stream = &mut streams[epoch.stream];
            let event = window::close(&self.identity, &frame, stream, epoch, kernel, &walk);
            if self.with_books {
                epoch.write_books();
            }
            if let Some(mut event) = event {
                let lost = outside
                    .lost_by_stream
                    .iter()
                    .find(|(name, ..)| *name == event.stream);
                if let Some((_, dropped, dead)) = lost {
                    event.spool_dropped_events = *dropped;
                    event.dead_letter_events = *dead;
                }
                spoke[epoch.stream] = true;
                self.ledger.add(&event);
                events.push(Event::Window(event.into()));
            }
        }
        let walks = &mut self.walks;
        self.streams.retire(|slot| walks.forget(slot));
        let mut orders = Vec::new();
        let adapted = self
            .streams
            .adapt(kernel.flows_open(), max_flows, &mut orders);
        for order in &orders {
            kernel.obey(order);
        }
        let life_cycle = if stopping {
            LifeCycle::Stopping
        } else {
            self.life_cycle
        };
        self.life_cycle = LifeCycle::Run;
        let heartbeat = heartbeat::close(
            &self.identity,
            &frame,
            life_cycle,
            &self.streams,
            &spoke,
            &mut self.ledger,
            outside,
        );
        events.push(Event::Node(heartbeat.into()));
        Output {
            closed,
            events,
            adapted,
        }
    }
}
