"""What libsprof-preload costs the program: a switch of stacks, by each way of switching, with it and without.

    SPROF_BUILD=build python3 tests/bench/bench_preload.py [--repeat=10]

Prints markdown."""
import argparse
import json
import os
import subprocess

from measure import harness, machine, spread, table, with_interval

PRELOAD = harness.BUILD / "client/preload/libsprof-preload.so"


def switches(preload):
    done = subprocess.run(
        [harness.BUILD / "tests/bench/preload_switches"], capture_output=True, text=True, check=True,
        env={**os.environ, **({"LD_PRELOAD": str(PRELOAD)} if preload else {})})  # fmt: skip
    return {name: min(ns) for name, ns in json.loads(done.stdout).items()}  # what others take from the processor only ever adds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=10)
    options = parser.parse_args()
    print(f"{machine()}; `{' '.join(harness.sys.argv)}`\n")
    pairs = [(switches(False), switches(True)) for _ in range(options.repeat)]
    rows = []
    for name in pairs[0][0]:
        without, with_it = [a[name] for a, _ in pairs], [b[name] for _, b in pairs]
        rows.append((name, spread(without), spread(with_it), with_interval([b - a for a, b in zip(without, with_it)])))
    print(f"### Nanoseconds of a switch of stacks, the calmest round of each of {options.repeat} pairs of runs\n")
    table(["way", "without", "with libsprof-preload", "more"], rows)


if __name__ == "__main__":
    main()
