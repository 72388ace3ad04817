"""Returns that the kernel itself has hijacked, of functions that somebody watches by a uretprobe, and calls that a uprobe watches: stacks are what they are without. The
functions are our own, and libc's in programs that nobody here wrote."""
import os
import subprocess
from pathlib import Path

import harness
from foreign import SQL, Foreign
from harness import Daemon, number
from pprof_file import frame_names

LIBC = Path("/lib/x86_64-linux-gnu/libc.so.6").resolve()
# Ruby sorts by libc's qsort_r, which calls back into Ruby. Here the comparison sorts, to a depth of ten calls and more; the outermost call never returns.
RUBY = r"""
def nest(n)
  return (1..40).map { |i| "w#{i * 7919 % 1009}" }.sort { |a, b| a <=> b }.size if n == 0
  [n, n - 1].sort { |a, b| nest(n - 1); a <=> b }.size
end
[2, 1].sort { |a, b| [4, 3].sort { |c, d| nest(8) while true } }
"""
SORTS = ("qsort_r", "__qsort_r", "__GI___qsort_r")


def user_frames(sample):
    return tuple(name for x in sample.locations if not (x.mapping and x.mapping.filename.startswith("[kernel")) for name in frame_names(x))


def edges(stack):
    """Who is called by whom, but for the leaf: leaves are too many to have been seen before, all of them."""
    return set(zip(stack[1:], stack[2:]))


class Uretprobes(harness.Case, Foreign):
    EVENTS = Path("/sys/kernel/tracing/uprobe_events")
    NAME = f"sprof_test_{os.getpid()}"

    def setUp(self):
        if not self.EVENTS.exists():
            subprocess.run(["mount", "-t", "tracefs", "none", self.EVENTS.parent], check=True)
        self.daemon = Daemon(self)

    def tell(self, text):
        fd = os.open(self.EVENTS, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def probe(self, program, function, *options, kind="r"):
        """kind: r, of its return, or p, of the call. options: of nm."""
        offset = None
        symbols = subprocess.run(["nm", *options, program], capture_output=True, text=True, check=True).stdout
        address = next(int(line.split()[0], 16) for line in symbols.splitlines() if line.split("@")[0].endswith(f" {function}"))
        segments = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True, check=True).stdout
        for line in segments.splitlines():
            fields = line.split()
            if fields[:1] == ["LOAD"] and "E" in fields[6:8]:
                offset = address - int(fields[2], 16) + int(fields[1], 16)
        self.tell(f"{kind}:{self.NAME}/{self.NAME} {program}:{offset:#x}")
        self.enable = self.EVENTS.parent / "events" / self.NAME / self.NAME / "enable"
        self.addCleanup(self.tell, f"-:{self.NAME}/{self.NAME}")
        self.enable.write_text("1")
        self.addCleanup(self.enable.write_text, "0")

    def hits(self):
        """Of the probe: calls that it has seen."""
        lines = (self.EVENTS.parent / "uprobe_profile").read_text().splitlines()
        return sum(int(line.split()[2]) for line in lines if line.split()[1] == self.NAME)

    def test_recursion(self):
        self.probe((harness.TARGETS / "deep_cfi").resolve(), "deep_frame")
        target = harness.Target(self, "deep_cfi", "--depth=40")
        self.daemon.attach(target.pid, 999)
        harness.let_run(target.pid, 0.7)
        profile = self.daemon.pull(target.pid, 1)
        ends = {e["name"]: number(e, "count") for e in self.daemon.target(target.pid)["stack_ends"]}
        self.assertNotIn("hijacked", ends)
        whole = sum(count for stack, count in profile.stacks() if stack.count("deep_frame") == 40 and stack[-1] == "_start")
        self.assertGreater(whole, 0.99 * profile.count(), (ends, profile.stacks()[:2]))
        self.assertFalse([stack for stack, _ in profile.stacks() if "[uprobes]" in stack])

    def test_calls(self):
        """Without a return to watch, and with a first instruction that the kernel emulates (push), nothing is mapped as [uprobes]."""
        self.probe((harness.TARGETS / "deep").resolve(), "deep_call", kind="p")
        target = harness.Target(self, "deep", "--depth=3", "--calls=1")
        self.daemon.attach(target.pid, 999)
        harness.let_run(target.pid, 0.7)
        profile = self.daemon.pull(target.pid, 1)
        self.assertGreater(self.hits(), 10000)
        self.assertNotIn("[uprobes]", Path(f"/proc/{target.pid}/maps").read_text())
        stacks = [(user_frames(sample), sample.values[0]) for sample in profile.samples]
        called = [(stack[1:6], count) for stack, count in stacks if stack[0] == "deep_call"]
        self.assertGreater(sum(count for _, count in called), 0.5 * profile.count(), stacks[:5])
        # But for the nanoseconds in which the kernel has done one half of the push.
        strange = [(stack, count) for stack, count in called if stack != ("deep_leaf", *3 * ["deep_frame"], "main")]
        self.assertLess(sum(count for _, count in strange), 0.02 * profile.count(), strange[:5])

    # --- libc's functions ---

    def sampled(self, pid):
        """Attaches, in the middle of whatever calls there are, and detaches: [(stack, count)] of whole stacks."""
        self.daemon.attach(pid, 1999)
        harness.let_run(pid, 1.5)
        profile = self.daemon.pull(pid)
        ends = {e["name"]: number(e, "count") for e in self.daemon.target(pid)["stack_ends"]}
        self.daemon.ok("detach", pid)
        stacks = [(user_frames(sample), sample.values[0]) for sample in profile.samples]
        short = [(sample.labels["stack_end"], user_frames(sample)) for sample in profile.samples if "stack_end" in sample.labels]
        self.assertGreater(profile.count(), 200)
        # For some nanoseconds of each call and of each return nobody but the kernel's own code knows where it returns to: these stacks say so.
        entries = [stack for end, stack in short if end in ("hijacked", "bad_return_address") and len(stack) == 1]
        self.assertLessEqual(len(entries), 0.01 * profile.count(), (ends, entries[:3]))
        self.assertLessEqual(len(short) - len(entries), 0.001 * profile.count(), (ends, short[:3]))
        return [(stack, count) for stack, count in stacks if len(stack) > 1]

    def assert_alike(self, stacks, before, what):
        """Nobody calls whom he does not call without the probe, but for what is seen too rarely to have been seen before."""
        known = set().union(*(edges(stack) | {stack[:2]} for stack, _ in before))  # whom a leaf was called by is known as well: it may have called somebody since
        total = sum(count for _, count in stacks)
        strange = [(stack, count) for stack, count in stacks if edges(stack) - known]
        self.assertFalse([stack for stack, _ in stacks if "[uprobes]" in stack], what)
        self.assertLess(sum(count for _, count in strange), 0.01 * total, (what, [edges(stack) - known for stack, _ in strange][:5]))

    def sorts(self, stacks):
        """The least and the most calls of qsort_r on a stack."""
        depths = [sum(name in SORTS for name in stack) for stack, _ in stacks]
        return min(depths), max(depths)

    def test_a_sort_within_a_sort(self):
        pid = self.start("ruby", "-e", RUBY).pid
        harness.let_run(pid, 0.5)
        before = self.sampled(pid) + self.sampled(pid)
        self.assertEqual(self.sorts(before), (2, 11), before[:2])
        self.probe(LIBC, "qsort_r", "-D")
        harness.let_run(pid, 0.1)
        self.assertGreater(self.hits(), 100)
        mixed = self.sampled(pid)  # the outer calls were there before the probe
        self.assertEqual(self.sorts(mixed), (2, 11))
        self.assert_alike(mixed, before, "armed in mid-call")
        late = self.start("ruby", "-e", RUBY).pid  # all of them are hijacked, the outermost for good
        harness.let_run(late, 0.5)
        hijacked = self.sampled(late)
        self.assertEqual(self.sorts(hijacked), (2, 11))
        self.assert_alike(hijacked, before, "attached in mid-call")

    def test_the_allocator(self):
        pid = self.start("sqlite3", ":memory:", SQL).pid
        harness.let_run(pid, 0.5)
        before = self.sampled(pid)
        self.probe(LIBC, "malloc", "-D")
        harness.let_run(pid, 0.1)
        self.assertGreater(self.hits(), 10000)
        stacks = self.sampled(pid)
        self.assertGreater(sum(count for stack, count in stacks if "malloc" in " ".join(stack)), 20)
        self.assert_alike(stacks, before, "malloc")


if __name__ == "__main__":
    harness.main()
