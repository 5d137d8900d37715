"""memcached: pymemcache for the text protocol, libmemcached's programs for the binary one, sockets for meta commands and
UDP. Argument: port (TCP and UDP)."""

import socket
import struct
import subprocess
import sys

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError, MemcacheUnknownCommandError

from counting import did, report

port = int(sys.argv[1])


def text():
    client = Client(("127.0.0.1", port))
    for n in range(40):
        client.set(f"key-{n}", b"v" * (n * 100), noreply=False)
        did("set", "ok STORED")
    for n in range(60):
        assert (client.get(f"key-{n}") is not None) == (n < 40)
        did("get")
    assert len(client.get_many([f"key-{n}" for n in range(30, 50)])) == 10
    did("get")
    value, token = client.gets("key-7")
    did("gets")
    assert client.cas("key-7", b"7", token, noreply=False)
    did("cas", "ok STORED")
    assert client.cas("key-7", b"8", token, noreply=False) is False
    did("cas", "ok EXISTS")
    assert not client.add("key-1", b"there", noreply=False)
    did("add", "ok NOT_STORED")
    assert client.add("fresh", b"10", noreply=False)
    did("add", "ok STORED")
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
    did("touch", "ok TOUCHED")
    assert client.delete("key-3", noreply=False) and not client.delete("key-3", noreply=False)
    did("delete", "ok DELETED")
    did("delete", "ok NOT_FOUND")
    for n in range(5):
        client.set(f"quiet-{n}", b"nobody answers", noreply=True)
        did("set")
    client.version()
    did("version")
    try:
        client._misc_cmd([b"frobnicate\r\n"], b"frobnicate", False)
    except MemcacheUnknownCommandError:
        did("frobnicate", "ERROR")
    client.quit()
    did("quit")


def meta():
    with socket.create_connection(("127.0.0.1", port)) as stream:
        lines = stream.makefile("rwb")
        for command, answer, name in (
            (b"ms m1 5\r\nhello\r\n", b"HD\r\n", ("ms", "ok HD")),
            (b"mg m1 s v\r\n", b"VA 5 s5\r\nhello\r\n", ("mg", "ok VA")),
            (b"mg m2 v\r\n", b"EN\r\n", ("mg", "ok EN")),
            (b"md m1\r\n", b"HD\r\n", ("md", "ok HD")),
            (b"mn\r\n", b"MN\r\n", ("mn", "ok MN")),
        ):
            lines.write(command)
            lines.flush()
            assert lines.read(len(answer)) == answer, command
            did(*name)


def datagrams():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(("127.0.0.1", port))
        for n in range(10):
            udp.send(struct.pack(">HHHH", n, 0, 1, 0) + b"get key-%d\r\n" % (n * 5))
            answer = udp.recv(65536)
            assert answer[8:].startswith(b"VALUE" if n < 8 else b"END"), answer
            did("get")


if __name__ == "__main__":
    text()
    meta()
    datagrams()
    report()
