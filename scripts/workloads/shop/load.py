"""Customers for the shop: a bounded, repeatable mix of requests through nginx.

Each worker keeps one connection, picks requests with a seeded generator, and aims at its share of --rate; when the
shop is slower than that, requests follow one another without a pause and nothing piles up. Ends after --seconds or
--requests, whichever comes first, and prints what it sent and how long it took as JSON.
"""

import argparse
import http.client
import json
import random
import signal
import sys
import threading
import time

# (weight, name, function of a customer number and a generator to method, path, JSON body)
MIX = [
    (20, "GET /", lambda customer, pick: ("GET", "/", None)),
    (30, "GET /products/N", lambda customer, pick: ("GET", f"/products/{product(pick)}", None)),
    (8, "GET /search", lambda customer, pick: ("GET", f"/search?q={pick.choice(['amb', 'cob', 'fjo', 'haze+m'])}", None)),
    (6, "POST /login", lambda customer, pick: ("POST", "/login", {"email": email(customer)})),
    (10, "GET /cart", lambda customer, pick: ("GET", "/cart", None)),
    (8, "POST /cart", lambda customer, pick: ("POST", "/cart", {"product": product(pick)})),
    (4, "POST /checkout", lambda customer, pick: ("POST", "/checkout", order(customer, pick))),
    (4, "GET /orders", lambda customer, pick: ("GET", f"/orders?email={email(customer)}", None)),
    (3, "GET /orders/recent", lambda customer, pick: ("GET", "/orders/recent", None)),
    (3, "GET /recommendations", lambda customer, pick: ("GET", "/recommendations", None)),
    (3, "GET /static/site.css", lambda customer, pick: ("GET", "/static/site.css", None)),
    (1, "GET /health", lambda customer, pick: ("GET", "/health", None)),
]


def product(pick):
    """Some products sell far better than others; one in a hundred requests asks for one that is gone."""
    return 9999 if pick.random() < 0.01 else min(int(pick.paretovariate(0.6)), 2000)


def email(customer):
    return f"customer{customer}@shop.example"


def order(customer, pick):
    return {
        "product": min(product(pick), 2000),
        "customer": customer,
        "email": email(customer),
        "address": f"House {customer % 900}, Harbour Road, Port of Shop",
    }


class Worker(threading.Thread):
    def __init__(self, number, options, stop):
        super().__init__(daemon=True)
        self.options, self.stop = options, stop
        self.pick = random.Random(options.seed * 1000 + number)
        self.budget = options.requests // options.connections
        self.done = []  # (name, status, seconds)
        self.failures = 0

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.options.port, timeout=30)
        pause = self.options.connections / self.options.rate
        due = time.monotonic() + self.pick.random() * pause
        end = time.monotonic() + self.options.seconds
        weights = [weight for weight, _, _ in MIX]
        for _ in range(self.budget):
            now = time.monotonic()
            if now >= end or self.stop.wait(max(0.0, min(due, end) - now)) or time.monotonic() >= end:
                break
            due = max(due + self.pick.expovariate(1 / pause), time.monotonic() - pause)
            _, name, build = self.pick.choices(MIX, weights)[0]
            customer = self.pick.randint(1, 5000)
            method, path, body = build(customer, self.pick)
            headers = {"X-Session": f"session:{customer}", "User-Agent": "shop-customer"}
            started = time.monotonic()
            try:
                connection.request(method, path, json.dumps(body) if body else None, headers)
                response = connection.getresponse()
                response.read()
                self.done.append((name, response.status, time.monotonic() - started))
            except (OSError, http.client.HTTPException):
                self.failures += 1
                connection.close()
        connection.close()


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def summary(workers, elapsed):
    done = [entry for worker in workers for entry in worker.done]
    endpoints = {}
    for _, name, _ in MIX:
        mine = [entry for entry in done if entry[0] == name]
        if mine:
            times = [seconds * 1000 for _, _, seconds in mine]
            statuses = sorted({status for _, status, _ in mine})
            endpoints[name] = {
                "requests": len(mine),
                "status": {str(code): sum(status == code for _, status, _ in mine) for code in statuses},
                "p50_ms": round(percentile(times, 0.5), 3),
                "p99_ms": round(percentile(times, 0.99), 3),
            }
    return {
        "requests": len(done),
        "failures": sum(worker.failures for worker in workers),
        "seconds": round(elapsed, 3),
        "per_second": round(len(done) / elapsed, 1),
        "endpoints": endpoints,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--requests", type=int, default=100_000, help="at most so many in all")
    parser.add_argument("--rate", type=float, default=150, help="requests a second to aim at")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write("shop-customers")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    workers = [Worker(number, options, stop) for number in range(options.connections)]
    started = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    json.dump(summary(workers, time.monotonic() - started), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
