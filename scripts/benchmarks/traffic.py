"""Three kinds of real traffic, recorded by kfr and tcpdump at the same time: what bundle and analyze are measured on."""

import dataclasses
import pathlib
import re
import subprocess
import time

import common


@dataclasses.dataclass
class Traffic:
    protocol: str
    port: int
    requests: int
    """As counted by the load generator."""
    bundle: pathlib.Path
    pcap: pathlib.Path
    dropped: int | None
    """Packets that tcpdump lost: above zero its file is too small, and so is every comparison with it."""
    exit_code: int
    """Of kfr capture; 3 says that events were lost."""


def run(command, timeout=300):
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True).stdout


def redis_load(port, scale):
    count = int(100_000 * scale)
    run(["redis-benchmark", "-p", str(port), "-q", "-c", "16", "-d", "100", "-r", "10000", "-n", str(count),
         "-t", "set,get"])
    return 2 * count


WRK_SCRIPT = """
local documents = 100
function request()
    return wrk.format("GET", "/" .. math.random(0, documents - 1) .. ".json?session=" .. math.random(1, 100000))
end
"""


def http_load(port, scale, folder):
    script = folder / "random.lua"
    script.write_text(WRK_SCRIPT, "ascii")
    output = run(["wrk", "-t", "1", "-c", "16", "-d", f"{max(1, round(3 * scale))}s", "-s", str(script),
                  f"http://127.0.0.1:{port}/"])
    return int(re.search(r"(\d+) requests in", output).group(1))


def sysbench(port, *more):
    return ["sysbench", "oltp_read_only", "--mysql-host=127.0.0.1", f"--mysql-port={port}", "--mysql-user=sbtest",
            "--mysql-db=sbtest", "--tables=1", "--table-size=10000", "--threads=4", *more]


def mysql_load(port, scale):
    # Text statements: pt-query-digest and tshark name prepared ones only where they were prepared.
    output = run(sysbench(port, "--db-ps-mode=disable", "--time=60", f"--events={int(4000 * scale)}", "run"))
    return int(re.search(r"total:\s+(\d+)", output).group(1))


def record(protocol, folder, scale=1.0):
    """Starts the server, then both recorders, then the load; everything that the load sent is in both files."""
    folder = folder / protocol
    folder.mkdir(parents=True, exist_ok=True)
    server = {"redis": common.redis_server, "http": common.nginx_server, "mysql": common.mariadb_server}[protocol]
    bundle, pcap = folder / f"{protocol}.kfr", folder / f"{protocol}.pcap"
    with server(folder) as port:
        if protocol == "mysql":
            run(sysbench(port, "prepare"))
        (folder / "tcpdump").mkdir(exist_ok=True)
        packets = common.tcpdump(pcap, folder / "tcpdump", "-B", "131072", "-s", "0", f"tcp port {port}")
        try:
            events = common.kfr_capture(bundle, folder, "--port", str(port))
            try:
                time.sleep(1)
                if protocol == "redis":
                    requests = redis_load(port, scale)
                elif protocol == "http":
                    requests = http_load(port, scale, folder)
                else:
                    requests = mysql_load(port, scale)
                time.sleep(1)
            finally:
                events.stop()
        finally:
            dropped = common.dropped_by_tcpdump(packets.stop())
    return Traffic(protocol, port, requests, bundle, pcap, dropped, events.exit_code)
