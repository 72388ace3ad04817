"""Compares what sprofd-elf says of addresses with llvm-symbolizer, frame by frame."""
import json
import os
import random
import re
import subprocess

LLVM = os.environ.get("LLVM_SYMBOLIZER", "llvm-symbolizer")


def segments(path):
    text = subprocess.run(["readelf", "-lW", path], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"LOAD\s+0x(\w+) 0x(\w+) 0x\w+ 0x(\w+) 0x\w+ R E ", text)
    return [tuple(int(x, 16) for x in segment) for segment in found]


def code_sections(path):
    text = subprocess.run(["readelf", "-SW", path], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"\] (\S+)\s+PROGBITS\s+(\w+) \w+ (\w+) \w+\s+AX", text)
    return [(int(start, 16), int(size, 16)) for name, start, size in found if not name.startswith((".plt", ".init", ".fini"))]


def sample(path, n, seed=1):
    """n random addresses in the code of a file, sorted."""
    sections = code_sections(path)
    chance = random.Random(seed)
    picks = chance.choices(sections, weights=[size for _, size in sections], k=n)
    return sorted(start + chance.randrange(size) for start, size in picks)


def to_offset(address, loads):
    for offset, start, size in loads:
        if start <= address < start + size:
            return address - start + offset
    raise ValueError(hex(address))


def ours(tool, path, addresses, *debug):
    loads = segments(path)
    offsets = "".join(f"{to_offset(a, loads):x}\n" for a in addresses)
    text = subprocess.run([tool, path, *debug], input=offsets, capture_output=True, text=True, check=True).stdout
    answers, frames = [], []
    for line in text.splitlines():
        if line == ".":
            answers.append(frames)
            frames = []
        else:
            _, system, file, number, start = line.split("\t")
            if not system.startswith("+"):  # a function without a name, told by where it begins
                frames.append((system, file, int(number), int(start)))
    return answers


def llvm(path, addresses):
    """[(linkage name, file, line, start line)...] for each address."""
    text = subprocess.run(
        [LLVM, "--output-style=JSON", "--no-demangle", f"--obj={path}"],
        input="".join(f"{a:#x}\n" for a in addresses), capture_output=True, text=True, check=True).stdout  # fmt: skip
    answers = []
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        frames = json.loads(line)["Symbol"]
        answers.append([(f["FunctionName"], f["FileName"], f["Line"], f.get("StartLine", 0)) for f in frames])
    return answers


def is_known(frames):
    """Padding between functions has lines at times, and no function."""
    return frames[-1][0] != ""


CLONE = re.compile(r"(\.(cold|part|isra|constprop|lto_priv|llvm)(\.\d+)?)+$")
STRUCTOR = re.compile(r"([CD])[0-5](E|I|B)")


def plain(frames):
    """Without what may be told in two ways: of the aliases of the outermost function either may be chosen (a complete and a base
    constructor; a version), clones have their suffix only in the symbol table, and where there is no DWARF, llvm-symbolizer tells
    the file's name alone from the symbol table."""
    frames = [(name, os.path.normpath(file) if file else "", line, start) for name, file, line, start in frames]
    name, file, line, start = frames[-1]
    if len(frames) == 1 and line == 0 and start == 0 and "/" not in file:
        file = ""
    return frames[:-1] + [(STRUCTOR.sub(r"\1\2", CLONE.sub("", name.split("@")[0])), file, line, start)]


def aliases(path):
    """address: the names of all symbols there."""
    text = subprocess.run(["nm", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in text.splitlines():
        address, _, name = line.split(" ", 2)
        found.setdefault(int(address, 16), set()).add(name.split("@")[0])
    return {name: names for names in found.values() for name in names}


def are_equal(m, t, same):
    m, t = plain(m), plain(t)
    if m == t:
        return True
    return m[:-1] == t[:-1] and m[-1][1:] == t[-1][1:] and m[-1][0] in same.get(t[-1][0], ())


def compare(tool, path, addresses, *debug):
    """(how many both know something of, [(address, ours, llvm's) that differ])."""
    mine, theirs = ours(tool, path, addresses, *debug), llvm(debug[0] if debug else path, addresses)
    assert len(mine) == len(theirs) == len(addresses), (len(mine), len(theirs), len(addresses))
    known = [(a, m, t) for a, m, t in zip(addresses, mine, theirs) if m or is_known(t)]
    same = aliases(debug[0] if debug else path)
    return len(known), [(a, m, t) for a, m, t in known if not m or not are_equal(m, t, same)]


if __name__ == "__main__":
    import sys

    tool, count, show, path, *debug = sys.argv[1:]
    n, different = compare(tool, path, sample(path, int(count)), *debug)
    print(f"{n} known, {len(different)} different")
    for address, m, t in different[: int(show)]:
        print(hex(address), "\n   ours", m, "\n   llvm", t)
