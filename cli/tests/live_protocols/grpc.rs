//! gRPC's own library at both ends: what the client got of each method, and what the server was called.

use super::harness::{compare_as, live, script, tables};
use crate::truth::{Capture, Counts, Server, assert_equal, folder, free_port};

#[test]
fn grpc_counts_the_same_calls() {
    if !live(&[], &["grpc"]) {
        return;
    }
    let folder = folder();
    let port = free_port();
    let text = port.to_string();
    let log = folder.path().join("grpc.log");
    let server = Server::start("the gRPC server", port, &log, script("grpc_calls.py").args(["serve", &text]));
    // Of an answer that is cut, its trailers would be missing, and with them the status.
    let capture = Capture::start(folder.path(), "grpc", &["--port", &text, "--payload-limit", "32KiB"]);
    let client = tables(script("grpc_calls.py").args(["use", &text]));
    let bundle = capture.stop();
    compare_as("gRPC, client", "grpc", &bundle, port, &client["counts"], |line| {
        let flags = line["flags"].as_array().unwrap();
        // The client gave up: what came of it stands in no answer.
        let given_up = flags.iter().any(|flag| flag == "cancelled");
        let code = match line["code"].as_str() {
            Some("0") => "OK",
            Some("5") => "NOT_FOUND",
            Some("12") => "UNIMPLEMENTED",
            Some("15") => "DATA_LOSS",
            None if given_up => "DEADLINE_EXCEEDED",
            other => other.unwrap_or("none"),
        };
        format!("{} {code}", line["target"].as_str().unwrap())
    });
    drop(server);
    let printed = std::fs::read_to_string(&log).unwrap();
    let called: Counts = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    let kfr = bundle.count(port, |line| format!("{} called", line["target"].as_str().unwrap()));
    assert_equal("gRPC, server", &called, &kfr);
}
