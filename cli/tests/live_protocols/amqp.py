"""RabbitMQ through pika. Argument: port."""

import sys

import pika
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, UnroutableError

from counting import did, report

port = int(sys.argv[1])
parameters = pika.ConnectionParameters("127.0.0.1", port, heartbeat=0)
connection = pika.BlockingConnection(parameters)
did("connection.open")
opened = 0


def channel():
    global opened
    opened += 1
    did("channel.open")
    return connection.channel()


plain = channel()
plain.exchange_declare("orders", exchange_type="topic", auto_delete=True)
did("exchange.declare")
plain.queue_declare("work", exclusive=True)
did("queue.declare")
plain.queue_bind("work", "orders", "new.*")
did("queue.bind")
for n in range(100):
    plain.basic_publish("orders", f"new.{n}", b"x" * n * 10)
    did("basic.publish")
for n in range(20):
    method, _, body = plain.basic_get("work", auto_ack=True)
    assert len(body) == n * 10
    did("basic.get")
plain.basic_qos(prefetch_count=10)
did("basic.qos")
got = []


def delivered(channel, method, properties, body):
    got.append(body)
    if len(got) % 2:
        channel.basic_ack(method.delivery_tag)
    else:
        channel.basic_reject(method.delivery_tag, requeue=False)
        did("basic.reject")


tag = plain.basic_consume("work", delivered)
did("basic.consume")
while len(got) < 80:
    connection.process_data_events(1)
plain.basic_cancel(tag)
did("basic.cancel")
assert plain.basic_get("work")[0] is None
did("basic.get")

confirming = channel()
confirming.confirm_delivery()
did("confirm.select")
for n in range(20):
    confirming.basic_publish("", "work", b"x" * 20000)
    did("basic.publish")
for n in range(3):
    try:
        confirming.basic_publish("orders", "old.1", b"lost", mandatory=True)
    except UnroutableError:
        did("basic.publish", "312")
assert plain.queue_purge("work").method.message_count == 20
did("queue.purge")

refused = channel()
try:
    refused.queue_declare("nosuch", passive=True)
except ChannelClosedByBroker as closed:
    did("queue.declare", str(closed.reply_code))
    opened -= 1
refused = channel()
try:
    refused.queue_declare("work", exclusive=False, durable=True)
except ChannelClosedByBroker as closed:
    did("queue.declare", str(closed.reply_code))
    opened -= 1
refused = channel()
refused.basic_publish("nosuchexchange", "k", b"1")
did("basic.publish", "404")
while refused.is_open:
    try:
        connection.process_data_events(0.1)
    except ChannelClosedByBroker:
        pass
opened -= 1
transaction = channel()
transaction.tx_select()
did("tx.select")
transaction.basic_publish("", "work", b"t")
did("basic.publish")
transaction.tx_commit()
did("tx.commit")
transaction.close()
opened -= 1
did("channel.close")
plain.queue_delete("work")
did("queue.delete")
# pika closes every channel that is open, then the connection.
connection.close()
did("channel.close", times=opened)
did("connection.close")
try:
    pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, virtual_host="nowhere"))
except AMQPConnectionError:
    did("connection.open", "530")
report()
