//! Names of operations and errors, as in ZooKeeper's own sources (`ZooDefs.OpCode`, `KeeperException.Code`).

/// What a request's body begins with, as far as that is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// A path; values behind it.
    Path,
    /// A path, data, an access list (which may hold digests of passwords).
    Create,
    /// A path; an access list behind it.
    Acl,
    /// Operations, each with its header.
    Multi,
    /// Credentials.
    Secret,
    /// A scheme, then credentials.
    Auth,
    /// Paths of watches.
    Watches,
    Other,
}

/// An operation's name and body.
pub(super) fn operation(code: i32) -> Option<(&'static str, Body)> {
    Some(match code {
        1 => ("create", Body::Create),
        2 => ("delete", Body::Path),
        3 => ("exists", Body::Path),
        4 => ("getData", Body::Path),
        5 => ("setData", Body::Path),
        6 => ("getACL", Body::Path),
        7 => ("setACL", Body::Acl),
        8 => ("getChildren", Body::Path),
        9 => ("sync", Body::Path),
        11 => ("ping", Body::Other),
        12 => ("getChildren2", Body::Path),
        13 => ("check", Body::Path),
        14 => ("multi", Body::Multi),
        15 => ("create2", Body::Create),
        16 => ("reconfig", Body::Other),
        17 => ("checkWatches", Body::Path),
        18 => ("removeWatches", Body::Path),
        19 => ("createContainer", Body::Create),
        20 => ("deleteContainer", Body::Path),
        21 => ("createTTL", Body::Create),
        22 => ("multiRead", Body::Multi),
        100 => ("auth", Body::Auth),
        101 => ("setWatches", Body::Watches),
        102 => ("sasl", Body::Secret),
        103 => ("getEphemerals", Body::Path),
        104 => ("getAllChildrenNumber", Body::Path),
        105 => ("setWatches2", Body::Watches),
        106 => ("addWatch", Body::Path),
        107 => ("whoAmI", Body::Other),
        -11 => ("closeSession", Body::Other),
        _ => return None,
    })
}

/// An error's name, or its number where it has none here.
pub(super) fn error_name(code: i32) -> Box<str> {
    let name = match code {
        -1 => "SystemError",
        -2 => "RuntimeInconsistency",
        -3 => "DataInconsistency",
        -4 => "ConnectionLoss",
        -5 => "MarshallingError",
        -6 => "Unimplemented",
        -7 => "OperationTimeout",
        -8 => "BadArguments",
        -12 => "UnknownSession",
        -13 => "NewConfigNoQuorum",
        -14 => "ReconfigInProgress",
        -100 => "APIError",
        -101 => "NoNode",
        -102 => "NoAuth",
        -103 => "BadVersion",
        -108 => "NoChildrenForEphemerals",
        -110 => "NodeExists",
        -111 => "NotEmpty",
        -112 => "SessionExpired",
        -113 => "InvalidCallback",
        -114 => "InvalidACL",
        -115 => "AuthFailed",
        -118 => "SessionMoved",
        -119 => "NotReadOnly",
        -120 => "EphemeralOnLocalSession",
        -121 => "NoWatcher",
        -122 => "RequestTimeout",
        -123 => "ReconfigDisabled",
        -124 => "SessionClosedRequireSaslAuth",
        -125 => "QuotaExceeded",
        -127 => "ThrottledOp",
        other => return other.to_string().into(),
    };
    name.into()
}

/// Commands of four letters, which stand for a whole connection.
const WORDS: [&[u8; 4]; 22] = [
    b"conf", b"cons", b"crst", b"dirs", b"dump", b"envi", b"gtmk", b"hash", b"icfg", b"isro", b"lsnp", b"mntr",
    b"obsr", b"orst", b"ruok", b"srst", b"srvr", b"stat", b"stmk", b"wchc", b"wchp", b"wchs",
];

/// The command that these bytes begin with.
pub(super) fn word(bytes: &[u8]) -> Option<&'static str> {
    let word = WORDS.iter().find(|word| bytes.starts_with(**word))?;
    std::str::from_utf8(*word).ok()
}
