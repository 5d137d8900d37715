"""Protocols: decoders alone, replay of each beside tshark on the same packets, and whether time is linear in the bytes.

Replay is `kfr dump --connections` and `kfr analyze` with one thread on a bundle imported from a made-up capture
(`conversations.py`); its figure is CPU time, user and system. tshark reads the capture itself, once. kfr and tshark take
turns. Columns named "before" are those of another kfr, to compare two builds in one run.
"""

import argparse
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile

import common
import conversations

# Requests a second of CPU, where there is a goal.
GOALS = {"http": 1_000_000, "http-3k": 1_000_000, "redis": 1_000_000, "mysql": 1_000_000, "http2": 400_000}
ANALYZE_GOAL = 20


def cpu(command, **options):
    """CPU seconds of a command; it must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   **{"stdout": subprocess.DEVNULL, **options})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def analyze(kfr, bundle, folder):
    # Exit code 1 says that there are findings.
    shutil.rmtree(folder / "report", ignore_errors=True)
    return cpu(["sh", "-c", '"$0" analyze "$1" -o "$2" -q --threads 1 || test $? = 1', kfr, str(bundle),
                str(folder / "report")])


def requests_seen(bundle):
    """By the ledger of kfr's own lines: a run that reads nothing is fast."""
    with subprocess.Popen([common.KFR, "dump", str(bundle), "--requests"], stdout=subprocess.PIPE) as process:
        return sum(1 for _ in process.stdout)


def tshark(kind, pcap, folder):
    port, dissector, _ = conversations.KINDS[kind]
    command = ["tshark", "-n", "-r", str(pcap), "-T", "fields", "-e", "frame.time_epoch", "-e", "tcp.stream"]
    if dissector:
        command += ["-d", f"tcp.port=={port},{dissector}", "-Y", dissector]
    with open(folder / "tshark.txt", "wb") as output:
        seconds = cpu(command, stdout=output)
    with open(folder / "tshark.txt", "rb") as lines:
        return seconds, sum(1 for _ in lines)


def replay(kinds, folder, options):
    rows = []
    for label, kind, requests, connections, pipelined in kinds:
        pcap, bundle = folder / "traffic.pcap", folder / "traffic.kfr"
        with open(pcap, "wb", buffering=1 << 20) as file:
            conversations.write(file, kind, requests, connections, pipelined)
        bundle.unlink(missing_ok=True)
        importing = cpu([common.KFR, "import", str(pcap), "-o", str(bundle)])
        seen = requests_seen(bundle)
        dumps, analyses, before = [], [], []
        for _ in range(options.repeats):
            dumps.append(cpu([common.KFR, "dump", "--connections", "--threads", "1", str(bundle)]))
            analyses.append(analyze(common.KFR, bundle, folder))
            if options.before:
                before.append((cpu([options.before, "dump", "--connections", "--threads", "1", str(bundle)]),
                               analyze(options.before, bundle, folder)))
        row = {
            "replay": label,
            "requests": seen,
            "MB": pcap.stat().st_size / 1e6,
            "import s": importing,
            "dump s": min(dumps),
            "requests/s": round(seen / min(dumps)),
            "goal": GOALS.get(label) or "",
            "MB/s": round(pcap.stat().st_size / 1e6 / min(dumps)),
            "analyze s": min(analyses),
            "its requests/s": round(seen / min(analyses)),
        }
        if options.before:
            row |= {"before, dump s": min(dump for dump, _ in before),
                    "before, analyze s": min(analysis for _, analysis in before)}
        if options.tshark and common.have("tshark"):
            seconds, lines = tshark(kind, pcap, folder)
            row |= {"tshark s": seconds, f"tshark / analyze (goal {ANALYZE_GOAL})": seconds / min(analyses),
                    "tshark's lines": lines}
        if seen < requests:
            print(f"{label}: only {seen:,} of {requests:,} requests were read")
        rows.append(row)
    common.table(rows)
    return rows


def example(name, *arguments):
    """An example of kfr-protocols; its exit code."""
    command = ["cargo", "run", "-q", "--release", "-p", "kfr-protocols", "--example", name, "--", *arguments]
    return subprocess.run(command, cwd=common.ROOT, check=False).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500_000, help="of each protocol")
    parser.add_argument("--repeats", type=int, default=5, help="best of, for kfr")
    parser.add_argument("--only", choices=sorted(conversations.KINDS), action="append")
    parser.add_argument("--before", help="another kfr to compare with")
    parser.add_argument("--no-tshark", dest="tshark", action="store_false")
    parser.add_argument("--no-decoders", dest="decoders", action="store_false", help="replay only: builds nothing")
    parser.add_argument("--megabytes", type=int, default=100, help="the largest conversation of each linear case")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    results = {"machine": common.print_header("protocols", "tshark")}
    count = options.requests
    kinds = [(kind, kind, count, 10, 1) for kind in options.only or conversations.KINDS]
    if not options.only:
        kinds += [("http, a connection each", "http", count // 5, count // 5, 1), ("redis by 50", "redis", count, 10, 50)]
    with tempfile.TemporaryDirectory(prefix="kfr-bench.") as name:
        results["replay"] = replay(kinds, pathlib.Path(name), options)
    failed = 0
    if options.decoders:
        print("\nDecoders alone:", flush=True)
        example("decode_speed")
        print("\nTime against bytes:", flush=True)
        failed = example("linear", str(options.megabytes))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), "utf-8")
    sys.exit(failed)


if __name__ == "__main__":
    main()
