"""memcached: pymemcache for the text protocol, sockets for meta commands and UDP. Arguments: port, and "tcp" or "udp"."""

import socket
import struct
import sys

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError, MemcacheUnknownCommandError

from counting import did, report

port = int(sys.argv[1])


def text():
    client = Client(("127.0.0.1", port))
    for n in range(40):
        client.set(f"key-{n}", b"v" * (n * 100), noreply=False)
        did("set", "ok")
    for n in range(60):
        assert (client.get(f"key-{n}") is not None) == (n < 40)
        did("get")
    assert len(client.get_many([f"key-{n}" for n in (*range(10), *range(40, 50))])) == 10
    did("get")
    value, token = client.gets("key-7")
    did("gets")
    assert client.cas("key-7", b"7", token, noreply=False)
    did("cas", "ok")
    assert client.cas("key-7", b"8", token, noreply=False) is False
    did("cas", "ok EXISTS")
    assert not client.add("key-1", b"there", noreply=False)
    did("add", "ok NOT_STORED")
    assert client.add("fresh", b"10", noreply=False)
    did("add", "ok")
    assert client.incr("fresh", 5) == 15 and client.decr("fresh", 1) == 14
    did("incr")
    did("decr")
    assert client.incr("absent", 1) is None
    did("incr", "ok NOT_FOUND")
    try:
        client.incr("key-30", 1)
    except MemcacheClientError:
        did("incr", "CLIENT_ERROR")
    assert client.touch("key-3", 100, noreply=False)
    did("touch", "ok")
    assert client.delete("key-3", noreply=False) and not client.delete("key-3", noreply=False)
    did("delete", "ok")
    did("delete", "ok NOT_FOUND")
    for n in range(5):
        client.set(f"quiet-{n}", b"nobody answers", noreply=True)
        did("set")
    client.version()
    did("version")
    try:
        client._misc_cmd([b"frobnicate\r\n"], b"frobnicate", False)
    except MemcacheUnknownCommandError:
        did("?", "ERROR")  # what is no command is not shown
    # It has closed the connection over that; one on which nothing but "quit" is said could be anybody's.
    client.version()
    did("version")
    client.quit()
    did("quit")


def meta():
    with socket.create_connection(("127.0.0.1", port)) as stream:
        lines = stream.makefile("rwb")
        for command, answer, name in (
            (b"ms m1 5\r\nhello\r\n", b"HD\r\n", ("ms", "ok")),
            (b"mg m1 s v\r\n", b"VA 5 s5\r\nhello\r\n", ("mg", "ok")),
            (b"mg m2 v\r\n", b"EN\r\n", ("mg", "ok EN")),
            (b"md m1\r\n", b"HD\r\n", ("md", "ok")),
            (b"mn\r\n", b"MN\r\n", ("mn", "ok")),
        ):
            lines.write(command)
            lines.flush()
            assert lines.read(len(answer)) == answer, command
            did(*name)


def datagrams():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(("127.0.0.1", port))
        udp.settimeout(20)
        for number, key, begins in [(n, f"key-{n}", b"VALUE") for n in range(4, 14)] + [(50, "absent", b"END")]:
            udp.send(struct.pack(">HHHH", number, 0, 1, 0) + f"get {key}\r\n".encode())
            assert udp.recv(65536)[8:].startswith(begins)
            did("get")
        # An answer in three datagrams, in any order.
        udp.send(struct.pack(">HHHH", 60, 0, 1, 0) + b"get key-39\r\n")
        assert sum(len(udp.recv(65536)) - 8 for _ in range(3)) == len(b"VALUE key-39 0 3900\r\n\r\nEND\r\n") + 3900
        did("get")


if sys.argv[2] == "udp":
    datagrams()
else:
    text()
    meta()
report()
