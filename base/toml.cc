/* SPDX-License-Identifier: Apache-2.0 */
#include "base/toml.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <vector>

/*
 * The parser is compiled in rather than taken from its shared library, so that sanitizers and fuzzers see
 * into it, and without its assertions: release builds of it promise them to the compiler, though "[{"
 * breaks one (3.3.0, parse_key()); the code behind each handles that case too.
 */
#undef TOML_SHARED_LIB
#undef TOML_HEADER_ONLY
#define TOML_HEADER_ONLY       1
#define TOML_ENABLE_FORMATTERS 0
#undef NDEBUG
#define TOML_ASSERT(expr) static_cast<void>(0)
#include <toml++/toml.h>

extern "C" {
#include "base/str.h"
}

namespace
{

/* Everything a list of entries points to: deques, since their elements stay where they are. */
struct walk {
	std::vector<toml_entry> entries;
	std::deque<std::string> texts;
	std::deque<std::vector<toml_value>> lists;

	const char *keep(std::string text)
	{
		return texts.emplace_back(std::move(text)).c_str();
	}
};

bool has_nul(std::string_view text)
{
	return text.find('\0') != std::string_view::npos;
}

toml_value scalar(const toml::node &node)
{
	toml_value value = {};

	value.line = node.source().begin.line;
	value.type = TOML_TYPE_OTHER;
	if (const auto *boolean = node.as_boolean()) {
		value.type = TOML_TYPE_BOOL;
		value.boolean = boolean->get();
	} else if (const auto *integer = node.as_integer()) {
		value.type = TOML_TYPE_INT;
		value.integer = integer->get();
	} else if (const auto *string = node.as_string()) {
		value.type = TOML_TYPE_STRING;
		value.str = string->get().c_str();
		value.len = string->get().size();
	} else if (node.is_array()) {
		value.type = TOML_TYPE_LIST;
	} else if (node.is_table()) {
		value.type = TOML_TYPE_TABLE;
	}
	return value;
}

toml_value convert(walk &walk, const toml::node &node)
{
	toml_value value = scalar(node);

	if (const auto *array = node.as_array()) {
		auto &items = walk.lists.emplace_back();

		items.reserve(array->size());
		for (const auto &item : *array)
			items.push_back(scalar(item));
		value.items = items.data();
		value.n_items = items.size();
	}
	return value;
}

/* Its depth is bounded by check_depth(). Return: the line of a key with a NUL byte, or 0. */
unsigned int collect(walk &walk, const toml::table &table, const std::string &path)
{
	const char *kept_path = walk.keep(path);

	for (const auto &[key, node] : table) {
		toml_entry entry = {};

		entry.line = key.source().begin.line;
		if (has_nul(key.str()))
			return entry.line;
		entry.table = kept_path;
		entry.name = walk.keep(std::string(key.str()));
		entry.value = convert(walk, node);
		walk.entries.push_back(entry);
		if (const auto *inner = node.as_table()) {
			unsigned int line =
				collect(walk, *inner,
					path.empty() ? entry.name : path + "." + entry.name);

			if (line)
				return line;
		}
	}
	return 0;
}

int refuse(struct err *err, const char *name, unsigned int line, const char *what)
{
	return err_set(err, ERR_INVALID_ARGUMENT, "%s:%u: %s", name, line, what);
}

int check_utf8(const char *name, std::string_view text, struct err *err)
{
	unsigned int line = 1;

	/* No byte of a longer sequence is a line feed, so each line can be looked at by itself. */
	for (size_t at = 0; at < text.size(); line++) {
		size_t end = std::min(text.find('\n', at), text.size());

		if (!str_is_utf8(text.data() + at, end - at))
			return refuse(err, name, line, "this line is not UTF-8");
		if (has_nul(text.substr(at, end - at)))
			return refuse(err, name, line, "this line holds a NUL byte");
		at = end + 1;
	}
	return 0;
}

/*
 * The string that begins at @at: where it ends. In a document that is wrong the result may be, too, but
 * then the parser stops at that very place.
 */
size_t skip_string(std::string_view text, size_t at, unsigned int *line)
{
	char quote = text[at];
	bool multi = text.compare(at, 3, std::string(3, quote)) == 0;

	for (at += multi ? 3 : 1; at < text.size(); at++) {
		if (text[at] == '\\' && quote == '"') {
			at++;
			if (at < text.size() && text[at] == '\n')
				++*line;
		} else if (text[at] == '\n') {
			if (!multi)
				return at;
			++*line;
		} else if (text[at] == quote) {
			if (!multi)
				return at + 1;
			if (text.compare(at, 3, std::string(3, quote)) != 0)
				continue;
			/* Up to two quotes may stand in front of the closing three. */
			for (at += 3; at < text.size() && text[at] == quote; at++)
				;
			return at;
		}
	}
	return at;
}

/* Refuses what would take the parser deep into its own stack, which no exception reports. */
int check_depth(const char *name, std::string_view text, struct err *err)
{
	unsigned int line = 1, brackets = 0, dots = 0;
	size_t at = 0;

	while (at < text.size()) {
		switch (text[at]) {
		case '"':
		case '\'':
			at = skip_string(text, at, &line);
			continue;
		case '#':
			at = std::min(text.find('\n', at), text.size());
			continue;
		case '\n':
			line++;
			dots = 0;
			break;
		case '[':
		case '{':
			brackets++;
			break;
		case ']':
		case '}':
			brackets -= brackets > 0;
			break;
		case '=':
		case ',':
			dots = 0;
			break;
		case '.':
			dots++;
			break;
		}
		if (brackets > TOML_MAX_DEPTH || dots >= TOML_MAX_DEPTH)
			return refuse(err, name, line, "nested too deeply");
		at++;
	}
	return 0;
}

int each(const char *name, std::string_view text, toml_entry_fn fn, void *arg, struct err *err)
{
	const toml::table root = toml::parse(text);
	unsigned int line;
	walk walk;
	int r;

	line = collect(walk, root, "");
	if (line)
		return refuse(err, name, line, "a key holds a NUL byte");
	std::stable_sort(walk.entries.begin(), walk.entries.end(),
			 [](const toml_entry &a, const toml_entry &b) { return a.line < b.line; });
	for (const toml_entry &entry : walk.entries) {
		r = fn(arg, &entry, err);
		if (r != 0)
			return r;
	}
	return 0;
}

} // namespace

int toml_each(const char *name, const char *text, size_t size, toml_entry_fn fn, void *arg,
	      struct err *err)
{
	std::string_view view(text ? text : "", size);

	if (size > TOML_MAX_BYTES)
		return err_set(err, ERR_INVALID_ARGUMENT, "%s: larger than %d bytes", name,
			       TOML_MAX_BYTES);
	try {
		if (check_utf8(name, view, err) < 0 || check_depth(name, view, err) < 0)
			return -1;
		return each(name, view, fn, arg, err);
	} catch (const toml::parse_error &e) {
		return refuse(err, name, e.source().begin.line,
			      std::string(e.description()).c_str());
	} catch (const std::bad_alloc &) {
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "%s: no memory to read it", name);
	} catch (const std::exception &e) {
		return err_set(err, ERR_INVALID_ARGUMENT, "%s: %s", name, e.what());
	} catch (...) {
		return err_set(err, ERR_INTERNAL, "%s: the TOML parser failed", name);
	}
}
