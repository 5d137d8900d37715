//! What the targets of all protocols have in common.

#[path = "../protocols/tests/common/drive.rs"]
pub mod drive;

/// A target that decodes its input: as the protocol of that name, or `None`: as any.
macro_rules! fuzz {
    ($name:expr) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::drive::drive($name, data));
    };
}
pub(crate) use fuzz;
