"""A barrier-lock table that lies spoils the profile of its own process and nothing else: the daemon lives, keeps its size and its speed, and an
innocent process beside it is profiled as if the other were not there.

SPROF_HOSTILE_SECONDS: how long each lie is told (0.5), SPROF_HOSTILE_SEEDS: how many times over (1)."""
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness
from harness import Case, Daemon, Target, number, wait_for

SECONDS = float(os.environ.get("SPROF_HOSTILE_SECONDS", 0.5))
SEEDS = int(os.environ.get("SPROF_HOSTILE_SEEDS", 1))
HZ = 4999
STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
PROG_TYPE_PERF_EVENT = 7  # enum bpf_prog_type
# A stack of 1,024 frames takes 15 us; the rest is for other people's interrupts.
MAX_NS_PER_SAMPLE = 60000
MAX_GROWTH_BYTES = 32 << 20


class Hostile(Case):
    @classmethod
    def setUpClass(cls):
        before = STATS.read_text()
        STATS.write_text("1")
        cls.addClassCleanup(STATS.write_text, before)
        cls.daemon = Daemon(cls)

    def program_counts(self):
        """(runs, ns) of the daemon's sampling program."""
        for info in Path(f"/proc/{self.daemon.pid()}/fdinfo").iterdir():
            fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
            if int(fields.get("prog_type", -1)) == PROG_TYPE_PERF_EVENT and int(fields["run_cnt"]):
                return int(fields["run_cnt"]), int(fields["run_time_ns"])
        return 0, 0

    def check_innocent(self, innocent, least_ns, most_ns):
        """Its samples (what ran while it was attached or detached may be in them or not), its stacks, its shares."""
        target = self.daemon.settle(innocent.pid)
        profile = self.daemon.pull(innocent.pid)
        self.assert_conserved(target)
        self.assertEqual(harness.losses(target), {})
        self.assertGreaterEqual(profile.cpu_ns(), 0.97 * least_ns - 2e9 / HZ)
        self.assertLessEqual(profile.cpu_ns(), 1.03 * most_ns + 2e9 / HZ)
        total = profile.count()
        self.assertGreater(total, 0.5 * HZ * least_ns / 1e9)
        inclusive = profile.inclusive()
        for name, share in (("a_heavy", 0.5), ("b_mid", 0.3), ("c_light", 0.2)):
            self.assert_near(inclusive[name] / total, share, 0, 0.06, f"share of {name}")
        for stack, _ in profile.stacks():
            self.assertFalse([name for name in stack if name.startswith(("hostile", "["))], stack)

    def check(self, mode, seed):
        pid = self.daemon.pid()
        innocent = Target(self, "spin", "--shares=5:3:2")
        hostile = Target(self, "hostile_table", mode, f"--seed={seed}")
        runs, ns = self.program_counts()
        rss = number(self.daemon.status(), "rss_bytes")
        self.daemon.attach(hostile.pid, HZ)
        low_ns = harness.cpu_ns(innocent.pid)
        self.daemon.attach(innocent.pid, HZ)
        high_ns = harness.cpu_ns(innocent.pid)
        time.sleep(SECONDS)
        least_ns = harness.cpu_ns(innocent.pid) - high_ns
        self.daemon.ok("detach", innocent.pid)
        most_ns = harness.cpu_ns(innocent.pid) - low_ns
        more_runs, more_ns = self.program_counts()
        lies = hostile.finish()["lies"]
        self.assertGreater(lies, 5)
        target = self.daemon.settle(hostile.pid)
        self.assert_conserved(target)
        self.assertGreater(number(target, "samples"), 0)
        self.assertEqual(sum(number(end, "count") for end in target["stack_ends"]), number(target, "samples"))
        self.daemon.pull(hostile.pid)  # whatever is in it, it is a valid profile
        self.check_innocent(innocent, least_ns, most_ns)
        self.assertEqual((self.daemon.process.poll(), self.daemon.pid()), (None, pid), self.daemon.log()[-2000:])
        self.assertGreater(more_runs, runs)
        self.assertLess((more_ns - ns) / (more_runs - runs), MAX_NS_PER_SAMPLE, "ns of the BPF program per sample")
        grown = number(self.daemon.status(), "rss_bytes") - rss
        if not harness.SANITIZED:
            self.assertLess(grown, MAX_GROWTH_BYTES, "memory of the daemon")
        return {end["name"] for end in target["stack_ends"] if number(end, "count")}

    def seeds(self, mode):
        """All the ends that its stacks came to."""
        ends = set()
        for seed in range(1, SEEDS + 1):
            with self.subTest(seed=seed):
                ends |= self.check(mode, seed)
        return ends

    def test_records(self):
        ends = self.seeds("records")
        self.assertGreaterEqual(len(ends), 5, f"hardly a lie was believed for long enough to matter: {ends}")

    def test_header(self):
        self.seeds("header")

    def test_loops(self):
        self.seeds("loops")

    def test_counts(self):
        self.seeds("counts")

    def test_shrinks(self):
        self.seeds("shrinks")

    def test_churns(self):
        self.seeds("churns")


class Stalling(Case):
    """A process that has whoever reads its memory wait for good keeps nobody else waiting."""

    def stalling(self, mode, n):
        return [Target(self, "stalling_table", mode) for _ in range(n)]

    def table_of(self, pid, **more):
        return self.daemon.ctl("table", pid, timeout=30, **more)

    def setUp(self):
        self.daemon = Daemon(self)

    def test_a_table_that_stalls(self):
        """More of them than the daemon has threads for control requests."""
        stalling = self.stalling("table", 10)
        with ThreadPoolExecutor(10) as pool:
            attached = list(pool.map(lambda target: self.daemon.ctl("attach", target.pid, timeout=30), stalling))
        self.assertEqual([done.returncode for done in attached], [0] * 10, attached)
        spin = Target(self, "spin")
        self.daemon.attach(spin.pid)
        self.daemon.ok("detach", spin.pid)
        self.assert_refused(self.daemon.ctl("table", 1 << 22, timeout=30), "no process")
        self.assertIn("magic is 0", self.table_of(stalling[0].pid).stdout)

    def test_a_stack_that_stalls(self):
        """More of them than may be stuck: each is told in time, and so is who asks for another table."""
        stalling = self.stalling("stack", 16)
        good = Target(self, "bad_table", "none")
        with ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(self.table_of, target.pid) for target in stalling[:8]]
            wait_for(lambda: "waits" in self.states(), 10, "a look that is stuck")
            begin = time.monotonic()
            self.assertIn("a valid barrier-lock table", self.table_of(good.pid).stdout)
            self.assertLess(time.monotonic() - begin, 5)
            asked += [pool.submit(self.table_of, target.pid) for target in stalling[8:]]
            for done in asked:
                self.assert_refused(done.result(), "makes whoever reads its memory wait.*userfaultfd")
        begin = time.monotonic()
        self.assert_refused(self.table_of(stalling[3].pid), "makes whoever reads its memory wait")
        self.assert_refused(self.table_of(good.pid), "16 processes make whoever reads their memory wait")
        self.assertLess(time.monotonic() - begin, 5)
        harness.end(stalling[3].process)
        wait_for(lambda: self.table_of(good.pid).returncode == 0, 10, "one that lets go")
        if harness.SANITIZED:  # LeakSanitizer stops all threads at the end, which those that wait cannot be
            for target in stalling:
                harness.end(target.process)
        begin = time.monotonic()
        self.assertEqual(self.daemon.stop(), 0)
        self.assertLess(time.monotonic() - begin, 8, "the end of a daemon that 15 processes hold on to")

    def states(self):
        """Of the daemon's threads: "waits" for one that reads another process's memory."""
        tasks = Path(f"/proc/{self.daemon.pid()}/task").iterdir()
        return {"waits" for task in tasks if (task / "wchan").read_text() == "handle_userfault"}


if __name__ == "__main__":
    harness.main()
