#!/usr/bin/env python3
"""A scripted ClickHouse server, and a real client (python3-clickhouse-driver) that talks to it.

The distribution has no ClickHouse, so this server speaks just enough of its side of the native protocol to record real
client packets with plausible answers: a made-up server, not a real one (blocks are written and read by the driver's
code). It prints what it was asked as JSON when it ends (SIGTERM). `clickhouse.py serve PORT`, `clickhouse.py use PORT`.
See `record`.
"""

import json
import signal
import socket
import struct
import sys
import threading
import uuid

# This file must not hide a module.
sys.path.pop(0)

from clickhouse_driver.block import ColumnOrientedBlock
from clickhouse_driver.bufferedreader import BufferedSocketReader
from clickhouse_driver.bufferedwriter import BufferedSocketWriter
from clickhouse_driver.reader import read_binary_str, read_binary_uint8, read_binary_uint64
from clickhouse_driver.streams.native import BlockInputStream, BlockOutputStream
from clickhouse_driver.varint import read_varint, write_varint
from clickhouse_driver.writer import write_binary_int32, write_binary_str, write_binary_uint8

REVISION = 54453
asked = {"queries": 0, "pings": 0, "exceptions": 0, "rows_read": 0, "rows_written": 0}
lock = threading.Lock()

COLUMNS = [
    ("id", "UInt64"),
    ("name", "String"),
    ("note", "Nullable(String)"),
    ("kind", "LowCardinality(String)"),
    ("price", "Decimal(18, 2)"),
    ("tags", "Array(String)"),
    ("pair", "Tuple(UInt8, String)"),
    ("more", "Map(String, UInt32)"),
    ("state", "Enum8('a' = 1, 'b' = 2)"),
    ("key", "UUID"),
    ("fixed", "FixedString(5)"),
    ("matrix", "Array(Array(Int16))"),
]


def row(n):
    tags = [f"tag {k}" for k in range(n % 4)]
    pair = (n % 200, "second")
    return (n, f"name {n}", None if n % 2 else "a note", f"kind {n % 3}", n, tags, pair, {"k": n}, "a",
            uuid.UUID(int=n), b"abcde", [[1, 2], [3]])


class Context:
    """What the driver's streams want to know."""

    class server_info:
        revision = REVISION

        @staticmethod
        def get_timezone():
            return "UTC"

        @staticmethod
        def version_tuple():
            return 21, 12, 1

        used_revision = REVISION

    client_settings = {"strings_as_bytes": False, "strings_encoding": "utf-8", "use_numpy": False,
                       "opentelemetry_traceparent": None, "opentelemetry_tracestate": "", "quota_key": "",
                       "input_format_null_as_default": False}
    settings = {}


class Peer:
    def __init__(self, connection):
        self.connection = connection
        self.fin = BufferedSocketReader(connection, 1 << 16)
        self.fout = BufferedSocketWriter(connection, 1 << 16)

    def block(self, kind, columns, rows):
        write_varint(kind, self.fout)
        write_binary_str("", self.fout)
        if rows:
            data = [list(column) for column in zip(*rows)]
            BlockOutputStream(self.fout, Context).write(ColumnOrientedBlock(columns, data))
            return
        ColumnOrientedBlock().info.write(self.fout)
        write_varint(len(columns), self.fout)
        write_varint(0, self.fout)
        for column in columns:
            for text in column:
                write_binary_str(text, self.fout)

    def progress(self, rows, written=0):
        write_varint(3, self.fout)
        for number in (rows, rows * 10, 0, written, written * 10):
            write_varint(number, self.fout)

    def end(self, rows):
        write_varint(6, self.fout)
        for number in (rows, 1, rows * 10):
            write_varint(number, self.fout)
        write_binary_uint8(0, self.fout)
        write_varint(0, self.fout)
        write_binary_uint8(0, self.fout)
        self.progress(rows)
        self.finish()

    def finish(self):
        write_varint(5, self.fout)
        self.fout.flush()

    def exception(self, code, message):
        with lock:
            asked["exceptions"] += 1
        write_varint(2, self.fout)
        write_binary_int32(code, self.fout)
        for text in ("DB::Exception", "DB::Exception: " + message, "0. a stack\n1. trace"):
            write_binary_str(text, self.fout)
        write_binary_uint8(0, self.fout)
        self.fout.flush()

    def data(self):
        """The rows of the client's next data packet."""
        assert read_varint(self.fin) == 2
        read_binary_str(self.fin)
        return BlockInputStream(self.fin, Context).read()

    def query(self):
        read_binary_str(self.fin)
        assert read_binary_uint8(self.fin) == 1
        for _ in range(3):
            read_binary_str(self.fin)
        read_binary_uint64(self.fin)
        read_binary_uint8(self.fin)
        for _ in range(3):
            read_binary_str(self.fin)
        for _ in range(3):
            read_varint(self.fin)
        read_binary_str(self.fin)
        read_varint(self.fin)
        read_varint(self.fin)
        assert read_binary_uint8(self.fin) == 0
        for _ in range(3):
            read_varint(self.fin)
        while read_binary_str(self.fin):
            read_varint(self.fin)
            read_binary_str(self.fin)
        read_binary_str(self.fin)
        read_varint(self.fin)
        read_varint(self.fin)
        return read_binary_str(self.fin)

    def answer(self, text):
        assert self.data().num_rows == 0
        with lock:
            asked["queries"] += 1
        if text.startswith("SELEC "):
            return self.exception(62, "Syntax error: failed at position 1 ('SELEC'): SELEC 'secretvalue'. Expected one of: SELECT")
        if "nothing" in text:
            return self.exception(60, "Table shop.nothing doesn't exist")
        if text.startswith("INSERT"):
            self.block(1, COLUMNS[:2], [])
            self.fout.flush()
            written = 0
            while True:
                rows = self.data().num_rows
                if not rows:
                    break
                written += rows
            with lock:
                asked["rows_written"] += written
            self.progress(0, written)
            return self.finish()
        if text.startswith("CREATE"):
            return self.finish()
        count = 300 if "many" in text else 7
        with lock:
            asked["rows_read"] += count
        self.block(1, COLUMNS, [])
        self.block(1, COLUMNS, [row(n) for n in range(count)])
        self.block(14, [("host_name", "String"), ("value", "Int64")], [("here", 5)])
        self.progress(count)
        self.end(count)

    def run(self):
        assert read_varint(self.fin) == 0
        read_binary_str(self.fin)
        for _ in range(3):
            read_varint(self.fin)
        for _ in range(3):
            read_binary_str(self.fin)
        write_varint(0, self.fout)
        write_binary_str("ClickHouse", self.fout)
        for number in (21, 12, REVISION):
            write_varint(number, self.fout)
        write_binary_str("UTC", self.fout)
        write_binary_str("scripted", self.fout)
        write_varint(1, self.fout)
        self.fout.flush()
        while True:
            kind = read_varint(self.fin)
            if kind == 4:
                with lock:
                    asked["pings"] += 1
                write_varint(4, self.fout)
                self.fout.flush()
            elif kind == 1:
                self.answer(self.query())


def serve(port):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    listening = socket.create_server(("127.0.0.1", port))

    def one(connection):
        try:
            Peer(connection).run()
        except EOFError:
            pass

    def accept():
        while True:
            threading.Thread(target=one, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    signal.sigwait({signal.SIGTERM})
    print(json.dumps(asked, sort_keys=True))


def use(port):
    from clickhouse_driver import Client
    from clickhouse_driver.errors import ServerException

    client = Client("127.0.0.1", port=port, user="someone", password="a-password", database="shop",
                    settings={"max_threads": 2})
    client.execute("CREATE TABLE orders (id UInt64, name String) ENGINE = Memory")
    print(len(client.execute("SELECT * FROM orders WHERE name = 'a value' AND id IN (1, 2, 3)")))
    print(len(client.execute("SELECT * FROM many")))
    client.execute("INSERT INTO orders (id, name) VALUES", [(n, f"name {n}") for n in range(50)])
    for bad in ("SELECT * FROM nothing", "SELEC 'secretvalue'"):
        try:
            client.execute(bad)
        except ServerException as failed:
            print(failed.code)
            client.disconnect()
    client.execute("SELECT 1 FROM again")
    client.disconnect()


if __name__ == "__main__":
    role, port = sys.argv[1:]
    (serve if role == "serve" else use)(int(port))
