//! The layouts of Kafka's messages, read once from `layouts.txt` (which explains its notation).

use std::sync::OnceLock;

/// What a field means to the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing.
    Plain,
    /// A string that names something.
    Name,
    /// A value.
    Value,
    Secret,
    Topic,
    TopicId,
    Group,
    Transaction,
    Key,
    Error,
    Message,
    Acks,
    Records,
}

/// Roles that decide what is told of a message: what may be missing where one is cut.
pub(crate) type Roles = u8;
pub(crate) const NAMES: Roles = 1;
pub(crate) const ERRORS: Roles = 2;
pub(crate) const RECORDS: Roles = 4;

#[derive(Debug)]
pub(crate) enum Kind {
    /// So many bytes.
    Fixed(u8),
    /// 16-bit length, or compact.
    Text,
    /// 32-bit length, or compact.
    Bytes,
    /// An array of one unnamed field: no tagged fields behind each.
    List(Box<Field>),
    /// An array of structures.
    Array(Vec<Field>),
    Struct(Vec<Field>),
    Optional(Vec<Field>),
    /// What follows is not described.
    Rest,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub kind: Kind,
    pub role: Role,
    /// First and last version that has it.
    pub versions: (i16, i16),
    /// Roles of it and of what is in it.
    pub roles: Roles,
}

impl Field {
    pub fn is_in(&self, version: i16) -> bool {
        version >= self.versions.0 && version <= self.versions.1
    }
}

/// An API of the protocol.
#[derive(Debug)]
pub(crate) struct Api {
    pub name: &'static str,
    /// The newest version described.
    pub newest: i16,
    /// The first version with compact lengths and tagged fields.
    pub flexible: i16,
    pub request: Vec<Field>,
    pub response: Vec<Field>,
}

/// The API with this key.
pub(crate) fn api(key: i16) -> Option<&'static Api> {
    static APIS: OnceLock<Vec<Api>> = OnceLock::new();
    APIS.get_or_init(|| read(include_str!("layouts.txt"))).get(usize::try_from(key).ok()?)
}

/// What can't be understood is left out; a test sees that there is nothing of that.
fn read(text: &'static str) -> Vec<Api> {
    let mut apis: Vec<Api> = Vec::new();
    let mut into_response = false;
    let mut lines = text.lines().filter(|line| !line.starts_with('#')).peekable();
    while let Some(line) = lines.next() {
        if line.starts_with(|c: char| c.is_ascii_digit()) {
            let mut words = line.split_whitespace();
            let mut number = |skip: usize| words.nth(skip).and_then(|word| word.parse::<i16>().ok());
            let Some(key) = number(0) else { continue };
            // Keys are numbered without holes.
            debug_assert_eq!(usize::try_from(key), Ok(apis.len()));
            let Some(name) = words.next() else { continue };
            let mut number = |skip: usize| words.nth(skip).and_then(|word| word.parse().ok());
            let newest = number(1).unwrap_or(0);
            let flexible = number(2).unwrap_or(i16::MAX);
            apis.push(Api { name, newest, flexible, request: Vec::new(), response: Vec::new() });
            continue;
        }
        let mut fields = line.trim().to_owned();
        while let Some(more) = lines.next_if(|next| next.starts_with("    ")) {
            fields.push(' ');
            fields.push_str(more.trim());
        }
        into_response = fields.starts_with('<') || into_response && !fields.starts_with('>');
        let Some(api) = apis.last_mut() else { continue };
        let into = if into_response { &mut api.response } else { &mut api.request };
        *into = read_fields(&fields);
    }
    apis
}

fn read_fields(text: &str) -> Vec<Field> {
    // What is open, outermost first: the bracket and the fields so far.
    let mut open: Vec<(char, Vec<Field>)> = vec![('<', Vec::new())];
    let spaced = text.replace(['<', '>'], "").replace("?(", " ? ").replace('[', " [ ").replace('(', " ( ");
    let spaced = spaced.replace(']', " ]").replace(')', " )");
    for token in spaced.split_whitespace() {
        let (word, versions) = token.split_once('@').unwrap_or((token, ""));
        let kind = match word {
            "[" | "(" | "?" => {
                open.push((word.chars().next().unwrap_or(' '), Vec::new()));
                continue;
            }
            "]" | ")" => {
                let Some((bracket, mut fields)) = open.pop() else { continue };
                match bracket {
                    '[' if fields.len() == 1 => match fields.pop() {
                        Some(field) => Kind::List(Box::new(field)),
                        None => continue,
                    },
                    '[' => Kind::Array(fields),
                    '?' => Kind::Optional(fields),
                    _ => Kind::Struct(fields),
                }
            }
            "i8" => Kind::Fixed(1),
            "i16" | "error" | "acks" => Kind::Fixed(2),
            "i32" => Kind::Fixed(4),
            "i64" => Kind::Fixed(8),
            "uuid" | "topic_id" => Kind::Fixed(16),
            "bytes" | "secret" | "records" => Kind::Bytes,
            "rest" => Kind::Rest,
            _ => Kind::Text,
        };
        let role = match word {
            "topic" => Role::Topic,
            "topic_id" => Role::TopicId,
            "group" => Role::Group,
            "transaction" => Role::Transaction,
            "key" => Role::Key,
            "name" => Role::Name,
            "message" => Role::Message,
            "text" | "bytes" => Role::Value,
            "secret" => Role::Secret,
            "records" => Role::Records,
            "error" => Role::Error,
            "acks" => Role::Acks,
            _ => Role::Plain,
        };
        let roles = match &kind {
            Kind::List(inner) => inner.roles,
            Kind::Array(inner) | Kind::Struct(inner) | Kind::Optional(inner) => {
                inner.iter().fold(0, |roles, field| roles | field.roles)
            }
            _ => match role {
                Role::Topic | Role::TopicId | Role::Group | Role::Transaction | Role::Key => NAMES,
                Role::Error => ERRORS,
                Role::Records => RECORDS,
                _ => 0,
            },
        };
        let versions = match versions.split_once('-') {
            Some((from, to)) => (from.parse().unwrap_or(0), to.parse().unwrap_or(i16::MAX)),
            None => (versions.trim_end_matches('+').parse().unwrap_or(0), i16::MAX),
        };
        if let Some((_, fields)) = open.last_mut() {
            fields.push(Field { kind, role, versions, roles });
        }
    }
    open.pop().map(|(_, fields)| fields).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_layouts_is_understood() {
        let known = "i8 i16 i32 i64 uuid topic topic_id group transaction key name message text bytes secret records \
                     error acks rest";
        let known: Vec<&str> = known.split_whitespace().collect();
        let mut apis = 0;
        for line in include_str!("layouts.txt").lines().filter(|line| !line.starts_with('#')) {
            if !line.starts_with(' ') {
                apis += 1;
                continue;
            }
            let spaced = line.replace(['[', ']', '(', ')', '?', '<', '>'], " ");
            for word in spaced.split_whitespace() {
                let (word, versions) = word.split_once('@').unwrap_or((word, "0"));
                assert!(known.contains(&word) || word.is_empty(), "{word}: {line}");
                assert!(versions.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | '+')), "{line}");
            }
        }
        let brackets = |all: [char; 2]| include_str!("layouts.txt").matches(all).count();
        assert_eq!(brackets(['[', '(']), brackets([']', ')']));
        assert_eq!((apis, api(0).unwrap().name, api(92).unwrap().name), (93, "Produce", "DeleteShareGroupOffsets"));
        assert!(api(93).is_none() && api(-1).is_none());
    }

    /// Each answer tells whether there was an error, wherever it stands.
    #[test]
    fn every_answer_has_a_place_for_errors() {
        for key in 0..93 {
            let api = api(key).unwrap();
            for version in 0..=api.newest {
                let errors = api.response.iter().filter(|field| field.is_in(version)).any(|f| f.roles & ERRORS != 0);
                assert!(errors, "{} {version}", api.name);
            }
        }
    }
}
