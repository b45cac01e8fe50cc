"""Whether so much can go by then: arithmetic that an operator can check by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.cli.throughput import Throughputs
from keystrand.cli.transfer import bytes_of, seconds_until, span
from keystrand.core.errors import BadRequest
from keystrand.testing.keyfolder import KeyFolder
from keystrand.transport.gateway.plan import CIPHER_BYTES_MAX, Task, plan_transfer

GB = 10**9


def status(tmp_path, *, keys, fill_bps=1000.0):
    folder = KeyFolder(tmp_path, "a", left=keys)
    folder.fill_bps = fill_bps
    return folder.status("b")


def task(**changes):
    facts = {
        "size_bytes": 10 * GB,
        "within_s": 3600.0,
        "streams": 1,
        "bytes_per_s": 1e8,
        "rotate_bytes": 1 << 30,
        "rotate_s": 1e6,
        "pad_rule": "allowed",
        "pad_bytes_max": 65_536,
    }
    return Task(**(facts | changes))


@pytest.mark.proves("R087")
def test_with_keys_enough_the_throughput_decides(tmp_path):
    aes, pad = plan_transfer(task(), status(tmp_path, keys=100))
    assert (aes.keys, aes.needed_bits, aes.short_bits) == (10, 2560, 0)
    assert (aes.done_s, aes.fits, aes.why) == (100.0, True, "the throughput decides")
    assert not pad.fits
    assert "pad_bytes_max" in pad.why


@pytest.mark.proves("R087")
def test_without_keys_the_key_rate_decides(tmp_path):
    aes, _ = plan_transfer(task(rotate_bytes=1 << 20), status(tmp_path, keys=0))
    assert aes.keys == math.ceil(10 * GB / 2**20) == 9537
    assert aes.done_s == 9537 * 256 / 1000
    assert (aes.fits, aes.why) == (True, "the key rate decides")
    late, _ = plan_transfer(task(rotate_bytes=1 << 20, within_s=2000), status(tmp_path, keys=0))
    assert not late.fits


def test_a_pool_that_does_not_fill_never_makes_it(tmp_path):
    aes, pad = plan_transfer(task(size_bytes=1000), status(tmp_path, keys=0, fill_bps=0.0))
    assert (aes.done_s, aes.fits) == (None, False)
    assert (pad.done_s, pad.fits) == (None, False)


def test_rotation_by_time_costs_keys_on_a_slow_path(tmp_path):
    aes, _ = plan_transfer(task(bytes_per_s=1e6, rotate_s=60.0, within_s=1e6), status(tmp_path, keys=1000))
    assert aes.keys == math.ceil(10_000 / 60)


@pytest.mark.proves("R089")
def test_more_than_the_cipher_bears_under_one_key_is_refused(tmp_path):
    aes, _ = plan_transfer(task(rotate_bytes=2 * CIPHER_BYTES_MAX), status(tmp_path, keys=1000))
    assert not aes.fits
    assert "limit of AES-GCM" in aes.why


def test_a_pad_says_when_it_is_ready(tmp_path):
    _, pad = plan_transfer(task(size_bytes=1000), status(tmp_path, keys=10))
    assert pad.short_bits == pad.keys * 256 - 2560
    assert pad.done_s == pytest.approx(pad.short_bits / 1000, abs=0.01)
    assert pad.fits


@pytest.mark.parametrize(
    ("rule", "first", "fits"), [("off", "aes", "aes"), ("required", "one-time pad", "one-time pad")]
)
def test_the_sites_rule_decides(tmp_path, rule, first, fits):
    ways = plan_transfer(task(size_bytes=1000, pad_rule=rule), status(tmp_path, keys=1000))
    assert ways[0].name == first
    assert [way.name for way in ways if way.fits] == [fits]


@given(st.integers(0, 10**13), st.integers(1, 16), st.integers(1024, 2**38), st.floats(1e3, 1e10))
def test_no_plan_counts_fewer_keys_than_a_transfer_uses(size_bytes, streams, rotate_bytes, bytes_per_s):
    import tempfile
    from pathlib import Path

    wanted = task(size_bytes=size_bytes, streams=streams, rotate_bytes=rotate_bytes, bytes_per_s=bytes_per_s)
    aes, _ = plan_transfer(wanted, status(Path(tempfile.gettempdir()), keys=5))
    assert aes.keys >= max(streams, math.ceil(size_bytes / rotate_bytes))
    assert aes.needed_bits == 256 * aes.keys


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("500GB", 500 * GB), ("64 KiB", 65_536), ("17", 17), ("1.5MiB", 1_572_864), ("2tb", 2 * 10**12)],
)
def test_sizes(text, wanted):
    assert bytes_of(text) == wanted


@pytest.mark.parametrize("text", ["", "GB", "5 parsecs", "-1", "1e9"])
def test_what_is_no_size(text):
    with pytest.raises(BadRequest):
        bytes_of(text)


def test_times():
    assert (seconds_until("90s", 0), seconds_until("2h", 0), seconds_until("1.5d", 0)) == (90, 7200, 129_600)
    assert seconds_until("1970-01-01T01:00+00:00", 600) == 3000
    for wrong in ("soon", "1970-01-01T00:00+00:00", "5 weeks"):
        with pytest.raises(BadRequest):
            seconds_until(wrong, 600)
    assert [span(5), span(90), span(5400), span(200_000)] == ["5.0 s", "1.5 min", "1.5 h", "2.3 d"]


def test_measured_throughputs_are_kept_by_site(tmp_path):
    kept = Throughputs(tmp_path)
    assert kept.of("bravo") is None
    kept.add("bravo", size_bytes=1000, bytes_per_s=1.0)  # says nothing about the path
    assert kept.of("bravo") is None
    for rate in range(1, 13):
        kept.add("bravo", size_bytes=1 << 30, bytes_per_s=rate)
    assert Throughputs(tmp_path).of("bravo") == 8  # of the last nine
    (tmp_path / "throughput.json").write_text("{")
    assert kept.of("bravo") is None
