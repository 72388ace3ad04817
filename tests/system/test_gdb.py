"""Programs that nobody here wrote, stopped at any moment: their stacks walked by us and by gdb, whole, are the same. SPROF_GDB_STOPS says how often."""
import os
import subprocess
from pathlib import Path

import harness
from foreign import Foreign


MANY = int(os.environ.get("SPROF_GDB_STOPS", 0))
PROGRAMS = ("cc1plus", "clang", "postgres", "python", "redis", "ruby", "rust", "xz")
MORE_PROGRAMS = ("cc1", "git", "nginx", "perl", "sqlite", "zstd")  # when SPROF_GDB_STOPS is set, as scripts/soak.sh does


class Gdb(harness.Case, Foreign):
    STOPS = MANY or 100

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


def add_test(name):
    setattr(Gdb, f"test_{name}", lambda self: self.judge(name, getattr(self, name)()))


for program in PROGRAMS + (MORE_PROGRAMS if MANY else ()):
    add_test(program)


if __name__ == "__main__":
    harness.main()
