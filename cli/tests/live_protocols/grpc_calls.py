"""gRPC's own library at both ends. `serve PORT` prints its calls as JSON when it ends (SIGTERM); `use PORT`."""

import json
import signal
import sys
import threading
from concurrent import futures

import grpc

from counting import counts, did, report

role, port = sys.argv[1:]
address = f"127.0.0.1:{port}"
lock = threading.Lock()
released = threading.Event()


class Orders(grpc.GenericRpcHandler):
    def service(self, details):
        method = details.method
        with lock:
            did(method, "called")

        def get(request, context):
            if request == b"missing":
                context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
            if request == b"slow":
                # Until the client has given up.
                gone = threading.Event()
                context.add_callback(gone.set)
                gone.wait(20)
            return b"order " + request

        def items(request, context):
            for n in range(5):
                yield b"item %d" % n
            if request == b"broken":
                context.abort(grpc.StatusCode.DATA_LOSS, "the rest is gone")

        def add(requests, context):
            return b"%d" % sum(1 for _ in requests)

        def chat(requests, context):
            yield from requests

        return {
            "/shop.Orders/Get": grpc.unary_unary_rpc_method_handler(get),
            "/shop.Orders/List": grpc.unary_stream_rpc_method_handler(items),
            "/shop.Orders/Add": grpc.stream_unary_rpc_method_handler(add),
            "/shop.Orders/Chat": grpc.stream_stream_rpc_method_handler(chat),
        }.get(method)


def serve():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Orders(),))
    assert server.add_insecure_port(address)
    server.start()
    signal.sigwait({signal.SIGTERM})
    server.stop(None)
    print(json.dumps(counts))


def use():
    channel = grpc.insecure_channel(address)

    def call(method, code, work):
        try:
            answer = work()
        except grpc.RpcError as error:
            got = error.code().name
        else:
            got = "OK"
        assert got == code, (method, got)
        did(method, code)
        return answer if got == "OK" else None

    get = channel.unary_unary("/shop.Orders/Get")
    for n in range(100):
        assert call("/shop.Orders/Get", "OK", lambda: get(b"%d" % n)) == b"order %d" % n
    waiting = [get.future(b"%d" % n) for n in range(50)]
    for one in waiting:
        call("/shop.Orders/Get", "OK", one.result)
    for n in range(3):
        call("/shop.Orders/Get", "NOT_FOUND", lambda: get(b"missing"))
    call("/shop.Orders/Get", "DEADLINE_EXCEEDED", lambda: get(b"slow", timeout=0.2))
    assert len(call("/shop.Orders/Get", "OK", lambda: get(b"z" * 20000))) == 20006
    items = channel.unary_stream("/shop.Orders/List")
    for n in range(5):
        assert len(call("/shop.Orders/List", "OK", lambda: list(items(b"all")))) == 5
    call("/shop.Orders/List", "DATA_LOSS", lambda: list(items(b"broken")))
    for n in range(5):
        assert call("/shop.Orders/Add", "OK", lambda: channel.stream_unary("/shop.Orders/Add")(iter([b"a"] * n))) == b"%d" % n
    call("/shop.Orders/Chat", "OK", lambda: list(channel.stream_stream("/shop.Orders/Chat")(iter([b"x", b"y"]))))
    call("/shop.Orders/Nothing", "UNIMPLEMENTED", lambda: channel.unary_unary("/shop.Orders/Nothing")(b""))
    channel.close()
    report()


serve() if role == "serve" else use()
