"""Whole stacks of programs that nobody here wrote, as Debian ships them, without frame pointers: the share of samples whose stack ends where the
thread began, by program, and why the others end. Counted from when the program's unwind tables are there."""
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
import unittest

import harness
from harness import Daemon, number

HZ = 4000
SAMPLES = 6000
WHOLE = 0.999
WHOLE_ENDS = ("outermost", "none")

PYTHON = """
import json, re
def work(n):
    data = [{"k%d" % (i % 37): [i, str(i), {"x": i * 1.5}]} for i in range(n)]
    text = json.dumps(sorted(data, key=lambda d: re.sub("k", "", next(iter(d)))))
    return json.loads(text)
while True: work(200)
"""
PERL = r"""
sub f { my $n = shift; return $n < 2 ? $n : f($n - 1) + f($n - 2) }
while (1) { my %h; $h{$_} = f(10) for 1..50; my $x = join ",", sort { $h{$a} <=> $h{$b} } keys %h; $x =~ s/1(\d+)/$1/g; }
"""
SQL = """with recursive c(x) as (select 1 union all select x + 1 from c where x < 100000000)
select x % 10, count(*), sum(x * x % 7), max(hex(x)), group_concat(substr(printf('%d', x), 1, 1)) from c where x % 5 < 3 group by 1;"""


def c_source(functions):
    lines = ["int f0(int a, int b) { return a + b; }"]
    for i in range(1, functions):
        lines.append(
            f"int f{i}(int a, int b) {{ int s = 0; for (int i = 0; i < a; i++) switch (i % 7) {{ case 0: s += b; break; case 1: s *= a; break;"
            f" case 2: s ^= b << 3; break; default: s -= i; }} return s + f{i - 1}(a - 1, b); }}")
    return "\n".join(lines)


class Stacks(harness.Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls)
        cls.table = []

    @classmethod
    def tearDownClass(cls):
        print("\nprogram            samples    whole  others")
        for name, total, whole, others in cls.table:
            print(f"{name:<16} {total:>9} {100 * whole / total:>7.2f}%  {others or ''}")

    def start(self, *argv, **more):
        process = subprocess.Popen(
            list(map(str, argv)), **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self.daemon.directory, **more})
        self.addCleanup(harness.end, process)
        return process

    def ends(self, pid):
        return {e["name"]: number(e, "count") for e in self.daemon.target(pid).get("stack_ends", [])}

    def settled_ends(self, pid):
        """Once all samples are walked by tables."""
        before = self.ends(pid)

        def settled():
            nonlocal before
            time.sleep(0.3)
            now = self.ends(pid)
            quiet = now.get("tables_not_ready", 0) == before.get("tables_not_ready", 0)
            more = sum(now.values()) > sum(before.values()) + 50
            before = now
            return now if quiet and more else None

        return harness.wait_for(settled, 20, f"no tables: {before}")

    def judge(self, name, pid):
        self.daemon.attach(pid, HZ)
        first = self.settled_ends(pid)
        last = harness.wait_for(
            lambda: (lambda now: now if sum(now.values()) - sum(first.values()) >= SAMPLES else None)(self.ends(pid)),
            40, f"{name} makes too few samples")  # fmt: skip
        self.daemon.ok("detach", pid)
        counts = {end: last[end] - first.get(end, 0) for end in last if last[end] > first.get(end, 0)}
        total, whole = sum(counts.values()), sum(counts.get(end, 0) for end in WHOLE_ENDS)
        others = {end: n for end, n in counts.items() if end not in WHOLE_ENDS}
        self.table.append((name, total, whole, others))
        self.assertGreaterEqual(whole / total, WHOLE, f"{name}: {counts}")

    def test_python(self):
        self.judge("python3", self.start("/usr/bin/python3", "-c", PYTHON).pid)

    def test_perl(self):
        self.judge("perl", self.start("perl", "-e", PERL).pid)

    def test_sqlite(self):
        self.judge("sqlite3", self.start("sqlite3", ":memory:", SQL).pid)

    def test_xz(self):
        data = self.daemon.directory / "random"
        data.write_bytes(os.urandom(1 << 20) * 60)
        self.judge("xz -T2", self.start("xz", "-9", "-T2", "--block-size=4MiB", "-k", "-c", data).pid)

    def test_cc1(self):
        source = self.daemon.directory / "many.c"
        source.write_text(c_source(8000))
        cc1 = subprocess.run(["gcc", "-print-prog-name=cc1"], capture_output=True, text=True, check=True).stdout.strip()
        self.judge("cc1", self.start(cc1, "-O2", "-quiet", source, "-o", "/dev/null").pid)

    def test_git(self):
        """Takes in an endless history."""
        repository = self.daemon.directory / "repository"
        subprocess.run(["git", "init", "-q", repository], check=True)
        process = self.start("git", "fast-import", "--quiet", stdin=subprocess.PIPE, cwd=repository)
        self.addCleanup(shutil.rmtree, repository, ignore_errors=True)

        def feed():
            try:
                for i in range(1000000):
                    text = "".join(f"line {j * i % 1009} of {i}\n" for j in range(400)).encode()
                    process.stdin.write(
                        b"commit refs/heads/main\ncommitter a <a@example.org> %d +0000\ndata 1\nx\nM 644 inline file%d\ndata %d\n%s\n"
                        % (i + 1, i % 50, len(text), text))
            except (BrokenPipeError, ValueError):
                pass

        threading.Thread(target=feed, daemon=True).start()
        self.judge("git", process.pid)

    def test_redis(self):
        socket = self.daemon.directory / "redis.sock"
        server = self.start("redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no")
        harness.wait_for(socket.exists, 10, "redis-server does not listen")
        self.start("redis-benchmark", "-s", socket, "-l", "-q", "-t", "set,get,lpush,zadd,mset", "-P", "4", "-c", "20")
        self.judge("redis-server", server.pid)


class Gdb(harness.Case):
    """The same stops of the same programs, walked by us and by gdb: whole stacks are the same."""

    STOPS = int(os.environ.get("SPROF_GDB_STOPS", 20))

    def judge(self, *argv, **more):
        directory = Path(tempfile.mkdtemp(prefix="sprof-gdb."))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        process = subprocess.Popen(list(map(str, argv)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=directory, **more)
        self.addCleanup(harness.end, process)
        harness.let_run(process.pid, 0.3)
        to = directory / "stops"
        subprocess.run(
            ["gdb", "-batch", "-nx", "-x", Path(__file__).with_name("gdb_stops.py")], capture_output=True, timeout=200, check=True,
            env={**os.environ, "STOPS_PID": str(process.pid), "STOPS_N": str(self.STOPS), "STOPS_TO": str(to)})  # fmt: skip
        with open(to, "rb") as stops:
            ours = subprocess.run(
                [harness.TARGETS / "walk_stops", str(process.pid)], stdin=stops, capture_output=True, text=True, check=True)
        theirs = Path(f"{to}.frames").read_text().splitlines()
        walks = [line.split() for line in ours.stdout.splitlines()]
        self.assertEqual(len(walks), self.STOPS)
        self.assertEqual(len(theirs), self.STOPS)
        for (_, *frames), line in zip(walks, theirs):
            mappings = Path(f"/proc/{process.pid}/maps").read_text()
            self.assertEqual(frames, line.split(), f"ours, and gdb's, of {argv[0]}; mappings: {mappings}")

    def test_python(self):
        self.judge("/usr/bin/python3", "-c", PYTHON)

    def test_perl(self):
        self.judge("perl", "-e", PERL)

    def test_sqlite(self):
        self.judge("sqlite3", ":memory:", SQL)


class Uretprobes(harness.Case):
    """Returns that the kernel itself has hijacked, in every frame of a recursion."""

    EVENTS = Path("/sys/kernel/tracing/uprobe_events")
    NAME = f"sprof_test_{os.getpid()}"

    def tell(self, text):
        fd = os.open(self.EVENTS, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def probe(self, program, function):
        offset = None
        symbols = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout
        address = next(int(line.split()[0], 16) for line in symbols.splitlines() if line.endswith(f" {function}"))
        segments = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True, check=True).stdout
        for line in segments.splitlines():
            fields = line.split()
            if fields[:1] == ["LOAD"] and "E" in fields[6:8]:
                offset = address - int(fields[2], 16) + int(fields[1], 16)
        self.tell(f"r:{self.NAME}/{self.NAME} {program}:{offset:#x}")
        enable = self.EVENTS.parent / "events" / self.NAME / self.NAME / "enable"
        self.addCleanup(self.tell, f"-:{self.NAME}/{self.NAME}")
        enable.write_text("1")
        self.addCleanup(enable.write_text, "0")

    def test_recursion(self):
        if not self.EVENTS.exists():
            subprocess.run(["mount", "-t", "tracefs", "none", self.EVENTS.parent], check=True)
        program = (harness.TARGETS / "deep_cfi").resolve()
        self.probe(program, "deep_frame")
        daemon = Daemon(self)
        target = harness.Target(self, "deep_cfi", "--depth=40")
        daemon.attach(target.pid, 999)
        harness.let_run(target.pid, 0.7)
        profile = daemon.pull(target.pid, 1)
        ends = {e["name"]: number(e, "count") for e in daemon.target(target.pid)["stack_ends"]}
        self.assertNotIn("hijacked", ends)
        whole = sum(count for stack, count in profile.stacks() if stack.count("deep_frame") == 40 and stack[-1] == "_start")
        self.assertGreater(whole, 0.99 * profile.count(), (ends, profile.stacks()[:2]))
        self.assertFalse([stack for stack, _ in profile.stacks() if "[uprobes]" in stack])


class Tables(harness.Case):
    """The memory of unwind tables."""

    def tables(self, daemon):
        found = daemon.status()["unwind_tables"]
        return {key: number(found, key) for key in ("tables", "lists", "table_bytes", "list_bytes", "refused")}

    def sleepers(self, n):
        processes = [subprocess.Popen(["python3", "-c", "import time\nprint(1, flush=True)\ntime.sleep(99)"], stdout=subprocess.PIPE) for _ in range(n)]
        for process in processes:
            self.addCleanup(harness.end, process)
            process.stdout.readline()
        return processes

    def test_shared_and_let_go(self):
        daemon = Daemon(self)
        processes = self.sleepers(4)
        daemon.attach(processes[0].pid)
        one = harness.wait_for(lambda: (lambda t: t if t["lists"] == 1 else None)(self.tables(daemon)), 10, "no list")
        self.assertGreater(one["tables"], 3)
        self.assertGreater(one["table_bytes"], 200000)
        for process in processes[1:]:
            daemon.attach(process.pid)
        all_of_them = harness.wait_for(lambda: (lambda t: t if t["lists"] == 4 else None)(self.tables(daemon)), 10, "no lists")
        self.assertEqual(all_of_them, {**one, "lists": 4, "list_bytes": 4 * one["list_bytes"]})
        for process in processes[:2]:
            daemon.ok("detach", process.pid)
        for process in processes[2:]:
            process.kill()
        harness.wait_for(lambda: not any(self.tables(daemon).values()), 10, f"tables are left: {self.tables(daemon)}")

    def test_the_budget(self):
        """A program whose table has no room is walked all the same, and status says so."""
        daemon = Daemon(self, config="[memory]\nunwind_mib = 1\n")
        source = daemon.directory / "many.c"
        source.write_text(c_source(8000))
        cc1 = subprocess.run(["gcc", "-print-prog-name=cc1"], capture_output=True, text=True, check=True).stdout.strip()
        process = subprocess.Popen([cc1, "-O2", "-quiet", source, "-o", "/dev/null"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(harness.end, process)
        daemon.attach(process.pid, 999)

        def refused():
            ends = {e["name"]: number(e, "count") for e in daemon.target(process.pid).get("stack_ends", [])}
            return ends if ends.get("table_refused") else None

        harness.wait_for(refused, 10, "nothing is refused")
        found = self.tables(daemon)
        self.assertLessEqual(found["table_bytes"] + found["list_bytes"], 1 << 20)
        self.assertIn("raise unwind_mib", daemon.ok("status"))


if __name__ == "__main__":
    harness.main()
