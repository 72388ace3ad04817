"""The daemon sleeps unless there is something to do: what it costs while it samples is little more than its wake-ups."""
import signal
import time

import harness
from harness import Case, Daemon, Target, number


def wakeups(pid):
    """How often its threads have begun to run after they had waited; threads that ended meanwhile do not count."""
    total = 0
    for task in harness.Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "status").read_text().split("voluntary_ctxt_switches:")[1].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


class Wakeups(Case):
    def setUp(self):
        self.daemon = Daemon(self)

    def between(self, seconds):
        before = wakeups(self.daemon.pid())
        time.sleep(seconds)
        return wakeups(self.daemon.pid()) - before

    def test_it_sleeps_with_nothing_to_do(self):
        time.sleep(1.5)  # the connections that asked whether it answers are forgotten
        self.assertLessEqual(self.between(2.5), 0)

    def test_it_sleeps_while_little_is_sampled(self):
        target = Target(self, "spin", "--threads=2")
        self.daemon.attach(target.pid, 199)
        time.sleep(1.5)
        low_ns = harness.cpu_ns(target.pid)
        self.assertLessEqual(self.between(4), 3, "one check, and the threads that armed it end")
        ran_ns = harness.cpu_ns(target.pid) - low_ns
        # All the same everybody who asks is told all.
        t = self.daemon.target(target.pid)
        self.assert_conserved(t)
        self.assertEqual(number(t, "in_flight"), 0)
        self.assertGreater(number(t, "samples"), 0.95 * ran_ns * 199e-9)
        self.assertEqual(self.daemon.pull(target.pid).count() >= number(t, "samples"), True)

    def test_a_library_of_which_no_more_than_a_moment_is_seen(self):
        """What a program maps is looked at at once, though nobody asks: it may be gone when somebody does."""
        target = Target(self, "loader", harness.TARGETS / "libplugin.so")
        self.daemon.attach(target.pid, 999)
        time.sleep(2.5)  # what is looked at in vain is looked at less often
        target.signal(signal.SIGUSR1)
        self.assertTrue(target.line()["loaded"])
        harness.let_run(target.pid, 0.3)
        target.process.kill()
        self.daemon.settle(target.pid)
        self.assertGreater(self.daemon.pull(target.pid).inclusive()["plugin_inner"], 100)


if __name__ == "__main__":
    harness.main()
