"""Each thing that can be wrong is told in one line, in plain words, with what to do; the exit code is 1, or 2 for wrong usage."""
import os
import re
import subprocess
import time

import harness
from harness import NOBODY, Case, Daemon, Target

WITHOUT_BPF = ["capsh", "--drop=cap_bpf,cap_sys_admin", "--", "-c", 'exec "$0" "$@"']
WITHOUT_PERFMON = ["capsh", "--drop=cap_perfmon,cap_sys_admin", "--", "-c", 'exec "$0" "$@"']


class Attach(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls)

    def tearDown(self):
        self.assertTrue(self.daemon.answers(), "the daemon did not survive")

    def refuse(self, *args, words=(), code=1, **more):
        done = self.daemon.ctl(*args, **more)
        self.assert_refused(done, *words, code=code)
        self.assertEqual(done.stdout, "")

    def test_no_such_pid(self):
        self.refuse("attach", 4194303, words=("no (such )?process", "4194303"))

    def test_no_such_target(self):
        self.refuse("detach", 4194303, words=("4194303",))
        self.refuse("rate", 4194303, 99, words=("4194303",))
        self.refuse("pull", 4194303, words=("4194303",))

    def test_a_thread(self):
        target = Target(self, "spin", "--threads=2")
        tid = next(tid for tid in harness.threads_cpu_ns(target.pid) if tid != target.pid)
        self.refuse("attach", tid, words=("thread", str(target.pid)))

    def test_a_kernel_thread(self):
        self.refuse("attach", 2, words=("kernel thread",))

    def test_a_zombie(self):
        target = Target(self, "zombie")
        self.refuse("attach", target.ready["zombie"], words=("zombie|exited",))

    def test_itself_is_fine(self):
        self.daemon.attach(self.daemon.pid())
        self.daemon.ok("detach", self.daemon.pid())

    def test_exits_halfway(self):
        """Attached at every moment of a short life: done, or told that it is gone; never anything else."""
        done = gone = 0
        for i in range(40):
            process = subprocess.Popen([harness.TARGETS / "many_threads", f"--threads={1 + i * 8}"], stdout=subprocess.PIPE)
            self.addCleanup(harness.end, process)
            time.sleep(0.001 * (i % 5))
            attach = subprocess.Popen(
                [self.daemon.sprofctl, f"--socket={self.daemon.socket}", "attach", str(process.pid), "--frequency=999"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
            time.sleep(0.0005 * (i % 17))
            process.kill()
            _, said = attach.communicate(timeout=30)
            process.wait()
            if attach.returncode == 0:
                done += 1
            else:
                gone += 1
                self.assertEqual((attach.returncode, len(said.strip().splitlines())), (1, 1), said)
                self.assertRegex(said, "(?i)exited|no process|gone|ended")
        self.assertEqual(done + gone, 40)
        for t in self.daemon.status().get("targets", []):
            self.assert_conserved(t)

    def test_no_counter_of_cycles(self):
        target = Target(self, "spin")
        done = self.daemon.ctl("attach", target.pid, "--event=cycles")
        if done.returncode == 0:  # there is a PMU: then it must work
            time.sleep(1)
            self.assertGreater(self.daemon.pull(target.pid).count(), 50)
        else:
            self.assert_refused(done, "cycles|PMU", "cpu-clock")

    def test_frequencies(self):
        target = Target(self, "spin")
        self.refuse("attach", target.pid, "--frequency=900000", words=("frequency|hz|rate",))
        for bad in ("0", "-1", "abc", "1e3", "99999999999999999999", "", "99Hz"):
            self.refuse_usage("attach", str(target.pid), f"--frequency={bad}")
            self.refuse_usage("rate", str(target.pid), bad)

    def refuse_usage(self, *args):
        with self.subTest(args=args):
            done = self.daemon.ctl(*args)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertTrue(done.stderr.strip())
            self.assertEqual(done.stdout, "")

    def test_wrong_usage(self):
        for args in ((), ("frobnicate",), ("attach",), ("attach", "x"), ("attach", "0"), ("attach", "-5"), ("attach", "12", "13"),
                     ("attach", "99999999999"), ("attach", "1", "--event=moon"), ("attach", "1", "--nonsense"), ("rate", "12"),
                     ("pull",), ("pull", "12", "--seconds=0"), ("pull", "12", "--seconds=-1"), ("pull", "12", "--seconds=x"),
                     ("detach",), ("list", "extra"), ("status", "extra")):  # fmt: skip
            self.refuse_usage(*args)
        for args in (["--nonsense"], ["extra"], ["--log-level=loud"]):
            done = subprocess.run([harness.SPROFD, *args], capture_output=True, text=True, timeout=10)
            self.assertEqual(done.returncode, 2, (args, done.stderr))
            self.assertTrue(done.stderr.strip())

    def test_no_permission(self):
        target = Target(self, "spin")
        # The socket itself is closed to others ...
        self.refuse("attach", target.pid, user=NOBODY, words=("permission|group|allowed",))
        self.refuse("status", user=NOBODY, words=("permission|group|allowed",))

    def test_too_many_targets(self):
        daemon = Daemon(self, config="[limits]\nmax_targets = 2\n")
        targets = [Target(self, "many_threads", "--threads=2") for _ in range(3)]
        for target in targets[:2]:
            daemon.attach(target.pid)
        self.assert_refused(daemon.ctl("attach", targets[2].pid), "max_targets|targets")
        daemon.ok("detach", targets[0].pid)

    def test_many_threads(self):
        target = Target(self, "many_threads", "--threads=10000")
        start = time.monotonic()
        self.daemon.attach(target.pid, 99)
        self.assertLess(time.monotonic() - start, 20)
        t = self.daemon.target(target.pid)
        self.assertEqual(harness.number(t, "threads"), target.ready["threads"])
        self.assertEqual(target.ready["threads"], 10000)
        # A change of rate holds two events a thread for a moment: where the limit does not allow that, nothing changes.
        done = self.daemon.ctl("rate", target.pid, 199)
        if done.returncode != 0:
            self.assert_refused(done, "files", "LimitNOFILE|ulimit")
            self.assertEqual(harness.number(self.daemon.target(target.pid), "frequency_hz"), 99)
        self.assertEqual(harness.number(self.daemon.target(target.pid), "threads"), 10000)
        self.daemon.ok("detach", target.pid)

    def test_too_many_files(self):
        daemon = Daemon(self, prefix=["prlimit", "--nofile=100:100"])
        target = Target(self, "many_threads", "--threads=500")
        self.assert_refused(daemon.ctl("attach", target.pid), "files", "LimitNOFILE|ulimit")
        # It goes on for others, and nothing is left of the attempt.
        small = Target(self, "spin")
        daemon.attach(small.pid, 999)
        harness.let_run(small.pid, 0.3)
        self.assertGreater(daemon.pull(small.pid).count(), 100)

    def test_a_crowd_of_clients_uses_up_the_files(self):
        daemon = Daemon(self, prefix=["prlimit", "--nofile=60:60"])
        clients = []
        for _ in range(100):
            client = harness.socket.socket(harness.socket.AF_UNIX)
            self.addCleanup(client.close)
            try:
                client.settimeout(1)
                client.connect(daemon.socket)
            except OSError:
                break
            clients.append(client)
        time.sleep(0.5)
        before = harness.cpu_ns(daemon.pid())
        time.sleep(1)
        self.assertLess(harness.cpu_ns(daemon.pid()) - before, 500_000_000, "the daemon spins on accept")
        for client in clients:
            client.close()
        harness.wait_for(daemon.answers, 5, "an answer after the crowd is gone")


class Start(Case):
    """The daemon itself cannot do its work: it says so and ends with 1."""

    def refuse(self, *words, prefix=(), config="", args=()):
        daemon = Daemon(self, config=config, args=args, prefix=prefix, wait=False, log_level="notice")
        self.assertEqual(daemon.process.wait(20), 1, daemon.log())
        lines = daemon.log().strip().splitlines()
        self.assertEqual(len(lines), 1, f"not one line: {daemon.log()}")
        for word in words:
            self.assertRegex(lines[0], re.compile(word, re.IGNORECASE))
        self.assertFalse(os.path.exists(daemon.socket), "the socket is left")

    def test_no_bpf(self):
        self.refuse("CAP_BPF", prefix=WITHOUT_BPF)

    def test_no_perfmon(self):
        """kernel.perf_event_paranoid above what is left of its capabilities."""
        self.refuse("CAP_PERFMON|perf_event_paranoid", prefix=WITHOUT_PERFMON)

    def test_an_ordinary_user(self):
        """Even where the socket could be made."""
        opened = 'chmod 777 "$(dirname "${2#*=}")" && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"'
        self.refuse("CAP_BPF|root", prefix=["sh", "-c", opened, "sh"])

    def test_kernel_too_old(self):
        """A kernel that says 2.6 (the personality UNAME26) and does not take the program."""
        old = "mount -t tmpfs none /sys/kernel/btf && mount -t tmpfs none /boot && exec setarch x86_64 --uname-2.6 \"$@\""
        self.refuse(r"Linux 2\.6\S* is too old.*6\.1", prefix=["unshare", "-m", "sh", "-c", old, "sh"])

    def test_no_btf(self):
        hidden = "mount -t tmpfs none /sys/kernel/btf && mount -t tmpfs none /boot && exec \"$@\""
        self.refuse("BTF", prefix=["unshare", "-m", "sh", "-c", hidden, "sh"])

    def test_unknown_and_bad_settings(self):
        for text, word in (("[daemon]\nbanana = 3\n", "banana"), ("[fruit]\nbanana = 3\n", "fruit"),
                           ("[sampling]\nfrequency = many\n", "frequency"), ("[sampling]\nfrequency = 0\n", "frequency"),
                           ("[memory]\nring_mib = 99999\n", "ring_mib"), ("[daemon]\nsocket_mode = rw\n", "socket_mode"),
                           ("nonsense\n", "line 1"), ("[limits]\nmax_targets = 18446744073709551617\n", "max_targets")):  # fmt: skip
            with self.subTest(text=text):
                self.refuse(word, config=text)

    def test_no_configuration_file(self):
        self.refuse("/nonexistent", args=["--config=/nonexistent/sprofd.conf"])

    def test_no_directory_for_the_socket(self):
        self.refuse("/nonexistent", args=["--socket=/nonexistent/s.sock"])
        self.refuse("107 bytes", args=["--socket=/tmp/" + "x" * 200])

    def test_no_reader(self):
        """Without sprofd-elf there are no names; everything else works."""
        daemon = Daemon(self, config="[daemon]\nreader = /nonexistent/sprofd-elf\n", wait=False)
        harness.wait_for(lambda: daemon.process.poll() is not None or os.path.exists(daemon.socket), 10, "a start")
        if daemon.process.poll() is None:
            target = Target(self, "spin")
            daemon.attach(target.pid, 999)
            harness.let_run(target.pid, 0.3)
            self.assertGreater(daemon.pull(target.pid).count(), 100)
        self.assertIn("/nonexistent/sprofd-elf", daemon.log())


class Client(Case):
    def run_ctl(self, *args, env=None):
        return subprocess.run([harness.SPROFCTL, *args], capture_output=True, text=True, timeout=20, env=env)

    def test_daemon_not_running(self):
        for args in (("attach", "1"), ("detach", "1"), ("rate", "1", "99"), ("list",), ("status",), ("pull", "1")):
            done = self.run_ctl("--socket=/nonexistent/sprofd.sock", *args)
            self.assert_refused(done, "/nonexistent/sprofd.sock", "sprofd")

    def test_the_environment_names_the_socket(self):
        done = self.run_ctl("status", env={**os.environ, "SPROFD_SOCKET": "/nonexistent/from-env.sock"})
        self.assert_refused(done, "from-env.sock")
        daemon = Daemon(self)
        done = self.run_ctl("status", env={**os.environ, "SPROFD_SOCKET": daemon.socket})
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_server_that_is_not_sprofd(self):
        """Garbage, silence, and an end in the middle: one line, exit code 1."""
        answers = (b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xff\xff\xff")  # fmt: skip
        directory = harness.tempfile.mkdtemp(prefix="sprof-test.")
        self.addCleanup(harness.shutil.rmtree, directory)
        for i, answer in enumerate(answers):
            with self.subTest(answer=answer):
                path = f"{directory}/{i}.sock"
                server = harness.socket.socket(harness.socket.AF_UNIX)
                self.addCleanup(server.close)
                server.bind(path)
                server.listen(1)
                asking = subprocess.Popen([harness.SPROFCTL, f"--socket={path}", "status"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
                self.addCleanup(harness.end, asking)
                connection, _ = server.accept()
                connection.recv(65536)
                connection.sendall(answer)
                connection.close()
                _, said = asking.communicate(timeout=20)
                self.assertEqual((asking.returncode, len(said.strip().splitlines())), (1, 1), said)


if __name__ == "__main__":
    harness.main()
