//! Protocols live: real servers of the distribution, each recorded while a real client works it. The client counts what
//! it did and what failed, the server counts for itself; every request that KFR reads must be among them, by operation
//! and code, and none may be missing. Ports are whatever is free, so the protocol is found by its bytes alone.
//!
//! Needs root, BTF, the servers and the client libraries (see `scripts/test`); else the tests say why they were skipped.

mod truth;

mod live_protocols {
    mod harness;

    mod amqp;
    mod dns;
    mod grpc;
    mod http2;
    mod kafka;
    mod memcached;
    mod mqtt;
    mod mysql;
    mod nats;
    mod postgresql;
    mod scripted;
    mod zookeeper;
}
