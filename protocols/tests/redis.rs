//! Redis: RESP2, RESP3 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>) and inline commands.

mod common;
mod conversations;

use common::{Piece, parser, run, talk};
use conversations::{C, S};
use kfr_protocols::{ByteClass, Detected, Exchange, Flags, Output, Prefix, REGISTRY, Status, SwitchedTo};

fn command(words: &[&str]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| text += &format!("${}\r\n{word}\r\n", word.len()));
    text
}

fn redis(sends: &[(bool, &str)]) -> Output {
    let sends: Vec<_> = sends.iter().map(|(client, text)| (*client, text.as_bytes())).collect();
    talk("redis", false, &sends)
}

fn short(out: &Output) -> Vec<String> {
    let one = |e: &Exchange| {
        let size = e.response.as_ref().map_or("-".into(), |r| (r.end - r.start).to_string());
        format!("{} {} {:?} {size}", e.op, e.target.as_deref().unwrap_or("-"), e.status)
    };
    out.exchanges.iter().map(one).collect()
}

#[test]
fn keys_and_errors() {
    let out = redis(&[
        (C, &command(&["set", "user:1", "v"])),
        (S, "+OK\r\n"),
        (C, &command(&["HGET", "user:1", "f"])),
        (S, "-WRONGTYPE Operation against a key holding 'x'\r\n"),
        (C, &command(&["EVAL", "return 1", "1", "k", "v"])),
        (S, ":1\r\n"),
        (C, &command(&["EVAL", "return 1", "0", "v"])),
        (S, "!21\r\nSYNTAX invalid syntax\r\n"),
        (C, &command(&["XREAD", "COUNT", "2", "STREAMS", "s1", "0"])),
        (S, "*-1\r\n"),
        (C, &command(&["CONFIG", "GET", "x"])),
        (S, "*0\r\n"),
    ]);
    assert_eq!(
        short(&out),
        ["SET user:1 Ok 5", "HGET user:1 Error 48", "EVAL k Ok 4", "EVAL - Error 28", "XREAD s1 Ok 5", "CONFIG - Ok 4"]
    );
    assert_eq!(out.exchanges[1].code.as_deref(), Some("WRONGTYPE"));
    assert_eq!(out.exchanges[1].error.as_deref(), Some("Operation against a key holding '?'"));
    assert_eq!(out.exchanges[3].code.as_deref(), Some("SYNTAX"));
}

#[test]
fn every_kind_of_reply_is_one_answer() {
    // The examples of the protocol specification, RESP2 and RESP3.
    let replies = [
        "*2\r\n$5\r\nhello\r\n$5\r\nworld\r\n",
        "*2\r\n*3\r\n:1\r\n:2\r\n:3\r\n*2\r\n+Hello\r\n-World\r\n",
        "$0\r\n\r\n",
        "$-1\r\n",
        "_\r\n",
        "#t\r\n",
        ",1.23\r\n",
        ",-inf\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "=15\r\ntxt:Some string\r\n",
        "%2\r\n+first\r\n:1\r\n+second\r\n:2\r\n",
        "~2\r\n+orange\r\n+apple\r\n",
        "|1\r\n+key-popularity\r\n%2\r\n$1\r\na\r\n,0.19\r\n$1\r\nb\r\n,0.0066\r\n*2\r\n:2039123\r\n:9543892\r\n",
        "*3\r\n:1\r\n:2\r\n|1\r\n+ttl\r\n:3600\r\n:3\r\n",
        "$?\r\n;4\r\nHell\r\n;5\r\no wor\r\n;1\r\nd\r\n;0\r\n",
        "*?\r\n:1\r\n*2\r\n:2\r\n:3\r\n.\r\n",
        "%?\r\n+a\r\n:1\r\n+b\r\n:2\r\n.\r\n",
        "*2\r\n*?\r\n.\r\n*?\r\n*?\r\n.\r\n.\r\n",
        "+\r\n",
    ];
    let get = command(&["GET", "k"]);
    for reply in replies {
        let out = redis(&[(C, &get), (S, reply), (C, &get), (S, ":1\r\n")]);
        assert_eq!(short(&out), [format!("GET k Ok {}", reply.len()), "GET k Ok 4".into()], "{reply}");
        assert_eq!(out.skipped_bytes, [0, 0]);
    }
}

#[test]
fn deep_nesting_needs_no_memory() {
    let deep = "*1\r\n".repeat(1_000_000) + ":1\r\n";
    let out = redis(&[(C, &command(&["X"])), (S, &deep)]);
    assert_eq!(short(&out), [format!("X - Ok {}", deep.len())]);
    let streamed = "*?\r\n".repeat(1000);
    let out = redis(&[(C, &command(&["X"])), (S, &streamed)]);
    assert_eq!(out.exchanges.len(), 1);
}

#[test]
fn publish_and_subscribe() {
    let message = "*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n";
    let confirm =
        |kind: &str, channel: &str, n| format!("*3\r\n${}\r\n{kind}\r\n$2\r\n{channel}\r\n:{n}\r\n", kind.len());
    let out = redis(&[
        (C, &command(&["SUBSCRIBE", "ch", "c2"])),
        (S, &confirm("subscribe", "ch", 1)),
        (S, message),
        (S, &confirm("subscribe", "c2", 2)),
        (S, message),
        (C, &command(&["UNSUBSCRIBE"])),
        (S, message),
        (S, &(confirm("unsubscribe", "ch", 1) + &confirm("unsubscribe", "c2", 0))),
        (C, &command(&["PING"])),
        (S, "+PONG\r\n"),
    ]);
    assert_eq!(out.exchanges.iter().map(|e| &*e.op).collect::<Vec<_>>(), ["SUBSCRIBE", "UNSUBSCRIBE", "PING"]);
    assert!(out.exchanges.iter().all(|e| e.response.is_some()));
    assert_eq!(out.skipped_bytes, [0, 0]);

    // RESP3: pushes come at any time, also between a command and its answer.
    let out = redis(&[
        (C, &command(&["GET", "k"])),
        (S, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"),
        (S, "$1\r\nv\r\n"),
        (S, ">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n"),
        (C, &command(&["SUBSCRIBE", "ch"])),
        (S, ">3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n"),
    ]);
    assert_eq!(short(&out), ["GET k Ok 7", "SUBSCRIBE ch Ok 31"]);
    assert_eq!(out.skipped_bytes, [0, 0]);
}

#[test]
fn transactions_and_pipelines() {
    let sent = command(&["MULTI"]) + &command(&["INCR", "a"]) + &command(&["EXEC"]);
    let out = redis(&[(C, &sent), (S, "+OK\r\n+QUEUED\r\n*1\r\n:1\r\n")]);
    assert_eq!(short(&out), ["MULTI - Ok 5", "INCR a Ok 9", "EXEC - Ok 8"]);
    let pipelined: Vec<_> = out.exchanges.iter().map(|e| e.flags.contains(Flags::PIPELINED)).collect();
    assert_eq!(pipelined, [false, true, true]);
}

#[test]
fn replies_that_were_switched_off() {
    let out = redis(&[
        (C, &(command(&["CLIENT", "REPLY", "SKIP"]) + &command(&["SET", "a", "1"]) + &command(&["GET", "a"]))),
        (S, "$1\r\n1\r\n"),
        (C, &(command(&["CLIENT", "REPLY", "OFF"]) + &command(&["SET", "b", "1"]))),
        (C, &command(&["CLIENT", "REPLY", "ON"])),
        (S, "+OK\r\n"),
    ]);
    let silent: Vec<_> = out.exchanges.iter().map(|e| (&*e.op, e.flags.contains(Flags::NO_REPLY))).collect();
    let expected =
        [("CLIENT", true), ("SET", true), ("GET", false), ("CLIENT", true), ("SET", true), ("CLIENT", false)];
    assert_eq!(silent, expected);
}

#[test]
fn inline_commands_monitor_and_replication() {
    let out = redis(&[
        (C, "\r\nset \"a key\" 1\nPING\r\n"),
        (S, "+OK\r\n+PONG\r\n"),
        (C, "MONITOR\r\n"),
        (S, "+OK\r\n+1339518083.107412 [0 127.0.0.1:60866] \"keys\" \"*\"\r\n"),
        (C, "QUIT\r\n"),
        (S, "+1339518087.877697 [0 127.0.0.1:60866] \"dbsize\"\r\n+OK\r\n"),
    ]);
    assert_eq!(short(&out), ["SET a key Ok 5", "PING - Ok 7", "MONITOR - Ok 5", "QUIT - Ok 5"]);
    assert_eq!(out.skipped_bytes, [0, 0]);
    let out = redis(&[
        (C, &command(&["PSYNC", "?", "-1"])),
        (S, "+FULLRESYNC 8de1787ba490483314a4d30f1c628bc5025eb761 0\r\n$5\r\nREDIS*1\r\n$4\r\nPING\r\n"),
        (C, &command(&["REPLCONF", "ACK", "0"])),
    ]);
    assert_eq!(short(&out), ["PSYNC - Ok 56"]);
    assert_eq!(out.switched, Some(SwitchedTo::Unread));
}

#[test]
fn cut_values_keep_step_and_cut_replies_end_at_the_next_command() {
    let head = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10000\r\nxxxx";
    let get = command(&["GET", "k"]);
    let bytes = |text: &str| Piece::Bytes(text.as_bytes().to_vec());
    let pieces = [
        (C, bytes(head)),
        (C, Piece::Cut(9998)),
        (S, bytes("+OK\r\n")),
        (C, bytes(&command(&["LRANGE", "l"]))),
        (S, bytes("*500\r\n$3\r\nabc\r\n$100")),
        (S, Piece::Cut(3000)),
        (S, bytes("$3\r\nabc\r\n$3\r\nabc\r\n")),
        (C, bytes(&get)),
        (S, bytes("$20\r\nabc")),
        (S, Piece::Cut(19)),
        (C, bytes(&get)),
        (S, bytes(":5\r\n")),
    ];
    let out = run(parser("redis", false).as_mut(), &pieces);
    assert_eq!(short(&out), ["SET k Ok 5", "LRANGE l Ok 3037", "GET k Ok 27", "GET k Ok 4"]);
    let flags: Vec<_> = out.exchanges.iter().map(|e| e.flags).collect();
    assert_eq!(flags, [Flags::default(), Flags::TRUNCATED, Flags::default(), Flags::default()]);
    assert_eq!(out.exchanges[0].request, 0..head.len() as u64 + 9998);
}

#[test]
fn commands_of_a_cut_pipeline_are_counted_by_their_answers() {
    let bytes = |text: &str| Piece::Bytes(text.as_bytes().to_vec());
    let set = command(&["SET", "k", "v"]);
    let pieces = [
        (C, bytes(&(set.clone() + &set + "*3\r\n$3\r\nS"))),
        (C, Piece::Cut(7 * set.len() as u64 + 17)),
        (S, bytes(&("+OK\r\n".repeat(9) + "-ERR x\r\n"))),
        (C, bytes(&command(&["GET", "k"]))),
        (S, bytes("$1\r\nv\r\n")),
    ];
    let out = run(parser("redis", false).as_mut(), &pieces);
    assert_eq!(out.exchanges.len(), 11);
    assert_eq!(out.exchanges.iter().filter(|e| e.flags.contains(Flags::TRUNCATED)).count(), 8);
    assert_eq!(short(&out)[8..], ["? - Ok 5", "? - Error 8", "GET k Ok 7"]);
    assert_eq!(out.exchanges[10].flags, Flags::default());
}

#[test]
fn passwords_are_secret() {
    let sent = command(&["AUTH", "user", "pa55"]);
    let out = redis(&[(C, &sent), (S, "+OK\r\n")]);
    assert_eq!(out.exchanges[0].target, None);
    for part in ["user", "pa55"] {
        let at = sent.find(part).unwrap() as u64;
        let mark = out.marks.as_ref().unwrap().iter().find(|m| m.range.contains(&at)).unwrap();
        assert_eq!(mark.class, ByteClass::Secret);
    }
}

#[test]
fn detection() {
    let redis = REGISTRY.iter().find(|p| p.name == "redis").unwrap();
    let detect = |client: &[u8], server: &[u8]| {
        (redis.detect)(&Prefix { client, server, mid_stream: false, complete: true, ..Prefix::default() })
    };
    assert_eq!(detect(b"*1\r\n$4\r\nPING\r\n", b""), Detected::Certain);
    assert_eq!(detect(b"PING\r\n", b"+PONG\r\n"), Detected::Certain);
    assert_eq!(detect(b"", b"+OK\r\n"), Detected::Maybe);
    assert_eq!(detect(b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK"), Detected::No);
    // The directions are the wrong way round.
    assert_eq!(detect(b"+OK\r\n", b"*1\r\n$4\r\nPING\r\n"), Detected::No);
}

#[test]
fn nameless_commands_say_why_and_that_they_were_pipelined() {
    let bytes = |text: &str| Piece::Bytes(text.as_bytes().to_vec());
    let set = command(&["SET", "k", "v"]);
    // The limit cuts between two commands: nothing of the third is seen.
    let pieces = [(C, bytes(&set.repeat(2))), (C, Piece::Cut(3 * set.len() as u64)), (S, bytes(&"+OK\r\n".repeat(5)))];
    let out = run(parser("redis", false).as_mut(), &pieces);
    assert_eq!(short(&out)[2..], ["? - Ok 5", "? - Ok 5", "? - Ok 5"]);
    let mut both = Flags::TRUNCATED;
    both.insert(Flags::PIPELINED);
    assert!(out.exchanges[2..].iter().all(|e| e.flags == both), "{:#?}", out.exchanges);
    // A send that was lost whole, when nothing was open: what it held was no pipeline for sure.
    let pieces = [
        (C, bytes(&set)),
        (S, bytes("+OK\r\n")),
        (C, Piece::Lost(set.len() as u64)),
        (S, bytes("+OK\r\n")),
        (C, bytes(&set)),
        (S, bytes("+OK\r\n")),
    ];
    let out = run(parser("redis", false).as_mut(), &pieces);
    assert_eq!(short(&out), ["SET k Ok 5", "? - Ok 5", "SET k Ok 5"]);
    assert_eq!(out.exchanges[1].flags, Flags::GAP);
}

#[test]
fn the_kind_of_a_reply_tells_how_it_went() {
    let bytes = |text: &str| Piece::Bytes(text.as_bytes().to_vec());
    let get = command(&["GET", "k"]);
    for (seen, status) in
        [("", Status::Unknown), ("*2\r\n$3\r\nabc\r\n", Status::Ok), (">2\r\n+message\r\n", Status::Unknown)]
    {
        let mut pieces = vec![(C, bytes(&get)), (S, Piece::Cut(50)), (C, bytes(&get)), (S, bytes(":1\r\n"))];
        if !seen.is_empty() {
            pieces.insert(1, (S, bytes(seen)));
        }
        let out = run(parser("redis", false).as_mut(), &pieces);
        assert_eq!(out.exchanges.iter().map(|e| e.status).collect::<Vec<_>>(), [status, Status::Ok], "{seen}");
        assert_eq!(out.exchanges[0].flags, Flags::TRUNCATED);
    }
    for (begun, status) in [("-ERR wro", Status::Error), ("+O", Status::Ok), ("|1\r\n+a", Status::Unknown)] {
        let out = redis(&[(C, &get), (S, begun)]);
        assert_eq!((out.exchanges[0].status, out.exchanges[0].flags), (status, Flags::INCOMPLETE), "{begun}");
        assert_eq!(out.exchanges[0].response, Some(0..begun.len() as u64));
    }
}

#[test]
fn commands_pipelined_behind_a_lost_reply_are_unknown() {
    let bytes = |text: &str| Piece::Bytes(text.as_bytes().to_vec());
    let pieces =
        [(C, bytes(&command(&["GET", "k"]).repeat(3))), (S, bytes("*2\r\n$3\r\nabc\r\n")), (S, Piece::Cut(500))];
    let out = run(parser("redis", false).as_mut(), &pieces);
    assert_eq!(short(&out), ["GET k Ok 513", "GET k Unknown 0", "GET k Unknown 0"]);
    assert!(out.exchanges.iter().all(|e| e.flags.contains(Flags::TRUNCATED)));
}

#[test]
fn what_came_before_a_command_does_not_answer_it() {
    // Joined in the middle: the server's bytes are the rest of an older reply.
    let out = talk("redis", true, &[(S, b"rest\r\n"), (C, command(&["GET", "k"]).as_bytes())]);
    assert_eq!(out.exchanges[0].status, Status::Unanswered);
    assert_eq!(out.exchanges[0].response, None);
}

#[test]
fn errors_inside_attributes_are_not_collected() {
    let error = format!("!600\r\n{}\r\n", "e".repeat(600));
    let reply = format!("|10\r\n{}+OK\r\n", error.repeat(20));
    let out = redis(&[(C, &command(&["GET", "k"])), (S, &reply)]);
    assert_eq!(short(&out), [format!("GET k Ok {}", reply.len())]);
}

#[test]
fn errors_quote_arguments_in_several_ways_and_show_none() {
    let messages = [
        "-ERR unknown command `CONFIG`, with args beginning with: `SET`, `requirepass`, `SECRET`, \r\n",
        "-ERR unknown command 'FOO', with args beginning with: 'it's SECRET' \r\n",
        "-ERR unknown command 'FOO', with args beginning with: 'it' SECRET' \r\n",
        "-ERR unknown command 'FOO', with args beginning with: 'a' SECRET 'b' \r\n",
    ];
    for message in messages {
        let out = redis(&[(C, &command(&["FOO", "a"])), (S, message)]);
        let error = out.exchanges[0].error.as_deref().unwrap();
        assert!(error.starts_with("unknown command ") && !error.contains("SECRET"), "{error}");
    }
    // What is kept of a long message may end inside a quotation.
    let long = format!("-ERR {} 'it' {}\r\n", "x".repeat(400), "SECRET".repeat(100));
    let out = redis(&[(C, &command(&["FOO", "a"])), (S, &long)]);
    assert!(!out.exchanges[0].error.as_deref().unwrap().contains("SECRET"));
}

#[test]
fn an_answer_begins_no_earlier_than_the_servers_bytes() {
    // Joined in the middle: the first answer's beginning is lost, and its rest is no reply.
    for first in [1 << 32 | 5000, 7] {
        let mut parser = parser("redis", true);
        let (mut streams, mut out) = (kfr_protocols::Streams::default(), Output::default());
        let get = command(&["GET", "k"]);
        streams.client.push(get.as_bytes());
        parser.parse(&mut streams, &mut out);
        streams.server.start_at(first);
        streams.server.push(b"the end of a long value\r\n");
        parser.parse(&mut streams, &mut out);
        streams.client.push(get.as_bytes());
        parser.parse(&mut streams, &mut out);
        streams.server.push(b"$1\r\nb\r\n");
        parser.parse(&mut streams, &mut out);
        parser.finish(&mut streams, &mut out);
        let responses: Vec<_> = out.exchanges.iter().map(|e| e.response.clone().unwrap()).collect();
        assert_eq!(responses, [first..first + 25, first + 25..first + 32]);
    }
}

#[test]
fn what_is_no_reply_tells_nothing() {
    let ping = command(&["PING"]);
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-x\r\n", "NOPE\r\n", "xyz", "$abc\r\n", "*x\r\n", "\r\n"]
    {
        let out = redis(&[(C, &ping), (S, answer)]);
        assert_eq!(short(&out), [format!("PING - Unknown {}", answer.len())], "{answer}");
        let out = redis(&[(C, &ping), (S, answer), (C, &ping), (S, "+PONG\r\n")]);
        assert_eq!(short(&out), [format!("PING - Unknown {}", answer.len()), "PING - Ok 7".into()], "{answer}");
    }
    // What begins as a reply is one, whatever becomes of it.
    assert_eq!(short(&redis(&[(C, &ping), (S, "*2\r\n:1\r\n")])), ["PING - Ok 8"]);
}

#[test]
fn who_is_no_longer_subscribed_gets_no_messages() {
    let like = "*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\nm\r\n";
    let confirm = |kind: &str, n| format!("*3\r\n${}\r\n{kind}\r\n$1\r\nx\r\n:{n}\r\n", kind.len());
    let (subscribed, unsubscribed) = (confirm("subscribe", 1), confirm("unsubscribe", 0));
    let (range, get) = (command(&["LRANGE", "k", "0", "-1"]), command(&["GET", "k"]));
    let ends = [
        (command(&["UNSUBSCRIBE", "x"]), unsubscribed.clone()),
        (command(&["UNSUBSCRIBE"]), unsubscribed.clone()),
        (command(&["RESET"]), "+RESET\r\n".into()),
    ];
    for (ending, ended) in ends {
        let out = redis(&[
            (C, &command(&["SUBSCRIBE", "x"])),
            (S, &subscribed),
            (S, like),
            (C, &ending),
            (S, like),
            (S, &ended),
            (C, &range),
            (S, like),
            (C, &get),
            (S, "-ERR z\r\n"),
        ]);
        let found = short(&out);
        assert_eq!(found[2..], [format!("LRANGE k Ok {}", like.len()), "GET k Error 8".into()], "{found:?}");
    }
    // Others are left: of other channels, or of shards.
    for left in [confirm("unsubscribe", 2), confirm("sunsubscribe", 0)] {
        let op = if left.contains("sun") { "SUNSUBSCRIBE" } else { "UNSUBSCRIBE" };
        let out = redis(&[
            (C, &command(&["SUBSCRIBE", "x"])),
            (S, &subscribed),
            (C, &command(&[op, "x"])),
            (S, &left),
            (C, &command(&["PING"])),
            (S, like),
            (S, "*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
        ]);
        assert_eq!(short(&out)[2], "PING - Ok 20");
    }
    // Nobody subscribed, and pushes are told apart from answers.
    let hello = command(&["HELLO", "3"]);
    let pushed = subscribed.replacen('*', ">", 1);
    for before in [
        [(C, command(&["UNSUBSCRIBE"])), (S, unsubscribed.replace("$1\r\nx", "$-1"))].to_vec(),
        [(C, hello), (S, "%0\r\n".to_string()), (C, command(&["SUBSCRIBE", "x"])), (S, pushed)].to_vec(),
        [(C, range.clone()), (S, confirm("subscribe", 7))].to_vec(),
    ] {
        let count = before.iter().filter(|(client, _)| *client).count();
        let mut all: Vec<_> = before.iter().map(|(client, text)| (*client, text.as_str())).collect();
        all.extend([(C, range.as_str()), (S, like), (C, get.as_str()), (S, "-ERR z\r\n")]);
        let found = short(&redis(&all));
        assert_eq!(found[count..], [format!("LRANGE k Ok {}", like.len()), "GET k Error 8".into()], "{found:?}");
    }
}
