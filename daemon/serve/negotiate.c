#include "serve/negotiate.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

struct slice {
	const char *text;
	size_t length;
};

static struct slice trim(const char *text, size_t length)
{
	while (length && (*text == ' ' || *text == '\t')) {
		text++;
		length--;
	}
	while (length && (text[length - 1] == ' ' || text[length - 1] == '\t'))
		length--;
	return (struct slice){text, length};
}

/* Takes what is before the next separator off *rest, trimmed. */
static struct slice next_part(struct slice *rest, char separator)
{
	const char *end = memchr(rest->text, separator, rest->length);
	size_t length = end ? (size_t)(end - rest->text) : rest->length;
	struct slice part = trim(rest->text, length);
	length += end != NULL;
	rest->text += length;
	rest->length -= length;
	return part;
}

static bool slice_is(struct slice slice, const char *word)
{
	return slice.length == strlen(word) && strncasecmp(slice.text, word, slice.length) == 0;
}

static enum media media_of(struct slice type)
{
	if (slice_is(type, MEDIA_PROTOBUF_TYPE))
		return MEDIA_PROTOBUF;
	return slice_is(type, MEDIA_JSON_TYPE) ? MEDIA_JSON : MEDIA_OTHER;
}

/* "0.5" -> 500, in thousandths; what is no number counts as 1. */
static unsigned parse_weight(struct slice text)
{
	if (text.length == 0 || (text.text[0] != '0' && text.text[0] != '1'))
		return 1000;
	unsigned weight = text.text[0] == '1' ? 1000 : 0;
	unsigned place = 100;
	if (weight || text.length < 2 || text.text[1] != '.')
		return weight;
	for (size_t i = 2; i < text.length && i < 5 && isdigit((unsigned char)text.text[i]); i++, place /= 10)
		weight += place * (unsigned)(text.text[i] - '0');
	return weight;
}

/* The q of the parameters that follow a media type, in thousandths. */
static unsigned weight_of(struct slice parameters)
{
	while (parameters.length) {
		struct slice value = next_part(&parameters, ';');
		struct slice name = next_part(&value, '=');
		if (slice_is(name, "q"))
			return parse_weight(trim(value.text, value.length));
	}
	return 1000;
}

enum media media_of_content_type(const char *header)
{
	if (!header)
		return MEDIA_NONE;
	struct slice rest = {header, strlen(header)};
	return media_of(next_part(&rest, ';'));
}

enum media media_wanted(const char *header)
{
	unsigned protobuf = 0, json = 0;
	struct slice rest = {header, header ? strlen(header) : 0};
	while (rest.length) {
		struct slice parameters = next_part(&rest, ',');
		enum media media = media_of(next_part(&parameters, ';'));
		if (media == MEDIA_PROTOBUF)
			protobuf = weight_of(parameters);
		else if (media == MEDIA_JSON)
			json = weight_of(parameters);
	}
	if (protobuf == 0 && json == 0)
		return MEDIA_NONE;
	return protobuf >= json ? MEDIA_PROTOBUF : MEDIA_JSON;
}
