//! Packets to a bundle: what a packet capture shows of connections, as if their client's sockets had been recorded.
//!
//! ```text
//! pcap, pcapng ─► source ─► packet (link, IP, fragments, tunnels, copies) ─► flows ─► tcp, stream ─► recorder ─► bundle
//! ```
//!
//! - One socket for each TCP connection and UDP flow, told from the client's side; no process owns it. Data events are
//!   in the order of the stream, each byte once, with the time at which the bytes were in order *at the capture point*.
//! - Offsets are TCP's sequence numbers. Where bytes are missing they jump; where the capture kept only the beginning of
//!   packets, an event has its whole length and less payload.
//! - Event times are the packets' own, on the wall clock.
//! - The bundle's UUID is derived from the capture's bytes: the same capture gives the same bundle.
//! - What is not represented is counted ([`Counters`]) and stands in the bundle's ledger.
//!
//! Memory is bounded, whatever the file holds: connections at once, segments that wait, fragments, packets remembered.
//!
//! The files are read by hand rather than with pcap-parser (0.17, tried): that reads no resolution that is a power of
//! two and no big-endian offset of an interface, loses packets whose options are malformed, and can't tell a damaged block
//! from a truncated file. IP, TCP and UDP headers are read by etherparse.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)
)]
#![forbid(unsafe_code)]

mod bytes;
mod copies;
mod counters;
mod flows;
mod fragments;
pub mod kube;
mod link;
mod logs;
mod packet;
mod recorder;
mod source;
mod stream;
mod tcp;

use std::io::{self, Read, Seek, SeekFrom};

use kfr_bundle::facts::{LedgerFact, Manifest};
use kfr_bundle::{BlockKind, ClockId, FileHeader, Uuid, WriteError, Writer};
use sha2::{Digest, Sha256};

pub use counters::Counters;
pub use source::FileEnd;

use flows::Flows;
use kube::{KubeCounters, KubeFiles};
use logs::PodLog;
use packet::Unpacker;
use recorder::Recorder;
use source::{Frame, Source};

/// How an import fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither pcap nor pcapng.
    #[error("it is no pcap or pcapng file")]
    NotACapture,
    /// The capture can't be read.
    #[error("the capture can't be read")]
    Read(#[source] io::Error),
    /// The bundle can't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What an import came to.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The bundle.
    pub bundle: kfr_bundle::Summary,
    /// What was counted.
    pub counters: Counters,
    /// What became of the Kubernetes objects, where some were given.
    pub kube: Option<KubeCounters>,
    /// How the capture ended.
    pub end: FileEnd,
    /// Time of the earliest and latest packet, ns since 1970; `None` without packets.
    pub times_ns: Option<(u64, u64)>,
}

impl Summary {
    /// True if the capture could not be read to its end, or events are missing from it.
    pub fn has_losses(&self) -> bool {
        self.end != FileEnd::Whole
    }
}

/// Reads a capture into a bundle. `name` is the capture's file name, for the manifest; `writer` begins the bundle with the
/// header that it is given. After an error nothing is left of a bundle that is a file.
///
/// The capture is read twice, since the bundle's UUID comes from all of it: what can't be read twice has to be put into a
/// file first.
///
/// # Errors
/// [`Error`]. A capture that is truncated or damaged is none: what comes before is imported.
pub fn import(
    capture: impl Read + Seek,
    name: &str,
    writer: impl FnOnce(&FileHeader) -> Result<Writer, WriteError>,
) -> Result<Summary, Error> {
    import_with_kube(capture, name, None, writer)
}

/// As [`import`], with what Kubernetes said at the same time.
///
/// # Errors
/// As [`import`].
pub fn import_with_kube(
    mut capture: impl Read + Seek,
    name: &str,
    kube: Option<KubeFiles>,
    writer: impl FnOnce(&FileHeader) -> Result<Writer, WriteError>,
) -> Result<Summary, Error> {
    let bundle_id = identity(&mut capture, kube.as_ref())?;
    capture.seek(SeekFrom::Start(0)).map_err(Error::Read)?;
    let mut source = Source::open(capture)?;
    let mut import = Import::default();
    // The first packet's time is in the header.
    let first_ns = source.next()?.map(|frame| {
        let mut waiting = Waiting::default();
        waiting.put(&frame);
        waiting
    });
    let began_ns = first_ns.as_ref().map_or(0, |waiting| waiting.time_ns);
    let mut header = FileHeader::new("");
    header.bundle_id = bundle_id;
    header.clock = ClockId::REALTIME;
    (header.created_realtime_ns, header.created_clock_ns) = (began_ns, began_ns);
    let mut recorder = Recorder::new(writer(&header)?);
    let mut manifest = manifest(name, began_ns);
    recorder.anchors(&[began_ns]);
    recorder.map(BlockKind::MANIFEST, &manifest, began_ns);
    if let Some(waiting) = &first_ns {
        import.frame(&waiting.frame(), &mut recorder);
    }
    drop(first_ns);
    loop {
        match source.next() {
            Ok(Some(frame)) => import.frame(&frame, &mut recorder),
            Ok(None) => break,
            Err(error) => {
                recorder.abandon();
                return Err(error);
            }
        }
        if recorder.has_failed() {
            break;
        }
    }
    import.finish(&source, &mut recorder);
    recorder.flush();
    let (first_ns, last_ns) = import.times_ns.unwrap_or((began_ns, began_ns));
    recorder.anchors(&if first_ns == last_ns { vec![last_ns] } else { vec![first_ns, last_ns] });
    let kube = kube.map(|files| cluster(files, &mut recorder, &mut manifest, (first_ns, last_ns)));
    let mut ledger = LedgerFact { time_ns: last_ns, counters: import.counters.named() };
    if let Some(kube) = &kube {
        ledger.counters.extend(kube.named());
    }
    recorder.map(BlockKind::LEDGER, &ledger, last_ns);
    (manifest.started_ns, manifest.ended_ns) = (first_ns, last_ns);
    manifest.interfaces = source.names().to_vec();
    manifest.end = match source.end() {
        FileEnd::Whole => "end-of-file",
        FileEnd::Truncated => "truncated",
        FileEnd::Damaged => "damaged",
    }
    .to_string();
    recorder.map(BlockKind::MANIFEST, &manifest, last_ns);
    let bundle = recorder.finish()?;
    Ok(Summary { bundle, counters: import.counters, kube, end: source.end(), times_ns: import.times_ns })
}

/// As [`import_with_kube`], where there are no packets: the cluster alone. `name` is the folder's.
///
/// # Errors
/// [`Error::Write`].
pub fn import_kube(
    kube: KubeFiles,
    name: &str,
    writer: impl FnOnce(&FileHeader) -> Result<Writer, WriteError>,
) -> Result<Summary, Error> {
    let (first_ns, last_ns) = kube.span();
    let mut header = FileHeader::new("");
    header.bundle_id = identity(&mut io::empty(), Some(&kube))?;
    header.clock = ClockId::REALTIME;
    (header.created_realtime_ns, header.created_clock_ns) = (first_ns, first_ns);
    let mut recorder = Recorder::new(writer(&header)?);
    let mut manifest = Manifest { socket_hook: String::new(), ..manifest(name, first_ns) };
    recorder.anchors(&if first_ns == last_ns { vec![last_ns] } else { vec![first_ns, last_ns] });
    recorder.map(BlockKind::MANIFEST, &manifest, first_ns);
    let counters = cluster(kube, &mut recorder, &mut manifest, (first_ns, last_ns));
    recorder.map(BlockKind::LEDGER, &LedgerFact { time_ns: last_ns, counters: counters.named().into() }, last_ns);
    (manifest.ended_ns, manifest.end) = (last_ns, "end-of-file".to_string());
    recorder.map(BlockKind::MANIFEST, &manifest, last_ns);
    let bundle = recorder.finish()?;
    Ok(Summary {
        bundle,
        counters: Counters::default(),
        kube: Some(counters),
        end: FileEnd::Whole,
        times_ns: Some((first_ns, last_ns)),
    })
}

/// Writes what Kubernetes said, and the logs of its pods, of a capture of this time.
fn cluster(
    mut files: KubeFiles,
    recorder: &mut Recorder,
    manifest: &mut Manifest,
    (first_ns, last_ns): (u64, u64),
) -> KubeCounters {
    let translations = files.translations(first_ns, last_ns);
    recorder.maps(BlockKind::CONNTRACK, &translations, |row| row.time_ns);
    let pod_logs = files.take_logs();
    let (rows, counters) = files.place(first_ns, last_ns);
    recorder.maps(BlockKind::KUBE, &rows, |row| row.time_ns);
    if !pod_logs.is_empty() {
        manifest.logs = "all".to_string();
        let logs = PodLog::place(&pod_logs, &rows, first_ns, last_ns);
        recorder.maps(BlockKind::LOGS, &logs.lines, |row| row.time_ns);
        recorder.maps(BlockKind::LOG_COUNTS, &logs.counts, |row| row.time_ns);
    }
    counters
}

/// A UUID of the bytes of the capture and of the Kubernetes objects, and of this version, which decides what becomes of
/// them (RFC 9562, version 8).
fn identity(capture: &mut impl Read, kube: Option<&KubeFiles>) -> Result<Uuid, Error> {
    let mut hash = Sha256::new();
    hash.update(concat!("kfr import ", env!("CARGO_PKG_VERSION"), "\n"));
    for part in kube.into_iter().flat_map(KubeFiles::bytes) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut buffer = vec![0; 1 << 18];
    loop {
        match capture.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => hash.update(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Read(error)),
        }
    }
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    let [.., version, _, variant, _, _, _, _, _, _, _] = &mut id;
    *version = *version & 0x0f | 0x80;
    *variant = *variant & 0x3f | 0x80;
    Ok(Uuid::from_bytes(id))
}

fn manifest(name: &str, started_ns: u64) -> Manifest {
    Manifest {
        tool: "kfr".to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        socket_hook: "packets".to_string(),
        source: name.to_string(),
        started_ns,
        ..Manifest::default()
    }
}

/// The first frame, kept until the bundle is begun.
#[derive(Default)]
struct Waiting {
    link: u16,
    interface: u32,
    time_ns: u64,
    wire_len: u32,
    bytes: Vec<u8>,
}

impl Waiting {
    fn put(&mut self, frame: &Frame<'_>) {
        (self.link, self.interface) = (frame.link, frame.interface);
        (self.time_ns, self.wire_len) = (frame.time_ns, frame.wire_len);
        self.bytes = frame.bytes.to_vec();
    }

    fn frame(&self) -> Frame<'_> {
        let Self { link, interface, time_ns, wire_len, .. } = *self;
        Frame { link, interface, time_ns, wire_len, bytes: &self.bytes }
    }
}

/// An import at work.
#[derive(Default)]
struct Import {
    unpacker: Unpacker,
    flows: Flows,
    counters: Counters,
    times_ns: Option<(u64, u64)>,
}

impl Import {
    fn frame(&mut self, frame: &Frame<'_>, recorder: &mut Recorder) {
        self.counters.packets += 1;
        self.counters.packets_snapped += u64::from((frame.bytes.len() as u64) < u64::from(frame.wire_len));
        let (first, last) = self.times_ns.unwrap_or((frame.time_ns, frame.time_ns));
        self.times_ns = Some((first.min(frame.time_ns), last.max(frame.time_ns)));
        let flows = &mut self.flows;
        self.unpacker.frame(frame, &mut self.counters, &mut |transport, counters| {
            flows.packet(transport, counters, recorder);
        });
    }

    fn finish<R: Read>(&mut self, source: &Source<R>, recorder: &mut Recorder) {
        self.unpacker.finish(&mut self.counters);
        self.flows.finish(&mut self.counters, recorder);
        self.counters.file_truncated = u64::from(source.end() == FileEnd::Truncated);
        self.counters.file_damaged = u64::from(source.end() == FileEnd::Damaged);
        [self.counters.blocks_skipped, self.counters.packets_unreadable] = source.skipped();
        self.counters.events = recorder.events();
    }
}
