"""Whole stacks of programs that nobody here wrote, as Debian ships them, without frame pointers: the share of samples whose stack ends where the
thread began, by program, and why the others end. Counted from when the program's unwind tables are there."""
import collections
import os
import re
import signal
import subprocess
import time
from pathlib import Path
import unittest

import harness
from foreign import PYTHON, Foreign, c_source
from harness import Daemon, number

HZ = 10303  # a second has enough samples
SAMPLES = 10000
WHOLE = 0.999
WHOLE_OF_A_JIT = 0.99  # of the samples that are counted
LOADS = 0.01  # the most of the samples that may be in what was loaded a moment before, in programs that load at their start


def begins_in_loader(outermost):
    """Where the kernel has a process begin: while its libraries are relocated, and while their constructors run."""
    return bool(outermost.mapping) and "/ld-linux" in outermost.mapping.filename and outermost.lines[-1][0].name in ("_start", "_dl_start_user")


class Stacks(harness.Case, Foreign):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls)
        cls.table = []

    @classmethod
    def tearDownClass(cls):
        print("\nprogram            samples    whole     raw  others; left out, in code of a JIT; before the tables were there")
        for name, total, whole, raw, others, excluded, early in sorted(cls.table):
            print(f"{name:<16} {total:>9} {100 * whole:>7.3f}% {100 * raw:>7.3f}%  {others or '-'}; {excluded or '-'}; {early}")

    def ends(self, pid):
        return {e["name"]: number(e, "count") for e in self.daemon.target(pid).get("stack_ends", [])}

    def settled_ends(self, pid):
        """Once all samples are walked by tables."""
        before = self.ends(pid)

        def settled():
            nonlocal before
            time.sleep(0.15)
            now = self.ends(pid)
            quiet = now.get("tables_not_ready", 0) == before.get("tables_not_ready", 0)
            more = sum(now.values()) > sum(before.values()) + 50
            before = now
            return now if quiet and more else None

        return harness.wait_for(settled, 20, f"no tables: {before}")

    def judge(self, name, pid, at_least=WHOLE, roots=frozenset(), loads=0):
        """The share of whole stacks, of SAMPLES and more. Left out, and printed beside it: stacks that end in code that a JIT made, which nothing describes, and
        where no frame pointer leads on; and those of what was loaded a moment before, which are no more than may not be whole, or than `loads`. A frame pointer of
        zero ends a stack (`root`), and is not believed here: what is not walked to its end by tables may be short, unless it ends where a process begins in ld.so,
        or in one of `roots`: nobody calls them though no table says so."""
        self.daemon.attach(pid, HZ)
        before = self.settled_ends(pid)
        total, ends, excluded = 0, collections.Counter(), collections.Counter()
        deadline = time.monotonic() + 60
        while total < SAMPLES:
            self.assertLess(time.monotonic(), deadline, f"{name} makes too few samples: {total}")
            profile = self.daemon.pull(pid, 1)
            ends["root"] += sum(int(n) for n in re.findall(r"stacks ended root (\d+):", "\n".join(profile.comments)))
            for sample in profile.samples:
                end, n = sample.labels.get("stack_end"), sample.values[0]
                outermost = sample.locations[-1]
                last = outermost.mapping
                total += n
                if not end and outermost.lines and (outermost.lines[-1][0].name in roots or begins_in_loader(outermost)):
                    ends["root"] -= n
                elif end and (last is None or last.filename.startswith(("//", "[", "/memfd:"))):
                    excluded[end] += n
                elif end:
                    ends[end] += n
        self.daemon.ok("detach", pid)
        just_loaded = ends.pop("tables_not_ready", 0)
        ends += collections.Counter()  # without what is not there
        counted = total - excluded.total() - just_loaded
        whole = counted - ends.total()
        self.table.append((name, total, whole / counted, whole / total, dict(ends), dict(excluded), before.get("tables_not_ready", 0) + just_loaded))
        self.assertLessEqual(just_loaded / total, max(loads, 1 - at_least), name)
        self.assertGreaterEqual(whole / counted, at_least, f"{name}: {ends} {excluded}")

    def test_python(self):
        self.judge("python3", self.python())

    def test_perl(self):
        self.judge("perl", self.perl())

    def test_ruby(self):
        self.judge("ruby", self.ruby(), loads=LOADS)

    def test_sqlite(self):
        self.judge("sqlite3", self.sqlite())

    def test_xz(self):
        self.judge("xz -T2", self.xz())

    def test_zstd(self):
        self.judge("zstd -T2", self.zstd())

    def test_cc1(self):
        self.judge("cc1", self.cc1())

    def test_cc1plus(self):
        self.judge("cc1plus", self.cc1plus())

    def test_clang(self):
        self.judge("clang", self.clang(), loads=LOADS)

    def test_git(self):
        self.judge("git", self.git())

    def test_redis(self):
        self.judge("redis-server", self.redis())

    def test_nginx(self):
        self.judge("nginx", self.nginx())

    def test_postgres(self):
        self.judge("postgres", self.postgres())

    def test_postgres_jit(self):
        self.judge("postgres, JIT", self.postgres_jit())

    def test_go(self):
        self.judge("go tool compile", self.go(), roots={"runtime.morestack"})  # of a goroutine that was preempted

    def test_rust(self):
        self.judge("rg (Rust)", self.rust())

    def test_node(self):
        self.judge("node", self.node(), WHOLE_OF_A_JIT)

    def test_wasm(self):
        self.judge("node, WebAssembly", self.wasm(), WHOLE_OF_A_JIT)

    def test_java(self):
        self.judge("java", self.java(), WHOLE_OF_A_JIT)

    def test_java_frame_pointers(self):
        self.judge("java, fp", self.java("-XX:+PreserveFramePointer"), WHOLE_OF_A_JIT)

    def test_luajit(self):
        self.judge("luajit", self.luajit(), WHOLE_OF_A_JIT)


class Attach(harness.Case):
    """When the unwind tables are there."""

    def setUp(self):
        self.daemon = Daemon(self)

    def python(self):
        process = subprocess.Popen(["/usr/bin/python3", "-c", PYTHON])
        self.addCleanup(harness.end, process)
        harness.let_run(process.pid, 0.5)
        return process

    def ends(self, pid):
        def sampled():
            ends = {e["name"]: number(e, "count") for e in self.daemon.target(pid).get("stack_ends", [])}
            return ends if sum(ends.values()) > 300 else None

        return harness.wait_for(sampled, 60, "too few samples")

    def test_another_process_of_a_program_is_whole_from_the_first_sample_on(self):
        first = self.python()
        self.daemon.attach(first.pid, 999)
        self.ends(first.pid)
        self.daemon.ok("detach", first.pid)
        harness.end(first)
        tables = self.daemon.status()["unwind_tables"]
        self.assertGreater(number(tables, "kept_bytes"), 100_000)
        second = self.python()
        self.daemon.attach(second.pid, 999)
        ends = self.ends(second.pid)
        self.assertEqual(ends.get("tables_not_ready", 0), 0, ends)
        again = self.daemon.status()["unwind_tables"]
        self.assertEqual(number(again, "tables"), number(tables, "tables"))
        self.assertLess(number(again, "kept_bytes"), number(tables, "kept_bytes"))

    def test_tables_that_do_not_come_are_not_waited_for(self):
        """The reader is stopped: the attach goes on without it, and says so of its samples."""
        spin = harness.Target(self, "spin")
        self.daemon.attach(spin.pid)
        readers = harness.children_of(self.daemon.pid())
        self.assertEqual(len(readers), 1)
        process = self.python()
        os.kill(readers[0], signal.SIGSTOP)
        begin = time.monotonic()
        self.daemon.attach(process.pid, 999)
        self.assertLess(time.monotonic() - begin, 3)
        self.assertGreater(self.ends(process.pid).get("tables_not_ready", 0), 0)

    def test_tables_are_let_go_some_time_after_the_last_process(self):
        daemon = Daemon(self, config="[retention]\nexited_seconds = 1\n")
        spin = harness.Target(self, "spin")
        daemon.attach(spin.pid)
        self.assertGreater(number(daemon.status()["unwind_tables"], "tables"), 1)
        daemon.ok("detach", spin.pid)
        harness.wait_for(lambda: number(daemon.status()["unwind_tables"], "tables") == 0, 20, "tables that are let go")


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
        daemon = Daemon(self, config="[retention]\nexited_seconds = 1\n")
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
