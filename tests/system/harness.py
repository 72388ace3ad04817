"""What the system tests share: a private sprofd on a temporary socket, sprofctl and HTTP as a user would use them, programs to profile
whose truth is known. Every process that is started here is ended here, by its own number.

Run by ctest, or by hand: SPROF_BUILD=build python3 tests/system/test_arming.py [-v] [Class.test]"""
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

from pprof_file import Profile

BUILD = Path(os.environ.get("SPROF_BUILD", "build")).resolve()
SANITIZED = "SPROF_SANITIZE:BOOL=ON" in (BUILD / "CMakeCache.txt").read_text()


def _program(variable, name):
    if variable in os.environ:
        return os.environ[variable]
    for directory in ("", "bin", "daemon/app", "daemon/elf", "client/sprofctl"):
        if (BUILD / directory / name).is_file():
            return str(BUILD / directory / name)
    sys.exit(f"{name} not found below {BUILD}: build first, or set SPROF_BUILD")


SPROFD = _program("SPROFD", "sprofd")
SPROFCTL = _program("SPROFCTL", "sprofctl")
TARGETS = Path(os.environ.get("SPROF_TARGETS", BUILD / "tests" / "targets"))

NOBODY = 65534
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")


def main():
    """Instead of unittest.main(): refuses to run where it could only pretend."""
    if os.geteuid() != 0:
        sys.exit("the system tests attach to processes through BPF: run them as root")
    unittest.main(verbosity=2)


def wait_for(condition, seconds=10, what="condition"):
    """The first true value of condition()."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out after {seconds} s: {what}")
        time.sleep(0.02)


def cpu_ns(pid):
    """CPU time of a process in ns, its threads that ended included (the kernel's own clock of it)."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def children_of(pid):
    return [int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()]


def open_files(pid):
    """What its file descriptors are; without those that are closed meanwhile."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(fd))
        except FileNotFoundError:
            pass
    return found


def let_run(pid, seconds):
    """Returns when the process has used so much more CPU time, however busy the machine is."""
    goal = cpu_ns(pid) + seconds * 1e9
    wait_for(lambda: cpu_ns(pid) >= goal, 150, f"process {pid} gets no {seconds} s of CPU time")


def give_way():
    """A program to profile gives way to who profiles and judges it: what is tested is sprofd, not what a crowded machine does to it. It still gets a quarter of a
    processor that it shares with a compiler."""
    os.nice(5)


def threads_cpu_ns(pid):
    """{tid: ns}, as the scheduler has booked it: a running thread's is up to a tick old."""
    out = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            out[int(task.name)] = int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return out


class CpuReadings:
    """With this: the CPU clock of a process is read all the while, so that afterwards it can be told what it ran between two moments."""

    def __init__(self, pid):
        self.pid, self.readings, self.over = pid, [], threading.Event()
        self.thread = threading.Thread(target=self.read)

    def read(self):
        while not self.over.wait(0.002):
            before_ns = time.time_ns()
            self.readings.append((before_ns, cpu_ns(self.pid), time.time_ns()))

    def __enter__(self):
        self.thread.start()
        wait_for(lambda: self.readings, 30, "a first reading")
        return self

    def __exit__(self, *exception):
        time.sleep(0.05)
        self.over.set()
        self.thread.join()

    def between(self, begin_ns, end_ns):
        """(the least, the most) that it can have run in between; the moments are of the real-time clock."""
        inside = [cpu for before, cpu, after in self.readings if before >= begin_ns and after <= end_ns]
        low = max(cpu for _, cpu, after in self.readings if after <= begin_ns)
        high = min(cpu for before, cpu, _ in self.readings if before >= end_ns)
        return (inside[-1] - inside[0] if inside else 0), high - low

    def of(self, profile):
        return self.between(profile.time_ns, profile.time_ns + profile.duration_ns)

    def widest_gap_ns(self):
        return max(b[0] - a[0] for a, b in zip(self.readings, self.readings[1:]))


def threads_turns(pid):
    """How often its threads have been given a processor, those that live still."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[2])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


def as_user(uid, gid=None, groups=()):
    gid = uid if gid is None else gid
    extra = [f"--groups={','.join(map(str, groups))}"] if groups else ["--clear-groups"]
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", *extra]


def end(process):
    """Ends a child that we started."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()


class Target:
    """A program of tests/targets (or any other, by path) that says {"ready": PID} and tells the truth about itself at its end."""

    def __init__(self, test, name, *args, user=None, path=None, cwd=None):
        argv = [str(path or TARGETS / name), *map(str, args)]
        self.process = subprocess.Popen((as_user(user) if user else []) + argv, stdout=subprocess.PIPE, cwd=cwd, preexec_fn=give_way)
        test.addCleanup(end, self.process)
        self.pid = self.process.pid
        self.ready = self.line()
        assert self.ready["ready"] == self.pid, (self.ready, self.pid)

    def line(self, seconds=30):
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise AssertionError(f"{self.process.args} says nothing")
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"{self.process.args} ended with {self.process.wait()} instead of a line")
        return json.loads(line)

    def signal(self, number):
        self.process.send_signal(number)

    def finish(self):
        """Ends it the friendly way; the truth that it tells."""
        if self.process.poll() is None:
            self.process.terminate()
        truth = self.line()
        self.process.wait(30)
        return truth


class Unix(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


SANITIZER = re.compile(r"(?m)^.*(ERROR: \w+Sanitizer|runtime error: |WARNING: ThreadSanitizer)")
DAEMONS = []  # of the test that runs, and of its class


class Daemon:
    """A private sprofd. config: text of a configuration file; prefix: a command before it (prlimit, setpriv, unshare ...)."""

    def __init__(self, test, config="", args=(), prefix=(), wait=True, directory=None, log_level="debug"):
        add_cleanup = test.addClassCleanup if isinstance(test, type) else test.addCleanup
        if directory is None:
            directory = tempfile.mkdtemp(prefix="sprof-test.")
            add_cleanup(shutil.rmtree, directory, ignore_errors=True)
        os.chmod(directory, 0o755)
        self.directory = Path(directory)
        self.socket = str(self.directory / "sprofd.sock")
        self.log_path = self.directory / "sprofd.log"
        self.config_path = self.directory / "sprofd.conf"
        self.config_path.write_text(config)
        # A copy that everybody may run, wherever the build is.
        self.sprofctl = self.directory / "sprofctl"
        shutil.copy(SPROFCTL, self.sprofctl)
        self.sprofctl.chmod(0o755)
        self.prefix, self.args = list(prefix), [f"--log-level={log_level}", *args]
        self.process = None
        self.last_words = None  # once it has been ended and its log is gone
        DAEMONS.append(self)
        add_cleanup(self.kill)
        self.start(wait)

    def start(self, wait=True):
        argv = [*self.prefix, SPROFD, f"--socket={self.socket}", f"--config={self.config_path}", *self.args]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if wait:
            wait_for(self.answers, 20, f"sprofd does not answer: {self.log()}")

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"sprofd ended with {self.process.returncode}: {self.log()}")
        try:
            return self.http("GET", "/v1/status")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def kill(self):
        """Ends it, and is not content with one that has crashed or that a sanitizer complained about."""
        if self.last_words is not None:
            return
        by_itself = self.process is None or self.process.poll() is not None
        if not by_itself:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.last_words = self.words("by itself" if by_itself else "when told to")
        code = self.process.returncode if self.process else 0
        crashed = code < 0 and code not in (-signal.SIGKILL, -signal.SIGTERM) or (not by_itself and code != 0)
        if crashed or SANITIZER.search(self.log()):
            raise AssertionError(f"a crash: {self.last_words}")

    def words(self, how="still runs"):
        """What is to be known of it after a failure: how it ended, the end of its log, all that a sanitizer has to say."""
        log = self.log()
        report = SANITIZER.search(log)
        at = max(0, min(len(log) - 4000, report.start() if report else len(log)))
        code = self.process.returncode if self.process else None
        return f"sprofd {self.process.pid if self.process else '-'} {how}, exit status {code}; its log:\n{log[at:][:100_000]}"

    def stop(self, number=signal.SIGTERM):
        """A clean end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def pid(self):
        return self.process.pid

    def ctl(self, *args, user=None, prefix=None, env=None, timeout=90, **more):
        """Runs sprofctl; never raises for its exit code."""
        prefix = prefix or (as_user(user) if user else [])
        return subprocess.run(
            [*prefix, str(self.sprofctl), f"--socket={self.socket}", *map(str, args)],
            capture_output=True, text=more.pop("text", True), timeout=timeout, env=env, cwd=self.directory, **more)  # fmt: skip

    def ok(self, *args, **more):
        """sprofctl that must succeed; its stdout."""
        done = self.ctl(*args, **more)
        if done.returncode != 0:
            raise AssertionError(f"sprofctl {args}: exit {done.returncode}: {done.stderr}\n{self.log()[-2000:]}")
        return done.stdout

    def http(self, method, path, body=None, headers=None, timeout=60):
        """(status, {lower-case header: value}, body)"""
        connection = Unix(self.socket, timeout)
        try:
            connection.request(method, path, body, {"Accept": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, path):
        status, _, body = self.http("GET", path)
        if status != 200:
            raise AssertionError(f"GET {path}: {status} {body!r}")
        return json.loads(body)

    def status(self):
        return self.json("/v1/status")

    def target(self, pid):
        """The newest target with this number in the status."""
        found = [t for t in self.status().get("targets", []) if t["pid"] == pid]
        if not found:
            raise AssertionError(f"no target {pid} in the status")
        return max(found, key=lambda t: number(t, "attached_unix_ns"))

    def attach(self, pid, hz=None, *more):
        return self.ok("attach", pid, *([f"--frequency={hz}"] if hz else []), *more)

    def pull_bytes(self, pid, seconds=None):
        path = f"/debug/pprof/profile?pid={pid}" + (f"&seconds={seconds}" if seconds else "")
        status, _, body = self.http("GET", path)
        if status != 200:
            raise AssertionError(f"GET {path}: {status} {body!r}")
        return body

    def pull(self, pid, seconds=None):
        return Profile(self.pull_bytes(pid, seconds)).validate()

    def settle(self, pid, gone=True):
        """Waits until everything that the target's events wrote is read (and, after its end, until the daemon has seen that)."""

        def settled():
            t = self.target(pid)
            ended = not gone or t.get("state") != LIVE
            return t if ended and number(t, "in_flight") == 0 else None

        return wait_for(settled, 10, f"target {pid} does not settle: {self.target(pid)}")


LIVE, EXITED, DETACHED = "live", "exited", "detached"


def number(message, field):
    """A field of a JSON answer; absent means 0."""
    return int(message.get(field, 0))


def losses(target):
    return {loss["name"]: number(loss, "count") for loss in target.get("losses", [])}


def late_ns(target):
    """Time of the target for which the kernel skipped its samples, since its timers were late: on a crowded machine, or one whose processors a
    hypervisor takes away."""
    return number(target, "late_periods") * 1e9 / number(target, "frequency_hz")


def conserved(target):
    """entries == samples + losses + in flight; what is missing otherwise."""
    return number(target, "entries") - number(target, "samples") - sum(losses(target).values()) - number(target, "in_flight")


def pprof(*args, env=None):
    """go tool pprof; its stdout."""
    done = subprocess.run(
        ["go", "tool", "pprof", *map(str, args)], capture_output=True, timeout=120,
        env={**os.environ, "PPROF_TMPDIR": tempfile.gettempdir(), **(env or {})})  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(f"go tool pprof {args}: {done.stderr.decode()}")
    return done.stdout.decode(errors="replace")


class Case(unittest.TestCase):
    """A test with helpers; each test has its own daemon unless the class shares one. When a test fails, so its daemons are heard."""

    def run(self, result=None):
        result = result or self.defaultTestResult()
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            for daemon in DAEMONS:
                print(f"\n{self.id()}: {daemon.last_words or daemon.words()}", file=sys.stderr, flush=True)
        DAEMONS[:] = [daemon for daemon in DAEMONS if daemon.last_words is None]
        return result

    def assert_near(self, value, truth, relative, absolute=0, what="value"):
        room = max(truth * relative, absolute)
        self.assertLessEqual(abs(value - truth), room, f"{what} is {value}, should be {truth} +- {room}")

    def assert_conserved(self, target):
        self.assertEqual(conserved(target), 0, f"not conserved: {target}")

    def assert_refused(self, done, *words, code=1):
        """Exit code, exactly one line on stderr, and words that must be in it (as regular expressions)."""
        lines = done.stderr.strip().splitlines()
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(len(lines), 1, f"not one line: {done.stderr!r}")
        for word in words:
            self.assertRegex(lines[0], re.compile(word, re.IGNORECASE))
