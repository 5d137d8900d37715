"""Kubernetes at size: what a list of a large cluster costs the recorder, how large it is in the bundle, and how fast replay
knows who an address was. The API is a server here that makes the objects up; they are as large as real ones, with
managedFields and annotations."""

import argparse
import hashlib
import http.server
import json
import os
import pathlib
import random
import socketserver
import subprocess
import tempfile
import threading
import time
import urllib.parse
import uuid

import common

GOALS = {"recorder's memory, MiB": 256, "lists, s": 20, "bundle, MB": 20, "lookups/s": 5_000_000}
LABELS = {"app.kubernetes.io/part-of": "shop", "team": "payments-and-checkout", "cost-center": "4711"}

# The same cluster each time.
RANDOM = random.Random(1)


def hash_of(text):
    return hashlib.sha256(text.encode()).hexdigest()


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def metadata(kind, name, version, namespace=None, **more):
    fields = {f"f:field-{number}": {".": {}, "f:value": {}} for number in range(20)}
    return {
        "name": name,
        **({"namespace": namespace} if namespace else {}),
        "uid": str(uuid.UUID(int=RANDOM.getrandbits(128), version=4)),
        "resourceVersion": str(version),
        "creationTimestamp": now(),
        "annotations": {"example.com/config": "x" * 600},
        "managedFields": [
            {"manager": manager, "operation": "Update", "time": now(), "fieldsV1": fields}
            for manager in ("kube-controller-manager", "kubelet", "helm")
        ],
        **more,
    }


class Objects:
    """A cluster of `pods` pods in a tenth as many Deployments, one Service and slice each."""

    def __init__(self, options):
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self.options, self.version = options, 1_000_000
        self.kinds = {}
        nodes = [self.node(number, boot if number == 0 else f"boot-{number}") for number in range(options.nodes)]
        self.kinds["nodes"] = nodes
        pods, slices, services, deployments, sets = [], [], [], [], []
        for service in range(options.services):
            namespace, name = f"team-{service % 20}", f"service-{service}"
            services.append({
                "metadata": metadata("Service", name, self.next(), namespace, labels=LABELS),
                "spec": {"clusterIP": f"10.96.{service // 250}.{service % 250 + 1}", "type": "ClusterIP",
                         "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
            })
            template = {"metadata": {"labels": LABELS}, "spec": self.pod_spec(name, None)}
            deployment = metadata("Deployment", name, self.next(), namespace, labels=LABELS, generation=1)
            deployments.append({"metadata": deployment, "spec": {"replicas": 10, "template": template},
                                "status": {"replicas": 10, "readyReplicas": 10, "observedGeneration": 1}})
            owner = {"kind": "Deployment", "name": name, "uid": deployment["uid"], "controller": True}
            replica_set = metadata("ReplicaSet", f"{name}-5d8f7c9b6", self.next(), namespace, ownerReferences=[owner])
            sets.append({"metadata": replica_set, "spec": {"replicas": 10, "template": template}, "status": {}})
            behind = []
            for number in range(options.pods // options.services):
                at = len(pods)
                pod = self.pod(f"{name}-5d8f7c9b6-{RANDOM.getrandbits(20):05x}", namespace, at, replica_set)
                pods.append(pod)
                behind.append({"addresses": [pod["status"]["podIP"]], "conditions": {"ready": True},
                               "nodeName": pod["spec"]["nodeName"],
                               "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod["metadata"]["name"]}})
            labels = {"kubernetes.io/service-name": name}
            slices.append({"metadata": metadata("EndpointSlice", f"{name}-x", self.next(), namespace, labels=labels),
                           "endpoints": behind, "ports": [{"name": "http", "port": 8080}]})
        self.kinds |= {"pods": pods, "services": services, "endpointslices": slices, "deployments": deployments,
                       "replicasets": sets}
        self.kinds["events"] = [self.event(number) for number in range(options.events)]
        # As the server would send them: what it costs to write them is not measured.
        self.lines = {kind: [json.dumps(one) for one in objects] for kind, objects in self.kinds.items()}
        self.bytes = sum(len(line) for lines in self.lines.values() for line in lines)

    def next(self):
        self.version += 1
        return self.version

    def node(self, number, boot):
        return {
            "metadata": metadata("Node", f"node-{number}", self.next(),
                                 labels={"topology.kubernetes.io/zone": f"zone-{number % 3}"}),
            "spec": {"podCIDR": f"10.{128 + number // 256}.{number % 256}.0/24"},
            "status": {"addresses": [{"type": "InternalIP", "address": f"10.0.{number // 250}.{number % 250 + 1}"}],
                       "nodeInfo": {"bootID": boot, "kubeletVersion": "v1.36.0"},
                       "conditions": [{"type": "Ready", "status": "True"}],
                       "images": [{"names": [f"registry.example/image-{i}:1"], "sizeBytes": 1} for i in range(50)]},
        }

    def pod_spec(self, name, node):
        container = {"name": "main", "image": f"registry.example/team/{name}:1.4.2",
                     "env": [{"name": f"SETTING_{i}", "value": "v" * 40} for i in range(20)],
                     "resources": {"limits": {"memory": "256Mi"}}, "ports": [{"containerPort": 8080}],
                     "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
                     "volumeMounts": [{"name": f"volume-{i}", "mountPath": f"/mnt/{i}"} for i in range(5)]}
        spec = {"containers": [container, {**container, "name": "proxy"}], "serviceAccountName": name,
                "volumes": [{"name": f"volume-{i}", "configMap": {"name": f"{name}-{i}"}} for i in range(5)]}
        return {**spec, "nodeName": node} if node else spec

    def pod(self, name, namespace, number, replica_set):
        node = number % self.options.nodes
        owner = {"kind": "ReplicaSet", "name": replica_set["name"], "uid": replica_set["uid"], "controller": True}
        statuses = [{"name": container, "ready": True, "restartCount": 0, "image": "registry.example/team/x:1.4.2",
                     "imageID": f"sha256:{hash_of(replica_set['name'])}", "containerID": f"containerd://{RANDOM.getrandbits(256):064x}",
                     "state": {"running": {"startedAt": now()}}} for container in ("main", "proxy")]
        return {
            "metadata": metadata("Pod", name, self.next(), namespace, ownerReferences=[owner],
                                 labels=LABELS | {"pod-template-hash": "5d8f7c9b6"}),
            "spec": self.pod_spec(name, f"node-{node}"),
            "status": {"phase": "Running", "podIP": f"10.{128 + number // 65536}.{number // 256 % 256}.{number % 256}",
                       "hostIP": f"10.0.{node // 250}.{node % 250 + 1}", "containerStatuses": statuses,
                       "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now()}
                                      for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")]},
        }

    def event(self, number):
        return {"metadata": metadata("Event", f"event-{number}", self.next(), f"team-{number % 20}"), "type": "Warning",
                "reason": "Unhealthy", "message": f"Readiness probe failed: dial tcp 10.128.0.{number % 250}:8080: refused",
                "count": 3, "firstTimestamp": now(), "lastTimestamp": now(),
                "involvedObject": {"kind": "Pod", "namespace": f"team-{number % 20}", "name": f"service-{number % 500}-x"}}

    def change(self):
        """A pod that changes, as a watch tells it."""
        pod = json.loads(random.choice(self.lines["pods"]))
        pod["kind"] = "Pod"
        pod["metadata"]["resourceVersion"] = str(self.next())
        pod["status"]["containerStatuses"][0]["restartCount"] += 1
        return json.dumps({"type": "MODIFIED", "object": pod}).encode() + b"\n"


class Api(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, objects, changes_a_second):
        self.objects, self.changes = objects, changes_a_second
        self.first, self.listed, self.open, self.told = None, {}, {}, 0
        self.done = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        api = self.server
        api.first = api.first or time.monotonic()
        path, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        kind = path.rsplit("/", 1)[-1]
        if query.get("watch") not in (None, "0", "false"):
            return self.watch(kind)
        lines = api.objects.lines.get(kind, [])
        begin, size = int(query.get("continue") or 0), int(query.get("limit") or 0) or len(lines)
        more = str(begin + size) if begin + size < len(lines) else ""
        head = json.dumps({"resourceVersion": str(api.objects.version), "continue": more})
        body = f'{{"kind":"List","metadata":{head},"items":[{",".join(lines[begin:begin + size])}]}}'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        api.open[kind] = bool(more)
        return None

    def watch(self, kind):
        # Watched means listed.
        api = self.server
        api.listed.setdefault(kind, time.monotonic())
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while not api.done.wait(1 / api.changes if kind == "pods" and api.changes else 1):
                if kind == "pods" and api.changes:
                    line = api.objects.change()
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
                    self.wfile.flush()
                    api.told += 1
        except OSError:
            pass


def peak_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    return 0


def record(options, folder, context):
    """One recording; the memory that it had at most, its CPU seconds, its bundle."""
    bundle = folder / f"{context}.kfr"
    # Nobody's traffic: what is measured is Kubernetes alone.
    command = [os.environ["KFR"], "capture", "--port", "1", "--duration", f"{options.seconds}s", "--kube", context,
               "--max-cpu", "100%", "-o", str(bundle)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"KUBECONFIG": str(folder / "config")})
    peak = 0
    while process.poll() is None:
        try:
            peak = max(peak, peak_kib(process.pid))
        except OSError:
            break
        time.sleep(0.05)
    process.wait()
    assert process.returncode == 0, process.returncode
    return peak / 1024, bundle


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--services", type=int, default=500)
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--events", type=int, default=20000)
    parser.add_argument("--changes", type=float, default=50.0, help="changes of pods a second, once listed")
    parser.add_argument("--seconds", type=int, default=45)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    machine = common.print_header("kube")
    objects = Objects(options)
    api = Api(objects, options.changes)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="kfr-bench.") as folder:
        folder = pathlib.Path(folder)
        (folder / "config").write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{api.server_port}"}}],
            "contexts": [{"name": "bench", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        }))
        without, empty = record(options, folder, "off")
        peak, bundle = record(options, folder, "bench")
        api.done.set()
        command = ["cargo", "run", "--release", "--quiet", "-p", "kfr-analyze", "--example", "identities", "--", str(bundle)]
        lookups = subprocess.run(command, cwd=common.ROOT, check=True, capture_output=True, text=True).stdout
        print(lookups)
        rates = dict(line.split(": ") for line in lookups.splitlines() if "lookups/s" in line)
        waiting = [kind for kind, more in api.open.items() if more]
        assert not waiting and set(objects.lines) <= set(api.listed), f"not listed to the end: {waiting}"
        rows = [
            {"what": "objects, MB of JSON", "measured": objects.bytes / 1e6, "goal": ""},
            {"what": "lists, s", "measured": max(api.listed.values()) - api.first, "goal": GOALS["lists, s"]},
            {"what": "recorder's memory, MiB", "measured": peak, "goal": GOALS["recorder's memory, MiB"]},
            {"what": "the same without Kubernetes", "measured": without, "goal": ""},
            {"what": "bundle, MB", "measured": bundle.stat().st_size / 1e6, "goal": GOALS["bundle, MB"]},
            {"what": "the same without Kubernetes", "measured": empty.stat().st_size / 1e6, "goal": ""},
            {"what": "changes told by the watch", "measured": api.told, "goal": ""},
            *({"what": what, "measured": float(rate), "goal": GOALS["lookups/s"]} for what, rate in rates.items()),
        ]
        common.table(rows)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "kube": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
