"""What the clients share: a table of what they did, printed as the last line."""

import collections
import json

counts = collections.Counter()


def did(operation, outcome="ok", times=1):
    counts[f"{operation} {outcome}"] += times


def report(**tables):
    print(json.dumps({"counts": counts, **tables}))
