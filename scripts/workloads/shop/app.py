"""A small shop: the application of the incident that scripts/quickstart records.

It answers HTTP on a loopback port, keeps sessions, carts and a cache in Redis, and products and orders in MariaDB.
Three faults are built in, each of a kind that real incidents are made of:

* `/orders?email=`    the column it searches has no index, so every call scans the table
* `/orders/recent`    one query for the orders, then one more for every order (N+1)
* `/recommendations`  reads a Redis string as a list (WRONGTYPE), falls back to a table that nobody created (1146): 500

Everything else behaves.
"""

import argparse
import contextlib
import http.server
import json
import queue
import re
import signal
import sys
import threading
import urllib.parse

import pymysql
import redis

CACHE_SECONDS = 5
# A connection is closed after so many uses and opened anew, as connection pools do: a capture sees logins too.
USES_PER_CONNECTION = 400


class Database:
    """A pool of MariaDB connections; a request borrows one for as long as it needs it."""

    def __init__(self, port, size):
        self.port = port
        self.idle = queue.LifoQueue()
        for _ in range(size):
            self.idle.put((self.connect(), 0))

    def connect(self):
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="shop", password="shop", database="shop", autocommit=True
        )

    @contextlib.contextmanager
    def cursor(self):
        connection, uses = self.idle.get()
        try:
            with connection.cursor(pymysql.cursors.DictCursor) as cursor:
                yield cursor
        finally:
            if uses >= USES_PER_CONNECTION:
                connection.close()
                connection, uses = self.connect(), 0
            self.idle.put((connection, uses + 1))

    def rows(self, statement, *values):
        with self.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()


class Shop:
    """The endpoints. Each returns (status, JSON-able value)."""

    def __init__(self, database, cache):
        self.database = database
        self.cache = cache
        # What the failing endpoint trips over: it expects a list.
        cache.set("recommended", "[1,2,3]")

    def home(self, request):
        cached = self.cache.get("home:featured")
        if cached:
            return 200, json.loads(cached)
        rows = self.database.rows("SELECT id, name, price_cents FROM products WHERE featured = 1 ORDER BY id LIMIT 12")
        self.cache.setex("home:featured", CACHE_SECONDS, json.dumps(rows))
        return 200, rows

    def product(self, request, number):
        key = f"product:{number}"
        cached = self.cache.hgetall(key)
        if cached:
            return 200, cached
        rows = self.database.rows("SELECT id, name, price_cents, stock FROM products WHERE id = %s", int(number))
        if not rows:
            return 404, {"error": "no such product"}
        with self.cache.pipeline(transaction=False) as pipeline:
            pipeline.hset(key, mapping=rows[0])
            pipeline.expire(key, CACHE_SECONDS)
            pipeline.execute()
        return 200, rows[0]

    def search(self, request):
        prefix = request.query("q") + "%"
        rows = self.database.rows("SELECT id, name, price_cents FROM products WHERE name LIKE %s LIMIT 10", prefix)
        return 200, rows

    def login(self, request):
        email = request.body()["email"]
        rows = self.database.rows("SELECT id, name FROM customers WHERE email = %s", email)
        if not rows:
            return 403, {"error": "unknown customer"}
        session = f"session:{rows[0]['id']}"
        self.cache.setex(session, 600, json.dumps(rows[0]))
        return 200, {"session": session}

    def cart(self, request):
        session = self.cache.get(request.session())
        items = self.cache.lrange("cart:" + request.session(), 0, -1)
        return 200, {"customer": json.loads(session) if session else None, "items": items}

    def add_to_cart(self, request):
        key = "cart:" + request.session()
        self.cache.rpush(key, request.body()["product"])
        self.cache.ltrim(key, -20, -1)
        return 200, {"items": self.cache.llen(key)}

    def checkout(self, request):
        order = request.body()
        with self.database.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT stock, price_cents FROM products WHERE id = %s FOR UPDATE", (order["product"],))
            product = cursor.fetchone()
            cursor.execute("UPDATE products SET stock = stock - 1 WHERE id = %s", (order["product"],))
            cursor.execute(
                "INSERT INTO orders (customer_id, customer_email, status, total_cents, address, created_at)"
                " VALUES (%s, %s, 'new', %s, %s, NOW())",
                (order["customer"], order["email"], product["price_cents"], order["address"]),
            )
            number = cursor.lastrowid
            cursor.execute("COMMIT")
        self.cache.delete("cart:" + request.session())
        return 201, {"order": number}

    def orders_of_customer(self, request):
        """The missing index: orders.customer_email has none."""
        rows = self.database.rows(
            "SELECT id, status, total_cents FROM orders WHERE customer_email = %s ORDER BY created_at DESC LIMIT 10",
            request.query("email"),
        )
        return 200, rows

    def recent_orders(self, request):
        """The N+1: the customer's name could have come with a join."""
        orders = self.database.rows("SELECT id, customer_id, total_cents FROM orders ORDER BY id DESC LIMIT 25")
        for order in orders:
            customer = self.database.rows("SELECT name FROM customers WHERE id = %s", order["customer_id"])
            order["customer"] = customer[0]["name"]
        return 200, orders

    def recommendations(self, request):
        """The failure: wrong type in Redis, then a table that does not exist."""
        try:
            return 200, self.cache.lrange("recommended", 0, 9)
        except redis.ResponseError:
            return 200, self.database.rows("SELECT product_id FROM product_scores ORDER BY score DESC LIMIT 10")

    def health(self, request):
        self.cache.ping()
        return 200, {"status": "ok"}


ROUTES = [
    ("GET", re.compile(r"/"), Shop.home),
    ("GET", re.compile(r"/products/(\d+)"), Shop.product),
    ("GET", re.compile(r"/search"), Shop.search),
    ("POST", re.compile(r"/login"), Shop.login),
    ("GET", re.compile(r"/cart"), Shop.cart),
    ("POST", re.compile(r"/cart"), Shop.add_to_cart),
    ("POST", re.compile(r"/checkout"), Shop.checkout),
    ("GET", re.compile(r"/orders"), Shop.orders_of_customer),
    ("GET", re.compile(r"/orders/recent"), Shop.recent_orders),
    ("GET", re.compile(r"/recommendations"), Shop.recommendations),
    ("GET", re.compile(r"/health"), Shop.health),
]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one write
    shop = None

    def query(self, name):
        return urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get(name, [""])[0]

    def session(self):
        return self.headers.get("X-Session", "session:0")

    def body(self):
        return json.loads(self.payload)

    def answer(self):
        # Read always: what stays in the socket would be taken for the next request.
        self.payload = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.urlsplit(self.path).path
        status, value = 404, {"error": "no such page"}
        try:
            for method, pattern, endpoint in ROUTES:
                match = pattern.fullmatch(path)
                if match and method == self.command:
                    status, value = endpoint(self.shop, self, *match.groups())
                    break
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the caller gets a 500 and the log a line
            status, value = 500, {"error": str(error)}
            print(f"{self.command} {self.path}: {error!r}", file=sys.stderr, flush=True)
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass  # nginx keeps the access log


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mariadb-port", type=int, required=True)
    parser.add_argument("--redis-port", type=int, required=True)
    parser.add_argument("--pool", type=int, default=8, help="MariaDB connections")
    options = parser.parse_args()

    # The name that ps, top and KFR show for this process; threads inherit it.
    with open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write("shop-app")
    cache = redis.Redis(host="127.0.0.1", port=options.redis_port, decode_responses=True)
    Handler.shop = Shop(Database(options.mariadb_port, options.pool), cache)
    server = Server(("127.0.0.1", options.port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


if __name__ == "__main__":
    main()
