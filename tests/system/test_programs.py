"""Programs that nobody here wrote, as Debian ships them: attached, pulled and opened in pprof, with functions on top that make sense.
Whether stacks are whole is for test_stacks."""
import os
import re
import shutil
import subprocess
import time

import harness
from harness import Case, Daemon, Profile, losses, pprof


def top_functions(text, n=25):
    return [line.split(None, 5)[5] for line in text.splitlines() if re.match(r"\s+[\d.]+(ms|s|us|ns)?\s+[\d.]+%", line)][:n]


class Programs(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls)

    def start(self, *argv, **more):
        process = subprocess.Popen(list(map(str, argv)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
        self.addCleanup(harness.end, process)
        return process

    def open(self, pid, seconds=2, hz=999):
        """Attach, pull, pprof; (profile, names of the top functions)."""
        low_ns = harness.cpu_ns(pid)
        self.daemon.attach(pid, hz)
        high_ns = harness.cpu_ns(pid)
        path = self.daemon.directory / f"{pid}.pb.gz"
        self.daemon.ok("pull", pid, f"--seconds={seconds}", f"--output={path}")
        profile = Profile.read(path).validate()
        self.daemon.ok("detach", pid)
        end_ns = harness.cpu_ns(pid)
        t = self.daemon.target(pid)
        self.assert_conserved(t)
        self.assertEqual(losses(t), {})
        # All that was retained, and what ran while a command was under way: two periods a thread, and the two percent.
        whole = self.daemon.pull(pid)
        slack_ns = max(0.02 * (end_ns - low_ns), 2e9 / hz * max(1, len(whole.by_tid()))) + 5e6
        self.assertLessEqual(whole.cpu_ns(), end_ns - low_ns + slack_ns)
        self.assertGreaterEqual(whole.cpu_ns(), (end_ns - high_ns) * 0.9 - slack_ns)
        for report in ("-raw", "-traces"):
            pprof(report, path)
        return profile, top_functions(pprof("-top", "-unit=ms", path))

    def test_xz(self):
        data = self.daemon.directory / "random"
        data.write_bytes(os.urandom(1 << 20) * 24 + bytes(harness.Path(harness.SPROFD).read_bytes()) * 8)
        process = self.start("xz", "-9", "-T2", "--block-size=8MiB", "-k", "-c", data)
        time.sleep(0.5)
        profile, _ = self.open(process.pid)
        # liblzma is stripped: offsets in it, which pprof can name where debug symbols are installed.
        liblzma = [m for m in profile.mappings if "liblzma" in m.filename]
        self.assertTrue(liblzma and liblzma[0].build_id)
        inside = sum(s.values[1] for s in profile.samples if s.locations[0].mapping and "liblzma" in s.locations[0].mapping.filename)
        self.assertGreater(inside, 0.7 * profile.cpu_ns())
        self.assertGreaterEqual(len(profile.by_tid()), 2)

    def test_python(self):
        script = "while True: sorted(str(i) for i in range(1000))"
        process = self.start("/usr/bin/python3", "-c", script)
        time.sleep(0.3)
        profile, top = self.open(process.pid)
        self.assertTrue(any(re.search("PyEval|PyUnicode|PyLong|_Py|sort|str|gallop|malloc", name) for name in top), top)
        self.assertEqual(os.path.realpath(profile.mappings[0].filename), os.path.realpath("/usr/bin/python3"))

    def test_redis(self):
        directory = self.daemon.directory / "redis"
        directory.mkdir()
        path = directory / "redis.sock"
        server = self.start("redis-server", "--port", "0", "--unixsocket", path, "--dir", directory, "--save", "")
        harness.wait_for(path.exists, 10, "redis")
        self.start("redis-benchmark", "-s", path, "-n", "100000000", "-c", "20", "-t", "set,get", "-P", "16")
        time.sleep(0.5)
        profile, top = self.open(server.pid)
        leaves = profile.leaves()
        self.assertGreater(sum(leaves.values()), 100)
        self.assertTrue(any(m.filename.endswith(("redis-server", "redis-check-rdb")) for m in profile.mappings))
        # Debian strips redis; what it asks of the kernel has names.
        self.assertTrue(any(re.search("unix_stream|sock|vfs|copy|syscall|epoll", name) for name in top + list(profile.inclusive())), top)

    def test_gcc(self):
        source = self.daemon.directory / "large.c"
        body = "\n".join(f"int f{i}(int *a, int n) {{ int s = {i}; for (int i = 0; i < n; i++) s += a[i] * {i} ^ (s >> 3); return s; }}" for i in range(30000))  # fmt: skip
        source.write_text(body)
        cc1 = subprocess.run(["gcc", "-print-prog-name=cc1"], capture_output=True, text=True, check=True).stdout.strip()
        process = self.start(cc1, "-quiet", "-O2", source, "-o", "/dev/null")
        time.sleep(0.7)
        profile, _ = self.open(process.pid, 3)
        self.assertTrue(profile.mappings[0].filename.endswith("cc1"))
        self.assertGreater(sum(1 for s in profile.samples for x in s.locations[:1] if x.mapping == profile.mappings[0]), 50)

    def test_node(self):
        if not shutil.which("node"):
            self.skipTest("node is not installed")
        script = "function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2) } for (;;) { fib(25); JSON.parse(JSON.stringify([...Array(3000).keys()])) }"
        process = self.start("node", "-e", script)
        time.sleep(0.7)
        profile, top = self.open(process.pid)
        self.assertTrue(any("v8::" in name or "Builtins_" in name for name in top + list(profile.inclusive())), top)

    def test_a_shell_that_forks(self):
        process = self.start("dash", "-c", "while :; do i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; /bin/true; done")
        profile, _ = self.open(process.pid, 1)
        self.assertEqual(set(profile.by_tid()), {process.pid}, "its children are not sampled")

    def test_the_curl_line_on_a_program(self):
        process = self.start("sha256sum", "/dev/zero")
        path = self.daemon.directory / "curl.pb.gz"
        url = f"http://localhost/debug/pprof/profile?pid={process.pid}&seconds=2"
        subprocess.run(["curl", "-sS", "--fail", "--unix-socket", self.daemon.socket, "-o", path, url], check=True, timeout=30)
        profile = Profile.read(path).validate()
        self.assertGreater(profile.count(), 40)
        self.assertRegex("\n".join(top_functions(pprof("-top", path))), "sha256|SHA256|sha2|libcrypto|copy|read")


if __name__ == "__main__":
    harness.main()
