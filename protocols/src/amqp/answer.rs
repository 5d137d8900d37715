//! The server's side.

use super::ask::exchange_and_key;
use super::method::{
    self, Arguments, CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CONNECTION_CLOSE, GET_EMPTY, GET_OK, Id, Method, NACK, PUBLISH,
    QUEUE_DECLARE, QUEUE_DELETE_OK, QUEUE_PURGE_OK, RETURN, Role,
};
use super::{Amqp, Asked, CALLS, Confirms, Content, Key, PUBLISHES, doubt_kept};
use crate::frames::Frame;
use crate::{Flags, NAMELESS, Output, Status, text};

/// Requests that are looked at to find the one that an answer belongs to: mostly it is the first.
const MAX_LOOKED_AT: usize = 32;

impl Amqp {
    /// A method of the server.
    pub(super) fn answered(&mut self, number: u16, payload: &[u8], frame: &Frame, out: &mut Output) {
        let Some(method) = method::of(payload) else {
            if frame.missing != Flags::default() {
                self.lose_answers(frame.missing);
            }
            return;
        };
        let arguments = method::arguments(method, payload.get(4..).unwrap_or_default());
        self.end_get(number, Flags::default(), out);
        match (method.role, method.id()) {
            (Role::Answer(of), id) => {
                self.complete(number, method, of, &arguments, frame, out);
                if id == CHANNEL_CLOSE_OK {
                    self.forget(number, Flags::default(), out);
                }
            }
            (Role::Acknowledge, id) => self.confirmed(number, id, &arguments, frame, out),
            (_, CHANNEL_CLOSE | CONNECTION_CLOSE) => self.refused(number, method, &arguments, frame, out),
            (_, RETURN) => self.returned(number, &arguments, frame),
            _ => {}
        }
    }

    /// The call on this channel that the method numbered `of` of `class` is; those before it were never answered, as far
    /// as anybody saw.
    fn find_call(&self, number: u16, wanted: Id) -> Option<(Key, usize)> {
        let mut from = 0;
        for passed in 0..MAX_LOOKED_AT {
            let key = self.matching.first((number, CALLS, from)..=(number, CALLS, u64::MAX))?;
            let method = self.matching.get(key).map_or(0, |waiting| waiting.detail.method);
            if method == wanted || method == 0 {
                return Some((key, passed));
            }
            from = key.2 + 1;
        }
        None
    }

    fn complete(
        &mut self,
        number: u16,
        method: &'static Method,
        of: u16,
        arguments: &Arguments<'_>,
        frame: &Frame,
        out: &mut Output,
    ) {
        let wanted = method::id(method.class, of);
        let asked = Asked { method: wanted, ..Asked::default() };
        let name = method::by_id(wanted).map_or(NAMELESS, |method| method.name);
        let mut exchange = match self.find_call(number, wanted) {
            Some((key, passed)) => {
                for _ in 0..passed {
                    if let Some(waiting) = self.first(number, CALLS).and_then(|key| self.matching.take(key)) {
                        self.give_up(waiting, Flags::default(), out);
                    }
                }
                let Some(waiting) = self.matching.take(key) else { return };
                waiting.exchange
            }
            // The answer tells what was asked, where that was lost.
            None => match self.matching.unseen_request() {
                Some(exchange) => exchange,
                None => return,
            },
        };
        exchange.op = name.into();
        exchange.status = Status::Ok;
        exchange.response = Some(frame.range.clone());
        exchange.rows = match method.id() {
            GET_OK => Some(1),
            GET_EMPTY => Some(0),
            QUEUE_PURGE_OK | QUEUE_DELETE_OK => arguments.long.map(u64::from),
            _ => None,
        };
        if wanted == QUEUE_DECLARE && exchange.target.is_none() {
            exchange.target = arguments.strings[0].map(|queue| text::bounded(queue, 256, false));
            if exchange.target.is_none() {
                exchange.flags.insert(frame.missing);
            }
        }
        if !frame.whole {
            exchange.flags.insert(Flags::INCOMPLETE);
        }
        if method.id() == GET_OK {
            self.channel(number).getting = Some(Box::new(Content { exchange, asked, left: None }));
            return;
        }
        out.exchanges.push(exchange);
    }

    /// The answer to `basic.get` has wholly come, or nothing more of it will.
    pub(super) fn end_get(&mut self, number: u16, flag: Flags, out: &mut Output) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let Some(content) = channel.getting.take() else { return };
        let mut exchange = content.exchange;
        if content.left != Some(0) {
            exchange.flags.insert(flag);
        }
        out.exchanges.push(exchange);
    }

    /// `basic.ack` or `basic.nack`: a publisher confirm.
    fn confirmed(&mut self, number: u16, id: Id, arguments: &Arguments<'_>, frame: &Frame, out: &mut Output) {
        let Some(tag) = arguments.tag else {
            self.matching.lost_answers(frame.missing);
            return;
        };
        let multiple = arguments.bits.is_some_and(|bits| bits & 1 != 0);
        let oldest = self.first(number, PUBLISHES);
        let channel = self.channel(number);
        let newest = channel.next_publish.saturating_sub(1);
        if channel.confirms != Confirms::Yes {
            // Only a channel that confirms gets these: the numbers are told by the first of them.
            let of = if multiple { newest } else { oldest.map_or(newest, |key| key.2) };
            channel.confirms = Confirms::Yes;
            channel.ahead = tag.saturating_sub(of);
        } else if tag.saturating_sub(channel.ahead) > newest {
            // Messages were lost: this is the newest one.
            channel.ahead = tag.saturating_sub(newest);
        }
        let to = tag.saturating_sub(channel.ahead);
        let from = if multiple { 0 } else { to };
        let mut any = false;
        while let Some(key) = self.matching.first((number, PUBLISHES, from)..=(number, PUBLISHES, to)) {
            let Some(mut waiting) = self.matching.take(key) else { break };
            any = true;
            if waiting.exchange.status == Status::Unknown {
                waiting.exchange.status = if id == NACK { Status::Error } else { Status::Ok };
                waiting.exchange.error = (id == NACK).then(|| "basic.nack".into());
            }
            waiting.exchange.response = Some(frame.range.clone());
            out.exchanges.push(waiting.exchange);
        }
        if !any && let Some(mut exchange) = self.matching.unseen_request() {
            exchange.op = "basic.publish".into();
            exchange.status = if id == NACK { Status::Error } else { Status::Ok };
            exchange.response = Some(frame.range.clone());
            out.exchanges.push(exchange);
        }
    }

    /// `basic.return`: a message that could not be routed.
    fn returned(&mut self, number: u16, arguments: &Arguments<'_>, frame: &Frame) {
        let [text, Some(exchange), Some(key), _] = arguments.strings else { return };
        let Some(code) = arguments.shorts[0] else { return };
        let target = exchange_and_key(exchange, key);
        let mut from = 0;
        for _ in 0..MAX_LOOKED_AT {
            let Some(key) = self.matching.first((number, PUBLISHES, from)..=(number, PUBLISHES, u64::MAX)) else {
                break;
            };
            from = key.2 + 1;
            let Some(mut waiting) = self.matching.get(key).map(|waiting| waiting.exchange.clone()) else { break };
            let returnable = self.matching.get(key).is_some_and(|waiting| waiting.detail.returnable);
            if returnable && waiting.status == Status::Unknown && waiting.target == target {
                // Its confirm follows.
                self.error(&mut waiting, code, text);
                if let Some(slot) = self.matching.get_mut(key) {
                    slot.exchange = waiting;
                }
                return;
            }
        }
        let kept = self.channels.get_mut(&number).and_then(|channel| channel.unanswered.take());
        if let Some(mut kept) = kept {
            if kept.1.method == PUBLISH && kept.1.returnable && kept.0.target == target {
                self.error(&mut kept.0, code, text);
                kept.0.response = Some(frame.range.clone());
            }
            self.channel(number).unanswered = Some(kept);
        }
    }

    /// The server closes a channel or the connection: its reason names the method that failed.
    fn refused(
        &mut self,
        number: u16,
        method: &'static Method,
        arguments: &Arguments<'_>,
        frame: &Frame,
        out: &mut Output,
    ) {
        let [Some(code), Some(class), Some(failed)] = arguments.shorts else {
            // Which method it was about stands behind the reason, and is cut: any that waits may have failed.
            let numbers = if method.id() == CHANNEL_CLOSE { vec![number] } else { self.busy(|_| true) };
            for number in numbers {
                self.end_content(number, Flags::default(), out);
                if let Some(kept) = self.channels.get_mut(&number).and_then(|channel| channel.unanswered.as_mut()) {
                    doubt_kept(&mut kept.0, frame.missing);
                }
                self.forget(number, frame.missing, out);
            }
            return;
        };
        let wanted = method::id(class, failed);
        let text = arguments.strings[0];
        let numbers = match method.id() {
            CHANNEL_CLOSE => vec![number],
            _ => self.busy(|_| true),
        };
        let mut named = wanted == 0;
        for number in numbers {
            self.end_content(number, Flags::default(), out);
            if !named {
                let waiting = match self.find_call(number, wanted) {
                    Some((key, _)) => self.matching.take(key),
                    None if wanted == PUBLISH => self.first(number, PUBLISHES).and_then(|key| self.matching.take(key)),
                    None => None,
                };
                let kept = self.channels.get_mut(&number).and_then(|channel| channel.unanswered.take());
                if let Some(mut waiting) = waiting {
                    self.error(&mut waiting.exchange, code, text);
                    waiting.exchange.response = Some(frame.range.clone());
                    out.exchanges.push(waiting.exchange);
                    named = true;
                }
                if let Some(mut kept) = kept {
                    if !named && kept.1.method == wanted {
                        self.error(&mut kept.0, code, text);
                        kept.0.flags = Flags(kept.0.flags.0 & !Flags::NO_REPLY.0);
                        kept.0.response = Some(frame.range.clone());
                        named = true;
                    }
                    out.exchanges.push(kept.0);
                }
            }
            self.forget(number, Flags::default(), out);
        }
    }
}
