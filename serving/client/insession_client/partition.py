"""Where a user's events are."""

from __future__ import annotations


def partition_of(user_id: str, partitions: int) -> int:
    """The partition where Kafka's default partitioner puts a user's events: MurmurHash2 of the key, as Java has it."""
    key, multiplier, mask = user_id.encode(), 0x5BD1E995, 0xFFFFFFFF
    hashed = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        hashed = hashed * multiplier & mask ^ word
    if whole < len(key):
        hashed = (hashed ^ int.from_bytes(key[whole:], "little")) * multiplier & mask
    hashed = (hashed ^ hashed >> 13) * multiplier & mask
    return ((hashed ^ hashed >> 15) & 0x7FFFFFFF) % partitions
