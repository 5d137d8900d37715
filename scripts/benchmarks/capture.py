"""What recording costs: in the target, an operation and a saturated server; in the recorder itself; and what is lost.

Everything is compared inside one run, alternating quickly between the recorders and nothing, because such machines
drift by a factor of two within minutes. The noise floor is the same comparison between nothing and nothing.
"""

import argparse
import json
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.request

import common

# The recorders compared: each starts one in a folder.
PAYLOAD = "256B"
VARIANTS = {
    "kfr sock": lambda folder, *more: common.kfr_capture(
        folder / "bench.kfr", folder, "--socket-hook", "sock", "--payload-limit", PAYLOAD, *more),
    "kfr syscall": lambda folder, *more: common.kfr_capture(
        folder / "bench.kfr", folder, "--socket-hook", "syscall", "--payload-limit", PAYLOAD, *more),
    "tcpdump -s 256 -w": lambda folder, *_: common.tcpdump(folder / "bench.pcap", folder, "-s", "256"),
    "tcpdump -s 256 -w /dev/null": lambda folder, *_: common.tcpdump("/dev/null", folder, "-s", "256"),
}
# Time for a recorder to be past its start (the snapshot of processes and sockets).
SETTLE_SECONDS = 1.0


# --- a saturated server ---------------------------------------------------------------------------------------------


class RedisLoad:
    """redis-benchmark on the last CPU against redis-server on the first."""

    name = "redis"

    def __init__(self, folder, seconds):
        self.folder, self.seconds = folder, seconds

    def __enter__(self):
        self.server = common.redis_server(self.folder, cpu=0)
        self.port = self.server.__enter__()
        self.connection = common.socket.create_connection(("127.0.0.1", self.port))
        self.load = common.start(
            ["timeout", str(self.seconds), "redis-benchmark", "-p", str(self.port), "-q", "-c", "32", "-d", "64",
             "-t", "set", "-r", "10000", "-n", "1000000000"], None, cpu=common.os.cpu_count() - 1)
        return self

    def count(self):
        self.connection.sendall(b"INFO stats\r\n")
        answer = b""
        while b"total_commands_processed:" not in answer or not answer.endswith(b"\r\n"):
            answer += self.connection.recv(65536)
        return int(re.search(rb"total_commands_processed:(\d+)", answer).group(1))

    def __exit__(self, *_):
        common.stop(self.load)
        self.connection.close()
        self.server.__exit__(None, None, None)


class NginxLoad:
    """wrk on the last CPU against one nginx worker on the first."""

    name = "nginx"

    def __init__(self, folder, seconds):
        self.folder, self.seconds = folder, seconds

    def __enter__(self):
        self.server = common.nginx_server(self.folder, cpu=0)
        self.port = self.server.__enter__()
        self.load = common.start(
            ["wrk", "-t", "1", "-c", "32", "-d", f"{self.seconds}s", f"http://127.0.0.1:{self.port}/3.json"],
            None, cpu=common.os.cpu_count() - 1)
        return self

    def count(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=10) as answer:
            return int(answer.read().split(b"requests")[1].split()[2])

    def __exit__(self, *_):
        common.stop(self.load)
        self.server.__exit__(None, None, None)


def slices(load, seconds, every=0.05):
    """Requests a second in slices of 50 ms, by the server's own counter."""
    rates, end = [], time.monotonic() + seconds
    then, before = time.monotonic(), load.count()
    while then < end:
        time.sleep(every)
        count, now = load.count(), time.monotonic()
        rates.append((count - before) / (now - then))
        then, before = now, count
    return rates


def throughput_by_turns(load_type, variants, rounds, seconds):
    """Off, recorder, off, next recorder, ...: each recorder against the two quiet slices around it."""
    turn = len(variants) * (2 * seconds + SETTLE_SECONDS + 2.5)
    ratios = {name: {"p50": [], "p90": []} for name in [*variants, "nothing (noise floor)"]}
    recorders = {name: {"cpu": [], "memory": [], "exit": set()} for name in variants}
    off_rates = []
    with tempfile.TemporaryDirectory(prefix="kfr-bench.") as name:
        folder = pathlib.Path(name)
        with load_type(folder, int(rounds * turn * 1.5) + 30) as load:
            time.sleep(1)
            off = slices(load, seconds)
            for _ in range(rounds):
                for variant in variants:
                    recorder = VARIANTS[variant](folder)
                    try:
                        time.sleep(SETTLE_SECONDS)
                        on = slices(load, seconds)
                    finally:
                        recorder.stop()
                    time.sleep(0.3)
                    after = slices(load, seconds)
                    for key, share in (("p50", 0.5), ("p90", 0.9)):
                        base = (common.percentile(off, share) + common.percentile(after, share)) / 2
                        ratios[variant][key].append(common.percentile(on, share) / base)
                        ratios["nothing (noise floor)"][key].append(
                            common.percentile(after, share) / common.percentile(off, share))
                    facts = recorders[variant]
                    facts["cpu"].append(recorder.cpu)
                    facts["memory"].append(recorder.memory)
                    facts["exit"].add(recorder.exit_code)
                    off_rates += after
                    off = after
    rows = []
    for variant, ratio in ratios.items():
        facts = recorders.get(variant)
        rows.append({
            f"{load_type.name}, recorded by": variant,
            "of off, p50": common.median(ratio["p50"]),
            "of off, p90": common.median(ratio["p90"]),
            "spread p50": f"{common.percentile(ratio['p50'], 0.1):.2f}-{common.percentile(ratio['p50'], 0.9):.2f}",
            "own cores": common.median(facts["cpu"]) if facts else None,
            "own MiB": common.median(facts["memory"]) / 2**20 if facts else None,
            "exit": ",".join(map(str, sorted(facts["exit"]))) if facts else "-",
        })
    print(f"{load_type.name}: {common.median(off_rates):,.0f} requests/s with nothing recording, "
          f"{rounds} rounds of {seconds} s slices")
    common.table(rows)
    return rows


# --- one operation --------------------------------------------------------------------------------------------------


class Micro:
    """workloads/micro on the last CPU."""

    def __init__(self, folder):
        program = folder / "micro"
        source = common.ROOT / "scripts/workloads/micro/micro.c"
        subprocess.run(["cc", "-O2", "-pthread", "-o", str(program), str(source)], check=True)
        self.process = common.start([str(program)], folder / "micro.log", cpu=common.os.cpu_count() - 1,
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer or answer[0] == "?":
            raise SystemExit(f"error: the micro workload did not answer {command!r}")
        return [float(field) for field in answer]

    def stop(self):
        self.process.stdin.close()
        common.stop(self.process)


OPERATIONS = {
    "getppid": "cost syscall 64 1500 200",
    "64 B write + read": "cost socket 64 1500 20",
    "4 KiB write + read": "cost socket 4096 1500 20",
}


def cost_per_operation(variants, rounds):
    """Nanoseconds added, from the p5 of many short batches: lowest of the rounds."""
    found = {name: {operation: [] for operation in OPERATIONS} for name in ["off", "off again", *variants]}
    with tempfile.TemporaryDirectory(prefix="kfr-bench.") as name:
        folder = pathlib.Path(name)
        micro = Micro(folder)
        try:
            for command in OPERATIONS.values():
                micro.ask(command)  # warm
            for _ in range(rounds):
                for variant, values in found.items():
                    recorder = VARIANTS[variant](folder) if variant in VARIANTS else None
                    try:
                        if recorder:
                            time.sleep(SETTLE_SECONDS)
                        for operation, command in OPERATIONS.items():
                            values[operation].append(micro.ask(command)[0])
                    finally:
                        if recorder:
                            recorder.stop()
        finally:
            micro.stop()
    rows = []
    for variant, values in found.items():
        row = {"ns an operation, p5": variant}
        for operation, measured in values.items():
            base = min(found["off"][operation])
            row[operation] = base if variant == "off" else min(measured)
            row[f"added ({operation.split(' w')[0]})"] = 0.0 if variant == "off" else min(measured) - base
        rows.append(row)
    print(f"cost in the target, lowest p5 of {rounds} rounds ('off again' is the noise floor)")
    common.table(rows, 0)
    return rows


# --- the recorder itself --------------------------------------------------------------------------------------------


def lost_events(bundle):
    """What `kfr info` says was lost; None where it does not say."""
    done = subprocess.run([common.KFR, "info", str(bundle), "--json"], capture_output=True, text=True, check=False)
    try:
        info = json.loads(done.stdout)
    except ValueError:
        return None
    return (info.get("ledger") or {}).get("events_lost")


def steady_load(variants, command, label):
    """A stream of a known rate: the recorder's own CPU and memory, and what it lost."""
    rows = []
    for variant in variants:
        with tempfile.TemporaryDirectory(prefix="kfr-bench.") as name:
            folder = pathlib.Path(name)
            micro = Micro(folder)
            recorder = None
            try:
                recorder = VARIANTS[variant](folder)
                time.sleep(SETTLE_SECONDS)
                cpu_before, started = common.cpu_seconds(recorder.process.pid), time.monotonic()
                done, seconds = micro.ask(command)
                cpu = common.cpu_seconds(recorder.process.pid) - cpu_before
                elapsed = time.monotonic() - started
            finally:
                log = recorder.stop() if recorder else ""
                micro.stop()
            bundle, pcap = folder / "bench.kfr", folder / "bench.pcap"
            file = bundle if bundle.exists() else pcap
            rows.append({
                label: variant,
                "a second": done / seconds,
                "own CPU % of a core": 100 * cpu / elapsed,
                "own MiB": recorder.memory / 2**20 if recorder.memory else None,
                "lost": common.dropped_by_tcpdump(log) if variant.startswith("tcpdump") else lost_events(bundle),
                "file MiB": file.stat().st_size / 2**20 if file.exists() else None,
                "exit": recorder.exit_code,
            })
    common.table(rows)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slice", type=float, default=1.5, help="seconds of a throughput slice")
    parser.add_argument("--seconds", type=int, default=20, help="seconds of a steady stream (the goal's run: 60)")
    parser.add_argument("--only", choices=["redis", "nginx", "cost", "steady"], action="append")
    parser.add_argument("--variants", help="comma-separated, of: " + ", ".join(VARIANTS))
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    parts = options.only or ["cost", "redis", "nginx", "steady"]
    chosen = options.variants.split(",") if options.variants else list(VARIANTS)

    results = {"machine": common.print_header("capture", "tcpdump", "redis", "nginx", "wrk")}
    to_file = [name for name in chosen if not name.endswith("/dev/null")]
    if "cost" in parts:
        results["cost"] = cost_per_operation([name for name in chosen if not name.endswith("-w")], options.rounds)
    for load in (RedisLoad, NginxLoad):
        if load.name in parts:
            results[load.name] = throughput_by_turns(load, to_file, options.rounds, options.slice)
    if "steady" in parts:
        results["steady"] = steady_load(to_file, f"pace 10000 {options.seconds} 156", "10,000 requests/s, 156 B")
        results["flood"] = steady_load(to_file, f"flood 300000 {options.seconds} 256", "300,000 socket calls/s, 256 B")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), "utf-8")


if __name__ == "__main__":
    main()
