"""Analysis: `kfr analyze` beside tshark and pt-query-digest on the same traffic, recorded at the same time.

Peak memory is the kernel's ru_maxrss, which can't fall below the 13 MiB that this script itself holds when it forks.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile

import common
import traffic

TSHARK = {
    "http": ("http", "http", ["http.request.method", "http.request.uri", "http.response.code", "http.time"]),
    "redis": ("resp", "resp", ["resp.bulk_string.value", "resp.string", "resp.error"]),
    "mysql": ("mysql", "mysql", ["mysql.query", "mysql.response_code", "mysql.error_code"]),
}


def kfr(taken, folder, *options):
    shutil.rmtree(folder / "report", ignore_errors=True)
    return common.timed([common.KFR, "analyze", str(taken.bundle), "-o", str(folder / "report"), "-q", *options])


def kfr_dump(taken):
    return common.timed([common.KFR, "dump", str(taken.bundle), "--requests"])


def tshark(taken, folder):
    """What it found goes to a file, so that a run that dissected nothing shows."""
    dissector, display, fields = TSHARK[taken.protocol]
    command = ["tshark", "-n", "-r", str(taken.pcap), "-d", f"tcp.port=={taken.port},{dissector}", "-Y", display,
               "-T", "fields", "-e", "frame.time_epoch", "-e", "tcp.stream"]
    for field in fields:
        command += ["-e", field]
    with open(folder / "tshark.txt", "wb") as output:
        return common.timed(command, stdout=output, stderr=subprocess.DEVNULL)


def pt_query_digest(taken, folder):
    """tcpdump -x text first, as its manual says; that time counts, since there is no other way in."""
    text = folder / "tcpdump.txt"
    with open(text, "wb") as output:
        first = common.timed(["tcpdump", "-s", "65535", "-x", "-nn", "-q", "-tttt", "-r", str(taken.pcap)],
                             stdout=output, stderr=subprocess.DEVNULL)
    second = common.timed(["pt-query-digest", "--type", "tcpdump", "--watch-server", f"127.0.0.1:{taken.port}",
                           "--no-version-check", str(text)], stderr=subprocess.DEVNULL)
    text.unlink()
    return first[0] + second[0], first[1] + second[1], max(first[2], second[2]), first[3] or second[3]


def requests_seen(taken):
    """Requests in `kfr dump --requests`: the comparison is worth something only if they are all there."""
    with subprocess.Popen([common.KFR, "dump", str(taken.bundle), "--requests"], stdout=subprocess.PIPE) as process:
        return sum(1 for _ in process.stdout)


def best(measure, repeats):
    return min((measure() for _ in range(repeats)), key=lambda result: result[0])


def compare(taken, folder, repeats):
    repeated = {
        "kfr analyze": lambda: kfr(taken, folder),
        "kfr analyze, 1 thread": lambda: kfr(taken, folder, "--threads", "1"),
        "kfr analyze again (noise floor)": lambda: kfr(taken, folder),
        "kfr dump --requests": lambda: kfr_dump(taken),
    }
    results = {name: best(measure, repeats) for name, measure in repeated.items()}
    if common.have("tshark"):
        results["tshark"] = tshark(taken, folder)
        lines = sum(1 for _ in open(folder / "tshark.txt", "rb"))
        print(f"tshark printed {lines:,} packets with {taken.protocol} in them")
    if taken.protocol == "mysql" and common.have("pt-query-digest"):
        results["pt-query-digest"] = pt_query_digest(taken, folder)
    ours = results["kfr analyze"]
    rows = [{
        f"{taken.protocol}": name,
        "seconds": seconds,
        "requests/s": round(taken.requests / seconds),
        "CPU s": cpu,
        "peak MiB": memory / 2**20,
        "time / kfr's": seconds / ours[0],
        "kfr's memory / its": ours[2] / memory,
        "exit": exit_code,
    } for name, (seconds, cpu, memory, exit_code) in results.items()]
    print(f"{taken.protocol}: {taken.requests:,} requests sent, {requests_seen(taken):,} in the bundle; "
          f"{taken.dropped} packets lost by tcpdump; kfr capture exit {taken.exit_code}")
    common.table(rows)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the amount of traffic")
    parser.add_argument("--repeats", type=int, default=3, help="best of, for kfr; the peers run once")
    parser.add_argument("--only", choices=sorted(TSHARK), action="append")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    results = {"machine": common.print_header("analyze", "tshark", "pt-query-digest", "tcpdump")}
    with tempfile.TemporaryDirectory(prefix="kfr-bench.") as name:
        folder = pathlib.Path(name)
        for protocol in options.only or TSHARK:
            taken = traffic.record(protocol, folder, options.scale)
            results[protocol] = compare(taken, folder, options.repeats)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), "utf-8")


if __name__ == "__main__":
    main()
