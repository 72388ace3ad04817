"""What profiling costs the target and the tool, per delivered sample, beside perf, bpftrace and gperftools in the same run.

    SPROF_BUILD=build python3 tests/bench/bench_peers.py [--pairs=20] [--hz=99,999] [--depth=10] [--seconds=2] [--tools=...] [--cpu | --floor]

The target is `gap`: it counts the nanoseconds that are taken from it, so that the cost shows even where the whole run is too noisy to
tell. Each pair is a window without and a window with the tool, in turn, on one process; the tools take turns in random order.
Prints markdown: figures are medians, (quartiles) and [95 % bootstrap intervals of the median]."""
import argparse
import os
import random
import re
import resource
import shutil
import signal
import statistics
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from measure import Gap, Scope, harness, interval, machine, spread, stolen_between, table, with_interval

SET_UP_SECONDS = 0.5  # from when a tool samples until it does nothing else: by then sprofd has the unwind tables
LIBPROFILER = ("/usr/lib/x86_64-linux-gnu/libprofiler.so.0", "/usr/lib/x86_64-linux-gnu/libprofiler.so")


class Sprofd:
    name = "sprofd"

    def __init__(self, scope, gap, directory):
        self.daemon = harness.Daemon(scope)
        self.gap = gap

    def start(self, hz):
        self.daemon.attach(self.gap.pid, hz)

    def running_cpu_ns(self):
        """Of what has not ended, and does not count among our own children yet: the daemon, and its reader."""
        return harness.cpu_ns(self.daemon.pid()) + sum(map(harness.cpu_ns, harness.children_of(self.daemon.pid())))

    def stop(self):
        self.daemon.ok("detach", self.gap.pid)

    def samples(self):
        """How many came, of the whole time."""
        return harness.number(self.daemon.target(self.gap.pid), "samples")

    def make_profile(self):
        self.daemon.ok("pull", self.gap.pid, "--output=/dev/null")

    def whole(self):
        ends = {end["name"]: harness.number(end, "count") for end in self.daemon.target(self.gap.pid)["stack_ends"]}
        return (ends.get("outermost", 0) + ends.get("root", 0)) / sum(ends.values())


class Child:
    """A tool that is a process beside the target."""

    def __init__(self, scope, gap, directory):
        self.scope, self.gap, self.directory = scope, gap, directory
        self.process = None

    def run(self, *argv, ready):
        self.log = open(Path(self.directory) / f"{self.name}.log", "w+")
        self.process = subprocess.Popen(argv, stdout=self.log, stderr=self.log)
        self.scope.addCleanup(harness.end, self.process)
        harness.wait_for(lambda: ready(self.output()), 30, f"{argv} to start: {self.output()}")

    def running_cpu_ns(self):
        return harness.cpu_ns(self.process.pid) if self.process and self.process.returncode is None else 0

    def make_profile(self):
        pass

    def output(self):
        return Path(self.log.name).read_text(errors="replace")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self.log.close()


class Noop(Child):
    """A program that does nothing, on the same event: what a sample costs before any tool has seen it."""

    name = "no-op"

    def start(self, hz):
        self.run(harness.BUILD / "tests/bench/bpf_event", str(self.gap.pid), str(hz), "noop", ready=lambda text: "on\n" in text)

    def samples(self):
        return int(self.output().split()[1])


class Perf(Child):
    name = "perf record -g"
    options = ("-g",)

    def start(self, hz):
        self.data = f"{self.directory}/{type(self).__name__}.data"
        pipes = [f"{self.directory}/{end}" for end in ("control", "ack")]
        for pipe in pipes:
            if not os.path.exists(pipe):
                os.mkfifo(pipe)
        # Tells by its control pipe when it is really recording.
        control, ack = (os.open(pipe, os.O_RDWR) for pipe in pipes)
        self.run("perf", "record", "-q", "-e", "cpu-clock", "-F", str(hz), *self.options, "-p", str(self.gap.pid), "-o", self.data,
                 f"--control=fifo:{pipes[0]},{pipes[1]}", ready=lambda _: True)  # fmt: skip
        os.write(control, b"enable\n")
        os.read(ack, 16)
        os.close(control)
        os.close(ack)

    def samples(self):
        stats = subprocess.run(["perf", "report", "--stats", "-i", self.data], capture_output=True, text=True).stdout
        return int(re.search(r"SAMPLE events:\s+(\d+)", stats).group(1))

    def make_profile(self):
        subprocess.run(["perf", "report", "--stdio", "-i", self.data], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)

    def whole(self):
        """The share of stacks that come to _start."""
        said = subprocess.run(["perf", "script", "-i", self.data, "--no-inline", "-F", "ip,sym"], capture_output=True, text=True, check=True).stdout
        stacks = [block for block in said.split("\n\n") if block.strip()]
        return sum(block.strip().endswith(" _start") for block in stacks) / len(stacks)


class PerfDwarf(Perf):
    """Copies 8 KiB of the stack with each sample, perf's default, to be unwound afterwards."""

    name = "perf record --call-graph dwarf"
    options = ("--call-graph", "dwarf")


class Bpftrace(Child):
    name = "bpftrace"

    def start(self, hz):
        program = f'profile:hz:{hz} /pid == {self.gap.pid}/ {{ @[kstack, ustack] = count(); @n = count(); }} interval:ms:50 {{ printf("on\\n"); }}'
        self.run("bpftrace", "-e", program, ready=lambda text: "on\n" in text)

    def samples(self):
        with open(self.log.name, errors="replace") as file:
            found = re.search(r"@n: (\d+)", file.read())
        return int(found.group(1)) if found else 0


class Gperftools:
    """In the process itself, switched by a signal; so its target is another process of the same program."""

    name = "gperftools"

    def __init__(self, scope, gap, directory):
        self.scope, self.directory = scope, Path(directory)
        self.library = next((path for path in LIBPROFILER if os.path.exists(path)), None)
        self.processes = {}
        self.gap = None

    def prepare(self, hz, depth):
        self.gap = Gap(self.scope, depth, env={
            "LD_PRELOAD": self.library, "CPUPROFILE": f"{self.directory}/gperf.{hz}", "CPUPROFILESIGNAL": str(int(signal.SIGUSR2)),
            "CPUPROFILE_FREQUENCY": str(hz)})  # fmt: skip
        return self.gap

    def start(self, hz):
        self.before = set(self.directory.glob(f"gperf.{hz}*"))
        self.hz = hz
        os.kill(self.gap.pid, signal.SIGUSR2)
        time.sleep(0.05)

    def running_cpu_ns(self):
        return 0  # it has none beside the target's

    def make_profile(self):
        newest = max(self.directory.glob(f"gperf.{self.hz}*"), key=lambda path: path.stat().st_mtime)
        subprocess.run(["google-pprof", "--text", harness.TARGETS / "gap", newest], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=False)  # fmt: skip

    def stop(self):
        os.kill(self.gap.pid, signal.SIGUSR2)
        time.sleep(0.3)

    def samples(self):
        newest = max(self.directory.glob(f"gperf.{self.hz}*"), key=lambda path: path.stat().st_mtime)
        return count_gperftools(newest.read_bytes())


def count_gperftools(data):
    """Samples of its legacy format: words of 64 bits; header of 5, then (count, depth, pcs...), a last one of (0, 1, 0), text."""
    at, total = 40, 0
    while at + 16 <= len(data):
        count, depth = struct.unpack_from("<QQ", data, at)
        if count == 0:
            break
        total += count
        at += 16 + 8 * depth
    return total


TOOLS = {"sprofd": Sprofd, "noop": Noop, "perf": Perf, "perf-dwarf": PerfDwarf, "bpftrace": Bpftrace, "gperftools": Gperftools}
USUAL = ("sprofd", "perf", "bpftrace", "gperftools")
FLOOR = ("sprofd", "noop", "perf", "perf-dwarf", "bpftrace")


def available(name):
    if name == "gperftools":
        return any(map(os.path.exists, LIBPROFILER))
    return name in ("sprofd", "noop") or shutil.which(name.split("-")[0])


def cpu_ns(tool):
    """What the tool's processes have used: those that ended and those that run."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (children.ru_utime + children.ru_stime) * 1e9 + tool.running_cpu_ns()


def begin(tool, hz):
    """Starts it, and returns once it has set itself up: half a second after it says that it samples."""
    tool.start(hz)
    time.sleep(SET_UP_SECONDS)


def pair(tool, gap, hz, seconds):
    """One window without and one with the tool: (stolen us per sample, slowdown in %, tool's CPU us per sample in that window, Hz,
    CPU ms from the command that starts it until it is set up, CPU ms of the whole job, to a profile that can be read)."""
    before = gap.read()
    time.sleep(seconds)
    without = stolen_between(before, gap.read())
    job_began = cpu_ns(tool)
    begin(tool, hz)
    set_up, before = cpu_ns(tool), gap.read()
    time.sleep(seconds)
    after = gap.read()
    window_ns = cpu_ns(tool) - set_up
    tool.stop()
    tool.make_profile()
    job_ns = cpu_ns(tool) - job_began
    wall_s = (after[0] - before[0]) / 1e9
    rate = tool.samples() / (wall_s + SET_UP_SECONDS)  # it ran for a little longer
    if rate == 0:
        return None
    samples = rate * wall_s
    extra = stolen_between(before, after) - without
    return extra * wall_s * 1e6 / samples, extra * 100, window_ns / 1000 / samples, rate, (set_up - job_began) / 1e6, job_ns / 1e6


def cpu_alone(tool, hz, seconds):
    """(tool's CPU us per sample while it samples, Hz, its CPU us per second), once it is set up."""
    begin(tool, hz)
    before_ns, began = cpu_ns(tool), time.monotonic()
    time.sleep(seconds)
    used_us, took = (cpu_ns(tool) - before_ns) / 1000, time.monotonic() - began
    tool.stop()
    rate = tool.samples() / (took + SET_UP_SECONDS)
    return (used_us / (rate * took), rate, used_us / took) if rate else None


def report_cpu(options, hz, results):
    rows, ours = [], [value[0] for value in results["sprofd"]]
    for name, values in results.items():
        cpu, rate, us = (list(column) for column in zip(*values))
        rows.append((TOOLS[name].name, f"{statistics.median(rate):.0f}", with_interval(cpu, 3), with_interval(us, 0),
                     "" if name == "sprofd" else verdict(ours, cpu)))  # fmt: skip
    print(f"### {hz} Hz, {options.depth} frames, {options.pairs} windows of {options.seconds} s\n")
    table(["tool", "delivered Hz", "CPU of the tool while it samples, us per sample", "the same, us per second", "sprofd against it, us per sample"], rows)


def measure(options, hz):
    results = {name: [] for name in options.tools}
    with Scope() as scope:
        directory = tempfile.mkdtemp(prefix="sprof-bench.")
        scope.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        gap = Gap(scope, options.depth)
        tools, gaps = {}, {}
        for name in options.tools:
            tools[name] = TOOLS[name](scope, gap, directory)
            gaps[name] = gap
        if "gperftools" in tools:
            gaps["gperftools"] = tools["gperftools"].prepare(hz, options.depth)
            os.kill(gaps["gperftools"].pid, signal.SIGSTOP)
        for i in range(options.pairs):
            for name in random.sample(options.tools, len(options.tools)):
                if gaps[name] is not gap:  # only one of the two targets runs at a time
                    os.kill(gap.pid, signal.SIGSTOP)
                    os.kill(gaps[name].pid, signal.SIGCONT)
                alone = options.cpu and name != "gperftools"
                result = cpu_alone(tools[name], hz, options.seconds) if alone else pair(tools[name], gaps[name], hz, options.seconds)
                if gaps[name] is not gap:
                    os.kill(gaps[name].pid, signal.SIGSTOP)
                    os.kill(gap.pid, signal.SIGCONT)
                if result:
                    results[name].append(result)
            print(f"pair {i + 1} of {options.pairs} at {hz} Hz", file=harness.sys.stderr, flush=True)
        whole = {name: tool.whole() for name, tool in tools.items() if options.floor and hasattr(tool, "whole")}
    return results, whole


def verdict(ours, theirs):
    """Pair by pair: ahead or behind only where the interval of the median difference leaves zero out."""
    differences = [a - b for a, b in zip(ours, theirs)]
    if len(differences) < 5:
        return "too few pairs"
    low, high = interval(differences)
    word = "ahead" if high < 0 else "behind" if low > 0 else "not separated"
    return f"{word}: {statistics.median(differences):+.2f} [{low:+.2f}, {high:+.2f}]"


def ratio(ours, theirs):
    """Of the medians, with its 95 % bootstrap interval; the windows of one turn stay together."""
    turns = list(zip(ours, theirs))
    low, high = interval(turns, lambda some: statistics.median(a for a, _ in some) / statistics.median(b for _, b in some))
    return f"{statistics.median(ours) / statistics.median(theirs):.2f} [{low:.2f}, {high:.2f}]"


def report_floor(options, hz, results, whole):
    """What each takes above the no-op."""
    floor = [value[0] for value in results["noop"]]
    above = {name: [value[0] - least for value, least in zip(values, floor)] for name, values in results.items()}
    rows = []
    for name, values in results.items():
        stolen = [value[0] for value in values]
        beside = (with_interval(above[name]), "" if name == "sprofd" else ratio(above["sprofd"], above[name])) if name != "noop" else ("", "")
        share = f"{100 * whole[name]:.2f}" if name in whole else ""
        rows.append((TOOLS[name].name, f"{statistics.median(value[3] for value in values):.0f}", with_interval(stolen), *beside, share))
    print(f"### {hz} Hz, {options.depth} frames, {options.pairs} pairs of {options.seconds} s\n")
    table(["tool", "delivered Hz", "taken from the target, us per sample", "above the no-op", "sprofd's above the no-op, times this one's", "whole stacks, %"], rows)


def report(options, hz, results):
    rows = []
    for name, values in results.items():
        if not values:
            rows.append((TOOLS[name].name, "no samples", "", "", "", "", "", "", ""))
            continue
        stolen, slowdown, cpu, rate, set_up, job = (list(column) for column in zip(*values))
        ours = [value[0] for value in results.get("sprofd", [])]
        our_jobs = [value[5] for value in results.get("sprofd", [])]
        rows.append((TOOLS[name].name, f"{statistics.median(rate):.0f}", with_interval(stolen), spread(slowdown, 3),
                     "" if name == "sprofd" else verdict(ours, stolen), with_interval(set_up), spread(cpu) if name != "gperftools" else "in the target",
                     with_interval(job),
                     "" if name == "sprofd" else verdict(our_jobs, job)))  # fmt: skip
    print(f"### {hz} Hz, {options.depth} frames, {options.pairs} pairs of {options.seconds} s\n")
    table(["tool", "delivered Hz", "taken from the target, us per sample", "slowdown of the target, %", "sprofd against it: taken, us per sample",
           "CPU of the tool until it is set up, ms", "CPU of the tool while it samples, us per sample",
           "CPU of the whole job, ms", "sprofd against it: whole job, ms"], rows)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--hz", default="99,999")
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--tools")
    parser.add_argument("--cpu", action="store_true", help="the CPU of the tools alone, while nothing but samples happens: needs longer windows")
    parser.add_argument("--floor", action="store_true", help="what each takes above a program that does nothing, and how many of its stacks are whole")
    options = parser.parse_args()
    asked = options.tools.split(",") if options.tools else list(FLOOR if options.floor else USUAL)
    if options.cpu:
        asked = [name for name in asked if name != "gperftools"]  # has none of its own
    options.tools = [name for name in asked if available(name)]
    print(f"{machine()}; `{' '.join(harness.sys.argv)}`")
    if asked != options.tools:
        print(f"\nNot installed, so left out: {', '.join(set(asked) - set(options.tools))}.")
    print()
    for hz in map(int, options.hz.split(",")):
        results, whole = measure(options, hz)
        if options.floor:
            report_floor(options, hz, results, whole)
        else:
            (report_cpu if options.cpu else report)(options, hz, results)


if __name__ == "__main__":
    main()
