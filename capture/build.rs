//! Compiles the probes in `bpf/` and generates their skeletons into OUT_DIR.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result};
use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../bpf");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for folder in ["", "socket", "process"] {
        // Each file by name: Cargo looks only at a folder's own time stamp.
        for entry in fs::read_dir(root.join(folder))?.flatten().filter(|entry| entry.path().is_file()) {
            println!("cargo:rerun-if-changed={}", entry.path().display());
        }
    }
    let target = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => "-D__TARGET_ARCH_x86",
        "aarch64" => "-D__TARGET_ARCH_arm64",
        other => anyhow::bail!("the probes know x86-64 and arm64, not {other}; build with --no-default-features"),
    };
    // libbpf's own BPF headers, exported by the crate that builds it.
    let headers = format!("-I{}", env::var("DEP_BPF_INCLUDE").context("libbpf-sys did not export its headers")?);
    for (name, source) in
        [("sock", "socket/sock.bpf.c"), ("syscall", "socket/syscall.bpf.c"), ("process", "process/process.bpf.c")]
    {
        SkeletonBuilder::new()
            .source(root.join(source))
            .obj(out.join(format!("{name}.bpf.o")))
            .clang_args([target, &headers, "-Wall", "-Wno-unused-function", "-mcpu=v3"])
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .with_context(|| format!("compiling {source} (is clang installed?)"))?;
    }
    Ok(())
}
