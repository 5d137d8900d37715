"""ZooKeeper through kazoo. Argument: port."""

import sys
import time

from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError, NotEmptyError

from counting import counts, did, report

port = int(sys.argv[1])
# Sessions of a minute: no pings while this lasts.
client = KazooClient(f"127.0.0.1:{port}", timeout=60)
client.start()
did("connect")
client.create("/app", b"root")
did("create")
for n in range(30):
    client.create(f"/app/n{n}", b"v" * n, ephemeral=n % 2 == 0)
    did("create")
client.create("/app/s-", b"", sequence=True)
did("create")
for n in range(50):
    if n < 30:
        assert len(client.get(f"/app/n{n}")[0]) == n
        did("getData")
    else:
        try:
            client.get(f"/app/n{n}")
        except NoNodeError:
            did("getData", "NoNode")
seen = []
client.get("/app/n1", watch=seen.append)
did("getData")
client.set("/app/n1", b"new")
did("setData")
assert client.exists("/app/none") is None
did("exists", "NoNode")
assert client.exists("/app") is not None
did("exists")
for attempt, error, name, code in (
    (lambda: client.set("/app/n1", b"x", version=77), BadVersionError, "setData", "BadVersion"),
    (lambda: client.create("/app"), NodeExistsError, "create", "NodeExists"),
    (lambda: client.delete("/app"), NotEmptyError, "delete", "NotEmpty"),
    (lambda: client.delete("/nothing"), NoNodeError, "delete", "NoNode"),
):
    try:
        attempt()
    except error:
        did(name, code)
assert len(client.get_children("/app")) == 31
did("getChildren")
client.get_children("/app", include_data=True)
did("getChildren2")
change = client.transaction()
change.create("/app/t1", b"1")
change.set_data("/app/n1", b"9")
change.commit()
did("multi")
change = client.transaction()
change.create("/app/t2", b"1")
change.delete("/app/missing")
change.commit()
did("multi", "NoNode")
client.get_acls("/app")
did("getACL")
client.sync("/app")
did("sync")
for waiting in [client.get_async("/app/n1") for _ in range(25)]:
    waiting.get()
    did("getData")
client.delete("/app/n1")
did("delete")
client.stop()
client.close()
did("closeSession")
report()
