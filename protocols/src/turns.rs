//! The course of a connection whose answers come in the order of their requests: its two sides are read by turns.

use crate::pairing::{Chunks, Pairing, drop_rest};
use crate::{Output, Streams};

/// What a protocol makes of each side's bytes.
pub(crate) trait Turns {
    /// What the decoder remembers of a request.
    type Detail;

    /// The requests that wait for their answers.
    fn pairing(&mut self) -> &mut Pairing<Self::Detail>;

    /// Where the chunks pushed last begin.
    fn chunks(&mut self) -> &mut Chunks;

    /// Reads requests, as far as they are here and as there is room for them. The last chunk begins at `chunk`.
    fn read_requests(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output);

    /// Reads answers, as far as they are here and somebody waits for them.
    fn read_answers(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output);

    /// The connection left this protocol: nothing more is read.
    fn has_left(&self) -> bool {
        false
    }

    /// All requests that waited were given up.
    fn gave_up(&mut self) {}
}

/// Reads what is here.
pub(crate) fn read<D: Turns>(decoder: &mut D, streams: &mut Streams, out: &mut Output) {
    let (client, server) = decoder.chunks().advance(streams);
    loop {
        let before = (streams.client.position(), streams.server.position(), decoder.pairing().len());
        decoder.read_requests(streams, client, out);
        if !decoder.has_left() {
            decoder.read_answers(streams, server, out);
        }
        if decoder.has_left() {
            return;
        }
        // Only answers can make room for more requests.
        let after = (streams.client.position(), streams.server.position(), decoder.pairing().len());
        if streams.client.is_empty() || before == after {
            decoder.pairing().caught_up();
            return;
        }
    }
}

/// Reads what is here when nothing more will come: requests that no answer makes room for as well. True if something may
/// be left open; end it with [`end`].
pub(crate) fn read_rest<D: Turns>(decoder: &mut D, streams: &mut Streams, out: &mut Output) -> bool {
    read(decoder, streams, out);
    while decoder.pairing().is_crowded() && !decoder.has_left() {
        decoder.pairing().finish(streams, out);
        decoder.gave_up();
        read(decoder, streams, out);
    }
    !decoder.has_left()
}

/// Ends all that is still open.
pub(crate) fn end<D: Turns>(decoder: &mut D, streams: &mut Streams, out: &mut Output) {
    decoder.pairing().finish(streams, out);
    drop_rest(streams, out);
}
