//! The window stage and what follows it on the same thread: cells read, events made and encoded, and for the spool the stage's state.
//! In memory. At most one window a second has to be closed, and ten sets of pulses.

use std::{hint::black_box, time::Instant};

use anyhow::Result;
use sampler::{sink::Record, stage::heartbeat::Outside};
use sampler_event::Message;

use crate::playing::{FLOWS, Playing};
use crate::statistics::Samples;

const WINDOWS: u64 = 400;

/// Prints the table.
pub fn run() -> Result<()> {
    println!(
        "{FLOWS} flows a stream, all with data; us per window or pulse, medians of {WINDOWS}; state: in closing and by itself\n{:>8} {:>10} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "streams",
        "cells MB",
        "walk",
        "close",
        "encode",
        "all",
        "per stream",
        "pulses",
        "state",
        "state kB"
    );
    for streams in [1, 200] {
        measure(streams);
    }
    Ok(())
}

fn measure(streams: u32) {
    let mut playing = Playing::new(streams);
    let outside = Outside::default();
    let us = |begin: Instant| begin.elapsed().as_nanos() as f64 / 1e3;
    let [
        mut walk,
        mut close,
        mut encode,
        mut all,
        mut pulses,
        mut with_books,
        mut state,
    ] = std::array::from_fn::<_, 7, _>(|_| Samples::default());
    let mut state_bytes = 0;
    for window in 1..=WINDOWS {
        playing.play();
        let begin = Instant::now();
        for event in playing.close_pulses(window) {
            black_box(Record::of(&event));
        }
        pulses.push(us(begin));
        let begin = Instant::now();
        playing.observe_walk();
        walk.push(us(begin));
        // What the state adds while windows are closed is known from every second one.
        let books = window % 2 == 0;
        playing.set_books(books);
        let closing = Instant::now();
        let output = playing.close(window, &outside);
        let closed = if books { &mut with_books } else { &mut close };
        closed.push(us(closing));
        let encoding = Instant::now();
        for event in &output.events {
            black_box(Record::of(event));
        }
        encode.push(us(encoding));
        if !books {
            all.push(us(begin));
            continue;
        }
        let begin = Instant::now();
        state_bytes = black_box(playing.stage().state().encode_to_vec()).len();
        state.push(us(begin));
    }
    println!(
        "{streams:>8} {:>10.1} {:>10.1} {:>12.1} {:>10.1} {:>10.1} {:>10.2} {:>10.1} {:>10.1} {:>10.1}",
        playing.cells_bytes() as f64 / 1e6,
        walk.median(),
        close.median(),
        encode.median(),
        all.median(),
        all.median() / f64::from(streams),
        pulses.median(),
        with_books.median() - close.median() + state.median(),
        state_bytes as f64 / 1e3
    );
}
