"""Prints what the HdrHistogram package reads in a log: `TAG value VALUE COUNT` for each recorded value of all intervals,
and `TAG intervals COUNT`. With --text TAG, the package's own text of a series."""

import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

HOUR = 3_600_000_000
path, wanted = sys.argv[1], sys.argv[3] if len(sys.argv) > 3 else None
sums, intervals, last = {}, {}, 0.0
reader = HistogramLogReader(path, HdrHistogram(1, HOUR, 3))
while (interval := reader.get_next_interval_histogram()) is not None:
    tag = interval.get_tag()
    assert interval.get_start_time_stamp() >= last, "intervals come in the order of their times"
    assert interval.get_end_time_stamp() > interval.get_start_time_stamp() > 1_700_000_000_000
    last = interval.get_start_time_stamp()
    sums.setdefault(tag, HdrHistogram(1, HOUR, 3)).add(interval)
    intervals[tag] = intervals.get(tag, 0) + 1
reader.close()
if wanted:
    sums[wanted].output_percentile_distribution(sys.stdout.buffer, 1000)
    sys.exit()
for tag, histogram in sums.items():
    print(tag, "intervals", intervals[tag])
    for value in histogram.get_recorded_iterator():
        print(tag, "value", value.value_iterated_to, value.count_at_value_iterated_to)
