"""MQTT through paho and mosquitto's own programs, versions 3.1.1 and 5. Argument: port."""

import subprocess
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from counting import did, report

port = int(sys.argv[1])


class Client:
    """Counts what it does, and the messages that it is sent: those are the server's PUBLISH."""

    def __init__(self, name, version, password="word"):
        self.client = mqtt.Client(client_id=name, protocol=version)
        self.version = version
        self.event, self.seen, self.refused = threading.Condition(), set(), None
        self.received = 0
        self.client.on_connect = lambda c, u, f, code, p=None: self.note(("connect", int(getattr(code, "value", code))))
        self.client.on_subscribe = lambda c, u, mid, codes, p=None: self.note(("subscribe", mid))
        self.client.on_unsubscribe = lambda c, u, mid, *rest: self.note(("unsubscribe", mid))
        self.client.on_message = self.message
        self.client.username_pw_set("shop", password)
        self.client.connect("127.0.0.1", port, keepalive=600)
        self.client.loop_start()

    def note(self, what):
        with self.event:
            self.seen.add(what)
            self.event.notify_all()

    def message(self, client, user, message):
        with self.event:
            self.received += 1
            self.event.notify_all()

    def wait(self, done):
        with self.event:
            assert self.event.wait_for(done, 20)

    def connected(self):
        self.wait(lambda: ("connect", 0) in self.seen)
        did("CONNECT")
        return self

    def subscribe(self, filters):
        _, mid = self.client.subscribe(filters)
        self.wait(lambda: ("subscribe", mid) in self.seen)

    def end(self):
        self.client.disconnect()
        self.client.loop_stop()


def talk(version, name):
    reader = Client(f"{name}-reader", version).connected()
    reader.subscribe([("orders/#", 2), ("prices", 0)])
    did("SUBSCRIBE")
    writer = Client(f"{name}-writer", version).connected()
    sent = 0
    for n in range(60):
        # Each comes back to the reader, with the same quality of service.
        writer.client.publish("orders/new", f"order {n}", qos=n % 3).wait_for_publish(20)
        sent += 1
        reader.wait(lambda: reader.received == sent)
        did("PUBLISH", times=2)
    if version == mqtt.MQTTv5:
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic, properties.CorrelationData = "answers", b"1"
        for n in range(5):
            writer.client.publish("prices", "1", qos=0, properties=properties).wait_for_publish(20)
            sent += 1
            reader.wait(lambda: reader.received == sent)
            did("PUBLISH", times=2)
        # Nobody listens: the acknowledgement has a code.
        writer.client.publish("silence", "1", qos=1).wait_for_publish(20)
        did("PUBLISH", "ok 16")
        # Not allowed: likewise.
        writer.client.publish("forbidden", "1", qos=1)
        did("PUBLISH", "135")
        writer.client.publish("orders/last", "1", qos=1).wait_for_publish(20)
        sent += 1
        reader.wait(lambda: reader.received == sent)
        did("PUBLISH", times=2)
    _, mid = reader.client.unsubscribe("orders/#")
    reader.wait(lambda: ("unsubscribe", mid) in reader.seen)
    did("UNSUBSCRIBE")
    reader.end()
    writer.end()


talk(mqtt.MQTTv311, "older")
talk(mqtt.MQTTv5, "newer")
for version, code, says in ((mqtt.MQTTv311, 5, "5"), (mqtt.MQTTv5, 135, "135")):
    refused = Client("refused", version, "wrong")
    refused.wait(lambda: ("connect", code) in refused.seen)
    did("CONNECT", says)
    refused.client.disconnect()
    refused.client.loop_stop()
for version in ("mqttv311", "mqttv5"):
    subprocess.run(["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-V", version, "-u", "shop", "-P", "word", "-t",
                    "orders/new", "-m", "from a shell", "-q", "2"], check=True)
    did("CONNECT")
    did("PUBLISH")
report()
