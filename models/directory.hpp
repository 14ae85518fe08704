// Rows by listing id. A dictionary does the same, but each of its lookups waits for memory four times, one after the
// other: table, entry, key, number. Here it is twice, and those of a whole list wait together.

#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

class Directory {
  public:
    explicit Directory(const std::vector<std::string> &ids) : slots_(16) {
        for (size_t row = 0; row < ids.size(); ++row) set(ids[row], int64_t(row));
    }

    // The row of `id`; -1: none, which is forgotten.
    void set(const std::string_view id, const int64_t row) {
        const uint64_t hashed = hash(id);
        Slot &slot = find(hashed, id);
        if (slot.start < 0) {
            if (2 * ++used_ > slots_.size()) {
                grow();
                return set(id, row);
            }
            const uint32_t size = uint32_t(id.size());
            slot = {hashed, -1, int64_t(names_.size())};
            names_.append(reinterpret_cast<const char *>(&size), sizeof size).append(id);
        }
        slot.row = row;
    }

    int64_t row(const std::string_view id) const { return find(hash(id), id).row; }

    // The rows of many ids, and their hashes: two equal ids have one hash, and two others hardly ever.
    void rows(const std::vector<std::string_view> &ids, std::vector<int64_t> &rows, std::vector<uint64_t> &hashes) const {
        const size_t n = ids.size();
        rows.resize(n);
        hashes.resize(n);
        for (size_t i = 0; i < n; ++i) {
            hashes[i] = hash(ids[i]);
            __builtin_prefetch(&slots_[hashes[i] & (slots_.size() - 1)]);
        }
        for (size_t i = 0; i < n; ++i) {
            const Slot &slot = slots_[hashes[i] & (slots_.size() - 1)];
            if (slot.start >= 0) __builtin_prefetch(names_.data() + slot.start);
        }
        for (size_t i = 0; i < n; ++i) rows[i] = find(hashes[i], ids[i]).row;
    }

  private:
    struct Slot {
        uint64_t hash = 0;
        int64_t row = -1, start = -1;  // `start`: where the name stands, -1 in an empty slot
    };

    static uint64_t mixed(const uint64_t one, const uint64_t other) {
        const auto product = static_cast<unsigned __int128>(one) * other;
        return uint64_t(product) ^ uint64_t(product >> 64);
    }
    // After a number of this process, so that nobody can think of ids that all fall into one slot.
    uint64_t hash(const std::string_view id) const {
        constexpr uint64_t odd = 0x9E3779B97F4A7C15, other = 0xE7037ED1A0B428DB;
        const size_t size = id.size();
        uint64_t hashed = seed_ ^ size * odd, word = 0;
        const auto take = [&](const char *const from, const size_t bytes) {
            std::memcpy(&word, from, bytes);
            hashed = mixed(hashed ^ word, odd);
        };
        for (size_t at = 0; at + sizeof word < size; at += sizeof word) take(id.data() + at, sizeof word);
        if (size >= sizeof word) take(id.data() + size - sizeof word, sizeof word);
        else take(id.data(), size);
        return mixed(hashed, other);
    }

    // The id's slot, or the empty one where it belongs.
    const Slot &find(const uint64_t hashed, const std::string_view id) const {
        for (size_t at = hashed;; ++at) {
            const Slot &slot = slots_[at & (slots_.size() - 1)];
            if (slot.start < 0 || (slot.hash == hashed && name(slot) == id)) return slot;
        }
    }
    Slot &find(const uint64_t hashed, const std::string_view id) {
        return const_cast<Slot &>(static_cast<const Directory *>(this)->find(hashed, id));
    }
    std::string_view name(const Slot &slot) const {
        uint32_t size;
        std::memcpy(&size, names_.data() + slot.start, sizeof size);
        return {names_.data() + slot.start + sizeof size, size};
    }

    void grow() {
        std::vector<Slot> old(2 * slots_.size());
        old.swap(slots_);
        used_ = 0;
        for (const Slot &slot : old) {
            if (slot.start < 0) continue;
            size_t at = slot.hash;
            while (slots_[at & (slots_.size() - 1)].start >= 0) ++at;
            slots_[at & (slots_.size() - 1)] = slot;
            ++used_;
        }
    }

    const uint64_t seed_ = (uint64_t(std::random_device()()) << 32) | std::random_device()();
    std::vector<Slot> slots_;  // as many as a power of two, at most half of them used
    std::string names_;        // each after its size
    size_t used_ = 0;
};
