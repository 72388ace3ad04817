#include "serve/json.h"

#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"

enum { MAX_DEPTH = 16, ENUM_NAME_BYTES = 64 };

static void json_put(json_object **object)
{
	json_object_put(*object);
}

/* text with each byte that is no part of a UTF-8 character replaced by U+FFFD; malloc'ed. Control characters stay: JSON has a
 * way to write them. */
static char *to_utf8(const char *text)
{
	size_t length = strlen(text);
	char *copy = malloc(3 * length + 1);
	if (!copy)
		return NULL;
	char *out = copy;
	for (size_t i = 0; i < length;) {
		size_t n = utf8_printable(text + i, length - i);
		if (n == 0 && (unsigned char)text[i] >= 0x80)
			out = stpcpy(out, "\xef\xbf\xbd");
		else
			out = mempcpy(out, text + i, n ? n : 1);
		i += n ? n : 1;
	}
	*out = '\0';
	return copy;
}

static json_object *json_string(const char *text)
{
	_cleanup_free_ char *copy = to_utf8(text ? text : "");
	return copy ? json_object_new_string(copy) : NULL;
}

static json_object *json_hex(const ProtobufCBinaryData *bytes)
{
	char *text = malloc(2 * bytes->len + 1);
	if (!text)
		return NULL;
	text[0] = '\0';
	for (size_t i = 0; i < bytes->len; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes->data[i]);
	json_object *value = json_object_new_string(text);
	free(text);
	return value;
}

/* How much of the values' names is the same in all: "TARGET_" of TARGET_LIVE and TARGET_EXITED. */
static size_t common_prefix(const ProtobufCEnumDescriptor *descriptor)
{
	const char *first = descriptor->values[0].name;
	size_t length = strlen(first);
	for (unsigned i = 1; i < descriptor->n_values; i++)
		for (size_t c = 0; c < length; c++)
			if (descriptor->values[i].name[c] != first[c])
				length = c;
	while (length && first[length - 1] != '_')
		length--;
	return length;
}

static json_object *json_enum(const ProtobufCEnumDescriptor *descriptor, int number)
{
	const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(descriptor, number);
	if (!value)
		return json_object_new_int(number);
	char name[ENUM_NAME_BYTES];
	snprintf(name, sizeof(name), "%s", value->name + common_prefix(descriptor));
	for (char *c = name; *c; c++)
		*c = (char)(*c == '_' ? '-' : tolower((unsigned char)*c));
	return json_object_new_string(name);
}

static int json_message(const ProtobufCMessage *message, unsigned depth, json_object **ret);

/* How many bytes a value takes in a repeated field; as protobuf-c lays it out. */
static size_t value_bytes(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return sizeof(uint32_t);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return sizeof(uint64_t);
	case PROTOBUF_C_TYPE_FLOAT:
		return sizeof(float);
	case PROTOBUF_C_TYPE_DOUBLE:
		return sizeof(double);
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_ENUM:
		return sizeof(int);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	}
	return 0;
}

static int json_real(double value, json_object **ret)
{
	*ret = isfinite(value) ? json_object_new_double(value) : NULL; /* NULL is json-c's null */
	return isfinite(value) && !*ret ? -ENOMEM : 0;
}

/* *ret may be NULL, which is json-c's null, also on success. */
static int json_value(const ProtobufCFieldDescriptor *field, const void *at, unsigned depth, json_object **ret)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		*ret = json_object_new_int(*(const int32_t *)at);
		break;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		*ret = json_object_new_uint64(*(const uint32_t *)at);
		break;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		*ret = json_object_new_int64(*(const int64_t *)at);
		break;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		*ret = json_object_new_uint64(*(const uint64_t *)at);
		break;
	case PROTOBUF_C_TYPE_FLOAT:
		return json_real((double)*(const float *)at, ret);
	case PROTOBUF_C_TYPE_DOUBLE:
		return json_real(*(const double *)at, ret);
	case PROTOBUF_C_TYPE_BOOL:
		*ret = json_object_new_boolean(*(const protobuf_c_boolean *)at);
		break;
	case PROTOBUF_C_TYPE_ENUM:
		*ret = json_enum(field->descriptor, *(const int *)at);
		break;
	case PROTOBUF_C_TYPE_STRING:
		*ret = json_string(*(const char *const *)at);
		break;
	case PROTOBUF_C_TYPE_BYTES:
		*ret = json_hex(at);
		break;
	case PROTOBUF_C_TYPE_MESSAGE:
		return json_message(*(const ProtobufCMessage *const *)at, depth + 1, ret);
	}
	return *ret ? 0 : -ENOMEM;
}

static int json_list(const ProtobufCFieldDescriptor *field, const char *values, size_t n, unsigned depth,
		     json_object **ret)
{
	_cleanup_(json_put) json_object *list = json_object_new_array_ext(n < INT32_MAX ? (int)n : INT32_MAX);
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		json_object *value = NULL;
		int r = json_value(field, values + i * value_bytes(field->type), depth, &value);
		if (r < 0)
			return r;
		if (json_object_array_add(list, value) < 0) {
			json_object_put(value);
			return -ENOMEM;
		}
	}
	*ret = TAKE_PTR(list);
	return 0;
}

static int json_field(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, unsigned depth,
		      json_object **ret)
{
	const char *at = (const char *)message + field->offset;
	if (field->label == PROTOBUF_C_LABEL_REPEATED) {
		size_t n = *(const size_t *)((const char *)message + field->quantifier_offset);
		return json_list(field, *(const char *const *)at, n, depth, ret);
	}
	/* A member of a oneof that is not the chosen one shares its memory. */
	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF &&
	    *(const uint32_t *)((const char *)message + field->quantifier_offset) != field->id)
		return 0;
	return json_value(field, at, depth, ret);
}

static int json_message(const ProtobufCMessage *message, unsigned depth, json_object **ret)
{
	if (!message)
		return 0;
	if (depth > MAX_DEPTH)
		return -ELOOP;
	_cleanup_(json_put) json_object *object = json_object_new_object();
	if (!object)
		return -ENOMEM;
	for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
		json_object *value = NULL;
		int r = json_field(message, field, depth, &value);
		if (r < 0)
			return r;
		if (json_object_object_add(object, field->name, value) < 0) {
			json_object_put(value);
			return -ENOMEM;
		}
	}
	*ret = TAKE_PTR(object);
	return 0;
}

int json_format(const ProtobufCMessage *message, char **ret, size_t *ret_bytes)
{
	_cleanup_(json_put) json_object *object = NULL;
	int r = json_message(message, 0, &object);
	if (r < 0)
		return r;
	const char *text =
		json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);
	if (!text)
		return -ENOMEM;
	char *copy = NULL;
	int length = asprintf(&copy, "%s\n", text);
	if (length < 0)
		return -ENOMEM;
	*ret = copy;
	*ret_bytes = (size_t)length;
	return 0;
}
