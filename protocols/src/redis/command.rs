//! What commands look like: where their key stands, what they carry, how they are answered
//! (<https://redis.io/docs/latest/commands/>).

/// Where the first key of a command stands among its arguments (the command's name is argument 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyAt {
    /// It has none.
    None,
    /// Argument of this number.
    At(u32),
    /// Behind the word `STREAMS`.
    AfterStreams,
}

/// How a command is answered, where not by one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// By one reply.
    One,
    /// By one confirmation for each channel.
    Subscribe,
    /// By one confirmation for each channel; without arguments for each one subscribed.
    Unsubscribe,
    /// `MONITOR`: a stream of lines follows.
    Monitor,
    /// `SYNC`, `PSYNC`: a replication stream follows.
    Replicate,
    /// `CLIENT REPLY ON|OFF|SKIP`, to be seen by its arguments.
    Client,
}

/// What the arguments behind the key are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    /// Values.
    Values,
    /// Possibly credentials.
    Secrets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command {
    pub key: KeyAt,
    pub answer: Answer,
    pub carries: Carries,
}

const PLAIN: Command = Command { key: KeyAt::At(1), answer: Answer::One, carries: Carries::Values };

/// What is known of the command of this name (in upper case); an unknown one has its key first.
pub(super) fn of(name: &[u8]) -> Command {
    let keyless = Command { key: KeyAt::None, ..PLAIN };
    match name {
        b"GET" | b"SET" | b"DEL" | b"HGET" | b"HSET" | b"INCR" | b"EXPIRE" | b"EXISTS" => PLAIN,
        b"PING" | b"MULTI" | b"EXEC" | b"DISCARD" | b"UNWATCH" | b"SELECT" | b"INFO" | b"COMMAND" | b"CLUSTER"
        | b"SCAN" | b"SCRIPT" | b"WAIT" | b"WAITAOF" | b"DBSIZE" | b"FLUSHALL" | b"FLUSHDB" | b"RANDOMKEY"
        | b"ECHO" | b"TIME" | b"QUIT" | b"RESET" | b"READONLY" | b"READWRITE" | b"ASKING" | b"ROLE" | b"SAVE"
        | b"BGSAVE" | b"BGREWRITEAOF" | b"LASTSAVE" | b"SHUTDOWN" | b"REPLICAOF" | b"SLAVEOF" | b"REPLCONF"
        | b"FAILOVER" | b"SLOWLOG" | b"LATENCY" | b"MODULE" | b"FUNCTION" | b"SENTINEL" | b"SWAPDB" | b"LOLWUT" => {
            keyless
        }
        b"AUTH" | b"HELLO" | b"ACL" | b"CONFIG" => Command { carries: Carries::Secrets, ..keyless },
        b"EVAL" | b"EVALSHA" | b"EVAL_RO" | b"EVALSHA_RO" | b"FCALL" | b"FCALL_RO" | b"MIGRATE" => {
            Command { key: KeyAt::At(3), ..PLAIN }
        }
        b"BLMPOP" | b"BZMPOP" => Command { key: KeyAt::At(3), ..PLAIN },
        b"OBJECT" | b"MEMORY" | b"XGROUP" | b"XINFO" | b"BITOP" | b"DEBUG" | b"PUBSUB" | b"ZUNION" | b"ZINTER"
        | b"ZDIFF" | b"ZINTERCARD" | b"SINTERCARD" | b"LMPOP" | b"ZMPOP" => Command { key: KeyAt::At(2), ..PLAIN },
        b"XREAD" | b"XREADGROUP" => Command { key: KeyAt::AfterStreams, ..PLAIN },
        b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" => Command { answer: Answer::Subscribe, ..PLAIN },
        b"UNSUBSCRIBE" | b"PUNSUBSCRIBE" | b"SUNSUBSCRIBE" => Command { answer: Answer::Unsubscribe, ..PLAIN },
        b"MONITOR" => Command { answer: Answer::Monitor, ..keyless },
        b"SYNC" | b"PSYNC" => Command { answer: Answer::Replicate, ..keyless },
        b"CLIENT" => Command { answer: Answer::Client, ..keyless },
        _ => PLAIN,
    }
}

/// What an array or push that begins with this word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    /// The answer for one channel of a `*SUBSCRIBE`.
    Subscribed,
    /// The answer for one channel of a `*UNSUBSCRIBE`.
    Unsubscribed,
    /// A message, nobody's answer.
    Message,
    /// Something else.
    Other,
}

/// Whether a word that begins a confirmation is about channels of shards, which are counted apart.
pub(super) fn is_of_shards(word: &[u8]) -> bool {
    matches!(word, b"ssubscribe" | b"sunsubscribe" | b"smessage")
}

pub(super) fn published(word: &[u8]) -> Published {
    match word {
        b"subscribe" | b"psubscribe" | b"ssubscribe" => Published::Subscribed,
        b"unsubscribe" | b"punsubscribe" | b"sunsubscribe" => Published::Unsubscribed,
        b"message" | b"pmessage" | b"smessage" => Published::Message,
        _ => Published::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_where_the_commands_put_them() {
        assert_eq!(of(b"HGETALL").key, KeyAt::At(1));
        assert_eq!(of(b"EVALSHA").key, KeyAt::At(3));
        assert_eq!(of(b"XREAD").key, KeyAt::AfterStreams);
        assert_eq!(of(b"MULTI").key, KeyAt::None);
        assert_eq!(of(b"AUTH").carries, Carries::Secrets);
    }
}
