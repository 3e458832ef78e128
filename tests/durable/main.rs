//! The real binary with `--data`: what it keeps over a kill and over a stop, and what it says of a directory that it
//! cannot use, of damage, and of a disk that is full.
//!
//! `tests/simulation` looks at every interleaving of a crash; here are processes, files and exit codes. Each test has
//! directories of its own. They lie in the temporary directory, so its file system is the one that is tested.

#[path = "../support/mod.rs"]
mod support;

mod kept;
mod refused;
mod room;
mod runs;
mod tool;
