"""Programs that nobody here wrote, stopped at any moment: their stacks walked by us and by gdb, whole, are the same. SPROF_GDB_STOPS says how often."""
import os
import subprocess
from pathlib import Path

import harness
from foreign import Foreign


class Gdb(harness.Case, Foreign):
    STOPS = int(os.environ.get("SPROF_GDB_STOPS", 100))

    def judge(self, name, pid):
        harness.let_run(pid, 0.3)
        to = self.scratch() / "stops"
        subprocess.run(
            ["gdb", "-batch", "-nx", "-x", Path(__file__).with_name("gdb_stops.py")], capture_output=True, timeout=self.STOPS + 100, check=True,
            env={**os.environ, "STOPS_PID": str(pid), "STOPS_N": str(self.STOPS), "STOPS_TO": str(to)})  # fmt: skip
        with open(to, "rb") as stops:
            ours = subprocess.run([harness.TARGETS / "walk_stops", str(pid)], stdin=stops, capture_output=True, text=True, check=True)
        theirs = Path(f"{to}.frames").read_text().splitlines()
        walks = [line.split() for line in ours.stdout.splitlines()]
        self.assertEqual(len(walks), self.STOPS)
        self.assertEqual(len(theirs), self.STOPS)
        different = [(frames, line.split()) for (_, *frames), line in zip(walks, theirs) if frames != line.split()]
        mappings = Path(f"/proc/{pid}/maps").read_text() if different else ""
        self.assertFalse(different, f"ours, and gdb's, of {name}; mappings: {mappings}")

    def test_python(self):
        self.judge("python", self.python())

    def test_perl(self):
        self.judge("perl", self.perl())

    def test_ruby(self):
        self.judge("ruby", self.ruby())

    def test_sqlite(self):
        self.judge("sqlite", self.sqlite())

    def test_xz(self):
        self.judge("xz", self.xz())

    def test_zstd(self):
        self.judge("zstd", self.zstd())

    def test_cc1(self):
        self.judge("cc1", self.cc1())

    def test_cc1plus(self):
        self.judge("cc1plus", self.cc1plus())

    def test_clang(self):
        self.judge("clang", self.clang())

    def test_git(self):
        self.judge("git", self.git())

    def test_redis(self):
        self.judge("redis", self.redis())

    def test_nginx(self):
        self.judge("nginx", self.nginx())

    def test_postgres(self):
        self.judge("postgres", self.postgres())

    def test_rust(self):
        self.judge("rust", self.rust())


if __name__ == "__main__":
    harness.main()
