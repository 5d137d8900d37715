"""NATS over plain sockets: the distribution has no client library in Python. Arguments: port."""

import socket
import sys

from counting import did, report

port = int(sys.argv[1])


class Client:
    def __init__(self, **options):
        self.stream = socket.create_connection(("127.0.0.1", port), 20)
        self.lines = self.stream.makefile("rwb")
        assert self.line().startswith(b"INFO ")
        self.verbose = options.get("verbose", False)
        user = ',"user":"nobody","pass":"wrong"' if options.get("refused") else ',"user":"shop","pass":"word"'
        self.send(b'CONNECT {"verbose":%s,"pedantic":false,"headers":true,"no_responders":true%s}\r\n'
                  % (str(self.verbose).lower().encode(), user.encode()))

    def line(self):
        return self.lines.readline().rstrip(b"\r\n")

    def send(self, data):
        self.lines.write(data)
        self.lines.flush()
        if self.verbose:
            assert self.line() == b"+OK", data

    def ping(self):
        self.send(b"PING\r\n")
        while (line := self.line()) != b"PONG":
            self.message(line)
        did("PING")

    def message(self, line):
        """A delivery: its text."""
        assert line.startswith((b"MSG ", b"HMSG ")), line
        return self.lines.read(int(line.split()[-1]) + 2)[:-2]


service = Client()
did("CONNECT")
service.send(b"SUB orders.* 1\r\n")
did("SUB")
service.ping()
asking = Client()
did("CONNECT")
asking.send(b"SUB inbox.* 1\r\n")
did("SUB")
asking.ping()
# Published, nobody answers.
for n in range(100):
    text = b"x" * n
    asking.send(b"PUB orders.new %d\r\n%s\r\n" % (len(text), text))
    did("PUB")
for n in range(10):
    asking.send(b"HPUB orders.new 22 27\r\nNATS/1.0\r\nKind: one\r\n\r\nhello\r\n".replace(b"22 27", b"23 28"))
    did("HPUB")
for n in range(110):
    service.message(service.line())
asking.ping()
# Requests and their answers, which are messages of the service.
for n in range(30):
    asking.send(b"PUB orders.get inbox.%d 2\r\nhi\r\n" % n)
    line = service.line()
    service.message(line)
    service.send(b"PUB %s 4\r\ndone\r\n" % line.split()[3])
    assert asking.message(asking.line()) == b"done"
    did("PUB", times=2)
# Nobody listens.
for n in range(5):
    asking.send(b"PUB nowhere inbox.x%d 2\r\nhi\r\n" % n)
    assert b"503" in asking.message(asking.line())
    did("PUB", "503")
# Not allowed: the server says so in words.
asking.send(b"PUB forbidden.thing 2\r\nhi\r\n")
assert b"Permissions Violation" in asking.line()
did("PUB", "error")
asking.ping()
service.send(b"UNSUB 1\r\n")
did("UNSUB")
service.ping()
verbose = Client(verbose=True)
did("CONNECT")
for n in range(10):
    verbose.send(b"PUB orders.new 1\r\n1\r\n")
    did("PUB")
verbose.ping = None
refused = Client(refused=True)
assert b"Authorization Violation" in refused.line()
did("CONNECT", "error")
for client in (service, asking, verbose, refused):
    client.stream.close()
report()
