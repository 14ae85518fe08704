from __future__ import annotations

import pytest

from models.recording import partition_of


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        # Computed with org.apache.kafka.common.utils.Utils.murmur2 of Apache Kafka 4.1.2; all lengths modulo four.
        (b"", 275646681),
        (b"a", -1563381124),
        (b"ab", 316155434),
        (b"abc", 479470107),
        (b"abcd", -1323649548),
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"\xff\xfe\x80\x00\x81", 901173560),
    ],
)
def test_partition_of_is_the_java_clients(key: bytes, hashed: int) -> None:
    for partitions in (1, 4, 12, 2**31 - 1):
        assert partition_of(key, partitions) == (hashed & 0x7FFFFFFF) % partitions
