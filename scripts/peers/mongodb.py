#!/usr/bin/env python3
"""A scripted MongoDB server, and a real client (pymongo) that talks to it.

The distribution has no MongoDB server, so this one speaks just enough of its side of the wire protocol to record real
client messages with plausible answers: a made-up server, not a real one. `mongodb.py serve PORT` prints what it was
asked as JSON when it ends (SIGTERM); `mongodb.py use PORT [COMPRESSOR]` is the client. See `record`.
"""

import json
import signal
import socket
import socketserver
import struct
import sys
import threading
import time
import zlib

import bson

OP_REPLY, OP_QUERY, OP_COMPRESSED, OP_MSG = 1, 2004, 2012, 2013
asked = {"requests": 0, "errors": 0, "ops": {}}
lock = threading.Lock()
documents, seen_ids = {}, set()


def failure(code, name, message):
    return {"ok": 0.0, "errmsg": message, "code": code, "codeName": name}


def answer(command, database, payload):
    """The document that answers a command."""
    name = next(iter(command))
    collection = f"{database}.{command[name]}"
    stored = documents.setdefault(collection, [])
    if name in ("isMaster", "ismaster", "hello"):
        hello = {
            "ismaster": True,
            "topologyVersion": {"processId": bson.ObjectId("0" * 24), "counter": bson.Int64(0)},
            "maxBsonObjectSize": 16777216,
            "maxMessageSizeBytes": 48000000,
            "maxWriteBatchSize": 100000,
            "localTime": bson.datetime.datetime(2020, 1, 1),
            "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0,
            "maxWireVersion": 9,
            "readOnly": False,
            "ok": 1.0,
        }
        if "compression" in command:
            hello["compression"] = [c for c in command["compression"] if c in ("snappy", "zlib", "zstd")]
        return hello
    if name in ("ping", "endSessions", "create", "drop", "killCursors"):
        return {"ok": 1.0}
    if name == "insert":
        errors = []
        new = payload.get("documents") or command.get("documents", [])
        for index, document in enumerate(new):
            key = (collection, document["_id"])
            if key in seen_ids:
                message = f"E11000 duplicate key error collection: {collection} index: _id_ dup key: " + "{ _id: %r }"
                errors.append({"index": index, "code": 11000, "errmsg": message % document["_id"]})
            else:
                seen_ids.add(key)
                stored.append(document)
        reply = {"n": len(new) - len(errors), "ok": 1.0}
        if errors:
            reply["writeErrors"] = errors
        return reply
    if name == "update":
        return {"n": 2, "nModified": 2, "ok": 1.0}
    if name == "delete":
        return {"n": 1, "ok": 1.0}
    if name in ("find", "aggregate"):
        if "$bad" in str(command):
            return failure(2, "BadValue", "unknown operator: $bad")
        size = command.get("batchSize", 0) or 101
        more = len(stored) > size
        cursor = {"firstBatch": stored[:size], "id": bson.Int64(77 if more else 0), "ns": collection}
        return {"cursor": cursor, "ok": 1.0}
    if name == "getMore":
        collection = f"{database}.{command['collection']}"
        if command["getMore"] != 77:
            return failure(43, "CursorNotFound", f"cursor id {command['getMore']} not found")
        return {"cursor": {"nextBatch": documents[collection][2:], "id": bson.Int64(0), "ns": collection}, "ok": 1.0}
    return failure(59, "CommandNotFound", f"no such command: '{name}'")


class Peer(socketserver.BaseRequestHandler):
    def read(self, count):
        data = b""
        while len(data) < count:
            more = self.request.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def handle(self):
        try:
            while True:
                self.one()
        except (EOFError, OSError):
            pass

    def send(self, op, answers, body, compressor, number):
        if compressor:
            packed = pack(compressor, body)
            body, op = struct.pack("<IIB", op, len(body), compressor) + packed, OP_COMPRESSED
        self.request.sendall(struct.pack("<IIII", 16 + len(body), number, answers, op) + body)

    def one(self):
        length, number, _, op = struct.unpack("<IIII", self.read(16))
        body, compressor = self.read(length - 16), 0
        if op == OP_COMPRESSED:
            op, _, compressor = struct.unpack_from("<IIB", body)
            body = unpack(compressor, body[9:])
        flags = struct.unpack_from("<I", body)[0]
        payload = {}
        if op == OP_QUERY:
            end = body.index(b"\0", 4)
            database = body[4:end].decode().removesuffix(".$cmd")
            command = bson.decode(body[end + 9:])
            command = command.get("$query", command)
        else:
            at = 4
            while at < len(body):
                size = struct.unpack_from("<I", body, at + 1)[0]
                if body[at] == 0:
                    command = bson.decode(body[at + 1:at + 1 + size])
                else:
                    end = body.index(b"\0", at + 5)
                    payload[body[at + 5:end].decode()] = bson.decode_all(body[end + 1:at + 1 + size])
                at += 1 + size
            database = command["$db"]
        name = next(iter(command))
        reply = answer(command, database, payload)
        with lock:
            asked["requests"] += 1
            asked["ops"][name] = asked["ops"].get(name, 0) + 1
            asked["errors"] += int(reply["ok"] == 0 or "writeErrors" in reply)
        if flags & 2 and op == OP_MSG:
            return
        encoded = bson.encode(reply)
        if op == OP_QUERY:
            self.send(OP_REPLY, number, struct.pack("<IQII", 8, 0, 0, 1) + encoded, compressor, number + 5000)
            return
        # A client that watches the server (exhaustAllowed) gets three answers to one request.
        rounds = 3 if flags & (1 << 16) else 1
        for turn in range(rounds):
            more = 2 if turn < rounds - 1 else 0
            self.send(OP_MSG, number, struct.pack("<IB", more, 0) + encoded, compressor, number + 5000 + turn)
            number = number + 5000 + turn
            if more:
                time.sleep(0.05)


def pack(compressor, data):
    if compressor == 1:
        import snappy
        return snappy.compress(data)
    if compressor == 3:
        import zstandard
        return zstandard.ZstdCompressor().compress(data)
    return zlib.compress(data)


def unpack(compressor, data):
    if compressor == 1:
        import snappy
        return snappy.uncompress(data)
    if compressor == 3:
        import zstandard
        return zstandard.ZstdDecompressor().decompress(data)
    return zlib.decompress(data)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


def serve(port, *_):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = Server(("127.0.0.1", port), Peer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.sigwait({signal.SIGTERM})
    print(json.dumps(asked, sort_keys=True))


def use(port, compressors=""):
    import pymongo
    from pymongo.errors import BulkWriteError, OperationFailure
    from pymongo.write_concern import WriteConcern

    client = pymongo.MongoClient("127.0.0.1", port, compressors=compressors or [], heartbeatFrequencyMS=10000)
    client.admin.command("ping")
    shop = client.shop
    shop.orders.insert_many([{"_id": n, "note": "a note " * 6, "lines": [{"sku": n, "count": 2}]} for n in range(5)])
    for wanted in ({"_id": 3}, {"_id": "secret"}, {"_id": "secret"}):
        try:
            shop.orders.insert_many([wanted, {"_id": 100 + len(str(wanted))}], ordered=False)
        except BulkWriteError:
            pass
    print(len(list(shop.orders.find({"note": {"$gt": "a"}}, batch_size=2))))
    print(len(list(shop.orders.aggregate([{"$match": {"lines.sku": 1}}]))))
    shop.orders.update_many({"_id": 1}, {"$set": {"note": "another"}})
    shop.orders.delete_one({"_id": 2})
    shop.get_collection("log", write_concern=WriteConcern(w=0)).insert_one({"_id": 1, "text": "not answered"})
    for bad in (lambda: list(shop.orders.find({"a": {"$bad": 1}})), lambda: shop.command("frobnicate", 1)):
        try:
            bad()
        except OperationFailure as error:
            print(error.code)
    client.close()


if __name__ == "__main__":
    role, port, *rest = sys.argv[1:]
    (serve if role == "serve" else use)(int(port), *rest)
