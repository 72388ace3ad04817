#include "serve/body.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"

enum { JSON_DEPTH = 4 }; /* a request is one flat object */

static void json_put(json_object **object)
{
	json_object_put(*object);
}
static void tokener_free(json_tokener **tokener)
{
	if (*tokener)
		json_tokener_free(*tokener);
}

static bool is_space(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static int parse_object(const uint8_t *data, size_t bytes, json_object **ret, struct error *err)
{
	_cleanup_(tokener_free) json_tokener *tokener = json_tokener_new_ex(JSON_DEPTH);
	if (!tokener)
		return error_set(err, ENOMEM, "out of memory");
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	_cleanup_(json_put) json_object *object = json_tokener_parse_ex(tokener, (const char *)data, (int)bytes);
	if (!object || !json_object_is_type(object, json_type_object))
		return error_set(err, EINVAL,
				 "the body is not a JSON object such as {\"pid\":1234,\"frequency_hz\":99}");
	for (size_t i = json_tokener_get_parse_end(tokener); i < bytes; i++)
		if (!is_space(data[i]))
			return error_set(err, EINVAL, "the body goes on after its JSON object: send one object");
	*ret = TAKE_PTR(object);
	return 0;
}

static int check_number(const char *name, uint64_t value, uint64_t min, uint64_t max, struct error *err)
{
	if (value < min || value > max)
		return error_set(err, ERANGE, "%s must be from %" PRIu64 " to %" PRIu64 ", not %" PRIu64, name, min,
				 max, value);
	return 0;
}

static int check_frequency(uint32_t frequency_hz, struct error *err)
{
	return check_number("frequency_hz", frequency_hz, 0, BODY_MAX_FREQUENCY_HZ, err);
}

static int parse_number(const char *name, json_object *value, uint32_t *ret, struct error *err)
{
	if (!json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0)
		return error_set(err, EINVAL, "%s must be a whole number, without a sign", name);
	int r = check_number(name, json_object_get_uint64(value), 0, UINT32_MAX, err);
	if (r == 0)
		*ret = (uint32_t)json_object_get_uint64(value);
	return r;
}

static int parse_event(json_object *value, Sprof__Control__Event *ret, struct error *err)
{
	static const char *const words[] = {
		[SPROF__CONTROL__EVENT__EVENT_AUTO] = "auto",
		[SPROF__CONTROL__EVENT__EVENT_CPU_CLOCK] = "cpu-clock",
		[SPROF__CONTROL__EVENT__EVENT_CYCLES] = "cycles",
	};
	const char *word = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcmp(word, words[i]) == 0) {
			*ret = (Sprof__Control__Event)i;
			return 0;
		}
	return error_set(err, EINVAL, "event must be \"auto\", \"cpu-clock\" or \"cycles\"");
}

static int attach_from_json(const uint8_t *data, size_t bytes, Sprof__Control__AttachRequest *request,
			    struct error *err)
{
	_cleanup_(json_put) json_object *object = NULL;
	int r = parse_object(data, bytes, &object, err);
	if (r < 0)
		return r;
	json_object_object_foreach(object, name, value)
	{
		if (strcmp(name, "pid") == 0)
			r = parse_number(name, value, &request->pid, err);
		else if (strcmp(name, "frequency_hz") == 0)
			r = parse_number(name, value, &request->frequency_hz, err);
		else if (strcmp(name, "event") == 0)
			r = parse_event(value, &request->event, err);
		else
			r = error_set(err, EINVAL, "unknown field \"%.40s\": there are pid, frequency_hz and event",
				      name);
		if (r < 0)
			return r;
	}
	return 0;
}

static int rate_from_json(const uint8_t *data, size_t bytes, uint32_t *ret_frequency_hz, struct error *err)
{
	_cleanup_(json_put) json_object *object = NULL;
	int r = parse_object(data, bytes, &object, err);
	if (r < 0)
		return r;
	json_object_object_foreach(object, name, value)
	{
		if (strcmp(name, "frequency_hz") != 0)
			return error_set(err, EINVAL, "unknown field \"%.40s\": there is frequency_hz", name);
		r = parse_number(name, value, ret_frequency_hz, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int not_protobuf(struct error *err)
{
	return error_set(err, EINVAL, "the body is not the protobuf message of proto/control.proto that belongs here");
}

static int check_unknown(const ProtobufCMessage *message, struct error *err)
{
	if (message->n_unknown_fields)
		return error_set(err, EINVAL,
				 "the body has field %" PRIu32
				 ", which this sprofd does not know: are client and daemon of one version?",
				 message->unknown_fields[0].tag);
	return 0;
}

static int attach_from_protobuf(const uint8_t *data, size_t bytes, Sprof__Control__AttachRequest *request,
				struct error *err)
{
	Sprof__Control__AttachRequest *message = sprof__control__attach_request__unpack(NULL, bytes, data);
	if (!message)
		return not_protobuf(err);
	int r = check_unknown(&message->base, err);
	if (r == 0) {
		request->pid = message->pid;
		request->frequency_hz = message->frequency_hz;
		request->event = message->event;
	}
	sprof__control__attach_request__free_unpacked(message, NULL);
	return r;
}

static int rate_from_protobuf(const uint8_t *data, size_t bytes, uint32_t *ret_frequency_hz, struct error *err)
{
	Sprof__Control__RateRequest *message = sprof__control__rate_request__unpack(NULL, bytes, data);
	if (!message)
		return not_protobuf(err);
	int r = check_unknown(&message->base, err);
	if (r == 0)
		*ret_frequency_hz = message->frequency_hz;
	sprof__control__rate_request__free_unpacked(message, NULL);
	return r;
}

int body_parse_attach(enum media media, const uint8_t *data, size_t bytes, Sprof__Control__AttachRequest *ret,
		      struct error *err)
{
	Sprof__Control__AttachRequest request = SPROF__CONTROL__ATTACH_REQUEST__INIT;
	int r = media == MEDIA_JSON ? attach_from_json(data, bytes, &request, err)
				    : attach_from_protobuf(data, bytes, &request, err);
	if (r == 0)
		r = check_number("pid", request.pid, 1, BODY_MAX_PID, err);
	if (r == 0)
		r = check_frequency(request.frequency_hz, err);
	/* A protobuf enum is open: any number may come. */
	if (r == 0 && !protobuf_c_enum_descriptor_get_value(&sprof__control__event__descriptor, request.event))
		r = error_set(err, EINVAL, "event %d is unknown to this sprofd", (int)request.event);
	if (r == 0)
		*ret = request;
	return r;
}

int body_parse_rate(enum media media, const uint8_t *data, size_t bytes, uint32_t *ret_frequency_hz, struct error *err)
{
	uint32_t frequency_hz = 0;
	int r = media == MEDIA_JSON ? rate_from_json(data, bytes, &frequency_hz, err)
				    : rate_from_protobuf(data, bytes, &frequency_hz, err);
	if (r == 0)
		r = check_frequency(frequency_hz, err);
	if (r == 0)
		*ret_frequency_hz = frequency_hz;
	return r;
}
