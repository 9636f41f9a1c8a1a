#!/usr/bin/env python3
"""Describes a list of numbers: the input is JSON on stdin, the output JSON on stdout, the log stderr."""

import json
import statistics
import sys


def describe(values: list[float], digits: int) -> dict:
    return {
        "count": len(values),
        "sum": round(sum(values), digits),
        "mean": round(statistics.fmean(values), digits),
        "median": round(statistics.median(values), digits),
        "stdev": round(statistics.stdev(values), digits) if len(values) > 1 else 0,
    }


if __name__ == "__main__":
    given = json.load(sys.stdin)
    print(f"describing {len(given['values'])} numbers", file=sys.stderr)
    json.dump(describe(given["values"], given["digits"]), sys.stdout)
