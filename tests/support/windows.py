# SPDX-License-Identifier: Apache-2.0
"""Windows made of plain random numbers, for tests of the contract that need no model."""

from hypothesis import strategies as st

from edge_contract.counts import BINS, BLOCK, COMPONENTS, LATENCY_BUCKETS, LEVELS, Counters
from edge_contract.summary import CHANNELS, DriftSummary, Flag, Health


def spread(total, bins, pick):
    """Return a histogram of ``total`` counts over ``bins`` cells, by a function of the number of bins."""
    found = [0] * bins
    for _ in range(total):
        found[pick(bins)] += 1
    return tuple(found)


def build(slots, n, pick, *, failed=0, with_input=True):
    """Return counters that could come from a window of ``n`` samples."""
    signed = lambda limit: pick(2 * limit + 1) - limit  # noqa: E731
    pairs = max(0, n - 1)
    return Counters(
        n_infer=n + failed,
        n_sampled=n,
        n_err=failed,
        n_drop=pick(5),
        cells=spread(n, slots * LEVELS, pick),
        confidence=spread(n, BINS, pick),
        confidence_sum=pick(65536 * n + 1),
        energy=spread(n, BINS, pick),
        energy_sum=signed(512 * n),
        energy_squares=pick(512 * 512 * n + 1),
        blocks=n // BLOCK,
        block_sum=signed(512 * n),
        block_squares=pick(8192 * 8192 * (n // BLOCK) + 1),
        pairs=pairs,
        lag=signed(512 * 512 * pairs),
        repeats=pick(pairs + 1),
        embedding_sum=tuple(signed(6 * 1024 * n) for _ in range(COMPONENTS)),
        embedding_squares=tuple(1 + pick(36 * 1024 * n + 1) for _ in range(COMPONENTS)),
        brightness=spread(n if with_input else 0, BINS, pick),
        contrast=spread(n if with_input else 0, BINS, pick),
        sharpness=spread(n if with_input else 0, BINS, pick),
        dark=pick(65536 * n + 1) if with_input and n else 0,
        bright=pick(65536 * n + 1) if with_input and n else 0,
        latency=spread(n, LATENCY_BUCKETS, pick),
        latency_sum_us=pick(10_000 * n + 1),
    )


@st.composite
def counters(draw, slots=None, most=70):
    """Counters of a random window."""
    randoms = draw(st.randoms(use_true_random=False))
    chosen = slots or draw(st.integers(1, 64))
    n = draw(st.integers(0, most))
    return build(chosen, n, randoms.randrange, failed=draw(st.integers(0, 3)), with_input=draw(st.booleans()))


@st.composite
def summaries(draw):
    """A random summary whose CUSUM values are float16 numbers, as on the wire."""
    half = st.integers(0, 160).map(lambda i: i / 8)
    temperature = st.integers(-400, 1200).map(lambda t: t / 10)
    health = Health(
        temperature_c=draw(st.none() | st.tuples(temperature, temperature, temperature)),
        throttled=draw(st.integers(0, 2**20)),
        clock_min_mhz=draw(st.none() | st.integers(1, 3000)),
        rss_max_kb=draw(st.none() | st.integers(1, 2**32 - 1)),
        cpu_percent=draw(st.none() | st.integers(0, 1000).map(lambda p: p / 10)),
        energy_j=draw(st.none() | st.integers(0, 4000).map(lambda e: e / 4)),
        disk_free_mb=draw(st.none() | st.integers(0, 65534)),
    )
    return DriftSummary(
        device=draw(st.binary(min_size=8, max_size=8)).hex(),
        bundle=draw(st.binary(min_size=16, max_size=16)).hex(),
        profile_crc=draw(st.integers(0, 2**32 - 1)),
        boot=draw(st.binary(min_size=4, max_size=4)).hex(),
        window=draw(st.integers(0, 2**32 - 1)),
        start_ms=draw(st.integers(0, 2**63)),
        duration_ms=draw(st.integers(0, 2**32 - 1)),
        counters=draw(counters()),
        health=health,
        cusum=tuple(draw(half) for _ in CHANNELS),
        cusum_windows=draw(st.integers(0, 65535)),
        flags=Flag(draw(st.integers(0, 15))),
    )
