"""What sprofd itself costs: nanoseconds of the BPF program by depth of the stack, CPU of the daemon per sample, memory by targets.

    SPROF_BUILD=build python3 tests/bench/bench_cost.py [--repeat=5] [--only-program]

Prints markdown. The kernel's own clock of BPF programs (kernel.bpf_stats_enabled) is switched on for the run and then put back."""
import argparse
import subprocess
import time
from pathlib import Path

from measure import Scope, harness, machine, spread, table

STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
PROG_TYPE_PERF_EVENT = 7  # enum bpf_prog_type
DEPTHS = (10, 30, 100, 1000)
HZ = 4999


def counts(pid):
    """(runs, ns) of the process's BPF program that runs, as the kernel tells of its file descriptor."""
    most = (0, 0)
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        if int(fields.get("prog_type", -1)) == PROG_TYPE_PERF_EVENT:
            most = max(most, (int(fields["run_cnt"]), int(fields["run_time_ns"])))
    return most


def program_counts(daemon):
    return counts(daemon.pid())


def counted_ns(pid, seconds=2):
    runs, ns = counts(pid)
    time.sleep(seconds)
    more_runs, more_ns = counts(pid)
    return (more_ns - ns) / (more_runs - runs)


def program_ns(program, depth):
    with Scope() as scope:
        daemon = harness.Daemon(scope)
        target = harness.Target(scope, program, f"--depth={depth}")
        daemon.attach(target.pid, HZ)
        time.sleep(0.7)  # the tables are there
        return counted_ns(daemon.pid())


def peer_ns(program, depth, what):
    """The same for a program of peers.bpf.c."""
    with Scope() as scope:
        target = harness.Target(scope, program, f"--depth={depth}")
        command = [harness.BUILD / "tests/bench/bpf_event", str(target.pid), str(HZ), what]
        peer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert peer.stdout.readline() == "on\n"
            time.sleep(0.3)
            return counted_ns(peer.pid)
        finally:
            peer.terminate()
            peer.communicate()


def bench_program(repeat):
    before = STATS.read_text()
    STATS.write_text("1")
    try:
        rows = []
        for depth in DEPTHS:
            ways = (lambda: program_ns("deep_cfi", depth), lambda: program_ns("deep_plain", depth),
                    lambda: peer_ns("deep", depth, "get_stack"), lambda: peer_ns("deep", depth, "noop"))  # fmt: skip
            runs = [[way() for way in ways] for _ in range(repeat)]
            rows.append((depth, *(spread(results, 0) for results in zip(*runs))))
    finally:
        STATS.write_text(before)
    print(f"### Nanoseconds of the BPF program, by user frames ({HZ:,} Hz)\n")
    table(["frames", "by unwind table", "by frame pointer", "bpf_get_stack, by frame pointer (127 at most)", "a program that does nothing"], rows)


def daemon_us(program, args, seconds=5):
    """CPU of the daemon per sample, in us, at 10 kHz on each thread; and what was lost."""
    with Scope() as scope:
        daemon = harness.Daemon(scope)
        target = harness.Target(scope, program, *args)
        daemon.attach(target.pid, 10000)
        time.sleep(1)

        def look():
            status = daemon.status()
            t = next(t for t in status["targets"] if t["pid"] == target.pid)
            return int(status["cpu_ns"]), harness.number(t, "samples"), sum(harness.losses(t).values())

        cpu, samples, _ = look()
        time.sleep(seconds)
        more_cpu, more_samples, lost = look()
        return (more_cpu - cpu) / 1000 / (more_samples - samples), lost


def bench_daemon(repeat):
    rows = []
    for label, program, args in (("2 threads, 10 frames", "spin", ["--threads=2"]), ("1 thread, 30 frames", "deep", ["--depth=30"]),
                                 ("1 thread, 300 frames", "deep", ["--depth=300"])):  # fmt: skip
        results = [daemon_us(program, args) for _ in range(repeat)]
        rows.append((label, spread([us for us, _ in results]), sum(lost for _, lost in results)))
    print("### CPU of the daemon at 10 kHz\n")
    table(["target", "us per sample", "samples lost"], rows)


def memory(n_targets):
    """(resident MiB after 5 s, and after a pull of one) with so many targets at 99 Hz."""
    with Scope() as scope:
        daemon = harness.Daemon(scope)
        targets = [harness.Target(scope, "spin", "--burst-us=100", "--idle-us=10000") for _ in range(n_targets)]
        for target in targets:
            daemon.attach(target.pid, 99)
        time.sleep(5)
        rss = int(daemon.status()["rss_bytes"])
        daemon.pull_bytes(targets[0].pid)
        return rss / (1 << 20), int(daemon.status()["rss_bytes"]) / (1 << 20)


def bench_memory():
    print("### Resident memory of the daemon, 99 Hz\n")
    rows = []
    for n_targets in (1, 10, 100):
        before, after = memory(n_targets)
        rows.append((n_targets, f"{before:.1f}", f"{after:.1f}"))
    table(["targets", "MiB after 5 s", "MiB after a pull of one"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only-program", action="store_true")
    options = parser.parse_args()
    print(f"{machine()}; `{' '.join(harness.sys.argv)}`\n")
    bench_program(options.repeat)
    if options.only_program:
        return
    bench_daemon(options.repeat)
    bench_memory()


if __name__ == "__main__":
    main()
