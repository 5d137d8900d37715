#!/usr/bin/env python3
"""A Thrift server and client on Apache Thrift's own Python library (python3-thrift), without generated code.

Encodings and transports are the library's; the service is made up. The server prints what it was asked as JSON when it
ends (SIGTERM). `thrift.py serve PORT FORM`, `thrift.py use PORT FORM`, FORM one of: binary, old (binary without a
version), framed, compact, framed-compact, header (with zlib). See `record`.
"""

import json
import signal
import sys
import threading

# This file has the library's name.
sys.path.pop(0)

from thrift.protocol import TBinaryProtocol, TCompactProtocol, THeaderProtocol
from thrift.Thrift import TApplicationException, TMessageType, TType
from thrift.transport import THeaderTransport, TSocket, TTransport

asked = {"calls": 0, "oneways": 0, "exceptions": 0, "declared": 0}
lock = threading.Lock()


def protocol(form, transport):
    if form == "header":
        made = THeaderProtocol.THeaderProtocol(transport, [0, 2], 2)
        made.trans.add_transform(THeaderTransport.THeaderTransformID.ZLIB)
        return made
    framed = form.startswith("framed")
    wrapped = TTransport.TFramedTransport(transport) if framed else TTransport.TBufferedTransport(transport)
    if form.endswith("compact"):
        return TCompactProtocol.TCompactProtocol(wrapped)
    strict = form != "old"
    return TBinaryProtocol.TBinaryProtocol(wrapped, strictRead=strict, strictWrite=strict)


def arguments(out):
    """A struct with something of every kind."""
    out.writeStructBegin("arguments")
    for number, kind, write in (
        (1, TType.BOOL, lambda: out.writeBool(True)),
        (2, TType.BYTE, lambda: out.writeByte(7)),
        (3, TType.I16, lambda: out.writeI16(-300)),
        (4, TType.I32, lambda: out.writeI32(70000)),
        (5, TType.I64, lambda: out.writeI64(-(1 << 40))),
        (6, TType.DOUBLE, lambda: out.writeDouble(1.5)),
        (7, TType.STRING, lambda: out.writeString("a value")),
    ):
        out.writeFieldBegin("f", kind, number)
        write()
        out.writeFieldEnd()
    out.writeFieldBegin("list", TType.LIST, 40)
    out.writeListBegin(TType.STRING, 20)
    for number in range(20):
        out.writeString("item %d" % number)
    out.writeListEnd()
    out.writeFieldEnd()
    out.writeFieldBegin("set", TType.SET, 41)
    out.writeSetBegin(TType.I32, 3)
    for number in range(3):
        out.writeI32(number)
    out.writeSetEnd()
    out.writeFieldEnd()
    out.writeFieldBegin("map", TType.MAP, 42)
    out.writeMapBegin(TType.STRING, TType.STRUCT, 2)
    for number in range(2):
        out.writeString("key")
        out.writeStructBegin("inner")
        out.writeFieldBegin("flag", TType.BOOL, 1)
        out.writeBool(False)
        out.writeFieldEnd()
        out.writeFieldStop()
        out.writeStructEnd()
    out.writeMapEnd()
    out.writeFieldEnd()
    out.writeFieldBegin("empty", TType.MAP, 43)
    out.writeMapBegin(TType.STRING, TType.STRING, 0)
    out.writeMapEnd()
    out.writeFieldEnd()
    out.writeFieldStop()
    out.writeStructEnd()


def result(out, field):
    out.writeStructBegin("result")
    if field == 0:
        out.writeFieldBegin("success", TType.STRING, 0)
        out.writeString("a result")
        out.writeFieldEnd()
    if field == 1:
        out.writeFieldBegin("failed", TType.STRUCT, 1)
        arguments(out)
        out.writeFieldEnd()
    out.writeFieldStop()
    out.writeStructEnd()


def one(incoming, outgoing):
    name, kind, sequence = incoming.readMessageBegin()
    incoming.skip(TType.STRUCT)
    incoming.readMessageEnd()
    with lock:
        asked["oneways" if kind == TMessageType.ONEWAY else "calls"] += 1
    if kind == TMessageType.ONEWAY:
        return
    # Without a version the library gives the name as bytes.
    name = name if isinstance(name, str) else name.decode()
    method = name.split(":")[-1]
    if method == "unknown":
        with lock:
            asked["exceptions"] += 1
        outgoing.writeMessageBegin(name, TMessageType.EXCEPTION, sequence)
        text = "Unknown function 'unknown'"
        TApplicationException(TApplicationException.UNKNOWN_METHOD, text).write(outgoing)
    else:
        outgoing.writeMessageBegin(method, TMessageType.REPLY, sequence)
        declared = method == "fails"
        with lock:
            asked["declared"] += int(declared)
        result(outgoing, 1 if declared else None if method == "nothing" else 0)
    outgoing.writeMessageEnd()
    outgoing.trans.flush()


def handle(form, transport):
    shared = protocol(form, transport)
    try:
        while True:
            one(shared, shared)
    except (TTransport.TTransportException, OSError):
        pass


def serve(port, form):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    listening = TSocket.TServerSocket("127.0.0.1", port)
    listening.listen()

    def accept():
        while True:
            threading.Thread(target=handle, args=(form, listening.accept()), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    signal.sigwait({signal.SIGTERM})
    print(json.dumps(asked, sort_keys=True))


def use(port, form):
    socket = TSocket.TSocket("127.0.0.1", port)
    shared = protocol(form, socket)
    shared.trans.open()
    calls = ["put", "nothing", "Orders:find", "fails", "unknown", "Orders:unknown", "put", "put"]
    for sequence, name in enumerate(calls):
        for kind in (TMessageType.ONEWAY, TMessageType.CALL) if name == "nothing" else (TMessageType.CALL,):
            oneway = kind == TMessageType.ONEWAY
            # The library's own clients say 0 each time.
            shared.writeMessageBegin("log" if oneway else name, kind, sequence if form == "compact" else 0)
            arguments(shared)
            shared.writeMessageEnd()
            shared.trans.flush()
            if not oneway:
                shared.readMessageBegin()
                shared.skip(TType.STRUCT)
                shared.readMessageEnd()
    shared.trans.close()


if __name__ == "__main__":
    role, port, form = sys.argv[1:]
    (serve if role == "serve" else use)(int(port), form)
