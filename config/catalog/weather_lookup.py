#!/usr/bin/env python3
"""The usual temperature of a city, from a table of round example values in degrees Celsius."""

import json
import sys

CELSIUS = {
    "amsterdam": 11,
    "berlin": 10,
    "cairo": 22,
    "delhi": 25,
    "london": 11,
    "mumbai": 27,
    "nairobi": 19,
    "new york": 13,
    "reykjavik": 5,
    "sydney": 18,
    "tokyo": 16,
}


def look_up(city: str, unit: str) -> dict:
    celsius = CELSIUS.get(city.strip().lower())
    if celsius is None:
        sys.exit(f"no temperature is known for {city!r}; there are {', '.join(sorted(CELSIUS))}")
    return {"temperature": celsius if unit == "C" else round(celsius * 9 / 5 + 32, 1), "unit": unit}


if __name__ == "__main__":
    given = json.load(sys.stdin)
    json.dump(look_up(given["city"], given["unit"]), sys.stdout)
