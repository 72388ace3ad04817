"""What the barrier-lock table costs: the program that writes it, per operation and in throughput; and sprofd, per sample.

    SPROF_BUILD=build python3 tests/bench/bench_table.py [--repeat=5] [--pairs=20] [--only-samples]

Prints markdown. The kernel's own clock of BPF programs (kernel.bpf_stats_enabled) is switched on for the run and then put back."""
import argparse
import json
import statistics
import subprocess
import time

from bench_cost import STATS, program_counts
from measure import Scope, harness, machine, spread, table, with_interval

DEPTHS = (10, 30, 100)
HZ = 4999
SLICES = 8


def bench_operations():
    done = subprocess.run([harness.BUILD / "tests/bench/table_ops"], capture_output=True, text=True, check=True)
    ops = json.loads(done.stdout)
    rows = []
    for name, goal in (("lock and unlock", "10"), ("switch of stacks", "3"), ("foreign call", ""), ("barrier hit", "3")):
        more = [a - b for a, b in zip(ops[name]["with"], ops[name]["without"])]
        rows.append((name, spread(ops[name]["with"]), spread(ops[name]["without"]), with_interval(more), goal))
    print(f"### Nanoseconds of an operation of libsprof (table: {ops['status']})\n")
    table(["operation", "loop with it", "loop without", "more", "goal: below"], rows)


def throughput(*options):
    """Iterations of greenrt per us of CPU time."""
    with Scope() as scope:
        green = harness.Target(scope, "greenrt/greenrt", "--seconds=2", "--threads=1", "--barriers=doubling", *options)
        truth = green.line()
        return truth["iterations"] / truth["cpu_ns"] * 1000


def bench_throughput(pairs):
    lost = []
    for i in range(pairs):
        if i % 2:
            with_table, without = throughput(), throughput("--no-table")
        else:
            without, with_table = throughput("--no-table"), throughput()
        lost.append(100 * (1 - with_table / without))
    print(f"### Throughput that greenrt loses to its table, no profiler, {pairs} pairs\n")
    table(["% lost", "mean", "goal: below"], [(with_interval(lost, 3), f"{statistics.mean(lost):.3f}", "0.5")])


def program_ns(depth, *options):
    with Scope() as scope:
        daemon = harness.Daemon(scope)
        target = harness.Target(scope, "table_deep", f"--depth={depth}", *options)
        daemon.attach(target.pid, HZ)
        time.sleep(0.5)
        slices = []
        for _ in range(SLICES):
            runs, ns = program_counts(daemon)
            time.sleep(0.2)
            more_runs, more_ns = program_counts(daemon)
            if more_runs > runs:
                slices.append((more_ns - ns) / (more_runs - runs))
        return min(slices)  # what others take from the processor only ever adds


def bench_samples(repeat):
    before = STATS.read_text()
    STATS.write_text("1")
    rows = []
    try:
        for depth in DEPTHS:
            runs = [(program_ns(depth), program_ns(depth, "--table"), program_ns(depth, "--table", "--barriers")) for _ in range(repeat)]
            plain, with_table, barriers = (list(column) for column in zip(*runs))
            more = [t - p for p, t, _ in runs]
            each = [(b - t) / (depth - 1) for _, t, b in runs]
            rows.append((depth, spread(plain, 0), spread(with_table, 0), spread(barriers, 0), with_interval(more, 0), with_interval(each, 1)))
    finally:
        STATS.write_text(before)
    print(f"### Nanoseconds of the BPF program per sample, {HZ} Hz, the calmest of {SLICES} fifths of a second\n")
    table(["frames", "no table", "table", "a barrier in every frame", "the table's (goal: at most 350)", "each barrier's (goal: at most 5)"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--only-samples", action="store_true")
    options = parser.parse_args()
    print(f"{machine()}; `{' '.join(harness.sys.argv)}`\n")
    if not options.only_samples:
        bench_operations()
        bench_throughput(options.pairs)
    bench_samples(options.repeat)


if __name__ == "__main__":
    main()
