"""Every thread of the target is sampled, once; nothing else is."""
import os
import shutil
import signal

import harness
from harness import LIVE, NOBODY, Case, Daemon, Target, late_ns, losses, number


class Arming(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls)

    def attach(self, target, hz):
        """CPU time of each thread just before and just after the attach."""
        before = harness.threads_cpu_ns(target.pid)
        self.daemon.attach(target.pid, hz)
        return before, harness.threads_cpu_ns(target.pid)

    def check_threads(self, target, attach, truth, hz):
        """Each thread's samples match its CPU time since the attach: a doubled thread has twice, a missed one none."""
        by_tid = self.daemon.pull(target.pid).by_tid()
        late = late_ns(self.daemon.target(target.pid))
        self.assertLessEqual(set(by_tid), {t["tid"] for t in truth["threads"]}, "samples of a stranger")
        for thread in truth["threads"]:
            # What ran during the attach may be in it or not; what was booked is up to a tick old.
            most_ns, fewest_ns = (thread["cpu_ns"] - ns.get(thread["tid"], 0) for ns in attach)
            count, weight_ns = by_tid.get(thread["tid"], (0, 0))
            # The kernel's timer starts anew at each switch to the thread: on a crowded machine some samples come early.
            for name, value, share, missed in (("samples", count * 1e9 / hz, 0.05, late), ("CPU time", weight_ns, 0.02, 0)):
                slack_ns = max(share * most_ns, 2e9 / hz) + 5e6
                self.assertGreaterEqual(value, fewest_ns - slack_ns - missed, f"{name} of {thread} at {hz} Hz, {attach}")
                self.assertLessEqual(value, most_ns + slack_ns, f"{name} of {thread} at {hz} Hz, {attach}")

    def test_existing_threads_at_each_rate(self):
        for hz, threads in ((99, 2), (999, 5), (9999, 2)):
            with self.subTest(hz=hz):
                target = Target(self, "spin", f"--threads={threads}")
                attach = self.attach(target, hz)
                self.assertEqual(number(self.daemon.target(target.pid), "threads"), threads)
                harness.let_run(target.pid, 2)
                truth = target.finish()
                self.daemon.settle(target.pid)
                self.check_threads(target, attach, truth, hz)
                self.assert_conserved(self.daemon.target(target.pid))

    def test_default_rate_is_99_hz(self):
        target = Target(self, "spin")
        self.daemon.attach(target.pid)
        self.assertEqual(number(self.daemon.target(target.pid), "frequency_hz"), 99)
        self.assertEqual(self.daemon.pull(target.pid, 1).period, 1_000_000_000 // 99)

    def test_later_threads_and_exec(self):
        for from_thread in (False, True):
            with self.subTest(from_thread=from_thread):
                options = ["--from-thread"] if from_thread else []
                target = Target(self, "execer", *options, "--", harness.TARGETS / "spin", "--threads=3")
                asked_ns = harness.cpu_ns(target.pid)
                self.daemon.attach(target.pid, 999)
                low_ns = harness.cpu_ns(target.pid)
                harness.let_run(target.pid, 0.4)
                before_ns = harness.cpu_ns(target.pid) - low_ns
                target.signal(signal.SIGUSR1)
                self.assertEqual(target.line()["ready"], target.pid)
                harness.let_run(target.pid, 2)
                self.assertEqual(self.daemon.target(target.pid)["state"], LIVE)
                truth = target.finish()
                self.daemon.settle(target.pid)
                profile = self.daemon.pull(target.pid)
                # Before and after are both there, and each stack is of one of the two programs alone.
                found = profile.inclusive()
                self.assertGreater(found["before_exec"], 0.9 * before_ns * 999e-9)
                self.assertGreater(found["a_heavy"], 0.4 * (truth["process_cpu_ns"] - before_ns) * 999e-9)
                for sample in profile.samples:
                    files = {os.path.basename(x.mapping.filename) for x in sample.locations if x.mapping}
                    self.assertFalse({"execer", "spin"} <= files, f"old and new image in one stack: {files}")
                by_tid, late = profile.by_tid(), number(self.daemon.target(target.pid), "late_periods")
                for thread in truth["threads"]:
                    if thread["tid"] != target.pid:  # whose CPU time is that of both programs
                        self.assert_near(by_tid[thread["tid"]][0], thread["cpu_ns"] * 999e-9, 0.05, 5 + late, "samples")
                # What ran while the attach was under way may be in it or not.
                least_ns, most_ns = truth["process_cpu_ns"] - low_ns, truth["process_cpu_ns"] - asked_ns
                self.assertGreaterEqual(profile.cpu_ns(), least_ns - max(0.02 * least_ns, 40e6), "CPU time")
                self.assertLessEqual(profile.cpu_ns(), most_ns + max(0.02 * least_ns, 40e6), "CPU time")

    def test_a_leader_that_has_ended(self):
        target = Target(self, "spin", "--threads=2", "--leader-exits")
        attach = self.attach(target, 999)
        harness.let_run(target.pid, 1)
        truth = target.finish()
        self.daemon.settle(target.pid)
        self.check_threads(target, attach, truth, 999)

    def check_churn(self, hz, life_us):
        target = Target(self, "thread_churn", "--threads=3", f"--life-us={life_us}")
        harness.let_run(target.pid, 0.2)
        low_ns = harness.cpu_ns(target.pid)
        self.daemon.attach(target.pid, hz)
        high_ns = harness.cpu_ns(target.pid)
        harness.let_run(target.pid, 2)
        truth = target.finish()
        self.daemon.settle(target.pid)
        t = self.daemon.target(target.pid)
        self.assert_conserved(t)
        profile = self.daemon.pull(target.pid)
        return profile, truth["process_cpu_ns"] - high_ns - late_ns(t), truth["process_cpu_ns"] - low_ns, truth["born"]

    def test_churn_while_attaching(self):
        # A life is 20 periods, so a thread's last, unfinished period weighs 2.5 % on average.
        for attempt in range(2):
            with self.subTest(attempt=attempt):
                profile, at_least_ns, at_most_ns, _ = self.check_churn(4999, 4000)
                self.assertLess(profile.count(), at_most_ns * 4999e-9 * 1.02, "threads were sampled twice")
                self.assertGreater(profile.count(), at_least_ns * 4999e-9 * 0.93, "threads were missed")
                self.assertGreater(len(profile.by_tid()), 100)

    def test_churn_again_and_again(self):
        target = Target(self, "thread_churn", "--threads=4", "--life-us=1000")
        for _ in range(6):
            before_ns = harness.cpu_ns(target.pid)
            self.daemon.attach(target.pid, 9999)
            armed_ns = harness.cpu_ns(target.pid)
            harness.let_run(target.pid, 0.6)
            self.daemon.ok("detach", target.pid)
            after_ns = harness.cpu_ns(target.pid)
            self.daemon.settle(target.pid)
            t = self.daemon.target(target.pid)
            self.assert_conserved(t)
            self.assertLess(number(t, "samples"), (after_ns - before_ns) * 9999e-9 * 1.03, "sampled twice")
            self.assertGreater(number(t, "samples"), (after_ns - armed_ns - late_ns(t)) * 9999e-9 * 0.75, "missed")
            self.assertEqual(losses(t).get("ring_full", 0), 0)

    def test_forked_children_are_not_sampled(self):
        target = Target(self, "forker")
        low_ns = harness.cpu_ns(target.pid)
        self.daemon.attach(target.pid, 999)
        high_ns = harness.cpu_ns(target.pid)
        harness.let_run(target.pid, 1)  # without its children
        truth = target.finish()
        t = self.daemon.settle(target.pid)
        profile = self.daemon.pull(target.pid)
        self.assertGreater(len(truth["children"]), 5)
        self.assertEqual(set(profile.by_tid()), {target.pid})
        self.assertEqual(profile.inclusive()["burn_child"], 0)
        ran_ns = truth["process_cpu_ns"] - high_ns
        self.assertGreater(profile.inclusive()["burn_parent"], 0.8 * (ran_ns - late_ns(t)) * 999e-9)
        self.assertGreater(profile.cpu_ns(), ran_ns * 0.98 - 5e6)
        self.assertLess(profile.cpu_ns(), (truth["process_cpu_ns"] - low_ns) * 1.02 + 5e6)

    def test_a_bystander_is_not_sampled(self):
        bystander = Target(self, "spin", "--threads=2")
        target = Target(self, "spin")
        self.daemon.attach(target.pid, 999)
        harness.let_run(target.pid, 0.6)
        profile = self.daemon.pull(target.pid)
        self.assertEqual(set(profile.by_tid()), {target.pid})
        self.assertEqual({s.labels["pid"] for s in profile.samples}, {str(target.pid)})
        bystander.finish()


class SetId(Case):
    """An exec into a set-id program ends all perf events; whether it is sampled again depends on who attached."""

    def setUp(self):
        self.daemon = Daemon(self, config="[daemon]\nsocket_mode = 0666\n")
        self.image = self.daemon.directory / "set_id_spin"
        shutil.copy(harness.TARGETS / "spin", self.image)

    def run_exec(self, user, owner):
        os.chown(self.image, owner, owner)
        self.image.chmod(0o4755)
        path = self.daemon.directory / "execer"
        shutil.copy(harness.TARGETS / "execer", path)
        path.chmod(0o755)
        target = Target(self, "execer", "--", self.image, user=user, path=path)
        self.daemon.ok("attach", target.pid, "--frequency=999", user=user)
        harness.let_run(target.pid, 0.4)
        target.signal(signal.SIGUSR1)
        target.line()
        uids = {int(uid) for uid in harness.Path(f"/proc/{target.pid}/status").read_text().split("Uid:")[1].split()[:4]}
        self.assertIn(owner, uids, "the set-id bit did nothing: is the temporary directory mounted nosuid?")
        return target

    def test_attached_by_root_it_stays_attached(self):
        target = self.run_exec(user=None, owner=NOBODY)
        harness.let_run(target.pid, 1.5)
        t = self.daemon.target(target.pid)
        self.assertEqual(t["state"], LIVE)
        found = self.daemon.pull(target.pid).inclusive()
        self.assertGreater(found["before_exec"], 300)
        self.assertGreater(found["a_heavy"], 300, f"not armed again: {t}")
        self.assert_conserved(t)

    def test_attached_by_a_user_it_ends_with_a_reason(self):
        target = self.run_exec(user=NOBODY, owner=0)

        def told():
            t = self.daemon.target(target.pid)
            return t if t.get("note") else None

        t = harness.wait_for(told, 8, "a named outcome")
        self.assertRegex(t["note"], "(?i)set-?u?id|privilege|permi|may not|own")
        found = self.daemon.pull(target.pid).inclusive()
        self.assertGreater(found["before_exec"], 300)
        self.assertEqual(found["a_heavy"], 0, "a user sees what runs as root")


if __name__ == "__main__":
    harness.main()
