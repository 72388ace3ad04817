"""The frequency of a live target changes with no sample lost or counted twice."""

import harness
from harness import Case, Daemon, Target, losses, number


class Rate(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls)

    def change_rates(self, target, rates, seconds):
        """Attaches and walks through the rates, each for so many seconds of CPU time. The fewest and most samples that are right, the target's truth, the least and most CPU time."""
        phases, moments = [], []
        low_ns = harness.cpu_ns(target.pid)
        self.daemon.attach(target.pid, rates[0])
        high_ns = harness.cpu_ns(target.pid)
        start_ns = high_ns
        for hz in rates[1:]:
            harness.let_run(target.pid, seconds)
            before_ns = harness.cpu_ns(target.pid)
            self.daemon.ok("rate", target.pid, hz)
            after_ns = harness.cpu_ns(target.pid)
            moments.append((before_ns, after_ns))
            self.assertEqual(number(self.daemon.target(target.pid), "frequency_hz"), hz)
        harness.let_run(target.pid, seconds)
        truth = target.finish()
        end_ns = truth["process_cpu_ns"]
        # Within each change either rate may have been in force; outside of them there is no doubt.
        fewest = most = 0
        for i, hz in enumerate(rates):
            end = moments[i][0] if i < len(moments) else end_ns
            fewest += (end - start_ns) * hz / 1e9
            most += (end - start_ns) * hz / 1e9
            if i < len(moments):
                span_ns = moments[i][1] - moments[i][0]
                fewest += span_ns * min(hz, rates[i + 1]) / 1e9
                most += span_ns * max(hz, rates[i + 1]) / 1e9
                start_ns = moments[i][1]
        most += (high_ns - low_ns) * rates[0] / 1e9
        return fewest, most, truth, end_ns - high_ns, end_ns - low_ns

    def check(self, target, rates, n_threads, seconds=1.2, share=0.02):
        fewest, most, truth, least_ns, most_ns = self.change_rates(target, rates, seconds)
        self.daemon.settle(target.pid)
        t = self.daemon.target(target.pid)
        self.assert_conserved(t)
        slack = 2 * n_threads * len(rates)
        self.assertGreater(number(t, "samples"), fewest * (1 - share) - slack - number(t, "late_periods"), f"samples lost: {t}")
        self.assertLess(number(t, "samples"), most * (1 + share) + slack, f"samples counted twice: {t}")
        self.assertEqual(losses(t).get("ring_full", 0), 0)
        profile = self.daemon.pull(target.pid)
        self.assertEqual(profile.count(), number(t, "samples"))
        self.assertEqual(profile.period, 10**9 // rates[-1])
        slack_ns = max(0.02 * most_ns, 2 * n_threads * 1e9 / min(rates))
        # Of a thread that ends, what it ran since its last sample is in no sample.
        ended_ns = truth.get("born", 0) * 1e9 / min(rates)
        self.assertGreater(profile.cpu_ns(), least_ns - max(slack_ns, ended_ns), "CPU time lost across the changes")
        self.assertLess(profile.cpu_ns(), most_ns + slack_ns, "CPU time counted twice across the changes")
        return profile, truth

    def test_two_threads(self):
        profile, truth = self.check(Target(self, "spin", "--threads=2"), (999, 4999, 99, 9999), 2)
        by_tid = profile.by_tid()
        counts = [by_tid[t["tid"]][0] / t["cpu_ns"] for t in truth["threads"]]
        # Their shares of the processors may differ from phase to phase; one that stayed at a rate would be four times off.
        self.assert_near(counts[0], counts[1], 0.4, 0, "the threads did not change rate together: samples per ns")

    def test_threads_come_and_go(self):
        target = Target(self, "thread_churn", "--threads=2", "--life-us=10000")
        self.check(target, (1999, 4999, 1999, 4999, 1999), 2, seconds=0.6, share=0.06)

    def test_many_changes(self):
        rates = [999 if i % 2 else 2999 for i in range(15)]
        self.check(Target(self, "spin", "--threads=2"), rates, 2, seconds=0.15, share=0.03)

    def test_refusals(self):
        target = Target(self, "spin")
        self.daemon.attach(target.pid)
        self.assert_refused(self.daemon.ctl("rate", target.pid, 2_000_000), "hz|frequency|rate")
        self.assertEqual(number(self.daemon.target(target.pid), "frequency_hz"), 99)
        target.finish()
        self.daemon.settle(target.pid)
        self.assert_refused(self.daemon.ctl("rate", target.pid, 999), str(target.pid))


if __name__ == "__main__":
    harness.main()
