#!/usr/bin/env python3
"""A scripted Cassandra node, and a real client (the DataStax driver, python3-cassandra) that talks to it.

The distribution has no Cassandra, so this node speaks just enough of its side of the native protocol to record real
client frames with plausible answers: a made-up server, not a real one. It prints what it was asked as JSON when it ends
(SIGTERM). `cassandra.py serve PORT VERSION [lz4|snappy]`, `cassandra.py use PORT VERSION [lz4|snappy]`. See `record`.
"""

import json
import signal
import socketserver
import struct
import sys
import threading
import uuid
import zlib

asked = {"requests": 0, "errors": 0, "ops": {}}
lock = threading.Lock()
OPS = {1: "STARTUP", 5: "OPTIONS", 7: "QUERY", 9: "PREPARE", 10: "EXECUTE", 11: "REGISTER", 13: "BATCH",
       15: "AUTH_RESPONSE"}
VARCHAR, INT, UUID, INET, SET = 0x0d, 0x09, 0x0c, 0x10, 0x22


def string(text):
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def value(data):
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def rows(columns, data, keyspace="shop", table="orders"):
    """A RESULT with rows: columns are (name, bytes of its type)."""
    body = struct.pack(">iii", 2, 1, len(columns)) + string(keyspace) + string(table)
    body += b"".join(string(name) + kind for name, kind in columns)
    return 8, body + struct.pack(">i", len(data)) + b"".join(value(v) for row in data for v in row)


def option(kind, *inner):
    return struct.pack(">H", kind) + b"".join(struct.pack(">H", one) for one in inner)


def error(code, message, more=b""):
    return 0, struct.pack(">i", code) + string(message) + more


LOCAL = [
    ("key", option(VARCHAR), b"local"),
    ("cluster_name", option(VARCHAR), b"scripted"),
    ("data_center", option(VARCHAR), b"dc1"),
    ("rack", option(VARCHAR), b"r1"),
    ("release_version", option(VARCHAR), b"4.0.0"),
    ("partitioner", option(VARCHAR), b"org.apache.cassandra.dht.Murmur3Partitioner"),
    ("rpc_address", option(INET), bytes([127, 0, 0, 1])),
    ("host_id", option(UUID), uuid.UUID(int=1).bytes),
    ("schema_version", option(UUID), uuid.UUID(int=2).bytes),
    ("tokens", option(SET, VARCHAR), struct.pack(">i", 1) + value(b"0")),
]


def query(text, version):
    if "system.local" in text:
        return rows([(name, kind) for name, kind, _ in LOCAL], [[data for _, _, data in LOCAL]], "system", "local")
    if "system.peers" in text:
        return rows([("peer", option(INET))], [], "system", "peers")
    if text.startswith("SELECT"):
        if "nothing" in text:
            return error(0x2200, "unconfigured table nothing")
        many = 400 if "many" in text else 3
        return rows(
            [("id", option(INT)), ("note", option(VARCHAR)), ("tags", option(0x21, VARCHAR, INT))],
            [[struct.pack(">i", n), b"a note", struct.pack(">i", 0)] for n in range(many)],
        )
    if text.startswith("USE"):
        return 8, struct.pack(">i", 3) + string("shop")
    if text.startswith("SELEC"):
        return error(0x2000, f"line 1:0 no viable alternative at input '{text[:5]}' ([{text[:5]}] ...)")
    return 8, struct.pack(">i", 1)


def crc24(data):
    crc = 0x875060
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1974f0b
    return crc


def crc32(data):
    return zlib.crc32(data, zlib.crc32(bytes([0xfa, 0x2d, 0x55, 0xca]))) & 0xffffffff


class Peer(socketserver.BaseRequestHandler):
    def setup(self):
        self.buffer, self.framed, self.compression, self.prepared = b"", False, None, {}

    def receive(self, count):
        data = b""
        while len(data) < count:
            more = self.request.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def read(self, count):
        """Bytes of frames, out of their segments."""
        if not self.framed:
            return self.receive(count)
        while len(self.buffer) < count:
            packed = self.compression == "lz4"
            head = self.receive(8 if packed else 6)
            number = int.from_bytes(head[:-3], "little")
            assert int.from_bytes(head[-3:], "little") == crc24(head[:-3])
            payload = self.receive(number & 0x1ffff)
            assert int.from_bytes(self.receive(4), "little") == crc32(payload)
            size = number >> 17 & 0x1ffff if packed else 0
            if size:
                import lz4.block
                payload = lz4.block.decompress(payload, uncompressed_size=size)
            self.buffer += payload
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def send(self, data):
        if not self.framed:
            self.request.sendall(data)
            return
        alone = len(data) <= 0x1ffff
        for at in range(0, len(data), 0x1ffff):
            payload = data[at:at + 0x1ffff]
            number = len(payload) | int(alone) << 17
            if self.compression == "lz4":
                import lz4.block
                packed = lz4.block.compress(payload, store_size=False)
                number = len(packed) | len(payload) << 17 | int(alone) << 34
                payload = packed
            head = number.to_bytes(5 if self.compression == "lz4" else 3, "little")
            head += crc24(head).to_bytes(3, "little")
            self.request.sendall(head + payload + crc32(payload).to_bytes(4, "little"))

    def handle(self):
        try:
            while True:
                self.one()
        except (EOFError, OSError):
            pass

    def one(self):
        version, flags, stream, opcode, length = struct.unpack(">BBhBI", self.read(9))
        body = self.read(length)
        if flags & 1 and version < 5:
            body = self.unpack(body)
        answer, data = self.answer(opcode, body, version)
        with lock:
            asked["requests"] += 1
            asked["errors"] += int(answer == 0)
            asked["ops"][OPS[opcode]] = asked["ops"].get(OPS[opcode], 0) + 1
        flags = 0
        if opcode == 7 and b"WARN" in body:
            flags, data = 8, struct.pack(">H", 1) + string("a warning of 7 tombstones") + data
        if self.compression and version < 5 and opcode != 1 and data:
            flags, data = flags | 1, self.pack(data)
        self.send(struct.pack(">BBhBI", version | 0x80, flags, stream, answer, len(data)) + data)
        if answer in (2, 3) and version >= 5:
            self.framed = True

    def pack(self, data):
        if self.compression == "snappy":
            import snappy
            return snappy.compress(data)
        import lz4.block
        return struct.pack(">I", len(data)) + lz4.block.compress(data, store_size=False)

    def unpack(self, data):
        if self.compression == "snappy":
            import snappy
            return snappy.uncompress(data)
        import lz4.block
        return lz4.block.decompress(data[4:], uncompressed_size=struct.unpack(">I", data[:4])[0])

    def answer(self, opcode, body, version):
        if opcode == 5:
            options = {"CQL_VERSION": ["3.4.5"], "COMPRESSION": ["lz4", "snappy"]}
            data = struct.pack(">H", len(options))
            for name, values in options.items():
                data += string(name) + struct.pack(">H", len(values)) + b"".join(map(string, values))
            return 6, data
        if opcode == 1:
            for name in ("lz4", "snappy"):
                if string("COMPRESSION") + string(name) in body:
                    self.compression = name
            return 3, string("org.apache.cassandra.auth.PasswordAuthenticator")
        if opcode == 15:
            if b"wrong" in body:
                return error(0x0100, "Provided username x and/or password are incorrect")
            return 16, value(None)
        if opcode == 11:
            return 2, b""
        if opcode in (7, 9):
            length = struct.unpack_from(">i", body)[0]
            text = body[4:4 + length].decode()
            if opcode == 7:
                return query(text, version)
            number = uuid.uuid5(uuid.NAMESPACE_OID, text).bytes
            self.prepared[number] = text
            data = struct.pack(">iH", 4, 16) + number
            if version >= 5:
                data += struct.pack(">H", 16) + bytes(16)
            # Flags, columns, and from version 4 on the number of key columns.
            data += struct.pack(">iii", 1, 2, 0)[:12 if version > 3 else 8] + string("shop") + string("orders")
            data += string("id") + option(INT) + string("note") + option(VARCHAR)
            return 8, data + struct.pack(">ii", 4, 0)
        if opcode == 10:
            number = body[2:18]
            if number not in self.prepared:
                return error(0x2500, "Prepared query with ID not found", struct.pack(">H", 16) + number)
            return query(self.prepared[number], version)
        return 8, struct.pack(">i", 1)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


def serve(port, *_):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = Server(("127.0.0.1", port), Peer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.sigwait({signal.SIGTERM})
    print(json.dumps(asked, sort_keys=True))


def use(port, version, compression=None):
    # This file has the driver's name.
    sys.path.pop(0)
    sys.modules.pop("cassandra", None)
    from cassandra import InvalidRequest
    from cassandra.auth import PlainTextAuthProvider
    from cassandra.cluster import Cluster, ExecutionProfile, EXEC_PROFILE_DEFAULT
    from cassandra.policies import WhiteListRoundRobinPolicy
    from cassandra.protocol import SyntaxException
    from cassandra.query import BatchStatement, SimpleStatement

    profile = ExecutionProfile(load_balancing_policy=WhiteListRoundRobinPolicy(["127.0.0.1"]))
    cluster = Cluster(
        ["127.0.0.1"],
        port=port,
        protocol_version=int(version),
        allow_beta_protocol_version=False,
        compression=compression or False,
        auth_provider=PlainTextAuthProvider("someone", "a-password"),
        schema_metadata_enabled=False,
        token_metadata_enabled=False,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        idle_heartbeat_interval=0,
    )
    session = cluster.connect()
    session.execute("USE shop")
    print(len(list(session.execute("SELECT id, note, tags FROM orders WHERE id = 5 AND note = 'a value'"))))
    print(len(list(session.execute("SELECT id, note, tags FROM many"))))
    session.execute("INSERT INTO orders (id, note) VALUES (1, 'WARN')")
    for bad in ("SELECT * FROM nothing", "SELEC 1 FROM secretvalue"):
        try:
            session.execute(bad)
        except (InvalidRequest, SyntaxException) as failed:
            print(type(failed).__name__)
    insert = session.prepare("INSERT INTO orders (id, note) VALUES (?, ?)")
    waiting = [session.execute_async(insert, (n, "note")) for n in range(20)]
    for one in waiting:
        one.result()
    batch = BatchStatement()
    for n in range(5):
        batch.add(insert, (n, "in a batch"))
    batch.add(SimpleStatement("DELETE FROM orders WHERE id = 77"))
    session.execute(batch)
    cluster.shutdown()


if __name__ == "__main__":
    role, port, *rest = sys.argv[1:]
    (serve if role == "serve" else use)(int(port), *rest)
