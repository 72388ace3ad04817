#!/usr/bin/env python3
"""How long after an attach the first whole stack is sampled, how many samples were walked without unwind tables, and what the first 1.5 s took of the daemon and its reader.

cold: a daemon that has just started, and has never seen the program; warm: another process of the same program, after the first is detached and gone.
Times are by steps of a poll of the daemon's status (1 ms), and by the target's own turns on the processors; CPU time is measured in attaches of their own, without
the poll. Run as root: SPROF_BUILD=build python3 tests/bench/bench_attach.py"""
import argparse
import http.client
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import measure
from measure import harness

HZ = 997
WHOLE = ("outermost", "root", "table_root", "none")
GIVE_UP_S = 20

PYTHON = "import json\nwhile True: json.loads(json.dumps([{str(i): i} for i in range(500)]))"
NODE = "function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2) } for (;;) { fib(20); JSON.parse(JSON.stringify([...Array(300).keys()])) }"
JAVA = """public class Busy {
  static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
  public static void main(String[] a) { while (true) { StringBuilder b = new StringBuilder(); for (int i = 0; i < 300; i++) b.append(fib(i % 12)); } }
}"""


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


class Client:
    """One connection, so that asking costs little."""

    def __init__(self, daemon):
        self.connection = harness.Unix(daemon.socket, 30)

    def ask(self, method, path, body=None):
        self.connection.request(method, path, body, {"Accept": "application/json", "Content-Type": "application/x-protobuf"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise http.client.HTTPException(f"{method} {path}: {answer.status} {text!r}")
        return harness.json.loads(text or b"{}")

    def ends(self, pid):
        targets = [t for t in self.ask("GET", "/v1/status").get("targets", []) if t["pid"] == pid and t["state"] == "live"]
        return {e["name"]: int(e.get("count", 0)) for t in targets for e in t.get("stack_ends", [])}


class Programs:
    def __init__(self, scope):
        self.directory = Path(tempfile.mkdtemp(prefix="sprof-bench."))
        scope.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def start(self, scope, *argv):
        process = subprocess.Popen(list(map(str, argv)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.directory)
        scope.addCleanup(harness.end, process)
        return process.pid

    def redis(self, scope):
        path = self.directory / "redis.sock"
        path.unlink(missing_ok=True)
        pid = self.start(scope, "redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no")
        harness.wait_for(path.exists, 10, "redis-server")
        self.start(scope, "redis-benchmark", "-s", path, "-l", "-q", "-t", "set,get", "-P", "8", "-c", "10")
        return pid

    def python3(self, scope):
        return self.start(scope, "/usr/bin/python3", "-c", PYTHON)

    def node(self, scope):
        return self.start(scope, "node", "-e", NODE)

    def java(self, scope):
        if not (self.directory / "Busy.class").exists():
            (self.directory / "Busy.java").write_text(JAVA)
            subprocess.run(["javac", "Busy.java"], cwd=self.directory, check=True)
        return self.start(scope, "java", "-cp", self.directory, "Busy")

    def clang(self, scope):
        source = self.directory / "many.c"
        if not source.exists():
            source.write_text("\n".join(
                f"int f{i}(int *a, int n) {{ int s = {i}; for (int i = 0; i < n; i++) switch (a[i] % 7) {{ case 0: s += a[i] * {i}; break;"
                f" case 1: s ^= s >> 3; break; default: s -= n; }} return s; }}" for i in range(20000)))
        return self.start(scope, "clang", "-O2", "-c", source, "-o", "/dev/null")


def attach(client, pid, hz):
    client.ask("POST", "/v1/targets", b"\x08" + varint(pid) + b"\x10" + varint(hz))


def measure_cpu(daemon, pid):
    """ms of the daemon and its reader in the first 1.5 s at 99 Hz"""
    client = Client(daemon)
    client.ask("GET", "/v1/status")
    used_ns = harness.cpu_ns(daemon.pid()) + sum(map(harness.cpu_ns, harness.children_of(daemon.pid())))
    attach(client, pid, 99)
    time.sleep(1.5)
    used_ns = harness.cpu_ns(daemon.pid()) + sum(map(harness.cpu_ns, harness.children_of(daemon.pid()))) - used_ns
    client.ask("DELETE", f"/v1/targets/{pid}")
    return used_ns / 1e6


def measure_time(daemon, pid):
    """(ms until attach answers, ms until a whole stack, samples without tables by then)"""
    client = Client(daemon)
    client.ask("GET", "/v1/status")
    begin_ns = time.monotonic_ns()
    attach(client, pid, HZ)
    attached_ns = time.monotonic_ns()
    ends, whole_ns = {}, None
    while whole_ns is None:
        ends = client.ends(pid)
        if sum(ends.get(end, 0) for end in WHOLE):
            whole_ns = time.monotonic_ns()
        elif time.monotonic_ns() - begin_ns > GIVE_UP_S * 1e9:
            raise SystemExit(f"process {pid}: no whole stack in {GIVE_UP_S} s: {ends}")
        time.sleep(0.001)
    client.ask("DELETE", f"/v1/targets/{pid}")
    return (attached_ns - begin_ns) / 1e6, (whole_ns - begin_ns) / 1e6, ends.get("tables_not_ready", 0)


def cold_and_warm(programs, name, measured):
    """What `measured` says of each."""
    with measure.Scope() as scope:
        daemon = harness.Daemon(scope, log_level="info")
        for _ in range(2):
            with measure.Scope() as process:
                pid = getattr(programs, name)(process)
                harness.let_run(pid, 0.4)
                yield measured(daemon, pid)
        daemon.kill()


def one_round(programs, name, results):
    times, used = (list(cold_and_warm(programs, name, measured)) for measured in (measure_time, measure_cpu))
    for kind, time_of, cpu_of in zip(("cold", "warm"), times, used):
        results.setdefault((name, kind), []).append((*time_of, cpu_of))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--programs", default="redis,python3,node,java,clang")
    options = parser.parse_args()
    results = {}
    with measure.Scope() as scope:
        programs = Programs(scope)
        for _ in range(options.rounds):
            for name in options.programs.split(","):
                one_round(programs, name, results)
    print(f"{measure.machine()}; {options.rounds} rounds, {HZ} Hz; median (quartiles)\n")
    rows = []
    for (name, kind), values in results.items():
        answered, whole, without, used = zip(*values)
        rows.append([name, kind, measure.spread(answered, 1), measure.spread(whole, 1), f"{statistics.median(without):.0f}", measure.spread(used, 1)])
    measure.table(["program", "", "attach answers, ms", "first whole stack, ms", "samples without tables", "CPU of the daemon and its reader in 1.5 s at 99 Hz, ms"], rows)


if __name__ == "__main__":
    main()
