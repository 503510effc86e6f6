"""Bins of manifests hold each one once, are full where they can be, and keep days apart."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.manifest import ManifestContent, ManifestFile, PartitionFieldSummary

from lakehouse_pipeline.lake.packing import ENTRIES, live_files, pack
from lakehouse_pipeline.lake.tables import HOT, SEALED, TABLES

SPECS = {spec.spec_id: spec for spec in TABLES["market.bars_1s"].specs}


def manifest(
    path: object, spec_id: int, low: int, high: int, added: int, kept: int
) -> ManifestFile:
    """Return a manifest as a list tells of it, of the days or hours from *low* to *high*."""
    return ManifestFile.from_args(
        manifest_path=str(path),
        manifest_length=1,
        partition_spec_id=spec_id,
        content=ManifestContent.DATA,
        added_files_count=added,
        existing_files_count=kept,
        deleted_files_count=0,
        partitions=[
            PartitionFieldSummary(False, False, b"BINANCE:A", b"BINANCE:Z"),
            PartitionFieldSummary(
                False, False, low.to_bytes(4, "little", signed=True), high.to_bytes(4, "little")
            ),
        ],
    )


def days(each: ManifestFile) -> tuple[int, int]:
    span = (each.partitions or ())[1]
    low, high = (
        int.from_bytes(bound or b"", "little", signed=True)
        for bound in (span.lower_bound, span.upper_bound)
    )
    return low, high


@st.composite
def lists(draw: st.DrawFn) -> list[ManifestFile]:
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from((HOT, SEALED)),
                st.integers(-3, 5),
                st.integers(5, 9),
                st.integers(0, ENTRIES),
                st.integers(0, 20),
            ),
            max_size=30,
        )
    )
    return [manifest(number, *each) for number, each in enumerate(drawn)]


@given(lists())
def test_bins_hold_each_manifest_once_and_are_full(manifests: list[ManifestFile]) -> None:
    bins = pack(manifests, SPECS)

    packed = [each.manifest_path for few in bins for each in few]
    assert sorted(packed) == sorted(each.manifest_path for each in manifests)
    sizes = [sum(map(live_files, few)) for few in bins]
    assert all(size <= ENTRIES or len(few) == 1 for size, few in zip(sizes, bins, strict=True))
    for (few, size), (after, its) in pairwise(zip(bins, sizes, strict=True)):
        if few[0].partition_spec_id == after[0].partition_spec_id:
            assert size + its > ENTRIES


@given(lists())
def test_bins_are_of_one_spec_and_in_the_order_of_time(manifests: list[ManifestFile]) -> None:
    bins = pack(manifests, SPECS)

    assert all(len({each.partition_spec_id for each in few}) == 1 for few in bins)
    for spec_id in SPECS:
        spans = [days(each) for few in bins for each in few if each.partition_spec_id == spec_id]
        assert spans == sorted(spans, reverse=True)


def test_of_one_time_the_newest_commit_comes_first() -> None:
    manifests = [manifest(number, SEALED, 7, 7, 1, 0) for number in range(200)]

    bins = pack(manifests, SPECS)

    assert [each.manifest_path for few in bins for each in few] == [str(at) for at in range(200)]
    assert [len(few) for few in bins] == [200 - 3 * ENTRIES, ENTRIES, ENTRIES, ENTRIES]


def test_a_day_of_three_exchanges_is_a_bin_of_its_own() -> None:
    built = [
        manifest((day, exchange), SEALED, day, day, 20, 0)
        for day in reversed(range(5))
        for exchange in ("BYBIT", "OKX", "BINANCE")
    ]

    bins = pack(built, SPECS)

    assert [{days(each) for each in few} for few in bins] == [{(at, at)} for at in (4, 3, 2, 1, 0)]
