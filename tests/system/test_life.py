"""Targets come, exit, exec, are detached and attached again; the daemon starts, refuses to start twice, and ends clean."""
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import harness
from harness import DETACHED, EXITED, LIVE, Case, Daemon, Profile, Target, number


class Targets(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls)

    def test_after_the_exit_the_profile_stays(self):
        target = Target(self, "spin")
        self.daemon.attach(target.pid, 999)
        low_ns = harness.cpu_ns(target.pid)
        harness.let_run(target.pid, 0.7)
        ran_ns = target.finish()["process_cpu_ns"] - low_ns
        harness.wait_for(lambda: self.daemon.target(target.pid)["state"] == EXITED, 5, "the exit")
        t = self.daemon.target(target.pid)
        self.assertGreater(number(t, "ended_unix_ns"), number(t, "attached_unix_ns"))
        first = self.daemon.pull(target.pid)
        time.sleep(0.5)
        second = self.daemon.pull(target.pid)
        self.assertEqual((first.count(), first.cpu_ns()), (second.count(), second.cpu_ns()))
        self.assertGreater(first.inclusive()["a_heavy"] + number(t, "late_periods"), 0.4 * ran_ns * 999e-9)
        self.assertEqual(first.duration_ns, second.duration_ns, "it does not go on after the exit")
        self.assertIn(str(target.pid), self.daemon.ok("list"))

    def test_a_shell_that_becomes_something_else_before_its_first_sample(self):
        """... goes by the new name everywhere: before the new program is sampled, and after."""
        for program, args in (("sleep", "60"), (harness.TARGETS / "spin", "--seconds=60")):
            shell = subprocess.Popen(["bash", "-c", f"read go; exec {program} {args}"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            self.addCleanup(harness.end, shell)
            name = str(program).rsplit("/", 1)[-1]
            harness.wait_for(lambda pid=shell.pid: self.waits(pid), 10, "a shell that waits")
            self.daemon.attach(shell.pid)
            self.assertIn("bash", self.daemon.ok("list"))
            shell.stdin.write(b"\n")
            shell.stdin.flush()
            harness.wait_for(lambda pid=shell.pid: os.readlink(f"/proc/{pid}/exe").endswith(name), 10, "the exec")
            if name == "spin":
                harness.let_run(shell.pid, 0.3)
            self.assertEqual(self.daemon.target(shell.pid)["comm"], name)
            listed = [line for line in self.daemon.ok("list").splitlines() if str(shell.pid) in line]
            self.assertRegex(listed[0], rf"\b{name}\b")
            profile = self.daemon.pull(shell.pid)
            self.assertTrue([c for c in profile.comments if f"process {shell.pid} ({name})" in c], profile.comments)
            self.daemon.ok("detach", shell.pid)

    def waits(self, pid):
        """Whether the shell has begun to read."""
        return Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x0 ")

    def test_a_pull_of_seconds_ends_with_the_target(self):
        target = Target(self, "spin", "--seconds=2")
        self.daemon.attach(target.pid, 999)
        low_ns = harness.cpu_ns(target.pid)
        profile = self.daemon.pull(target.pid, 30)
        self.assertLess(profile.duration_ns, 15e9, "it waited for the dead")
        ran_ns = target.line()["process_cpu_ns"] - low_ns
        late = number(self.daemon.target(target.pid), "late_periods")
        self.assertGreater(profile.count() + late, 0.9 * ran_ns * 999e-9 - 20)

    def test_detach_and_attach_again(self):
        target = Target(self, "spin")
        self.daemon.attach(target.pid, 999)
        harness.let_run(target.pid, 0.7)
        self.daemon.ok("detach", target.pid)
        t = self.daemon.target(target.pid)
        self.assertEqual(t["state"], DETACHED)
        kept = self.daemon.pull(target.pid)
        time.sleep(0.5)
        t = self.daemon.settle(target.pid)
        self.assertEqual(number(t, "samples"), kept.count(), "samples after the detach")
        self.assert_conserved(t)
        self.assertGreater(kept.count(), 600)
        perf = harness.open_files(self.daemon.pid())
        self.assertFalse([name for name in perf if "perf_event" in name], "events are left open")
        self.daemon.attach(target.pid, 499)
        t = self.daemon.target(target.pid)
        self.assertEqual((t["state"], number(t, "frequency_hz")), (LIVE, 499))
        harness.let_run(target.pid, 0.7)
        again = self.daemon.pull(target.pid)
        # A new attach begins a new profile: nothing of the second that was not sampled, nothing of the first twice.
        self.assertLess(again.count(), 499 * 1.5)
        self.assertGreater(again.count(), 300)
        self.daemon.attach(target.pid, 499)  # what is so already is done
        self.daemon.ok("detach", target.pid)
        self.assert_refused(self.daemon.ctl("detach", target.pid), str(target.pid), "not|already")

    def test_a_pull_of_seconds_leaves_the_retained_profile(self):
        """A process is detached, and somebody pulls two more seconds of it: what was retained before is still there."""
        target = Target(self, "spin")
        self.daemon.attach(target.pid, 999)
        harness.let_run(target.pid, 0.5)
        self.daemon.ok("detach", target.pid)
        kept = self.daemon.pull(target.pid).count()
        self.assertGreater(kept, 400)
        window = self.daemon.pull(target.pid, seconds=2)
        self.assertLess(window.count(), kept, "99 Hz for two seconds, not 999 Hz")
        harness.wait_for(lambda: self.daemon.target(target.pid)["state"] == DETACHED, 5, "the pull's own target to go")
        self.assertEqual(self.daemon.pull(target.pid).count(), kept)
        # The same when the process is attached for good meanwhile: then the new profile takes the old one's place.
        self.daemon.attach(target.pid, 499)
        self.assertLess(self.daemon.pull(target.pid).count(), kept)

    def process_with_number(self, pid):
        """A process that the kernel gave this number, which another had; None if somebody else was quicker each time."""
        for _ in range(200):
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
            process = subprocess.Popen([harness.TARGETS / "spin", "--shares=0:0:1"], stdout=subprocess.DEVNULL, preexec_fn=harness.give_way)
            self.addCleanup(harness.end, process)
            if process.pid == pid:
                return process
            harness.end(process)
        return None

    def number_given_again(self):
        for _ in range(5):
            target = Target(self, "spin", "--seconds=1")
            self.daemon.attach(target.pid, 999)
            target.process.wait(30)
            self.daemon.settle(target.pid)
            second = self.process_with_number(target.pid)
            if second:
                return second
        raise AssertionError("the kernel did not give the number again")

    def test_a_reused_number_is_another_process(self):
        """identity is pidfd and start time: when the kernel gives the number again, the old profile is not the new process's."""
        second = self.number_given_again()
        time.sleep(0.3)
        # Not attached, so it is for two seconds; the profile of another process would be wrong.
        with harness.CpuReadings(second.pid) as readings:
            profile = self.daemon.pull(second.pid, 2)
        found = profile.inclusive()
        self.assertEqual(found["a_heavy"], 0)
        self.assertGreater(found["c_light"], 0.5 * readings.of(profile)[0] * 99e-9 - 3)
        self.daemon.attach(second.pid, 999)
        harness.let_run(second.pid, 0.5)
        found = self.daemon.pull(second.pid).inclusive()
        self.assertGreater(found["c_light"], 100)
        self.assertEqual(found["a_heavy"], 0)

    def test_list_and_status_are_for_people_too(self):
        target = Target(self, "spin")
        self.daemon.attach(target.pid, 99)
        self.assertRegex(self.daemon.ok("list"), rf"(?m)^\s*{target.pid}\b.*spin")
        listed = harness.json.loads(self.daemon.ok("list", "--json"))
        self.assertIn(target.pid, [t["pid"] for t in listed["targets"]])
        self.assertIn(str(self.daemon.pid()), self.daemon.ok("status"))
        self.assertEqual(harness.json.loads(self.daemon.ok("status", "--json"))["pid"], self.daemon.pid())

    def test_where_a_pull_goes(self):
        target = Target(self, "spin")
        self.daemon.attach(target.pid, 999)
        time.sleep(0.5)
        said = self.daemon.ok("pull", target.pid)
        name = re.search(rf"sprofd\.{target.pid}\.\S+\.pb\.gz", said)
        self.assertTrue(name, f"the name is not printed: {said!r}")
        Profile.read(self.daemon.directory / name.group()).validate()
        with harness.CpuReadings(target.pid) as readings:
            profile = Profile(self.daemon.ok("pull", target.pid, "--seconds=1", "--output=-", text=False)).validate()
        self.assertGreater(profile.count(), 0.5 * readings.of(profile)[0] * 999e-9)
        self.assert_refused(self.daemon.ctl("pull", target.pid, "--output=/nonexistent/x"), "/nonexistent/x")


class Process(Case):
    def test_signals_end_it_clean(self):
        for number_ in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number_):
                daemon = Daemon(self)
                target = Target(self, "spin")
                daemon.attach(target.pid, 999)
                readers = harness.children_of(daemon.pid())
                self.assertTrue(readers, "sprofd-elf does not run")
                self.assertEqual(daemon.stop(number_), 0, daemon.log())
                self.assertFalse(os.path.exists(daemon.socket), "the socket is left")
                self.assertIsNone(target.process.poll(), "the target did not survive")
                harness.wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in readers), 5, "the end of sprofd-elf")

    def test_ends_in_the_middle_of_a_pull(self):
        daemon = Daemon(self)
        target = Target(self, "spin")
        daemon.attach(target.pid, 999)
        puller = subprocess.Popen(
            [daemon.sprofctl, f"--socket={daemon.socket}", "pull", str(target.pid), "--seconds=60", "--output=-"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        self.addCleanup(harness.end, puller)
        time.sleep(0.7)
        start = time.monotonic()
        self.assertEqual(daemon.stop(), 0, daemon.log())
        self.assertLess(time.monotonic() - start, 5)
        _, said = puller.communicate(timeout=10)
        self.assertEqual(puller.returncode, 1)
        self.assertEqual(len(said.strip().splitlines()), 1, said)

    def test_ends_while_the_reader_does_not_answer(self):
        """What waits for it (CPython's symbols, unwind tables) waits no longer."""
        daemon = Daemon(self)
        daemon.attach(Target(self, "spin").pid)
        reader, = harness.children_of(daemon.pid())
        os.kill(reader, signal.SIGSTOP)
        python = subprocess.Popen(["/usr/bin/python3", "-c", "while True: pass"])
        self.addCleanup(harness.end, python)
        harness.let_run(python.pid, 0.3)
        daemon.attach(python.pid)
        begin = time.monotonic()
        self.assertEqual(daemon.stop(), 0, daemon.log())
        self.assertLess(time.monotonic() - begin, 1.5)

    def test_the_reader_ends_with_a_killed_daemon(self):
        daemon = Daemon(self)
        target = Target(self, "spin")
        daemon.attach(target.pid, 999)
        time.sleep(0.3)
        daemon.pull_bytes(target.pid)
        readers = harness.children_of(daemon.pid())
        self.assertTrue(readers, "sprofd-elf does not run")
        daemon.process.kill()
        daemon.process.wait()
        harness.wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in readers), 5, "the end of sprofd-elf")
        # What it left is a stale socket, which the next one replaces.
        self.assertTrue(os.path.exists(daemon.socket))
        daemon.start()
        daemon.attach(target.pid, 99)
        self.assertEqual(daemon.stop(), 0)

    def test_a_killed_reader_costs_nothing_but_time(self):
        daemon = Daemon(self)
        target = Target(self, "spin")
        daemon.attach(target.pid, 999)
        time.sleep(0.3)
        daemon.pull_bytes(target.pid)
        for pid in harness.children_of(daemon.pid()):
            os.kill(pid, signal.SIGKILL)
        harness.wait_for(lambda: number(daemon.status(), "reader_restarts") > 0 or daemon.pull(target.pid), 10, "a restart")

        def named():
            return daemon.pull(target.pid).inclusive()["a_heavy"] > 0

        harness.wait_for(named, 15, "names after the reader was killed")

    def test_a_second_daemon_refuses(self):
        daemon = Daemon(self)
        second = subprocess.run([harness.SPROFD, f"--socket={daemon.socket}"], capture_output=True, text=True, timeout=20)
        self.assert_refused(second, "another sprofd|already", re.escape(daemon.socket))
        self.assertTrue(daemon.answers())
        self.assertEqual(daemon.stop(), 0)

    def test_only_a_socket_is_replaced(self):
        daemon = Daemon(self)
        daemon.stop()
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(daemon.socket)
        stale.close()
        daemon.start()
        self.assertEqual(daemon.stop(), 0)
        harness.Path(daemon.socket).write_text("a file of somebody")
        daemon.start(wait=False)
        self.assertEqual(daemon.process.wait(20), 1)
        self.assertEqual(harness.Path(daemon.socket).read_text(), "a file of somebody")

    def test_retention_after_the_exit_ends(self):
        daemon = Daemon(self, config="[retention]\nexited_seconds = 1\n")
        target = Target(self, "spin", "--seconds=1")
        daemon.attach(target.pid, 999)
        target.process.wait(30)
        harness.wait_for(lambda: not daemon.status().get("targets"), 6, "the profile to be let go")
        self.assert_refused(daemon.ctl("pull", target.pid), str(target.pid))

    def test_twenty_attaches_leak_nothing(self):
        daemon = Daemon(self, config="[retention]\nexited_seconds = 0\n")
        target = Target(self, "spin")

        def cycle():
            daemon.attach(target.pid, 999)
            daemon.pull_bytes(target.pid)
            daemon.ok("detach", target.pid)

        def open_files():
            return len(os.listdir(f"/proc/{daemon.pid()}/fd"))

        for _ in range(3):
            cycle()
        harness.wait_for(lambda: not daemon.status().get("targets"), 6, "the drop")
        before = open_files()
        for _ in range(20):
            cycle()
        harness.wait_for(lambda: not daemon.status().get("targets"), 6, "the drop")
        # Unwind tables go some moments after the last process that had them, with the files that they are of.
        harness.wait_for(lambda: open_files() <= before + 3, 6, f"files are left open: {before} before")

    def test_version_and_help(self):
        for program in (harness.SPROFD, harness.SPROFCTL):
            for flag in ("--version", "--help"):
                done = subprocess.run([program, flag], capture_output=True, text=True, timeout=10)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertGreater(len(done.stdout), 5)


if __name__ == "__main__":
    harness.main()
