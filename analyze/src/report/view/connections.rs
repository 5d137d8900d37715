//! Connections.

use super::Context;
use super::table::{Cell, Column, Row, Table};
use crate::report::{
    document::{Connection, Figure, Peer},
    text,
};

pub(super) fn connections(context: &Context<'_>, shown: u64) -> Option<Table> {
    let network = &context.doc.network;
    let caveat = || context.column_caveat(Figure::Network);
    let columns = vec![
        Column::text("Client → server", "Who opened it, and to where"),
        Column::text("Protocol", ""),
        Column::text("Ended", "How it ended within the capture"),
        Column::number("Requests", "", "").weakened(context.column_caveat(Figure::Requests)),
        Column::number("Sent", "", "Bytes from client to server").weakened(context.column_caveat(Figure::Bytes)),
        Column::number("Received", "", "Bytes from server to client").weakened(context.column_caveat(Figure::Bytes)),
        Column::number("RTT p50", "", "Median round-trip time").weakened(caveat()),
        Column::number("RTT p99", "", "99th percentile of round-trip time").weakened(caveat()),
        Column::number("Connect", "", "From SYN to established"),
        Column::number("Retrans.", "", "Segments sent again").weakened(caveat()),
        Column::number("Resets", "", "").weakened(caveat()),
        Column::text("Opened", "UTC"),
        Column::text("Signs", ""),
    ];
    let micros = |v: Option<f64>| v.filter(|us| us.is_finite() && *us >= 0.0).map(|us| (us * 1000.0) as u64);
    let row = |(i, c): (usize, &Connection)| {
        let ends = format!("{} → {}", peer(&c.client), peer(&c.server));
        let opened = c.opened_ns.map_or_else(|| "before".to_owned(), text::clock_ms);
        let ended = c.how_closed.clone().unwrap_or_else(|| text::NONE.to_owned());
        let cells = vec![
            Cell::name(&ends, 70).with_sub(format!("{} → {}", endpoint(&c.client), endpoint(&c.server))),
            Cell::text(c.protocol.clone()).with_sub(c.transport.clone()),
            Cell::text(ended),
            Cell::count(c.requests),
            Cell::bytes(c.bytes_sent),
            Cell::bytes(c.bytes_received),
            Cell::duration(c.rtt_us.and_then(|r| micros(r.p50))),
            Cell::duration(c.rtt_us.and_then(|r| micros(r.p99))),
            Cell::duration(c.connect_us.map(|us| us.saturating_mul(1000))),
            Cell::count(c.retransmits),
            Cell::count(c.resets),
            Cell::text(opened),
            Cell::tags(&c.flags.iter().take(4).cloned().collect::<Vec<_>>()),
        ];
        Row { id: context.connection_anchor(i).map(str::to_owned), cells }
    };
    let rows: Vec<Row> = network.connections.iter().enumerate().take(shown as usize).map(row).collect();
    (!rows.is_empty()).then(|| Table {
        id: "connections-table".to_owned(),
        caption: "Connections with problems first, then by bytes".to_owned(),
        hidden: network.connections_total.max(network.connections.len() as u64) - rows.len() as u64,
        hidden_what: "",
        hidden_where: if network.connections_total > network.connections.len() as u64 {
            "kfr dump --connections"
        } else {
            ""
        },
        columns,
        rows,
    })
}

fn peer(peer: &Peer) -> String {
    let name = peer.workload.as_ref().or(peer.pod.as_ref()).or(peer.container.as_ref()).or(peer.process.as_ref());
    name.map_or_else(|| endpoint(peer), |name| text::middle(&text::one_line(name, 400), 32))
}

fn address(peer: &Peer) -> String {
    let address = text::one_line(&peer.address, 80);
    if address.contains(':') && peer.port.is_some() { format!("[{address}]") } else { address }
}

fn endpoint(peer: &Peer) -> String {
    peer.port.map_or_else(|| address(peer), |port| format!("{}:{port}", address(peer)))
}
