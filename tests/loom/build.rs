//! The sources under test take their atomics from `loom`; nothing else of the workspace does.

fn main() {
    println!("cargo:rustc-cfg=loom");
}
