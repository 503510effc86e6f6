"""Which manifests a commit writes anew as one, so that planning opens few and skips most.

The library packs them by bytes, and most bytes of ours are the schema in each header: a commit of
one file is then half a bin, and what shares a bin shares no day. Here they are packed by the files
they list and in the order of the time they cover. A manifest read for one day tells little of
others, and their number grows with the days, not with the commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from pyiceberg.manifest import ManifestFile
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.transforms import DayTransform, HourTransform

from .manifests import number

# To read an entry costs twice what it costs to pass a manifest in the list, so that with a month of
# 60 symbols 30 were best and with a year of them 100. One day of theirs fits.
ENTRIES = 64


def pack(
    manifests: Iterable[ManifestFile], specs: Mapping[int, PartitionSpec]
) -> list[list[ManifestFile]]:
    """Return *manifests* in bins, in the order of spec, time and commit, the newest first.

    The manifests of a bin are of one spec, no other's time lies between theirs, and they list at
    most ENTRIES live files, unless it is only one. Two bins side by side would be too many as one.

    Args:
        manifests: of one snapshot, the newest commit first.
        specs: the table's partition specs by ID.
    """
    places = {spec_id: _time_place(spec) for spec_id, spec in specs.items()}
    bins: list[list[ManifestFile]] = []

    def order(manifest: ManifestFile) -> tuple[int, int, int]:
        return manifest.partition_spec_id, *_span(manifest, places[manifest.partition_spec_id])

    oldest_first = list(manifests)[::-1]
    oldest_first.sort(key=order)
    for _, group in groupby(oldest_first, key=lambda manifest: manifest.partition_spec_id):
        room = -1
        for manifest in group:
            files = live_files(manifest)
            if files > room:
                bins.append([])
                room = ENTRIES
            bins[-1].append(manifest)
            room -= files
    return [each[::-1] for each in bins[::-1]]


def live_files(manifest: ManifestFile) -> int:
    """Return the number of live files that *manifest* lists."""
    return (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)


def _time_place(spec: PartitionSpec) -> int | None:
    """Return the place of the day or the hour in partitions of *spec*."""
    for place, field in enumerate(spec.fields):
        if isinstance(field.transform, DayTransform | HourTransform):
            return place
    return None


def _span(manifest: ManifestFile, place: int | None) -> tuple[int, int]:
    """Return the first and the last day or hour of a manifest's files, 0 if none is told."""
    summaries = manifest.partitions or ()
    if place is None or place >= len(summaries):
        return 0, 0
    low, high = summaries[place].lower_bound, summaries[place].upper_bound
    return 0 if low is None else number(low), 0 if high is None else number(high)
