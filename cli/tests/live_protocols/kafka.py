"""Kafka through librdkafka (confluent-kafka). Every request that the library says it sent counts, by API and version.
Argument: port."""

import collections
import gc
import os
import re
import sys
import tempfile

from confluent_kafka import Consumer, KafkaException, Producer

from counting import report

port = int(sys.argv[1])
sent, received = collections.Counter(), collections.Counter()


# The library's own threads write its log to standard error, up to the last request of a client that is closed.
standard_error = os.dup(2)
log = tempfile.TemporaryFile()
os.dup2(log.fileno(), 2)
common = {"bootstrap.servers": f"127.0.0.1:{port}", "debug": "protocol", "retry.backoff.ms": 20}
producer = Producer({**common, "linger.ms": 20, "batch.num.messages": 10})
failed = []
for n in range(60):
    producer.produce("orders", b'{"order": %d}' % n, partition=n % 2, callback=lambda error, _: error and failed.append(error))
    producer.poll(0)
assert producer.flush(20) == 0 and not failed, failed
consumer = Consumer({**common, "group.id": "billing", "auto.offset.reset": "earliest", "enable.auto.commit": False,
                     "session.timeout.ms": 30000, "heartbeat.interval.ms": 10000, "fetch.wait.max.ms": 50})
consumer.subscribe(["orders"])
got = 0
while got < 60:
    message = consumer.poll(1)
    if message and not message.error():
        got += 1
codes = []
for _ in range(2):
    try:
        consumer.commit(asynchronous=False)
        codes.append("ok")
    except KafkaException as error:
        codes.append(error.args[0].name())
consumer.close()
producer.flush()
del producer, consumer
gc.collect()
os.dup2(standard_error, 2)
log.seek(0)
for line in log.read().decode(errors="replace").splitlines():
    if found := re.search(r"Sent (\w+)Request \(v(\d+),", line):
        sent[f"{found[1]} v{found[2]}"] += 1
    if found := re.search(r"Received (\w+)Response \(v\d+,", line):
        received[found[1]] += 1
report(sent=sent, received=received, commits=collections.Counter(codes))
