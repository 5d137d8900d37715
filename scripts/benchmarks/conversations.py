"""Packet captures of conversations that are the same request over and over: what replay is measured with where no server
is at hand. Bytes are written by hand from each protocol's specification; times are made up."""

import struct

CLIENT, SERVER = b"\x7f\0\0\2", b"\x7f\0\0\1"
SEGMENT = 32 * 1024


def _packet(sequence, payload):
    """MySQL: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html"""
    return struct.pack("<I", len(payload))[:3] + bytes([sequence]) + payload


def _message(kind, content):
    """PostgreSQL: https://www.postgresql.org/docs/current/protocol-message-formats.html"""
    return kind + struct.pack(">I", len(content) + 4) + content


def _frame(kind, flags, stream, payload):
    """HTTP/2: RFC 9113 section 4.1"""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _http(body):
    ask = (b"GET /api/v1/items?id=4711 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n")
    head = b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
    # Bytes of a body that compress about as well as text does.
    text = b"".join(b'{"id":%d,"name":"item %d","price":%d},' % (i * 7919, i, i * i % 9973) for i in range(body // 20 + 1))
    answer = head % body + text[:body]
    return lambda number: (ask, answer)


def _http2():
    # `:path` in Huffman code (`/api/v1/items?id=4711`), not put into the table; the rest by index of the static table.
    path = bytes.fromhex("0490607599 8ee160c92d28ff0d240d3a10ff".replace(" ", ""))
    block = b"\x82\x86\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"
    # The first puts `:authority` into the dynamic table; later ones name it by its index (62).
    first, later = block + path, b"\x82\x86\xbe" + path

    def talk(number):
        stream = 2 * number + 1
        ask = _frame(1, 5, stream, later if number else first)
        if number == 0:
            ask = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + ask
        return ask, _frame(1, 4, stream, b"\x88\x0f\x0d\x0220") + _frame(0, 1, stream, b"01234567890123456789")

    return talk


def _mysql():
    column = b"\x03def\x04test\x01t\x01t\x02id\x02id\x0c\x3f\0\x0b\0\0\0\x03\x03\x50\0\0\0"
    parts = [b"\x01", column, b"\xfe\0\0\x02\0", b"\x0542342", b"\x0542343", b"\xfe\0\0\x02\0"]
    rows = b"".join(_packet(i + 1, part) for i, part in enumerate(parts))
    ask = _packet(0, b"\x03SELECT id FROM items WHERE shop = 'north' AND id > 42341 LIMIT 2")
    greeting = _packet(0, b"\x0a8.0.36\0\x0b\0\0\0abcdefgh\0\xff\xf7\x08\x02\0\xff\x81\x15\0\0\0\0\0\0\0\0\0\0"
                          b"abcdefghijkl\0mysql_native_password\0")
    login = _packet(1, struct.pack("<IIB23x", 0x000aa285 & ~0x01000000, 1 << 24, 8) + b"bench\0\x14" + b"x" * 20
                    + b"mysql_native_password\0")
    return lambda number: (ask, rows), [(1, greeting), (0, login), (1, _packet(2, b"\0\0\0\x02\0\0\0"))]


def _postgresql():
    columns = _message(b"T", b"\0\x01id\0\0\0\x40\x01\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0")
    answer = columns + _message(b"D", b"\0\x01\0\0\0\x0542342") * 2 + _message(b"C", b"SELECT 2\0") + _message(b"Z", b"I")
    ask = _message(b"Q", b"SELECT id FROM items WHERE shop = 'north' AND id > 42341 LIMIT 2\0")
    startup = b"\0\x03\0\0user\0bench\0database\0shop\0\0"
    ready = _message(b"R", b"\0\0\0\0") + _message(b"Z", b"I")
    return lambda number: (ask, answer), [(0, struct.pack(">I", len(startup) + 4) + startup), (1, ready)]


def _redis():
    ask = b"*3\r\n$3\r\nSET\r\n$15\r\nuser:4711:email\r\n$64\r\n" + b"0123456789abcdef" * 4 + b"\r\n"
    return lambda number: (ask, b"+OK\r\n")


def _memcached():
    ask = b"get user:4711:email\r\n"
    return lambda number: (ask, b"VALUE user:4711:email 0 64\r\n" + b"0123456789abcdef" * 4 + b"\r\nEND\r\n")


def _kafka():
    """Metadata, version 0 (https://kafka.apache.org/protocol.html)."""
    def talk(number):
        ask = struct.pack(">hhih", 3, 0, number, 5) + b"bench" + struct.pack(">ih", 1, 6) + b"orders"
        answer = struct.pack(">iiih", number, 1, 1, 9) + b"localhost" + struct.pack(">i", 9092)
        answer += struct.pack(">ihh", 1, 0, 6) + b"orders" + struct.pack(">ihiii", 1, 0, 0, 1, 1) + struct.pack(">iii", 1, 1, 1)
        return struct.pack(">I", len(ask)) + ask, struct.pack(">I", len(answer)) + answer

    return talk


def _thrift():
    """Binary protocol, framed (https://github.com/apache/thrift/blob/master/doc/specs)."""
    def message(kind, number, rest):
        body = struct.pack(">II", 0x80010000 | kind, 8) + b"getOrder" + struct.pack(">i", number) + rest
        return struct.pack(">I", len(body)) + body

    return lambda number: (message(1, number, b"\x08\0\x01\0\0\x12\x67\0"), message(2, number, b"\x08\0\0\0\0\0\x07\0"))


def _nats():
    hello = b'INFO {"server_id":"bench","version":"2.10.0","max_payload":1048576}\r\n'
    talk = b"PUB orders.new 64\r\n" + b"0123456789abcdef" * 4 + b"\r\n"
    return lambda number: (talk, b"+OK\r\n"), [(1, hello), (0, b'CONNECT {"verbose":true}\r\n'), (1, b"+OK\r\n")]


# Name: the server's port, tshark's name of the protocol, what is said. Requests of several names count the same.
KINDS = {
    "http": (8080, "http", _http(200)),
    "http-3k": (8080, "http", _http(3000)),
    "http2": (8081, "http2", _http2()),
    "redis": (6379, "resp", _redis()),
    "mysql": (3306, "mysql", _mysql()),
    "postgresql": (5432, "pgsql", _postgresql()),
    "memcached": (11211, "memcache", _memcached()),
    "kafka": (9092, "kafka", _kafka()),
    "thrift": (9090, "thrift", _thrift()),
    "nats": (4222, None, _nats()),
}


def _sum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


class _Capture:
    """A packet capture without a link layer (LINKTYPE_RAW)."""

    def __init__(self, file):
        self.file = file
        self.identification = 0
        self.now = 1_700_000_000_000_000
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101))

    def segment(self, way, ports, sequences, flags, payload=b""):
        self.now += 5
        self.identification = (self.identification + 1) & 0xFFFF
        addresses = (CLIENT + SERVER, SERVER + CLIENT)[way]
        length = 40 + len(payload)
        ip = struct.pack(">BBHHHBBH", 0x45, 0, length, self.identification, 0x4000, 64, 6, 0) + addresses
        tcp = struct.pack(">HHIIBBHHH", *(ports if way == 0 else ports[::-1]), sequences[way] & 0xFFFFFFFF,
                          sequences[1 - way] & 0xFFFFFFFF, 0x50, flags, 65535, 0, 0)
        record = struct.pack("<IIII", self.now // 1_000_000, self.now % 1_000_000, length, length)
        self.file.write(record + ip + tcp + payload)
        sequences[way] += len(payload) + (flags & 3 > 0)

    def send(self, way, ports, sequences, payload):
        for at in range(0, len(payload), SEGMENT):
            self.segment(way, ports, sequences, 0x18, payload[at:at + SEGMENT])


def write(file, kind, requests, connections=10, pipelined=1):
    """`requests` in all, spread over `connections` one after the other, `pipelined` at once."""
    port, _, what = KINDS[kind]
    talk, hello = what if isinstance(what, tuple) else (what, [])
    capture = _Capture(file)
    done = 0
    for connection in range(connections):
        ports = [10_000 + connection % 50_000, port]
        sequences = [1000 + connection * 104729 & 0xFFFFFFFF, 5000 + connection * 130363 & 0xFFFFFFFF]
        capture.segment(0, ports, sequences, 2)
        capture.segment(1, ports, sequences, 0x12)
        for way, payload in hello:
            capture.send(way, ports, sequences, payload)
        share = requests * (connection + 1) // connections - done
        done += share
        for first in range(0, share, pipelined):
            pairs = [talk(number) for number in range(first, min(first + pipelined, share))]
            for way in (0, 1):
                capture.send(way, ports, sequences, b"".join(pair[way] for pair in pairs))
        for way in (0, 1):
            capture.segment(way, ports, sequences, 0x11)
