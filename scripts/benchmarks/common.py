"""What the benchmarks share: the machine, processes that always end, recorders, servers, statistics, a table."""

import contextlib
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
KFR = os.environ.get("KFR", "kfr")


# --- the machine ----------------------------------------------------------------------------------------------------


def first_line(*command):
    """The first line a command prints, on either stream; None where it is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return None
    lines = [line for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    return lines[0].strip() if lines else ""


def machine():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text("ascii", "replace"))
    memory = int(re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text("ascii")).group(1))
    return {
        "cpu": cpu.group(1) if cpu else os.uname().machine,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**20, 1),
        "kernel": os.uname().release,
        "load_average": os.getloadavg()[0],
        "kfr": first_line(KFR, "--version"),
    }


def versions(*peers):
    commands = {
        "tcpdump": ("tcpdump", "--version"),
        "tshark": ("tshark", "--version"),
        "pt-query-digest": ("pt-query-digest", "--version"),
        "redis": ("redis-server", "--version"),
        "nginx": ("nginx", "-v"),
        "mariadb": ("mariadbd", "--version"),
        "wrk": ("wrk", "-v"),
        "sysbench": ("sysbench", "--version"),
        "zstd": ("zstd", "--version"),
    }
    return {name: first_line(*commands[name]) or "not installed" for name in peers}


def print_header(title, *peers):
    print(f"\n# {title}\n")
    facts = machine() | versions(*peers)
    for name, value in facts.items():
        print(f"{name:16} {value}")
    if facts["load_average"] > 0.5:
        print("note: this machine is busy with other things; trust ratios, and only beside the noise floor")
    print()
    return facts


# --- processes ------------------------------------------------------------------------------------------------------

PR_SET_PDEATHSIG = 1


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start(command, log=None, cpu=None, **options):
    """A child that ends with us, in a session of its own, pinned to a CPU if asked and if there is more than one."""
    if cpu is not None and os.cpu_count() > 1:
        command = ["taskset", "-c", str(cpu), *command]
    output = open(log, "ab") if log else subprocess.DEVNULL  # noqa: SIM115 - the child owns it
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("stdout", output)
    options.setdefault("stderr", output)
    try:
        return subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent, **options)
    finally:
        if log:
            output.close()


def stop(process, number=signal.SIGTERM, patience=30):
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


def wait_for(condition, what, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"error: {what} did not happen within {seconds} s")
        time.sleep(0.01)


def timed(command, stdout=subprocess.DEVNULL, **options):
    """Runs a command; returns (wall seconds, CPU seconds, peak bytes, exit code)."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, preexec_fn=die_with_parent, **options)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    elapsed = time.monotonic() - started
    return elapsed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, process.returncode


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    return int(re.search(r"VmHWM:\s*(\d+)", status).group(1)) * 1024


def free_port(preferred):
    for port in range(preferred, 65536):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise SystemExit("error: no free port on 127.0.0.1")


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


# --- servers --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def redis_server(folder, cpu=None):
    port = free_port(16479)
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    process = start([*command, "--dir", str(folder)], folder / "redis.log", cpu)
    try:
        wait_for(lambda: answers(port), "an answer of redis-server")
        yield port
    finally:
        stop(process)


NGINX = """
daemon off;
user root root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile off;
    keepalive_requests 100000000;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/www;
        location = /status {{ stub_status; }}
    }}
}}
"""


@contextlib.contextmanager
def nginx_server(folder, cpu=None):
    """Serves folder/www: 100 JSON documents of 0.3 to 6 KB that differ from one another."""
    port = free_port(18180)
    www = folder / "www"
    www.mkdir()
    for number in range(100):
        items = [
            {"id": number * 1000 + item, "name": f"item {number * 7919 + item * 104729}", "price": (item * 7907) % 9973}
            for item in range(5 + number)
        ]
        (www / f"{number}.json").write_text(json.dumps(items), "ascii")
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port), "ascii")
    process = start(["nginx", "-c", f"{folder}/nginx.conf", "-e", f"{folder}/nginx-error.log"], None, cpu)
    try:
        wait_for(lambda: answers(port), "an answer of nginx")
        yield port
    finally:
        stop(process)


@contextlib.contextmanager
def mariadb_server(folder, cpu=None):
    """With an empty database `sbtest` and a user `sbtest` without a password."""
    port, data = free_port(13406), folder / "mariadb"
    log = folder / "mariadb.log"
    as_root = ["--user=root"] if os.geteuid() == 0 else []
    with open(log, "ab") as output:
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", *as_root, f"--datadir={data}", "--skip-test-db",
             "--auth-root-authentication-method=normal"], stdout=output, stderr=output, check=True)
    client = ["mariadb", "--no-defaults", f"--socket={data}/admin.sock", "--user=root"]
    process = start(
        ["mariadbd", "--no-defaults", *as_root, f"--datadir={data}", f"--socket={data}/admin.sock",
         f"--pid-file={data}/pid", "--bind-address=127.0.0.1", f"--port={port}", "--skip-name-resolve",
         "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--innodb-buffer-pool-size=128M",
         "--performance-schema=OFF"], log, cpu)
    try:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        wait_for(lambda: subprocess.run([*client, "-e", "SELECT 1"], check=False, **quiet).returncode == 0,
                 "an answer of mariadbd", 60)
        setup = "CREATE DATABASE sbtest; CREATE USER sbtest@'127.0.0.1'; GRANT ALL ON sbtest.* TO sbtest@'127.0.0.1'"
        subprocess.run([*client, "-e", setup], check=True)
        yield port
    finally:
        stop(process)


# --- recorders ------------------------------------------------------------------------------------------------------


class Recorder:
    """A recorder running in the background; `cpu`, `memory` and `exit_code` are known after `stop`."""

    def __init__(self, command, ready, folder):
        self.log = folder / "recorder.log"
        self.log.unlink(missing_ok=True)
        self.process = start(command, self.log)
        wait_for(lambda: self.process.poll() is not None or ready(self), f"the start of {command[0]}")
        if self.process.poll() is not None:
            raise SystemExit(f"error: {' '.join(command)} ended at once:\n{self.log.read_text('utf-8', 'replace')}")
        self.started, self.cpu_at_start = time.monotonic(), cpu_seconds(self.process.pid)
        self.cpu = self.memory = self.exit_code = None

    def stop(self):
        """Ends the recording; `cpu` is in cores, from the moment it was ready until now."""
        pid = self.process.pid
        if self.process.poll() is None:
            self.cpu = (cpu_seconds(pid) - self.cpu_at_start) / (time.monotonic() - self.started)
            self.memory = peak_memory(pid)
        self.exit_code = stop(self.process, signal.SIGINT, 120)
        return self.log.read_text("utf-8", "replace")


def tcpdump(output, folder, *options):
    command = ["tcpdump", "-Z", "root", "-n", "-i", "lo", "-w", str(output), *options]
    return Recorder(command, lambda self: b"listening on" in self.log.read_bytes(), folder)


def kfr_capture(output, folder, *options):
    """Records until stopped. Ready once the partial file holds something."""
    for old in (output, output.with_name(output.name + ".partial")):
        old.unlink(missing_ok=True)
    partial = output.with_name(output.name + ".partial")
    command = [KFR, "capture", "--duration", "600s", "--force", "-o", str(output), *options]
    return Recorder(command, lambda _: partial.exists() and partial.stat().st_size > 0, folder)


def dropped_by_tcpdump(log):
    match = re.search(r"(\d+) packets? dropped by kernel", log)
    return int(match.group(1)) if match else None


# --- numbers --------------------------------------------------------------------------------------------------------


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else None


def median(values):
    return percentile(values, 0.5)


def show(value, digits=2):
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(rows, digits=2):
    """Prints a list of dictionaries with the same keys."""
    names = list(rows[0])
    cells = [names] + [[show(row.get(name), digits) for name in names] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    for line in cells:
        print("  ".join(text.ljust(width) if index == 0 else text.rjust(width)
                        for index, (text, width) in enumerate(zip(line, widths, strict=True))))
    print()


def have(command):
    return shutil.which(command) is not None
