"""Our walk, built in user mode, over stacks that others recorded of programs that nobody here wrote: core dumps, held against gdb; what perf record keeps of stacks,
held against perf's own unwinding of the same samples (by libunwind, in Debian)."""
import os
import re
import resource
import signal
import struct
import subprocess
from pathlib import Path

import harness
from foreign import Foreign
from recorded import Core, Mapping, Perf, Recording, Stack

GDB_STOPS = Path(__file__).with_name("gdb_stops.py")
WHOLE = ("outermost", "root")
PERF_BYTES = 16384  # of the stack, in each sample
PROGRAMS = {"python": 1, "redis": 4, "ruby": 1, "sqlite": 1}  # at least so many threads


class Recorded(harness.Case, Foreign):
    def start(self, *argv, **more):
        """A crash of it leaves a core, where the kernel writes them into the folder of the program."""
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        return super().start(*argv, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, unlimited), **more)

    def test_deeper_than_a_record(self):
        """Of frame pointers, up to one of zero: it is whole, or the end of its leaf, and says which."""
        code, base, size = 0x400000, 0x7FFD00000000, 16
        for depth, end, n in (1024, "root", 1024), (1280, "root", 1280), (1281, "too_deep", 1024), (6000, "too_deep", 1024):
            frames = [code + i for i in range(depth)]
            links = [base + size * (i + 1) for i in range(depth - 2)] + [0]
            memory = b"".join(struct.pack("<QQ", link, frame) for link, frame in zip(links, frames[1:]))
            recording = Recording()
            recording.mappings = [Mapping(code, code + depth, 0, "-")]
            recording.stacks = [Stack(1, [base if i in (6, 7) else code if i == 16 else 0 for i in range(17)], base, memory + bytes(8192))]
            self.assertEqual(recording.walk(self.scratch()), [(end, frames[:n])])

    # --- core dumps ---

    def gdb(self, core, program):
        """{thread: addresses}"""
        to = self.scratch() / "frames"
        subprocess.run(
            ["gdb", "-batch", "-nx", "-x", GDB_STOPS], capture_output=True, timeout=100, check=True,
            env={**os.environ, "STOPS_CORE": str(core), "STOPS_PROGRAM": str(program), "STOPS_TO": str(to)})  # fmt: skip
        lines = (line.split() for line in to.read_text().splitlines())
        return {int(tid): [int(pc, 16) for pc in frames] for tid, *frames in lines}

    def judge_core(self, core, program, threads):
        recording = Core(core, self.scratch())
        ours = {stack.tid: walked for stack, walked in zip(recording.stacks, recording.walk(self.scratch()))}
        self.assertEqual(len(ours), threads)
        self.assertEqual({tid: walked.frames for tid, walked in ours.items()}, self.gdb(core, program))
        self.assertFalse([walked for walked in ours.values() if walked.end not in WHOLE])
        core.unlink()

    def judge_gcore(self, pid, threads):
        """Of a process that goes on afterwards."""
        now = len(list(Path(f"/proc/{pid}/task").iterdir()))
        self.assertGreaterEqual(now, threads)
        subprocess.run(["gcore", "-o", self.scratch() / "core", str(pid)], check=True, capture_output=True, timeout=100)
        self.judge_core(self.scratch() / f"core.{pid}", Path(f"/proc/{pid}/exe").resolve(), now)

    def test_a_crash(self):
        """The kernel's own core dump, which has code as well."""
        pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
        if "/" in pattern or pattern.startswith("|"):
            self.skipTest(f"kernel.core_pattern is {pattern}: the kernel writes no core into the folder of the program")
        pid = self.perl()
        harness.let_run(pid, 0.3)
        program = Path(f"/proc/{pid}/exe").resolve()
        os.kill(pid, signal.SIGABRT)
        harness.wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z", 60, "the end")
        self.judge_core(next(self.scratch().glob("core*")), program, 1)

    # --- perf ---

    def record(self, pid):
        data = self.scratch() / "perf.data"
        perf = super().start("perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "--user-callchains", "--call-graph", f"dwarf,{PERF_BYTES}", "-p", pid, "-o", data)
        harness.wait_for(lambda: data.exists() and data.stat().st_size > 1 << 20, 60, "samples of perf's")
        harness.let_run(pid, 0.6)
        perf.send_signal(signal.SIGINT)
        perf.wait(60)
        os.kill(pid, signal.SIGSTOP)  # while others work on what it gave
        return data

    def vdso(self, pid):
        path = self.scratch() / "vdso"
        line = next(line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if line.endswith("[vdso]"))
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        with open(f"/proc/{pid}/mem", "rb") as memory:
            memory.seek(start)
            path.write_bytes(memory.read(end - start))
        return path

    def perf_script(self, data):
        """{(thread, time in ns): addresses as offsets in files, those of callers within their call}"""
        said = subprocess.run(
            ["perf", "script", "-i", data, "--ns", "--no-inline", "--max-stack", "1024", "-F", "tid,time,ip"],
            capture_output=True, text=True, check=True).stdout  # fmt: skip
        found = {}
        for block in filter(str.strip, said.split("\n\n")):
            head, *frames = block.strip("\n").splitlines()
            tid, seconds, ns = map(int, re.match(r"\s*(\d+)\s+(\d+)\.(\d{9}):", head).groups())
            found[tid, seconds * 10**9 + ns] = [int(frame.split()[0], 16) for frame in frames]
        return found

    def judge_perf(self, pid):
        harness.let_run(pid, 0.2)
        data = self.record(pid)
        recording = Perf(data, pid, self.vdso(pid))
        theirs = self.perf_script(data)
        self.assertGreater(len(recording.stacks), 300)

        def in_file(address):
            return next((address - m.start + m.offset for m in recording.mappings if m.start <= address < m.end), address)

        cut = short = 0
        different = []
        for stack, when, walked in zip(recording.stacks, recording.times, recording.walk(self.scratch())):
            ours = [in_file(pc - (i > 0)) for i, pc in enumerate(walked.frames)]
            if ours == theirs[stack.tid, when]:
                short += walked.end not in WHOLE  # for both: where a register's value is below the stack pointer, which perf does not copy
                continue
            # Deeper than what was copied: we copy pages, and so stop a little before it ends.
            deeper = walked.end == "unreadable" and len(stack.memory) >= PERF_BYTES
            cut += deeper
            if not deeper or ours != theirs[stack.tid, when][: len(ours)]:
                different.append((walked, theirs[stack.tid, when]))
        self.assertFalse(different[:5], f"{len(different)} of {len(recording.stacks)} stacks, ours and perf's; {recording.mappings}")
        self.assertLess(cut, 0.1 * len(recording.stacks))
        self.assertLess(short, 0.005 * len(recording.stacks))

    def judge(self, name, threads):
        pid = getattr(self, name)()
        self.judge_perf(pid)
        self.judge_gcore(pid, threads)

    # Whose core dumps would be large.
    def test_cc1(self):
        self.judge_perf(self.cc1())

    def test_zstd(self):
        self.judge_perf(self.zstd())


def add_test(name, threads):
    setattr(Recorded, f"test_{name}", lambda self: self.judge(name, threads))


for program, n_threads in PROGRAMS.items():
    add_test(program, n_threads)


if __name__ == "__main__":
    harness.main()
