#!/usr/bin/env python3
"""ratio.py RESULTS OURS RIVAL: medians of the rounds that compare.sh ran, and how many times better ours is (above 1: ours)."""
import glob
import json
import statistics
import sys


def load(results, system):
    """name -> (unit, values); every row of every round. Rows in seconds are durations of a group of others: left out."""
    rows = {}
    for path in sorted(glob.glob(f"{results}/{system}-*.json")):
        with open(path, encoding="utf-8") as file:
            for row in json.load(file)["rows"]:
                if row["unit"] != "s":
                    rows.setdefault(row["name"], (row["unit"], []))[1].append(row)
    return rows


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def main():
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    results, ours, rival = sys.argv[1:]
    mine, theirs = load(results, ours), load(results, rival)
    rounds = len(glob.glob(f"{results}/{ours}-*.json"))
    print(f"Medians of {rounds} interleaved rounds (lowest-highest); p50/p99 in microseconds where the kit measures them.\n")
    print(f"| workload | {ours} | {rival} | ratio | p50/p99 {ours} | p50/p99 {rival} |\n|---|---|---|---|---|---|")
    ratios = []
    for name, (unit, rows) in mine.items():
        if name not in theirs:
            continue
        cells, middle = [], []
        for some in rows, theirs[name][1]:
            values = [r["value"] for r in some]
            middle.append(statistics.median(values))
            cells.append(f"{number(middle[-1])} ({number(min(values))}-{number(max(values))}) {unit}")
        latency = ["/".join(number(statistics.median(r[k] for r in some)) for k in ("p50_us", "p99_us"))
                   if all("p50_us" in r for r in some) else "" for some in (rows, theirs[name][1])]
        ratio = middle[0] / middle[1] if middle[1] else float("inf")
        ratios.append((ratio, name))
        errors = sum(r.get("errors", 0) for r in rows)
        print(f"| {name}{' **ERRORS**' if errors else ''} | {cells[0]} | {cells[1]} | {ratio:.2f} | {latency[0]} | {latency[1]} |")
    ratios.sort()
    print(f"\n{sum(r >= 1 for r, _ in ratios)} of {len(ratios)} rows at or above {rival}; "
          f"geometric mean {statistics.geometric_mean(max(r, 1e-3) for r, _ in ratios):.2f}; "
          f"worst: {', '.join(f'{n} {r:.2f}' for r, n in ratios[:5])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
