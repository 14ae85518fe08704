// Rows by listing id. A dictionary does the same, but each of its lookups waits for memory four times, one after the
// other: table, entry, key, number. Here it is twice, and those of a whole list wait together.

#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

class Directory {
  public:
    explicit Directory(const std::vector<std::string> &ids) {
        for (size_t row = 0; row < ids.size(); ++row) set(ids[row], int64_t(row));
    }

    // The row of `id`; -1: none, which is forgotten. Raises std::length_error where there is no more room.
    void set(const std::string_view id, const int64_t row) {
        const uint64_t hashed = hash(id);
        size_t slot = find(hashed, id);
        if (!slots_[slot]) {
            if (2 * ++used_ > slots_.size()) {
                grow();
                slot = find(hashed, id);
            }
            if (names_.size() + id.size() + sizeof(Entry) > UINT32_MAX) throw std::length_error("too many listings");
            slots_[slot] = (hashed & ~uint64_t(UINT32_MAX)) | names_.size();
            const Entry entry{0, uint32_t(id.size())};
            names_.append(reinterpret_cast<const char *>(&entry), sizeof entry).append(id);
        }
        const int32_t number = int32_t(row);
        std::memcpy(names_.data() + uint32_t(slots_[slot]), &number, sizeof number);
    }

    int64_t row(const std::string_view id) const { return row_in(find(hash(id), id)); }

    // The rows of n ids, and their hashes: two equal ids have one hash, and two others hardly ever.
    template <typename Id>
    void rows(const size_t n, Id id, int64_t *const rows, uint64_t *const hashes) const {
        const size_t mask = slots_.size() - 1;
        for (size_t i = 0; i < n; ++i) {
            hashes[i] = hash(id(i));
            __builtin_prefetch(&slots_[hashes[i] & mask]);
        }
        for (size_t i = 0; i < n; ++i) __builtin_prefetch(names_.data() + uint32_t(slots_[hashes[i] & mask]));
        for (size_t i = 0; i < n; ++i) rows[i] = row_in(find(hashes[i], id(i)));
    }

  private:
    struct Entry {  // the id follows it
        int32_t row;
        uint32_t size;
    };

    static uint64_t mixed(const uint64_t one, const uint64_t other) {
        const auto product = static_cast<unsigned __int128>(one) * other;
        return uint64_t(product) ^ uint64_t(product >> 64);
    }
    static uint64_t word(const char *const from) {
        uint64_t word;
        std::memcpy(&word, from, sizeof word);
        return word;
    }
    // After a number of this process, so that nobody can think of ids that all fall into one slot.
    uint64_t hash(const std::string_view id) const {
        constexpr uint64_t odd = 0x9E3779B97F4A7C15, other = 0xE7037ED1A0B428DB;
        const size_t size = id.size();
        uint64_t hashed = seed_ ^ size * odd;
        if (size < 8) {
            uint64_t few = 0;
            std::memcpy(&few, id.data(), size);
            return mixed(mixed(hashed ^ few, odd), other);
        }
        for (size_t at = 0; at + 8 < size; at += 8) hashed = mixed(hashed ^ word(id.data() + at), odd);
        return mixed(mixed(hashed ^ word(id.data() + size - 8), odd), other);
    }
    static bool same(const char *const one, const char *const other, const size_t size) {
        if (size < 8) return !std::memcmp(one, other, size);
        for (size_t at = 0; at + 8 < size; at += 8)
            if (word(one + at) != word(other + at)) return false;
        return word(one + size - 8) == word(other + size - 8);
    }

    // The id's slot, or the empty one where it belongs.
    size_t find(const uint64_t hashed, const std::string_view id) const {
        const size_t mask = slots_.size() - 1;
        for (size_t at = hashed & mask;; at = (at + 1) & mask) {
            const uint64_t slot = slots_[at];
            if (!slot) return at;
            if ((slot ^ hashed) >> 32) continue;
            Entry entry;
            const char *const there = names_.data() + uint32_t(slot);
            std::memcpy(&entry, there, sizeof entry);
            if (entry.size == id.size() && same(there + sizeof entry, id.data(), entry.size)) return at;
        }
    }
    int64_t row_in(const size_t slot) const {
        int32_t row = -1;
        if (slots_[slot]) std::memcpy(&row, names_.data() + uint32_t(slots_[slot]), sizeof row);
        return row;
    }

    void grow() {
        std::vector<uint64_t> old(2 * slots_.size());
        old.swap(slots_);
        used_ = 1;
        for (const uint64_t slot : old) {
            if (!slot) continue;
            Entry entry;
            const char *const there = names_.data() + uint32_t(slot);
            std::memcpy(&entry, there, sizeof entry);
            slots_[find(hash({there + sizeof entry, entry.size}), {there + sizeof entry, entry.size})] = slot;
            ++used_;
        }
    }

    const uint64_t seed_ = (uint64_t(std::random_device()()) << 32) | std::random_device()();
    // A half of the id's hash, and where its entry stands; 0 is an empty slot. As many as a power of two, at most half
    // of them used.
    std::vector<uint64_t> slots_ = std::vector<uint64_t>(16);
    std::string names_ = std::string(8, '\0');
    size_t used_ = 0;
};
