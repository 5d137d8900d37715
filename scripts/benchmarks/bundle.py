"""The bundle: how fast it is encoded and decoded, and how large it is beside the zstd-3 packet capture of the same
traffic."""

import argparse
import json
import pathlib
import subprocess
import tempfile

import common
import traffic

GOALS = {"redis": 0.65, "mysql": 0.65, "http": 1.1}


def throughput(title, *pcap):
    """bundle/examples/throughput.rs: on synthetic events, or on a packet capture as both ends would record it."""
    print(f"-- {title}", flush=True)
    command = ["cargo", "run", "--release", "--quiet", "-p", "kfr-bundle", "--example", "throughput", "--", *pcap]
    done = subprocess.run(command, cwd=common.ROOT, check=True, capture_output=True, text=True)
    # What follows is a table of columns, of use when the encoding is changed.
    print(done.stdout.split("\ncolumn ")[0], "\n")
    return done.stdout


def sizes(folder, scale):
    rows = []
    for protocol in GOALS:
        taken = traffic.record(protocol, folder, scale)
        packed = taken.pcap.with_suffix(".pcap.zst")
        subprocess.run(["zstd", "-3", "-q", "-f", str(taken.pcap), "-o", str(packed)], check=True)
        bundle, pcap = taken.bundle.stat().st_size, packed.stat().st_size
        rows.append({
            "traffic": protocol,
            "requests": taken.requests,
            "bundle B": bundle,
            "pcap B": taken.pcap.stat().st_size,
            "pcap.zst B": pcap,
            "bundle / pcap.zst": bundle / pcap,
            "goal": GOALS[protocol],
            "B a request": bundle / taken.requests,
            "packets lost": taken.dropped,
            "kfr exit": taken.exit_code,
        })
        packed.unlink()
        throughput(f"encoding, {protocol}", str(taken.pcap))
    common.table(rows)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the amount of traffic")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    results = {"machine": common.print_header("bundle", "tcpdump", "zstd", "redis", "nginx", "mariadb")}
    results["throughput"] = throughput("encoding, synthetic events, one core")
    with tempfile.TemporaryDirectory(prefix="kfr-bench.") as folder:
        results["sizes"] = sizes(pathlib.Path(folder), options.scale)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), "utf-8")


if __name__ == "__main__":
    main()
