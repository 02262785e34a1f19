//! The kernel side as user space sees it: load, attach, map, walk, fold.

pub mod btf;
pub mod cgroup;
pub mod iterator;
pub mod load;
pub mod mapped;
pub mod memory;
pub mod parts;
pub mod probe;
pub mod sys;
