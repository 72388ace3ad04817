"""Frames of CPython's in profiles: held against what the interpreter itself says of its callers (sys._getframe), stack by stack and line by line, and
against the CPU time that the program has counted for each. For Debian's interpreter, and those of other versions that are installed or that
SPROF_PYTHONS names (paths, with colons between)."""
import collections
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import harness
from harness import Case, Daemon, Target

HERE = Path(__file__).resolve().parent
SCENES = HERE.parent / "targets" / "python" / "scenes.py"


def interpreters():
    """{version: path}, Debian's first."""
    found = {}
    for name in ("/usr/bin/python3", *filter(None, os.environ.get("SPROF_PYTHONS", "").split(":")), "python3.12", "python3.13"):
        try:
            told = subprocess.run(
                [name, "-c", "import os, sys; print('%d.%d' % sys.version_info[:2], os.path.realpath(sys.executable))"],
                capture_output=True, text=True, timeout=60)  # fmt: skip
        except FileNotFoundError:
            continue
        if told.returncode == 0:
            version, path = told.stdout.split()
            found.setdefault((version, path), path)
    return {version + " " + path: path for version, path in found if version in ("3.11", "3.12", "3.13")}


INTERPRETERS = interpreters()
DEBIAN = next(iter(INTERPRETERS.values()))


def python_frames(sample):
    """[(function, line)], innermost first."""
    return [(l.lines[0][0].name, l.lines[0][1]) for l in sample.locations if l.mapping and l.mapping.filename == "[python]"]


def misplaced(sample):
    """Python frames that do not stand right before the call of the interpreter which executes them."""
    names = [l.lines[-1][0].name if l.lines else "?" for l in sample.locations]
    is_python = [bool(l.mapping and l.mapping.filename == "[python]") for l in sample.locations]
    return [
        names[i]
        for i in range(len(names))
        if is_python[i] and (i + 1 == len(names) or not (is_python[i + 1] or names[i + 1].startswith("_PyEval_EvalFrameDefault")))
    ]


def without_gone(stack):
    """What exec() ran for a few milliseconds may be gone before its name was read: then the profile says so."""
    stack = list(stack)
    if "evaluated" in dict(stack):
        stack = [("*", 0) if name in ("<module>", "[python code gone]") and i == 1 else (name, line) for i, (name, line) in enumerate(stack)]
    return tuple(stack)


class Python(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls)

    def start(self, path, *args, prefix=()):
        process = Target(self, None, SCENES, *args, path=path)
        return process

    def sample(self, target, seconds=3, hz=499):
        """A profile of a window in which the interpreter and the unwind tables were known from the beginning."""
        self.daemon.attach(target.pid, hz)
        self.until_known(target.pid)
        return self.daemon.pull(target.pid, seconds)

    def until_known(self, pid):
        words = f"process {pid} runs CPython"
        harness.wait_for(lambda: words in self.daemon.log(), 30, words)
        time.sleep(0.5)

    def assert_python(self, profile, share=0.99):
        count = collections.Counter()
        for sample in profile.samples:
            count[bool(python_frames(sample))] += sample.values[0]
        self.assertGreater(count[True], share * sum(count.values()), profile.comments)

    def hold(self, profile, truth):
        """Each sample in burn() is in a stack that the interpreter has told, with the lines, as often as its CPU time says."""
        told = collections.Counter()
        for stack, ns in truth["stacks"]:
            told[without_gone(map(tuple, stack))] += ns
        seen, strange, places, n, gone = collections.Counter(), collections.Counter(), collections.Counter(), 0, 0
        for sample in profile.samples:
            frames = python_frames(sample)
            n += sample.values[0]
            for name in misplaced(sample):
                places[name] += sample.values[0]
            names = [name for name, _ in frames]
            if "burn" not in names:
                continue
            stack = without_gone(frames[names.index("burn") + 1 :])
            if "evaluated" in names and "[python code gone]" in dict(stack):
                gone += sample.values[0]
            else:
                (seen if stack in told else strange)[stack] += sample.values[0]
        self.assertLess(gone, 0.05 * n)  # what was made and run once, on a busy machine
        self.assertLess(sum(strange.values()), 0.005 * n, strange.most_common(3))
        self.assertLess(sum(places.values()), 0.005 * n, places.most_common(5))
        self.assertGreater(sum(seen.values()), 0.9 * n, seen.most_common(3))
        total, burnt = sum(seen.values()), sum(told.values())
        for stack, ns in told.items():
            share = ns / burnt
            room = 6 * math.sqrt(total * share) + 0.01 * total + 3
            self.assertLess(abs(seen[stack] - share * total), room, (stack, seen[stack], share * total))
        return seen

    def test_every_way_of_calling(self):
        for version, path in INTERPRETERS.items():
            with self.subTest(version=version):
                target = self.start(path)
                profile = self.sample(target, 6)
                self.assert_python(profile)
                seen = self.hold(profile, target.finish())
                self.assertGreater(len(seen), 25)

    def test_files_and_first_lines(self):
        target = self.start(DEBIAN, "plain")
        profile = self.sample(target, 1)
        function = next(f for f in profile.functions if f.name == "plain")
        self.assertEqual(function.filename, str(SCENES))
        source = SCENES.read_text().splitlines()
        self.assertEqual(source[function.start_line - 1], "def plain():")
        lines = {line for s in profile.samples for name, line in python_frames(s) if name == "burn"}
        first = source.index("def burn():") + 1
        self.assertTrue(lines <= set(range(first, first + 10)), (first, lines))
        python = next(m for m in profile.mappings if m.filename == "[python]")
        self.assertTrue(python.has_functions and python.has_filenames and python.has_lines)

    def test_threads(self):
        for version, path in INTERPRETERS.items():
            with self.subTest(version=version):
                target = self.start(path, "threads")
                profile = self.sample(target, 4)
                self.assert_python(profile, 0.97)
                self.hold(profile, target.finish())

    def test_deep_recursion(self):
        """Deeper than a record holds: its innermost frames, before the call of the interpreter that has them all."""
        for version, path in INTERPRETERS.items():
            with self.subTest(version=version):
                target = self.start(path, "deep")
                profile = self.sample(target, 2)
                deep = [s for s in profile.samples if len(python_frames(s)) == 512]
                self.assertGreater(sum(s.values[0] for s in deep), 0.5 * profile.count())
                self.assertTrue(all(not misplaced(s) for s in deep))
                self.assertTrue(any("python frames too_deep" in c for c in profile.comments), profile.comments)

    def run_text(self, text, path=DEBIAN, prefix=(), env=None):
        process = subprocess.Popen([*prefix, path, "-c", text], stdout=subprocess.PIPE, env=env)
        self.addCleanup(harness.end, process)
        pid = json.loads(process.stdout.readline())
        return process, pid if isinstance(pid, int) else process.pid

    def attach_and_pull(self, pid, seconds=2, hz=499):
        self.daemon.attach(pid, hz)
        self.until_known(pid)
        return self.daemon.pull(pid, seconds)

    def test_c_code_that_lets_go_of_the_interpreter(self):
        process, pid = self.run_text(
            "import os, zlib, threading\n"
            "data = os.urandom(1 << 20)\n"
            "def packs():\n    zlib.compress(data)\n"
            "def loop():\n    while True: packs()\n"
            "threading.Thread(target=loop, daemon=True).start()\n"
            "print(1 == 0 or os.getpid(), flush=True)\nloop()\n")  # fmt: skip
        profile = self.attach_and_pull(pid)
        inside = sum(
            s.values[0] for s in profile.samples
            if [n for n, _ in python_frames(s)][:2] == ["packs", "loop"] and s.locations[0].mapping.filename != "[python]")  # fmt: skip
        self.assertGreater(inside, 0.9 * profile.count(), profile.stacks()[:3])

    def test_a_fork_is_a_process_of_its_own(self):
        process, pid = self.run_text(
            "import os, multiprocessing\n"
            "def in_child():\n    while True: pass\n"
            "multiprocessing.set_start_method('fork')\n"
            "p = multiprocessing.Process(target=in_child); p.start()\n"
            "print(p.pid, flush=True)\np.join()\n")  # fmt: skip
        self.addCleanup(lambda: os.kill(pid, signal.SIGKILL))
        profile = self.attach_and_pull(pid, 1)
        self.assertGreater(sum(s.values[0] for s in profile.samples if "in_child" in dict(python_frames(s))), 0.97 * profile.count())

    def test_a_subinterpreter(self):
        """On Debian's: what it runs, above what called it; both belong to one thread."""
        process, pid = self.run_text(
            "import os, _xxsubinterpreters as subs\n"
            "def outer(i):\n    subs.run_string(i, 'def within():\\n    while True: pass\\nwithin()')\n"
            "print(os.getpid(), flush=True)\nouter(subs.create())\n")  # fmt: skip
        profile = self.attach_and_pull(pid, 1)
        whole = sum(s.values[0] for s in profile.samples if python_frames(s) and python_frames(s)[0][0] == "within")
        self.assertGreater(whole, 0.97 * profile.count(), [python_frames(s) for s in profile.samples][:3])
        self.assertFalse([s for s in profile.samples if misplaced(s)])

    def test_a_program_that_ends_at_once(self):
        """Names are read while it runs, not when they are asked for."""
        process, pid = self.run_text(
            "import os, time\nprint(os.getpid(), flush=True)\n"
            "def short_lived():\n    end = time.process_time() + 1\n    while time.process_time() < end: pass\nshort_lived()")  # fmt: skip
        self.daemon.attach(pid, 499)
        process.wait(60)
        self.daemon.settle(pid)
        profile = self.daemon.pull(pid)
        named = sum(s.values[0] for s in profile.samples if "short_lived" in dict(python_frames(s)))
        self.assertGreater(named, 0.7 * profile.count(), profile.comments)

    def test_another_program_is_another_interpreter(self):
        """After an exec: the same process, and nothing of what was known of it holds."""
        process, pid = self.run_text(
            "import os, time\nprint(os.getpid(), flush=True)\n"
            "def before():\n    end = time.process_time() + 1.5\n    while time.process_time() < end: pass\n"
            f"before()\nos.execv({DEBIAN!r}, [{DEBIAN!r}, '-c', 'def after():\\n    while True: pass\\nafter()'])\n")  # fmt: skip
        self.daemon.attach(pid, 499)
        harness.let_run(pid, 4)
        profile = self.daemon.pull(pid)
        count = collections.Counter(name for s in profile.samples for name, _ in python_frames(s) for _ in range(s.values[0]))
        self.assertGreater(count["before"], 300, count)
        self.assertGreater(count["after"], 300, count)
        self.assertFalse([s for s in profile.samples if {"before", "after"} <= set(dict(python_frames(s)))])

    def test_in_a_container(self):
        """Its own mounts and numbers; the interpreter is a file that exists only there."""
        root = tempfile.mkdtemp(prefix="sprof-test.")
        self.addCleanup(shutil.rmtree, root, ignore_errors=True)
        text = "import os\nprint('\"\"', flush=True)\ndef contained():\n    while True: pass\ncontained()"
        inside = f"mount -t tmpfs none {root} && cp {DEBIAN} {root}/python3.11 && exec env PYTHONHOME=/usr {root}/python3.11 -c \"$0\""
        process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", inside, text], stdout=subprocess.PIPE)
        self.addCleanup(harness.end, process)
        process.stdout.readline()
        (pid,) = harness.children_of(process.pid)
        profile = self.attach_and_pull(pid, 1)
        self.assertGreater(sum(s.values[0] for s in profile.samples if "contained" in dict(python_frames(s))), 0.97 * profile.count())

    def test_names_in_pprof(self):
        """As the interpreter gives them: go tool pprof, which takes what is in <> for C++'s, cuts nothing."""
        script = "def outer():\n    while True: [sum(i * x for i in range(500)) for x in range(500)]\nouter()"
        process = subprocess.Popen([DEBIAN, "-c", script])
        self.addCleanup(harness.end, process)
        path = self.daemon.directory / "names.pb.gz"
        path.write_bytes(self.daemon.pull_bytes(process.pid, 1))
        top = harness.pprof("-top", "-cum", path)
        for name in ("<module>", "outer", "outer.<locals>.<listcomp>", "outer.<locals>.<listcomp>.<genexpr>"):
            self.assertRegex(top, rf"(?m) {re.escape(name)}$")
        self.assertNotIn("[[python]]", top)

    def test_the_account(self):
        """In the status, as text and JSON, and in the metrics; of a process that is not Python nothing."""
        target, other = self.start(DEBIAN, "plain"), Target(self, "spin")
        self.daemon.attach(target.pid, 499)
        self.daemon.attach(other.pid, 499)
        harness.let_run(target.pid, 0.5)
        self.daemon.ok("detach", target.pid)
        told = self.daemon.target(target.pid)
        ends = {end["name"]: int(end["count"]) for end in told["python_ends"]}
        self.assertEqual(sum(ends.values()), int(told["samples"]), told)
        self.assertGreater(ends["whole"], 0.9 * sum(ends.values()), ends)
        self.assertFalse(self.daemon.target(other.pid).get("python_ends"))
        self.assertRegex(self.daemon.ok("status"), r"python frames\n +[0-9.]+ %  \w+: ")
        metrics = self.daemon.http("GET", "/metrics")[2].decode()
        self.assertIn(f'sprofd_target_python_ends_total{{pid="{target.pid}",comm="python3.11",end="whole"}} {ends["whole"]}\n', metrics)
        self.assertNotIn(f'sprofd_target_python_ends_total{{pid="{other.pid}"', metrics)

    def test_the_first_samples(self):
        """The interpreter is found before the first sample, if that takes no more than the tenths of a second for which an attach waits."""
        target = self.start(DEBIAN, "plain")
        without = []
        for _ in range(3):  # on a crowded machine it may take more
            daemon = Daemon(self)
            daemon.attach(target.pid, 1999)
            harness.let_run(target.pid, 0.3)
            profile = daemon.pull(target.pid)
            without.append(sum(s.values[0] for s in profile.samples if not python_frames(s)))
            daemon.ok("detach", target.pid)
            self.assert_python(daemon.pull(target.pid, 1))  # attached anew
            if without[-1] == 0:
                return
        self.fail(f"samples without frames of Python: {without}")

    def test_it_can_be_turned_off(self):
        daemon = Daemon(self, config="[sampling]\npython = no\n")
        target = self.start(DEBIAN, "plain")
        daemon.attach(target.pid, 499)
        harness.let_run(target.pid, 1)
        profile = daemon.pull(target.pid)
        self.assertFalse([m for m in profile.mappings if m.filename == "[python]"])

    def test_a_program_that_is_not_python(self):
        """Though its file is called so."""
        directory = tempfile.mkdtemp(prefix="sprof-test.")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        shutil.copy(harness.TARGETS / "spin", Path(directory) / "python3.11")
        target = Target(self, None, path=Path(directory) / "python3.11")
        self.daemon.attach(target.pid, 499)
        harness.let_run(target.pid, 1)
        profile = self.daemon.pull(target.pid)
        self.assertFalse([m for m in profile.mappings if m.filename == "[python]"])
        self.assertGreater(profile.inclusive()["main"], 0.9 * profile.count())
        self.assert_conserved(self.daemon.target(target.pid))


if __name__ == "__main__":
    harness.main()
