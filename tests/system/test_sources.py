"""Where names come from, beside the file that runs: debug files in the target's own root, and what JITs tell."""
import collections
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import harness
from foreign import Foreign
from harness import Case, Daemon, Target
from test_names import build_id


# Loads a socket filter of some thousand instructions, named sprof_busy, and has the kernel run it over and over (BPF_PROG_TEST_RUN).
BPF_RUNNER = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
code = b"\\xb7" + bytes(7) + b"\\x07\\0\\0\\0\\1\\0\\0\\0" * 3000 + b"\\x95" + bytes(7)
code, license, data = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL"), ctypes.create_string_buffer(64)
def bpf(command, attributes):
    result = libc.syscall(321, command, ctypes.create_string_buffer(attributes, 128), 128)
    if result < 0:
        raise OSError(ctypes.get_errno())
    return result
load = struct.pack("=IIQQIIQII16s", 1, len(code) // 8, ctypes.addressof(code), ctypes.addressof(license), 0, 0, 0, 0, 0, b"sprof_busy")
fd = bpf(5, load)
run = struct.pack("=IIIIQQII", fd, 0, 64, 0, ctypes.addressof(data), 0, 100000, 0)
print("ready", flush=True)
while True:
    bpf(10, run)
"""


def in_memory(sample):
    """The innermost location outside the kernel, if it is in no file; else None."""
    for location in sample.locations:
        name = location.mapping.filename if location.mapping else "//"
        if not name.startswith("[kernel"):
            return location if name.startswith("//") else None
    return None


class Sources(Case, Foreign):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls)

    def profile(self, pid, seconds=0.5):
        self.daemon.attach(pid, 999)
        harness.let_run(pid, seconds)
        return self.daemon.pull(pid)

    def functions(self, profile):
        """name: (samples that it is the leaf of, its files, its lines)"""
        found = {}
        for sample in profile.samples:
            lines = sample.locations[0].lines
            for function, line in lines[:1]:
                count, files, numbers = found.get(function.name, (0, set(), set()))
                found[function.name] = (count + sample.values[0], files | {function.filename}, numbers | {line})
        return found

    def split(self, program, path, debug):
        """Puts a stripped copy of the program at path, and what was stripped at debug."""
        for place in (path, debug):
            place.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["objcopy", "--only-keep-debug", program, debug], check=True)
        subprocess.run(["objcopy", "--strip-all", f"--add-gnu-debuglink={debug}", program, path], check=True)

    def test_a_debug_file_beside_the_program(self):
        path = self.daemon.directory / "beside" / "spin"
        self.split(harness.TARGETS / "spin", path, path.parent / ".debug" / "spin.debug")
        profile = self.profile(Target(self, "spin", path=path).pid)
        self.assertGreater(profile.inclusive()["a_heavy"], 0.3 * profile.count(), profile.leaves().most_common(5))
        files = {f.filename.split("/")[-1] for s in profile.samples for l in s.locations for f, _ in l.lines}
        self.assertIn("spin.c", files)

    def test_another_programs_debug_file(self):
        """It has the right name alone."""
        path = self.daemon.directory / "another" / "spin"
        self.split(harness.TARGETS / "spin", path, path.parent / "spin.debug")
        subprocess.run(["objcopy", "--only-keep-debug", harness.TARGETS / "spin_fixed", path.parent / "spin.debug"], check=True)
        profile = self.profile(Target(self, "spin", path=path).pid)
        self.assertFalse(profile.mappings[0].has_functions)
        self.assertEqual(profile.inclusive()["a_heavy"], 0)

    def build_split(self, name, compiler="cc"):
        directory = self.daemon.directory / name
        directory.mkdir()
        sources = Path(__file__).parent.parent / "targets"
        run = lambda *argv: subprocess.run(argv, check=True, cwd=directory)
        run(compiler, "-O1", "-gdwarf-5", "-gsplit-dwarf", f"-I{sources.parent.parent}", "-c", sources / "spin.c", sources / "target.c")
        run("cc", "-o", "spin", "spin.o", "target.o", "-lm", "-lpthread")
        return directory

    def assert_whole_names(self, path):
        profile = self.profile(Target(self, "spin", path=path).pid)
        found = self.functions(profile)
        self.assertGreater(profile.inclusive()["a_heavy"], 0.3 * profile.count(), profile.leaves().most_common(5))
        # The start line of a function is told by the split unit alone.
        starts = {f.name: f.start_line for s in profile.samples for l in s.locations for f, _ in l.lines}
        self.assertGreater(starts["a_heavy"], 0, found)

    def test_split_dwarf(self):
        directory = self.build_split("split")
        self.assert_whole_names(directory / "spin")

    def test_split_dwarf_that_moved_with_the_program(self):
        directory = self.build_split("moved")
        directory.rename(self.daemon.directory / "elsewhere")
        self.assert_whole_names(self.daemon.directory / "elsewhere" / "spin")

    def test_a_package_of_split_dwarf(self):
        directory = self.build_split("package", "clang")  # llvm-dwp 14 hangs on what gcc makes of these sources
        subprocess.run(["llvm-dwp", "-e", "spin", "-o", "spin.dwp"], check=True, cwd=directory)
        for file in directory.glob("*.dwo"):
            file.unlink()
        self.assert_whole_names(directory / "spin")

    def test_a_container(self):
        """A mount and a pid namespace, a root with a stripped program that exists only there, and its debug file. It is process 1 there,
        and tells of its code in its own /tmp."""
        root = self.daemon.directory / "root"
        id = build_id(harness.TARGETS / "jitter")
        self.split(harness.TARGETS / "jitter", root / "bin" / "jitter", root / "usr/lib/debug/.build-id" / id[:2] / f"{id[2:]}.debug")
        (root / "tmp").mkdir()
        process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "chroot", root, "/bin/jitter"], stdout=subprocess.PIPE)
        self.addCleanup(harness.end, process)
        self.assertEqual(json.loads(process.stdout.readline())["ready"], 1)
        (pid,) = harness.children_of(process.pid)
        profile = self.profile(pid)
        found = self.functions(profile)
        self.assertGreater(found["jit_hot"][0], 0.5 * profile.count(), found)
        self.assertGreater(found["jit_warm"][0], 0.1 * profile.count(), found)
        callers = {(f.name, f.filename.split("/")[-1]) for s in profile.samples for l in s.locations[1:] for f, line in l.lines if line}
        self.assertIn(("drive", "jitter.c"), callers)
        os.kill(pid, signal.SIGTERM)

    def test_a_perf_map_that_grows(self):
        target = Target(self, "jitter")
        found = self.functions(self.profile(target.pid))
        self.assertGreater(found["jit_hot"][0], 2 * found["jit_warm"][0], found)
        target.signal(signal.SIGUSR1)
        target.line()
        harness.let_run(target.pid, 0.2)
        found = self.functions(self.daemon.pull(target.pid, 1))
        self.assertGreater(found["jit_replaced"][0], 2 * found["jit_warm"][0], found)
        self.assertNotIn("jit_hot", found)

    def test_a_perf_map_of_somebody_else(self):
        """Of an earlier process of that number, or planted by another user: it is not believed."""
        target = Target(self, "jitter")
        path = Path(f"/tmp/perf-{target.pid}.map")
        text = path.read_text()
        os.utime(path, (time.time() - 86400,) * 2)
        profile = self.profile(target.pid)
        self.assertGreater(profile.leaves()["[anon]"], 0.8 * profile.count(), profile.leaves().most_common(5))
        path.unlink()
        path.write_text(text)
        os.chown(path, 12345, 12345)
        self.assertNotIn("jit_hot", self.daemon.pull(target.pid, 1).leaves())
        path.unlink()
        os.mkfifo(path)
        begin = time.monotonic()
        self.assertNotIn("jit_hot", self.daemon.pull(target.pid, 1).leaves())
        self.assertLess(time.monotonic() - begin, 10)
        path.unlink()
        path.write_text(text)
        self.assertIn("jit_hot", self.daemon.pull(target.pid, 1).leaves())

    def test_a_jitdump(self):
        target = Target(self, "jitter", "--dump=1", cwd=self.daemon.directory)
        profile = self.profile(target.pid)
        found = self.functions(profile)
        count, files, lines = found["jit_hot"]
        self.assertGreater(count, 2 * found["jit_warm"][0], found)
        self.assertEqual((files, lines), ({"/nowhere/script.src"}, {100}))
        # Code that stays is one, whenever it was sampled.
        self.assertEqual(len({location.address for location in profile.locations}), len(profile.locations))

    def test_code_that_takes_turns(self):
        """Two functions at one address, some twenty times a second: each sample has the name of its time, though all are named at the end. Who called them
        tells which it was."""
        target = Target(self, "jitter", "--dump=1", "--turn-ms=10", f"--seconds={4 if harness.SANITIZED else 8}", cwd=self.daemon.directory)
        self.daemon.attach(target.pid, 999)
        truth = target.line()
        self.daemon.settle(target.pid)
        profile = self.daemon.pull(target.pid)
        seen = collections.Counter()
        for stack, count in profile.stacks():
            if stack[0].startswith("jit_"):
                seen[stack[0], stack[1]] += count
        right = seen["jit_even", "drive_even"] + seen["jit_odd", "drive_odd"]
        # What is not in the two functions is in the target's writing, which on a busy disk takes long; none of it is in code without a name.
        self.assertGreater(right, 0.5 * profile.count(), seen)
        nameless = [sample for sample in profile.samples if in_memory(sample) and not in_memory(sample).lines]
        self.assertEqual(sum(sample.values[0] for sample in nameless), 0)
        self.assertEqual(right, sum(seen.values()), seen)
        self.assert_near(seen["jit_odd", "drive_odd"] / right, truth["odd_ns"] / (truth["even_ns"] + truth["odd_ns"]), 0, 0.03)
        self.assertEqual(self.functions(profile)["jit_odd"][1:], ({"/nowhere/script.src"}, {500}))

    def test_postgres_jitdump(self):
        """PostgreSQL compiles each query anew, where the last one was, and numbers what it compiles."""
        queries = "".join(f"select sum(x % {7 + i}), count(*) from generate_series(1, 400000) x where x % 5 <> {i % 5};\n" for i in range(40))
        server, programs, client = self.postgres_server("-c", "jit_profiling_support=on", JITDUMPDIR=str(self.scratch()))
        psql = self.start(programs / "psql", "-q", *client, "-f", self.file("queries.sql", "select pg_sleep(2); set jit_above_cost = 0;\n" + queries))
        pid = self.postgres_backend(server, "psql")
        self.daemon.attach(pid, 999)
        psql.wait(300)
        self.daemon.settle(pid)
        names = collections.defaultdict(set)
        for sample in self.daemon.pull(pid).samples:
            name = sample.locations[0].lines[0][0].name if sample.locations[0].lines else ""
            if re.fullmatch("(evalexpr|deform)_[0-9]+_[0-9]+", name):
                names[sample.locations[0].address].add(name)
        compiled = {int(name.split("_")[1]) for of in names.values() for name in of}
        self.assertGreater(len(compiled), 25, compiled)
        self.assertGreater(sum(len(of) > 1 for of in names.values()), 5, names)

    def test_node(self):
        script = self.daemon.directory / "hot.js"
        script.write_text("function hotInScript(n) { let s = 0; for (let i = 0; i < n; i++) s = (s * 31 + i) % 1000003; return s; }\n"
                          "let x = 0; const end = Date.now() + 60000; while (Date.now() < end) x += hotInScript(100000);\n")  # fmt: skip
        # It leaves a log of its own where it runs.
        process = subprocess.Popen(["node", "--perf-basic-prof", "--no-use-osr", script], cwd=self.daemon.directory)
        self.addCleanup(harness.end, process)
        harness.let_run(process.pid, 1)
        found = self.profile(process.pid).leaves()
        self.assertGreater(sum(n for name, n in found.items() if "hotInScript" in name), 0.5 * sum(found.values()), found.most_common(5))
        Path(f"/tmp/perf-{process.pid}.map").unlink()

    def test_nodes_jitdump(self):
        """V8's own, with the lines of the script. It writes by 2 MiB at a time, so that they are known when it has ended."""
        script = self.daemon.directory / "dumped.js"
        script.write_text("let x = 0;\n\nfunction hotInDump(n) {\n  let s = 0;\n  for (let i = 0; i < n; i++)\n    s = (s * 31 + i) % 1000003;\n  return s;\n}\n"
                          "while (process.cpuUsage().user < 3e6)\n  x += hotInDump(100000);\n")  # fmt: skip
        process = subprocess.Popen(["node", "--perf-prof", "--no-use-osr", script], cwd=self.daemon.directory)
        self.addCleanup(harness.end, process)
        harness.let_run(process.pid, 1)
        self.daemon.attach(process.pid, 999)
        process.wait(300)
        self.daemon.settle(process.pid)
        found = self.functions(self.daemon.pull(process.pid))
        hot = [of for name, of in found.items() if "hotInDump" in name]
        self.assertGreater(sum(count for count, _, _ in hot), 0.5 * sum(count for count, _, _ in found.values()), found.keys())
        # V8 10 writes freed memory in place of the script's path, which is in the name too; the lines are right.
        files, lines = set().union(*(of[1] for of in hot)), set().union(*(of[2] for of in hot))
        self.assertTrue(all(file in ("", str(script)) for file in files), files)
        self.assertTrue(all(re.search(r"dumped\.js:3(:\d+)?$", name) for name in found if "hotInDump" in name), found.keys())
        self.assertTrue({5, 6} & lines and lines <= set(range(3, 9)), lines)

    def test_a_bpf_program(self):
        """By the name that it was loaded with: at the latest when what the daemon knows of the kernel's modules is a minute old."""
        process = subprocess.Popen([sys.executable, "-c", BPF_RUNNER], stdout=subprocess.PIPE)
        self.addCleanup(harness.end, process)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        self.daemon.attach(process.pid, 999)
        harness.let_run(process.pid, 0.7)

        def share():
            profile = self.daemon.pull(process.pid)
            ours = sum(n for name, n in profile.inclusive().items() if re.fullmatch(r"bpf_prog_[0-9a-f]{16}_sprof_busy \[bpf\]", name))
            return ours / profile.count() > 0.5

        harness.wait_for(share, 90, "the program's name")

    def test_java(self):
        source = self.daemon.directory / "Hot.java"
        source.write_text("public class Hot { static int hotInJava(int n) { int s = 0; for (int i = 0; i < n; i++) s = s * 31 + i; return s; }\n"
                          "public static void main(String[] a) { long x = 0; while (x != 1) x |= hotInJava(100000) << 1; } }\n")  # fmt: skip
        subprocess.run(["javac", "-d", self.daemon.directory, source], check=True)
        process = subprocess.Popen(["java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", self.daemon.directory, "Hot"])
        self.addCleanup(harness.end, process)
        harness.let_run(process.pid, 1.5)
        self.daemon.attach(process.pid, 999)
        harness.let_run(process.pid, 1)
        subprocess.run(["jcmd", str(process.pid), "Compiler.perfmap"], check=True, stdout=subprocess.DEVNULL)
        found = self.daemon.pull(process.pid).leaves()
        self.assertGreater(sum(n for name, n in found.items() if "hotInJava" in name), 0.5 * sum(found.values()), found.most_common(5))
        Path(f"/tmp/perf-{process.pid}.map").unlink()


if __name__ == "__main__":
    harness.main()
