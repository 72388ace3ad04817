"""Every profile opens in `go tool pprof`, every way that people use."""
import re
import subprocess

import harness
from harness import Case, Daemon, Target, pprof


class Pprof(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls)
        cls.path = cls.daemon.directory / "profile.pb.gz"

    def pull(self, target, seconds=1.5, hz=999):
        self.daemon.attach(target.pid, hz)
        harness.let_run(target.pid, seconds * 0.7)
        self.daemon.ok("pull", target.pid, f"--output={self.path}")
        return harness.Profile.read(self.path).validate()

    def test_all_reports(self):
        target = Target(self, "spin", "--threads=2", "--shares=6:3:1")
        profile = self.pull(target, 2)
        raw = pprof("-raw", self.path)
        self.assertRegex(raw, r"(?m)^PeriodType: cpu nanoseconds\nPeriod: %d" % profile.period)
        self.assertIn("samples/count cpu/nanoseconds[dflt]", raw)
        counted = sum(int(line.split()[0]) for line in re.findall(r"(?m)^ +\d+ +\d+: .*$", raw))
        self.assertEqual(counted, profile.count(), "pprof and the test's own reader disagree")
        top = pprof("-top", "-noinlines", self.path)
        self.assertIn("Type: cpu", top)
        lines = [line.split()[-1] for line in top.splitlines() if re.match(r"\s+[\d.]+m?s\s", line)]
        self.assertEqual(lines[0], "a_heavy", top)
        self.assertIn("a_heavy", pprof("-traces", self.path))
        self.assertIn("<svg", pprof("-svg", self.path))
        self.assertIn("drive", pprof("-peek", "a_heavy", self.path))
        self.assertNotIn("a_heavy", pprof("-top", "-focus", "c_light", self.path))

    def test_sources(self):
        """What people ask of lines and addresses."""
        target = Target(self, "spin")
        profile = self.pull(target, 1.5)
        main = profile.mappings[0]
        self.assertTrue(main.has_functions)
        listing = pprof("-list", "^a_heavy$", self.path)
        self.assertRegex(listing, r"ROUTINE =+ a_heavy in .*/tests/targets/spin.c")
        # Of the lines of its source those in which time was spent have a figure.
        self.assertRegex(listing, r"(?m)^ +(\.|[\d.]+m?s) +[\d.]+m?s +\d+:.*target_burn")
        self.assertRegex(pprof("-top", "-lines", self.path), r"a_heavy .*spin.c:\d+")
        self.assertIn("a_heavy", pprof("-peek", "a_heavy", self.path))
        # Where instructions are shown, Go's own pprof cannot do with code that was moved (position-independent): its ObjAddr() says so.
        self.pull(Target(self, "spin_fixed"), 1.5)
        page = self.daemon.directory / "page.html"
        pprof("-weblist", "^a_heavy$", f"-output={page}", self.path)
        self.assertIn("target_burn", page.read_text())
        self.assertRegex(pprof("-top", "-addresses", self.path), r"[0-9a-f]{12,} .*a_heavy.*spin.c:\d+")
        self.assertIn("a_heavy", pprof("-disasm", "a_heavy", self.path))

    def test_without_names(self):
        """They are found elsewhere then, by whoever has the files."""
        target = Target(self, "spin")
        self.daemon.attach(target.pid, 999)
        harness.let_run(target.pid, 1)
        self.daemon.ok("pull", target.pid, "--no-symbols", f"--output={self.path}")
        profile = harness.Profile(self.path.read_bytes()).validate()
        self.assertEqual([location for sample in profile.samples for location in sample.locations if location.lines], [])
        self.assertRegex(profile.mappings[0].build_id, "^[0-9a-f]{40}$")
        self.assertFalse(profile.mappings[0].has_functions)
        self.assertIn("without names", "\n".join(profile.comments))
        self.assertIn("a_heavy", pprof("-top", "-noinlines", self.path), "pprof finds the file where it was")

    def test_the_checker_agrees(self):
        """profile_check is written in C, by another hand."""
        checker = harness.BUILD / "tests" / "system" / "profile_check"
        if not checker.exists():
            checker = harness.TARGETS.parent / "profile_check"
        profile = self.pull(Target(self, "spin", "--threads=2"))
        done = subprocess.run([checker, "--functions", self.path], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        facts = dict(line.split(" ", 1) for line in done.stdout.splitlines())
        self.assertEqual((int(facts["samples"]), int(facts["cpu_ns"])), (profile.count(), profile.cpu_ns()))
        threads = {int(line.split()[1]): [int(n) for n in line.split()[2:4]] for line in done.stdout.splitlines() if line.startswith("thread ")}
        self.assertEqual(threads, profile.by_tid())
        functions = {line.split()[5]: int(line.split()[3]) for line in done.stdout.splitlines() if line.startswith("function ")}
        self.assertEqual(functions["drive"], profile.inclusive()["drive"])

    def test_labels(self):
        target = Target(self, "spin", "--threads=2")
        profile = self.pull(target)
        for tid, (_, ns) in profile.by_tid().items():
            # A bare number would be looked for among numeric labels, which Pyroscope would have thrown away.
            top = pprof("-top", "-tagfocus", f"tid=^{tid}$", "-unit=ns", self.path)
            shown = float(re.search(r"accounting for ([\d.e+]+)ns", top).group(1))
            self.assert_near(shown, ns, 0.02, 0, f"tagfocus tid={tid}")
        self.assertIn("spin", pprof("-tags", self.path))
        self.assertRegex(pprof("-top", "-tagroot=comm", self.path), r"(?m)\bspin$")
        for sample in profile.samples:
            self.assertEqual((sample.labels["pid"], sample.labels["comm"]), (str(target.pid), "spin"))
            self.assertIn("cgroup", sample.labels)

    def test_two_profiles_merge_and_subtract(self):
        target = Target(self, "spin")
        self.pull(target, 1)
        other = self.daemon.directory / "other.pb.gz"
        self.daemon.ok("pull", target.pid, "--seconds=1", f"--output={other}")
        self.assertIn("a_heavy", pprof("-top", self.path, other))
        self.assertIn("a_heavy", pprof("-top", "-base", self.path, other))

    def test_an_idle_target(self):
        """No sample at all is a valid profile as well."""
        target = Target(self, "many_threads", "--threads=3")
        self.daemon.attach(target.pid, 99)
        packed = self.daemon.pull_bytes(target.pid, 1)
        self.path.write_bytes(packed)
        profile = harness.Profile(packed).validate()
        self.assertLess(profile.count(), 20)
        pprof("-raw", self.path)

    def test_odd_names(self):
        """Bytes that are no UTF-8 in the names of the thread and of its program."""
        path = self.daemon.directory.joinpath(b"sp\xff\xfe \"in\n".decode("utf-8", "surrogateescape"))
        harness.shutil.copy(harness.TARGETS / "spin", path)
        target = Target(self, "spin", path=path)
        profile = self.pull(target, 1)
        self.assertTrue(profile.mappings[0].filename.startswith(str(self.daemon.directory) + "/sp\ufffd"))
        self.assertGreater(profile.inclusive()["a_heavy"], 100)
        pprof("-top", self.path)

    def test_comments(self):
        target = Target(self, "spin")
        text = "\n".join(self.pull(target, 1).comments)
        for word in ("sprofd", "samples", "not", "Hz"):
            self.assertIn(word, text)


if __name__ == "__main__":
    harness.main()
