//! The messages that the build makes of `proto/flowvitals/v1/event.proto`; their documentation is there.

include!(concat!(env!("OUT_DIR"), "/flowvitals.v1.rs"));
