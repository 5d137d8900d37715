//! What a command is about: its statement's text, and prepared statements by their number.

use std::collections::{BTreeSet, HashMap};

use super::command::{self, Carries, Command};
use super::packet::Packet;
use super::{MySql, values};
use crate::sql;
use crate::{Exchange, Flags, SqlFacts, text};

/// Bytes of the texts of prepared statements that are remembered for one connection.
const MAX_PREPARED_BYTES: usize = 16 << 20;

/// Parameters of one connection whose values were sent ahead of the execution, that are remembered.
const MAX_AHEAD: usize = 1 << 12;

/// A statement as it is shown.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    /// With literals, where they are asked for.
    target: Box<str>,
    normalised: Box<str>,
    /// Its parameters, once its preparation was answered.
    parameters: Option<u16>,
    /// A `?` for each; empty where there are none.
    masks: Box<str>,
    /// Types of its parameters as they were bound last; kept only where values are shown.
    types: Box<[u16]>,
}

impl Statement {
    /// Memory that it takes, about.
    fn bytes(&self) -> usize {
        self.target.len() + self.normalised.len() + self.masks.len() + self.types.len() * 2 + 96
    }
}

/// The prepared statements of a connection.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    statements: HashMap<u32, Statement>,
    bytes: usize,
    last: Option<Statement>,
    /// Parameters (statement, index) whose values came by `send_long_data`.
    ahead: BTreeSet<(u32, u16)>,
    /// Whether `CLIENT_QUERY_ATTRIBUTES` was agreed on, where that is known.
    pub attributes: Option<bool>,
}

impl Prepared {
    fn forget(&mut self) {
        self.statements.clear();
        self.ahead.clear();
        self.bytes = 0;
    }

    fn forget_ahead(&mut self, id: u32) {
        while let Some(first) = self.ahead.range((id, 0)..=(id, u16::MAX)).next().copied() {
            self.ahead.remove(&first);
        }
    }

    fn close(&mut self, id: u32) {
        self.forget_ahead(id);
        if let Some(statement) = self.statements.remove(&id) {
            self.bytes = self.bytes.saturating_sub(statement.bytes());
        }
    }

    /// Remembers a statement by the number that the server gave it. `last`: no other is being prepared.
    pub fn remember(&mut self, id: u32, mut statement: Statement, parameters: Option<u16>, last: bool) {
        statement.parameters = parameters;
        statement.masks = masks(parameters.unwrap_or(0)).into();
        if last {
            self.last = Some(statement.clone());
        }
        if self.bytes + statement.bytes() <= MAX_PREPARED_BYTES {
            self.bytes += statement.bytes();
            if let Some(old) = self.statements.insert(id, statement) {
                self.bytes = self.bytes.saturating_sub(old.bytes());
            }
        }
    }
}

/// So many `?`.
fn masks(count: u16) -> String {
    const MAX: usize = text::MAX_TEXT_BYTES / 3;
    let count = usize::from(count);
    let mut masks = "?, ".repeat(count.min(MAX));
    if count > MAX {
        masks.push('…');
    } else {
        masks.truncate(masks.len().saturating_sub(2));
    }
    masks
}

impl MySql {
    /// Fills in what a command is about; returns what it prepares.
    pub(super) fn describe(
        &mut self,
        byte: u8,
        command: Command,
        packet: &Packet<'_>,
        content: &[u8],
        exchange: &mut Exchange,
    ) -> Option<Statement> {
        match command.carries {
            Carries::Query | Carries::Sql => {
                let text = if command.carries == Carries::Query { command::query_text(content) } else { content };
                let cut = packet.length > 1 + content.len() as u64;
                let normalised: Box<str> = sql::normalise(text, self.dialect(), cut).into();
                let target = match self.options.literals {
                    true => text::bounded(text, text::MAX_TEXT_BYTES, cut),
                    false => normalised.clone(),
                };
                if byte == command::PREPARE {
                    let (masks, types) = (Box::default(), Box::default());
                    let statement = Statement { target, normalised, parameters: None, masks, types };
                    show(exchange, &statement, true);
                    self.prepared.last = Some(statement.clone());
                    return Some(statement);
                }
                exchange.target = Some(target);
                exchange.statement = Some(normalised);
            }
            Carries::Name => {
                let name = content.split(|b| *b == 0).next().unwrap_or_default();
                exchange.target = Some(text::bounded(name, 256, packet.missing.is_some()));
            }
            Carries::Statement => {
                let cut = packet.length > 1 + content.len() as u64;
                self.describe_statement(byte, content, cut, exchange);
            }
            // Its answer decides whether the statements are gone; a user who may not be changed has lost the
            // connection anyway.
            Carries::Secret if byte == command::CHANGE_USER => self.prepared.forget(),
            _ if byte == command::RESET_CONNECTION => self.prepared.forget(),
            _ => {}
        }
        None
    }

    fn describe_statement(&mut self, byte: u8, content: &[u8], cut: bool, exchange: &mut Exchange) {
        let Some((id, rest)) = content.split_first_chunk() else {
            exchange.flags.insert(Flags::UNKNOWN_STATEMENT);
            return;
        };
        let id = u32::from_le_bytes(*id);
        let statement = match id {
            // MariaDB: the statement prepared last, whose number the client doesn't know yet.
            u32::MAX => self.prepared.last.as_mut(),
            id => self.prepared.statements.get_mut(&id),
        };
        let runs = matches!(byte, command::EXECUTE | command::BULK_EXECUTE);
        match statement {
            Some(statement) => {
                show(exchange, statement, runs);
                if let (true, Some(count @ 1..)) = (runs, statement.parameters) {
                    let parameters = if self.options.literals {
                        let bound = values::Bound {
                            count,
                            attributes: self.prepared.attributes,
                            ahead: &|index| self.prepared.ahead.contains(&(id, index)),
                            cut,
                        };
                        let before = statement.bytes();
                        let read = match byte {
                            command::EXECUTE => bound.execution(rest, &mut statement.types),
                            _ => bound.bulk(rest, &mut statement.types),
                        };
                        if id != u32::MAX {
                            self.prepared.bytes = (self.prepared.bytes + statement.bytes()).saturating_sub(before);
                            if self.prepared.bytes > MAX_PREPARED_BYTES {
                                self.prepared.bytes -= statement.types.len() * 2;
                                statement.types = Box::default();
                            }
                        }
                        read
                    } else {
                        Some(statement.masks.clone())
                    };
                    if parameters.is_some() {
                        exchange.sql = Some(Box::new(SqlFacts { parameters, ..SqlFacts::default() }));
                    }
                }
            }
            None => exchange.flags.insert(Flags::UNKNOWN_STATEMENT),
        }
        match byte {
            command::CLOSE => self.prepared.close(id),
            command::SEND_LONG_DATA => {
                if let (true, [a, b, ..]) = (self.options.literals && self.prepared.ahead.len() < MAX_AHEAD, rest) {
                    self.prepared.ahead.insert((id, u16::from_le_bytes([*a, *b])));
                }
            }
            command::EXECUTE | command::RESET if !self.prepared.ahead.is_empty() => self.prepared.forget_ahead(id),
            _ => {}
        }
    }
}

fn show(exchange: &mut Exchange, statement: &Statement, runs: bool) {
    exchange.target = Some(statement.target.clone());
    if runs {
        exchange.statement = Some(statement.normalised.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mark_for_each_parameter() {
        assert_eq!(masks(0), "");
        assert_eq!(masks(1), "?");
        assert_eq!(masks(3), "?, ?, ?");
        assert!(masks(u16::MAX).ends_with("?, …") && masks(u16::MAX).len() <= text::MAX_TEXT_BYTES + 3);
    }
}
