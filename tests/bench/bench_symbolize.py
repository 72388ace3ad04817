"""Names for 10,000 addresses of a large C++ program: time and memory of sprofd-elf beside other tools, cold and warm.

    SPROF_BUILD=build python3 tests/bench/bench_symbolize.py [--units=48] [--addresses=10000] [--rounds=5] [--program=FILE]

Without --program it compiles one of --units units of the C++ library's templates (a minute each two of them)."""
import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUILD = Path(os.environ.get("SPROF_BUILD", "build")).resolve()
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "names"))
import compare  # noqa: E402  pylint: disable=wrong-import-position

TOOL = BUILD / "tests" / "names" / "elf_names"
BENCH = BUILD / "tests" / "bench" / "bench_names"
LIMIT_S = 600

UNIT = """
#include <algorithm>
#include <deque>
#include <functional>
#include <iostream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>
namespace u%(i)d {
struct S { int a; double b; std::string s; bool operator<(const S &o) const { return s < o.s || a < o.a; } };
int work(int c, char **v) {
  std::map<std::string, std::vector<S>> m; std::set<S> t; std::deque<S> d; std::unordered_map<std::string, std::function<int(S)>> f;
  std::regex re("([a-z]+)%(i)d([0-9]+)");
  for (int i = 0; i < c; i++) { std::smatch s; std::string x = v[i]; if (std::regex_search(x, s, re)) { S e{i, %(i)d.0, x}; m[s[1]].push_back(e); t.insert(e); d.push_front(e); } }
  for (auto &p : m) { std::sort(p.second.begin(), p.second.end()); f[p.first] = [&](S s) { return s.a + (int)p.second.size() * %(i)d; }; std::stable_sort(d.begin(), d.end()); }
  std::ostringstream o; for (auto &p : f) for (auto &s : t) o << p.first << p.second(s); std::cout << o.str(); return (int)o.str().size(); } }
"""


def make_program(directory, units):
    for i in range(units):
        (directory / f"u{i}.cc").write_text(UNIT % {"i": i})
    (directory / "main.cc").write_text(
        "".join(f"namespace u{i} {{ int work(int, char **); }}\n" for i in range(units))
        + "int main(int c, char **v) { int s = 0; " + "".join(f"s += u{i}::work(c, v); " for i in range(units)) + "return s; }\n")  # fmt: skip
    sources = " ".join([f"u{i}.cc" for i in range(units)] + ["main.cc"])
    subprocess.run(f"echo {sources} | tr ' ' '\\n' | xargs -P2 -I@ g++ -std=c++17 -O2 -g -c @ && g++ -no-pie -o program *.o", shell=True, check=True, cwd=directory)
    return directory / "program"


def measure(argv, text):
    """(wall s, CPU s, peak MiB); None when it takes too long."""
    begin = time.monotonic()
    process = subprocess.Popen(list(map(str, argv)), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.communicate(text.encode(), timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None
    return time.monotonic() - begin


def measure_usage(argv, text):
    """Runs it in a child of a child, so that its own usage is all there is."""
    read, write = os.pipe()
    if os.fork() == 0:
        wall = measure(argv, text)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.write(write, repr((wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)).encode())
        os._exit(0)
    os.wait()
    os.close(write)
    wall, cpu, mib = eval(os.read(read, 4096))  # our own child's tuple; pylint: disable=eval-used
    os.close(read)
    return (wall, cpu, mib)


def record(directory, program, runs):
    """A perf.data of some runs of the program, with call graphs, and the distinct addresses of the program in it."""
    data, script = directory / "perf.data", directory / "run.sh"
    script.write_text(f"for i in $(seq {runs}); do {program} $(seq -f 'word%gx1' $((i * 100)) $((i * 100 + 400))); done\n")
    subprocess.run(["perf", "record", "-q", "-F", "20000", "-e", "cpu-clock:u", "-g", "-o", data, "sh", script], check=False,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    text = subprocess.run(["perf", "script", "-i", data, "-F", "ip,dso", "--no-inline"], capture_output=True, text=True, check=False).stdout
    addresses = {int(line.split()[0], 16) for line in text.splitlines() if str(program) in line}
    loads = compare.segments(program)  # a call graph by frame pointers has other numbers, too
    return data, sorted(a for a in addresses if any(start <= a < start + n for _, start, n in loads))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--units", type=int, default=48)
    parser.add_argument("--addresses", type=int, default=10000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--perf-runs", type=int, default=2, help="runs of the program that perf records: each of its addresses takes perf long")
    parser.add_argument("--program")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sprof-bench.") as name:
        program = Path(arguments.program) if arguments.program else make_program(Path(name), arguments.units)
        run(program, arguments)
        run_stage(program, arguments)
        run_perf(Path(name), program.resolve(), arguments)


def run(program, arguments):
    addresses = compare.sample(program, arguments.addresses)
    loads = compare.segments(program)
    offsets = "".join(f"{compare.to_offset(a, loads):x}\n" for a in addresses)
    plain = "".join(f"{a:#x}\n" for a in addresses)
    tools = {
        "sprofd-elf": ([TOOL, program], offsets),
        "llvm-symbolizer": (["llvm-symbolizer", f"--obj={program}"], plain),
        "addr2line -Cfi": (["addr2line", "-Cfie", program], plain),
        "eu-addr2line -Cfi (libdw), 1 % of them": (["eu-addr2line", "-C", "-f", "-i", "-e", program], "".join(plain.splitlines(True)[::100])),
    }
    results = {tool: [] for tool in tools}
    for _ in range(arguments.rounds):
        for tool, (argv, text) in tools.items():
            results[tool].append(measure_usage(argv, text))
    known, different = compare.compare(TOOL, str(program), addresses)
    print(f"{len(addresses)} addresses of a program of {Path(program).stat().st_size >> 20} MiB; {known} known, {len(different)} not as llvm-symbolizer has them\n")
    print("| tool | CPU s | wall s | peak MiB | CPU, times sprofd-elf's |\n|---|---|---|---|---|")
    ours = statistics.median(cpu for _, cpu, _ in results["sprofd-elf"])
    for tool, rounds in results.items():
        wall, cpu, mib = (statistics.median(r[k] for r in rounds if r[0]) for k in range(3))
        share = 100 if "1 %" in tool else 1
        print(f"| {tool} | {cpu:.2f} | {wall:.2f} | {mib:.0f} | {share * cpu / ours:.1f} |")


def run_stage(program, arguments):
    loads = compare.segments(program)
    offsets = "".join(f"{compare.to_offset(a, loads):x}\n" for a in compare.sample(program, arguments.addresses))
    argv = [BENCH, BUILD / "bin" / "sprofd-elf", program]
    rounds = [subprocess.run(argv, input=offsets, capture_output=True, text=True, check=True).stdout.split() for _ in range(arguments.rounds)]
    figures = {rounds[0][i]: statistics.median(float(r[i + 1]) for r in rounds) for i in range(0, len(rounds[0]), 2)}
    print(f"\nThrough sprofd's own stage: cold {figures['cold_ms']:.0f} ms, warm {figures['warm_ms']:.1f} ms ({figures['warm_cpu_ms']:.1f} ms of CPU); "
          f"it has {figures['before_mib']:.1f} MiB before and {figures['own_mib']:.1f} at its peak, the reader {figures['reader_mib']:.0f} MiB; {figures['missing']:.0f} not looked at")  # fmt: skip


def run_perf(directory, program, arguments):
    data, addresses = record(directory, program, arguments.perf_runs)
    loads = compare.segments(program)
    offsets = "".join(f"{compare.to_offset(a, loads):x}\n" for a in addresses)
    plain = "".join(f"{a:#x}\n" for a in addresses)
    tools = {
        "sprofd-elf": ([TOOL, program], offsets),
        "llvm-symbolizer": (["llvm-symbolizer", f"--obj={program}"], plain),
        "perf script, lines and inlined calls": (["perf", "script", "-i", data, "-F", "ip,sym,srcline", "--inline"], ""),
        "perf report --stdio, the same": (["perf", "report", "-i", data, "--stdio", "--inline", "-s", "sym,srcline"], ""),
    }
    print(f"\nThe {len(addresses)} distinct addresses of it in a perf.data of {arguments.perf_runs} runs:\n")
    print("| tool | CPU s | wall s | peak MiB | CPU, times sprofd-elf's |\n|---|---|---|---|---|")
    ours = None
    for tool, (argv, text) in tools.items():
        wall, cpu, mib = measure_usage(argv, text)
        ours = ours or cpu
        print(f"| {tool} | {cpu:.2f} | {wall:.2f} | {mib:.0f} | {cpu / ours:.1f} |" if wall else f"| {tool} | more than {LIMIT_S} |||")


if __name__ == "__main__":
    main()
