//! The client's side.

use super::method::{self, Arguments, CHANNEL_OPEN, CONFIRM_SELECT, PUBLISH, Role};
use super::{Amqp, Asked, CALLS, Channel, Confirms, Content, MAX_UNCLEAR, PUBLISHES};
use crate::frames::Frame;
use crate::{Exchange, Flags, NAMELESS, Output, Status, text};

impl Amqp {
    /// A method of the client.
    pub(super) fn asked(&mut self, number: u16, payload: &[u8], frame: &Frame, out: &mut Output) {
        let Some(method) = method::of(payload) else {
            // Its name is in a hole, or nobody knows it: it may be a request, or not.
            self.end_content(number, frame.missing, out);
            if frame.missing != Flags::default() && payload.len() < 4 {
                self.nameless(number, frame, out);
            }
            return;
        };
        let arguments = method::arguments(method, payload.get(4..).unwrap_or_default());
        // A method on the same channel ends a message, whatever was to come.
        self.end_content(number, self.doubt, out);
        if matches!(method.role, Role::Answer(_) | Role::Acknowledge | Role::Other) {
            return;
        }
        self.release(number, out);
        let mut exchange = self.request(frame);
        exchange.op = method.name.into();
        exchange.target = target(method.name, &arguments);
        if exchange.target.is_some() {
            // What was cut is not asked for.
            exchange.flags = Flags(exchange.flags.0 & !frame.missing.0);
        }
        let may_be_silent = matches!(method.role, Role::Ask(Some(_))) && arguments.bits.is_none();
        let asked = Asked {
            method: method.id(),
            returnable: arguments.bits.is_some_and(|bits| bits & 3 != 0),
            unclear: if may_be_silent { frame.missing } else { Flags::default() },
        };
        let nowait = |bit: u8| arguments.bits.is_some_and(|bits| bits >> bit & 1 != 0);
        match method.role {
            Role::Publish => {
                self.channel(number).sending = Some(Box::new(Content { exchange, asked, left: None }));
            }
            Role::Ask(bit) if !bit.is_some_and(nowait) => self.wait(number, exchange, asked, out),
            _ => self.keep(number, exchange, asked),
        }
        match asked.method {
            CHANNEL_OPEN => {
                // The channel begins anew.
                let next_call = self.channel(number).next_call;
                self.channels.insert(number, Channel { next_call, next_publish: 1, ..Channel::default() });
            }
            CONFIRM_SELECT => {
                let channel = self.channel(number);
                if channel.confirms != Confirms::Yes {
                    channel.confirms = Confirms::Yes;
                    channel.next_publish = 1;
                    channel.ahead = 0;
                }
            }
            _ => {}
        }
    }

    fn request(&mut self, frame: &Frame) -> Exchange {
        let mut exchange = Exchange { request: frame.range.clone(), flags: frame.missing, ..Exchange::default() };
        let joined = std::mem::take(&mut self.fresh) && self.mid_stream;
        // Calls on other channels, and messages that wait for their confirmation, do not make it pipelined.
        frame.qualify(&mut exchange, joined, false);
        exchange
    }

    /// A method whose name is missing.
    fn nameless(&mut self, number: u16, frame: &Frame, out: &mut Output) {
        self.release(number, out);
        let exchange = Exchange { op: NAMELESS.into(), ..self.request(frame) };
        // Its answer, if it has one, tells what it was.
        self.wait(number, exchange, Asked::default(), out);
    }

    /// Keeps a request back that has no answer.
    fn keep(&mut self, number: u16, mut exchange: Exchange, asked: Asked) {
        exchange.status = Status::Ok;
        exchange.flags.insert(Flags::NO_REPLY);
        self.channel(number).unanswered = Some(Box::new((exchange, asked)));
    }

    /// A message was wholly sent, or nothing more of it will come.
    pub(super) fn end_content(&mut self, number: u16, flag: Flags, out: &mut Output) {
        let doubt = self.doubt;
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let Some(content) = channel.sending.take() else { return };
        let Content { mut exchange, asked, left } = *content;
        if left != Some(0) {
            exchange.flags.insert(flag);
        }
        let tag = channel.next_publish;
        match channel.confirms {
            Confirms::No => return self.keep(number, exchange, asked),
            Confirms::Yes => exchange.flags.insert(doubt),
            Confirms::Unclear => {
                if let Some(oldest) = tag.checked_sub(MAX_UNCLEAR)
                    && let Some(unclear) = self.matching.take((number, PUBLISHES, oldest))
                {
                    out.exchanges.push(unclear.exchange);
                }
            }
        }
        if self.matching.first((number, CALLS, 0)..=(number, PUBLISHES, u64::MAX)).is_some() {
            exchange.flags.insert(Flags::PIPELINED);
        }
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.next_publish += 1;
        }
        self.matching.ask((number, PUBLISHES, tag), exchange, Asked { method: PUBLISH, ..asked }, out);
    }
}

/// What a method is about.
fn target(name: &str, arguments: &Arguments<'_>) -> Option<Box<str>> {
    let [first, second, third, _] = arguments.strings;
    let bytes = match name {
        "basic.publish" => return exchange_and_key(first?, second?),
        "channel.open" | "channel.close" | "connection.close" | "connection.update-secret" => return None,
        // Destination and source.
        "exchange.bind" | "exchange.unbind" => return exchange_and_key(second?, third?),
        // RabbitMQ names the queue itself, and says how in its answer.
        _ => first.filter(|name| !name.is_empty())?,
    };
    Some(text::bounded(bytes, 256, false))
}

/// `exchange/key`; the default exchange has no name.
pub(super) fn exchange_and_key(exchange: &[u8], key: &[u8]) -> Option<Box<str>> {
    let (exchange, key) = (text::bounded(exchange, 256, false), text::bounded(key, 256, false));
    match (exchange.is_empty(), key.is_empty()) {
        (true, true) => None,
        (true, false) => Some(key),
        (false, true) => Some(exchange),
        (false, false) => Some(format!("{exchange}/{key}").into()),
    }
}
