//! The program `probe`: one sock_ops program and iterators. A kernel gets those that it can run.
//!
//! | program | runs | does |
//! |---|---|---|
//! | `flowvitals` | at establishment of every inbound connection, then at callbacks of sampled ones | picks, folds |
//! | `walk` | when user space reads its iterator | writes one gauge record per sampled flow |
//! | `fold_open` | when user space reads its iterator | folds every open flow now |
//! | `pick_up` | when user space reads its iterator, once | takes in connections that were open before the attach |
//! | `unreached` | after it | counts those that could not be taken in |
//! | `fold_detached` | before Linux 5.11, after the detach | folds every open flow, in place of `fold_open` |
//! | `count_open` | before Linux 5.11, before the attach | counts connections that are open already, in place of `pick_up` and `unreached` |
#![no_std]
#![no_main]

mod callback;
mod cell;
mod establish;
mod fold;
mod iterate;
mod maps;
mod pick;
mod pickup;
mod tcp;

use core::ptr::read_volatile;

use aya_ebpf::{macros::sock_ops, programs::SockOpsContext};

use crate::callback::Op;

/// Answer of a sock_ops program that leaves the kernel's own choices alone.
const LEAVE: u32 = 1;

#[sock_ops]
fn flowvitals(ctx: SockOpsContext) -> u32 {
    let ops = ctx.ops;
    // Most runs are for operations that are not ours: they must cost next to nothing, so
    // everything else is in functions of its own.
    // SAFETY: `ops` is the program's context.
    match unsafe { read_volatile(&raw const (*ops).op) } {
        Op::PASSIVE_ESTABLISHED => establish::established(ops),
        Op::RTT => callback::rtt(ops),
        Op::RETRANS | Op::RTO | Op::STATE => callback::other(ops),
        _ => {}
    }
    LEAVE
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets only GPL-compatible programs call the helpers used here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
