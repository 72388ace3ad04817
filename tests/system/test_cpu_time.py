"""CPU time in the profile agrees with the process's own, within the larger of 2 % and two periods a thread."""
import harness
from harness import Case, Daemon, Target


class CpuTime(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls)

    def check(self, target, hz, n_threads, seconds=1.5):
        """After so many seconds of CPU time."""
        low_ns = harness.cpu_ns(target.pid)
        self.daemon.attach(target.pid, hz)
        high_ns = harness.cpu_ns(target.pid)
        harness.let_run(target.pid, seconds)
        end_ns = target.finish()["process_cpu_ns"]
        self.daemon.settle(target.pid)
        profile = self.daemon.pull(target.pid)
        # What ran while the attach was under way may be in it or not.
        slack_ns = max(0.02 * (end_ns - high_ns), n_threads * 2e9 / hz)
        self.assertGreaterEqual(profile.cpu_ns(), end_ns - high_ns - slack_ns, f"{hz} Hz: too little")
        self.assertLessEqual(profile.cpu_ns(), end_ns - low_ns + slack_ns, f"{hz} Hz: too much")
        return profile

    def test_steady(self):
        for hz in (99, 999, 9999):
            with self.subTest(hz=hz):
                self.check(Target(self, "spin", "--threads=2"), hz, 2, 2)

    def test_bursts_of_50_us(self):
        for hz in (99, 999, 9999):
            with self.subTest(hz=hz):
                self.check(Target(self, "spin", "--burst-us=50", "--idle-us=50"), hz, 1)

    def test_bursts_on_two_threads(self):
        self.check(Target(self, "spin", "--threads=2", "--burst-us=50", "--idle-us=200"), 999, 2)

    def test_crowded(self):
        """Six threads for two processors: off-CPU time must not count."""
        self.check(Target(self, "spin", "--threads=6"), 499, 6, 3)

    def test_system_time(self):
        self.check(Target(self, "syscaller", "--what=0"), 999, 1)

    def test_shares_of_functions(self):
        profile = self.check(Target(self, "spin", "--shares=5:3:2"), 1999, 1, 4)
        ns = {}
        for sample in profile.samples:
            for name in {f.name for x in sample.locations for f, _ in x.lines}:
                ns[name] = ns.get(name, 0) + sample.values[1]
        total = sum(ns[name] for name in ("a_heavy", "b_mid", "c_light"))
        # About 10,000 samples: four standard deviations of a share are below 0.02.
        for name, share in (("a_heavy", 0.5), ("b_mid", 0.3), ("c_light", 0.2)):
            self.assert_near(ns[name] / total, share, 0, 0.02, f"share of {name}")

    def test_a_window(self):
        """The next seconds, no more and no less: the CPU time of just that span, by a clock that is read all the while."""
        target = Target(self, "spin", "--threads=2")
        self.daemon.attach(target.pid, 999)
        with harness.CpuReadings(target.pid) as readings:
            profile = self.daemon.pull(target.pid, 2)
        self.assertGreaterEqual(profile.duration_ns, 2e9)
        self.assertLess(profile.duration_ns, 2.04e9 + readings.widest_gap_ns())
        least_ns, most_ns = readings.of(profile)
        slack_ns = max(0.02 * most_ns, 4e9 / 999)
        self.assertGreaterEqual(profile.cpu_ns(), least_ns - slack_ns)
        self.assertLessEqual(profile.cpu_ns(), most_ns + slack_ns)


if __name__ == "__main__":
    harness.main()
