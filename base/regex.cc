/* SPDX-License-Identifier: Apache-2.0 */
#include "base/regex.h"

#include <cstddef>
#include <memory>
#include <re2/re2.h>

namespace
{

/* RE2 bounds what it compiles to, but not what it needs to parse: an expression as long as that bound
 * is refused unread. */
constexpr size_t max_bytes = 1 << 20;

RE2::Options options()
{
	RE2::Options options;

	options.set_log_errors(false);
	options.set_max_mem(max_bytes);
	options.set_encoding(RE2::Options::EncodingUTF8);
	return options;
}

} // namespace

struct regex {
	RE2 re2;
};

struct regex *regex_new(const char *pattern, size_t len)
{
	if (len > max_bytes)
		return nullptr;
	try {
		auto made = std::unique_ptr<regex>(
			new regex{RE2(re2::StringPiece(pattern, len), options())});

		return made->re2.ok() ? made.release() : nullptr;
	} catch (...) {
		return nullptr;
	}
}

void regex_free(struct regex *regex)
{
	delete regex;
}

bool regex_search(const struct regex *regex, const char *text, size_t len)
{
	try {
		return regex->re2.Match(re2::StringPiece(text, len), 0, len, RE2::UNANCHORED,
					nullptr, 0);
	} catch (...) {
		return false;
	}
}
