"""Whole stacks of Go programs, ordinary, stripped, and with C in them, and whether they are right: each return address on them must be behind a
call, in the program's own code, of the function that is the frame below."""
import bisect
import os
import re
import shutil
import subprocess
import tempfile
import time
import unittest
from collections import Counter
from pathlib import Path

import harness

HERE = Path(__file__).parent
PROGRAM = HERE.parent / "targets" / "goroutines"
HZ = 3999
SAMPLES = 5000
WHOLE = 0.999
ROOTS = {"runtime.goexit", "runtime.mstart", "runtime.mcall", "runtime.morestack"}
C_ROOTS = {"clone3", "start_thread"}  # a thread that C began, and has not yet given to Go
# The frame above these was interrupted, or is where Go left off: its address is not behind a call.
NOT_CALLED = {"runtime.asyncPreempt", "runtime.sigpanic", "runtime.sigpanic0", "runtime.sigtramp", "runtime.sigreturn", "runtime.cgocallback", "gogo", "__restore_rt"}
WITHOUT_A_CALL = {"runtime.goexit"}
STANDS_FOR = {"runtime.systemstack_switch": "runtime.asmcgocall"}


def plain(name):
    """Symbol tables tell the ABI of Go's assembly."""
    return re.sub(r"\.abi(0|internal)$", "", name)


class Code:
    """What a program's instructions say, by objdump and nm: which function is where, and what is called just before an address."""

    def __init__(self, path):
        self.starts, self.names, self.calls, self.jumps = [], [], {}, {}
        for line in self.run("nm", "-n", path):
            address, kind, name = re.fullmatch(r"([0-9a-f ]+) (\S) (.*)", line).groups()
            if kind in "tT":
                self.starts.append(int(address, 16))
                self.names.append(plain(name))
        call = None
        for line in self.run("objdump", "-d", "--no-show-raw-insn", path):
            found = re.match(r" +([0-9a-f]+):\t(\S+) *(.*)", line)
            if not found:
                continue
            address = int(found[1], 16)
            if call is not None:
                self.calls[address] = call
            call = None
            direct = re.match(r"([0-9a-f]+) <", found[3])
            target = self.function(int(direct[1], 16)) if direct else ""
            if found[2] == "call":
                call = target
            elif found[2] == "jmp" and target != self.function(address):
                self.jumps.setdefault(self.function(address), set()).add(target)

    @staticmethod
    def run(*argv):
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()

    def function(self, address):
        i = bisect.bisect_right(self.starts, address) - 1
        return self.names[i] if i >= 0 else ""

    def may_call(self, return_address, callee):
        """By a call, or by a call of what jumps there; whoever calls or jumps by a register may go anywhere."""
        target = self.calls.get(return_address)
        if target is None:
            return False
        seen, left = set(), [target]
        while left:
            name = left.pop()
            if name in ("", callee):
                return True
            if name not in seen:
                seen.add(name)
                left += self.jumps.get(name, ())
        return False


@unittest.skipUnless(shutil.which("go"), "there is no Go")
class Go(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = Path(tempfile.mkdtemp(prefix="sprof-go."))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)

    def build(self, name, *options, cgo="0"):
        path = self.folder / name
        subprocess.run(
            ["go", "build", *options, "-o", path, "."], check=True, cwd=PROGRAM,
            env={**os.environ, "GOFLAGS": "", "GO111MODULE": "off", "CGO_ENABLED": cgo, "GOCACHE": str(self.folder / "cache")})  # fmt: skip
        return path

    def sample(self, path):
        """Samples of a live program once its tables are there."""
        daemon = harness.Daemon(self)
        process = subprocess.Popen([path])
        self.addCleanup(harness.end, process)
        daemon.attach(process.pid, HZ)
        harness.wait_for(
            lambda: all(s.labels.get("stack_end") != "tables_not_ready" for s in daemon.pull(process.pid, 1).samples), 30, "its tables are not there")
        samples, n, deadline = [], 0, time.monotonic() + 60
        while n < SAMPLES:
            self.assertLess(time.monotonic(), deadline, f"too few samples: {n}")
            samples += [s for s in daemon.pull(process.pid, 1).samples if s.locations]
            n = sum(s.values[0] for s in samples)
        return samples

    def judge(self, path, roots=ROOTS):
        samples = self.sample(path)
        ends, others = Counter(), Counter()
        for s in samples:
            last = s.locations[-1]
            name = plain(last.lines[-1][0].name) if last.lines else hex(last.address)
            others[name if name not in roots else s.labels.get("stack_end")] += s.values[0]
            ends[name] += s.values[0]
        whole = others.pop(None, 0) / ends.total()
        print(f"\n{path.name}: {100 * whole:.3f} % of {ends.total()} end at a root: {dict(ends.most_common(6))}; others {dict(others)}")
        self.assertGreaterEqual(whole, WHOLE)
        return samples

    def judge_calls(self, path, samples):
        code, n, wrong = Code(path), 0, Counter()
        for s in samples:
            for below, frame in zip(s.locations, s.locations[1:]):
                if any(not x.mapping or x.mapping.filename != str(path) for x in (below, frame)):
                    continue
                callee, caller = code.function(below.address), code.function(frame.address)
                if callee in NOT_CALLED or caller in WITHOUT_A_CALL:
                    continue
                # A preempted goroutine's thread that is about to go on with another: it is the thread's goroutine already.
                if callee == "runtime.morestack" and "runtime.execute" in self.names_of(s):
                    continue
                callee = STANDS_FOR.get(callee, callee)
                n += s.values[0]
                if not code.may_call(frame.address + 1, callee):
                    wrong[f"{caller}+{frame.address:#x} does not call {callee}"] += s.values[0]
        print(f"{path.name}: {n} frames are behind calls of what is below them, {wrong.total()} are not")
        self.assertGreater(n, 10000)
        self.assertEqual(wrong.total(), 0, wrong)

    def names_of(self, sample):
        return [plain(function.name) for x in sample.locations for function, _ in x.lines]

    def judge_graph(self, samples):
        """main.middle is called by main.outer alone, and so on, up to the goroutine's own function."""
        callers = {"main.middle": {"main.outer"}, "main.outer": {"main.work", "main.goFromC"}, "main.tree": {"main.tree", "main.work"},
                   "main.deep": {"main.deep", "main.work.func1"}, "main.work": {"main.main", "main.main.func3", "main.main.func4", "runtime.goexit"}}  # fmt: skip
        seen = Counter()
        for s in samples:
            names = self.names_of(s)
            for name, caller in zip(names, names[1:]):
                if name in callers:
                    self.assertIn(caller, callers[name], names)
                    seen[name] += s.values[0]
            if names.count("main.deep") > 1 and "main.inner" in names:
                self.assertEqual(names.count("main.deep"), 201, names)
                seen["deep"] += s.values[0]
            if "runtime.systemstack" in names[1:-1]:
                seen["from the thread's stack to the goroutine's"] += s.values[0]
        for what in (*callers, "deep", "from the thread's stack to the goroutine's"):
            self.assertGreater(seen[what], 0, f"{what}: {seen}")

    def test_ordinary(self):
        path = self.build("ordinary")
        samples = self.judge(path)
        self.judge_calls(path, samples)
        self.judge_graph(samples)

    def test_stripped(self):
        self.judge_graph(self.judge(self.build("stripped", "-ldflags=-s -w")))

    def test_with_c(self):
        path = self.build("with_c", cgo="1")
        samples = self.judge(path, ROOTS | C_ROOTS)
        self.judge_calls(path, samples)
        self.judge_graph(samples)
        names = [self.names_of(s) for s in samples]
        self.assertTrue(any("sort_in_c" in x and "runtime.asmcgocall" in x and "main.work" in x for x in names), "C is not seen on Go's stacks")
        self.assertTrue(any("main.goFromC" in x and "runtime.cgocallback" in x and "main.work" in x for x in names), "Go that C called is not on a whole stack")


if __name__ == "__main__":
    harness.main()
