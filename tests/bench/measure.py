"""What the benchmarks share: the harness of the system tests outside of unittest, statistics, tables."""
import contextlib
import mmap
import random
import statistics
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "system"))
import harness  # noqa: E402  pylint: disable=wrong-import-position

BOOTSTRAPS = 2000


class Scope(contextlib.ExitStack):
    """Where the harness expects a test: what must be ended at the end."""

    def addCleanup(self, function, *args, **kwargs):
        self.callback(function, *args, **kwargs)


class Gap:
    """A running `gap`: what is stolen from a busy thread, to the nanosecond."""

    def __init__(self, scope, depth=10, env=None):
        directory = harness.tempfile.mkdtemp(prefix="sprof-bench.")
        scope.addCleanup(harness.shutil.rmtree, directory, ignore_errors=True)
        path = f"{directory}/counters"
        self.process = harness.subprocess.Popen(
            [harness.TARGETS / "gap", f"--depth={depth}", path], stdout=harness.subprocess.PIPE,
            env={**harness.os.environ, **(env or {})})  # fmt: skip
        scope.addCleanup(harness.end, self.process)
        self.process.stdout.readline()
        self.pid = self.process.pid
        with open(path, "rb") as file:
            self.counters = mmap.mmap(file.fileno(), 40, prot=mmap.PROT_READ)

    def read(self):
        """(ns since some moment that it ran, without other processes' turns; stolen ns)"""
        now, stolen, _, away, per_ms = struct.unpack("<5Q", self.counters[:40])
        return (now - away) * 1e6 / per_ms, stolen * 1e6 / per_ms


def stolen_between(before, after):
    """Share of the time."""
    return (after[1] - before[1]) / (after[0] - before[0])


def interval(values, statistic=statistics.median):
    """The 95 % bootstrap interval of a statistic."""
    chooser = random.Random(1)
    estimates = sorted(statistic(chooser.choices(values, k=len(values))) for _ in range(BOOTSTRAPS))
    return estimates[int(0.025 * BOOTSTRAPS)], estimates[int(0.975 * BOOTSTRAPS)]


def spread(values, digits=2):
    """'median (quartile-quartile)'"""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}" if values else "-"
    low, _, high = statistics.quantiles(values, n=4)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def with_interval(values, digits=2):
    if len(values) < 2:
        return spread(values, digits)
    low, high = interval(values)
    return f"{statistics.median(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print(flush=True)


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    uname = harness.os.uname()
    return f"{cpu}, {harness.os.cpu_count()} processors, Linux {uname.release}"
