// JSON as it is read here: one value after the other, with nothing made of what is not asked for.

#pragma once

#include <Python.h>

// Words are read as they stand in memory, the first byte the lowest.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <stdexcept>
#include <string>
#include <string_view>

namespace json {

// The text is no JSON, or not what is expected there.
struct Wrong : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

// Whether a key is this one. (That the text's length is known when this is compiled makes it a comparison of words.)
template <size_t N>
bool is(const std::string_view key, const char (&text)[N]) {
    return key.size() == N - 1 && !__builtin_memcmp(key.data(), text, N - 1);
}

class Reader {
  public:
    // Strings with escapes, which no view of the text can give, are put into `made`.
    Reader(const std::string_view text, std::deque<std::string> &made)
        : at_(text.data()), end_(text.data() + text.size()), made_(made) {}

    // Calls `take(key)` for each member; it reads the value.
    template <typename Take>
    void object(Take take) {
        open('{');
        if (next() == '}') return close();
        for (;;) {
            const std::string_view key = string();
            expect(':');
            take(key);
            if (next() == '}') return close();
            expect(',');
        }
    }

    // Calls `take(number)` for each element; it reads it.
    template <typename Take>
    void array(Take take) {
        open('[');
        if (next() == ']') return close();
        for (size_t number = 0;; ++number) {
            take(number);
            if (next() == ']') return close();
            expect(',');
        }
    }

    std::string_view string() {
        expect('"');
        const char *const begin = at_, *at = at_;
        for (;; ++at) {
            // Eight bytes at once, up to the first that is a quote, a backslash, a control character or above ASCII.
            for (; end_ - at >= 8; at += 8) {
                uint64_t word;
                std::memcpy(&word, at, 8);
                constexpr uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
                const uint64_t quotes = word ^ (ones * '"'), escapes = word ^ (ones * '\\');
                const uint64_t found = (((quotes - ones) & ~quotes) | ((escapes - ones) & ~escapes) |
                                        ((word - ones * 0x20) & ~word) | word) & tops;
                if (!found) continue;
                at += __builtin_ctzll(found) / 8;  // the first is found for sure: what is borrowed is from above
                break;
            }
            if (at == end_) throw Wrong("a string without an end");
            const unsigned char byte = *at;
            if (byte == '"') {
                at_ = at + 1;
                return {begin, size_t(at - begin)};
            }
            if (byte >= 0x80) ascii_ = false;
            if (byte < 0x20) throw Wrong("a control character in a string");
            if (byte == '\\') {
                at_ = at;
                return unescaped(begin);
            }
        }
    }

    // Takes `text`, as in null, true and false, where it stands next.
    bool literal(const std::string_view text) {
        next();
        const bool there = size_t(end_ - at_) >= text.size() && !std::memcmp(at_, text.data(), text.size());
        if (there) at_ += text.size();
        return there;
    }
    bool null() { return literal("null"); }

    double number() {
        next();
        const char *const begin = at_, *at = at_;
        uint64_t digits = 0;
        int count = 0;
        const auto more = [&] {
            const char *const first = at;
            for (; at != end_ && *at >= '0' && *at <= '9'; ++at) {
                digits = 10 * digits + uint64_t(*at - '0');
                count += digits != 0;
            }
            if (at == first) throw Wrong("no number where one is expected");
            return int(at - first);
        };
        const bool negative = at != end_ && *at == '-';
        at += negative;
        const bool zero = at != end_ && *at == '0';
        if (more() > 1 && zero) throw Wrong("a number that begins with 0");
        int decimals = 0;
        if (at != end_ && *at == '.') ++at, decimals = more();
        bool exact = count <= 15 && decimals <= 22;  // then both are, and their quotient is as near as can be
        if (at != end_ && (*at == 'e' || *at == 'E')) {
            ++at;
            if (at != end_ && (*at == '-' || *at == '+')) ++at;
            more();
            exact = false;
        }
        at_ = at;
        if (exact) {
            static const double tens[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
                                          1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
            const double value = double(digits) / tens[decimals];
            return negative ? -value : value;
        }
        double value = 0;
#ifdef __cpp_lib_to_chars
        if (std::from_chars(begin, at, value).ec == std::errc()) return value;
#endif
        value = PyOS_string_to_double(std::string(begin, at).c_str(), nullptr, nullptr);
        if (!std::isfinite(value)) throw Wrong("a number too large");
        return value;
    }

    int64_t integer() {
        next();
        const bool negative = take('-');
        if (!digit()) throw Wrong("no whole number where one is expected");
        if (*at_ == '0' && at_ + 1 != end_ && at_[1] >= '0' && at_[1] <= '9')
            throw Wrong("a number that begins with 0");
        int64_t value = 0;
        for (; digit(); ++at_)
            if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *at_ - '0', &value))
                throw Wrong("a number too large");
        if (at_ != end_ && (*at_ == '.' || *at_ == 'e' || *at_ == 'E')) throw Wrong("not a whole number");
        return negative ? -value : value;
    }

    // Passes over a value of any kind.
    void skip() {
        switch (next()) {
        case '{': return object([this](std::string_view) { skip(); });
        case '[': return array([this](size_t) { skip(); });
        case '"': string(); return;
        default:
            if (!literal("true") && !literal("false") && !literal("null")) number();
        }
    }

    // Nothing may follow.
    void end() {
        next();
        if (at_ != end_) throw Wrong("something behind the end");
    }

    // Whether all strings until now were of ASCII alone. Of others it is not checked that they are UTF-8.
    bool ascii() const { return ascii_; }

  private:
    // The next byte that is no space; 0 at the end.
    char next() {
        while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
        return at_ == end_ ? '\0' : *at_;
    }
    void expect(const char byte) {
        if (next() != byte || at_ == end_) throw Wrong(std::string("no ") + byte + " where one is expected");
        ++at_;
    }
    bool take(const char byte) {
        const bool there = at_ != end_ && *at_ == byte;
        at_ += there;
        return there;
    }
    bool digit() const { return at_ != end_ && *at_ >= '0' && *at_ <= '9'; }
    void open(const char byte) {
        expect(byte);
        if (++depth_ > 50) throw Wrong("lists in lists, too deep");
    }
    void close() {
        ++at_;
        --depth_;
    }

    std::string_view unescaped(const char *const begin) {
        std::string &out = made_.emplace_back(begin, at_);
        for (;;) {
            if (at_ == end_) throw Wrong("a string without an end");
            const unsigned char byte = *at_++;
            ascii_ &= byte < 0x80;
            if (byte == '"') return out;
            if (byte < 0x20) throw Wrong("a control character in a string");
            if (byte != '\\') {
                out += char(byte);
                continue;
            }
            const char escaped = at_ == end_ ? '\0' : *at_++;
            switch (escaped) {
            case '"': case '\\': case '/': out += escaped; break;
            case 'b': out += '\b'; break;
            case 'f': out += '\f'; break;
            case 'n': out += '\n'; break;
            case 'r': out += '\r'; break;
            case 't': out += '\t'; break;
            case 'u': point(out); break;
            default: throw Wrong("an escape that is none");
            }
        }
    }
    void point(std::string &out) {
        uint32_t code = hex();
        if (code >= 0xD800 && code < 0xDC00 && end_ - at_ >= 2 && at_[0] == '\\' && at_[1] == 'u') {
            at_ += 2;
            const uint32_t low = hex();
            if (low < 0xDC00 || low >= 0xE000) throw Wrong("half of a character");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        } else if (code >= 0xD800 && code < 0xE000) {
            throw Wrong("half of a character");
        }
        if (code < 0x80) {
            out += char(code);
            return;
        }
        ascii_ = false;
        if (code >= 0x10000) out += char(0xF0 | code >> 18), out += char(0x80 | (code >> 12 & 0x3F));
        else if (code >= 0x800) out += char(0xE0 | code >> 12);
        if (code >= 0x800) out += char(0x80 | (code >> 6 & 0x3F));
        else out += char(0xC0 | code >> 6);
        out += char(0x80 | (code & 0x3F));
    }
    uint32_t hex() {
        uint32_t code = 0;
        for (int i = 0; i < 4; ++i) {
            const char byte = at_ == end_ ? '\0' : *at_++;
            code <<= 4;
            if (byte >= '0' && byte <= '9') code |= uint32_t(byte - '0');
            else if (byte >= 'a' && byte <= 'f') code |= uint32_t(byte - 'a' + 10);
            else if (byte >= 'A' && byte <= 'F') code |= uint32_t(byte - 'A' + 10);
            else throw Wrong("an escape that is none");
        }
        return code;
    }

    const char *at_;
    const char *const end_;
    std::deque<std::string> &made_;
    int depth_ = 0;
    bool ascii_ = true;
};

}  // namespace json
